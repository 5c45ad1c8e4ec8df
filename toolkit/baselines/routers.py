"""Every method by name: `ROUTERS[name](split, **options) -> RouterRun`.

What waits for traffic (latency pacing, queue-priced index, clairvoyant thresholds) is not here: on recorded answers
there is no queue.
"""

from __future__ import annotations

from collections.abc import Callable

from toolkit.baselines.base import RouterRun
from toolkit.baselines.learned import avengers_pro, knn, mlp
from toolkit.baselines.omnirouter import omnirouter
from toolkit.baselines.pacing import budget_pacing
from toolkit.baselines.references import best_fixed, cascade, cheapest, fixed, oracle, oracle_path, random, zero_router
from toolkit.baselines.score_rules import carrot, routellm, thresholds, utility

_ALL = (
    *(cheapest, best_fixed, random, fixed, zero_router),
    *(thresholds, utility, carrot, routellm, avengers_pro, knn, mlp, omnirouter, budget_pacing),
    *(cascade, oracle, oracle_path),
)

ROUTERS: dict[str, Callable[..., RouterRun]] = {method.__name__: method for method in _ALL}
"""Name -> method; options are keyword arguments of the function."""
NEEDS_COST = frozenset({"budget_pacing"})
"""Methods that have no meaning where costs are unknown; the others then save the ranks of tiers."""
