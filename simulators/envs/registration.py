"""The ids under which Gymnasium knows the environments.

What an id makes without arguments needs scenarios and scorers, so the factories stand with the other mains; here are
their names only.
"""

from __future__ import annotations

import gymnasium

QUERY_ROUTING = "QueryRouting-v0"
THRESHOLD_TUNING = "ThresholdTuning-v0"
_FACTORIES = {QUERY_ROUTING: "make_query_routing", THRESHOLD_TUNING: "make_threshold_tuning"}


def register_environments() -> None:
    """Register both ids, unless they are registered already."""
    for name, factory in _FACTORIES.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                id=name,
                entry_point=f"experiments.environments:{factory}",
                vector_entry_point=f"experiments.environments:{factory}_vector",
            )
