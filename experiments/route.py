"""`routefront route`: one decision per query, with score and reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from experiments.console import say
from experiments.files import checked_output, write_atomically
from experiments.loading import required
from experiments.runs import at_quality, open_finished
from experiments.settings import RouteSettings


def run_route(settings: RouteSettings, *, quiet: bool = False) -> dict[str, Any]:
    """Write `decisions.csv` (`query_id, score, tier, reason`), one row per query in input order."""
    from simulators.recorded import read_queries

    output = checked_output(settings.output, [settings.queries])
    run = open_finished(settings.run)
    queries, _ = read_queries(Path(required(settings.queries, "queries")))
    if settings.at.quality is not None:
        run = at_quality(run, settings.at.quality)
    decisions = run.decide(queries)
    names = np.array(run.policy.tiers)[decisions.tier]
    table = pa.table(
        {
            "query_id": pa.array(queries.query_id.tolist()),
            "score": pa.array([None if np.isnan(s) else s for s in decisions.score.tolist()], type=pa.float64()),
            "tier": pa.array(names.tolist()),
            "reason": pa.array(list(decisions.reason)),
        }
    )
    replaced = output.exists()
    write_atomically(output, lambda p: pyarrow.csv.write_csv(table, p))
    if replaced:
        say(f"{output} existed and was replaced.", quiet=quiet)
    counts = np.bincount(decisions.tier, minlength=len(run.policy.tiers)) / max(len(queries), 1)
    return {
        "n": len(queries),
        "output": str(output),
        "tier_shares": dict(zip(run.policy.tiers, counts.tolist(), strict=True)),
        "n_without_score": int(np.isnan(decisions.score).sum()),
    }
