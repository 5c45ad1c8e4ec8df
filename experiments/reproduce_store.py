"""Router runs on disk: tiers where the answers can be looked up again, figures where they cannot."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.files import write_bytes
from experiments.reproduce_data import Halves
from simulators.errors import InputDataError
from simulators.outcomes import FloatArray, OutcomeTable
from toolkit.baselines.base import Routed, RouterRun, look_up


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A run, and what else its cell measured.

    Attributes:
        run: The run.
        extra: Name -> number or list of numbers.
    """

    run: RouterRun
    extra: dict[str, float | list[float]]


def save_run(path: Path, stored: Stored, halves: Halves) -> None:
    """Write one run without pickle."""
    run = stored.run
    text = {
        "name": run.name,
        "knob": run.knob,
        "uses_labels": run.uses_labels,
        "seconds": run.seconds,
        "extra": stored.extra,
        "data": [halves.tune.data_hash, halves.held_out.data_hash],
    }
    arrays = {"settings": np.asarray(run.settings, dtype=np.float64), "about": np.array(json.dumps(text))}
    for part, table in (("tune", halves.tune), ("held_out", halves.held_out)):
        arrays |= {f"{part}_{name}": values for name, values in _parts(getattr(run, part), table).items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def _parts(routed: Routed, table: OutcomeTable) -> dict[str, np.ndarray]:
    if (routed.tier >= 0).all():
        found = look_up(table, routed.tier)
        if np.array_equal(found.quality, routed.quality) and np.array_equal(found.cost_usd, routed.cost_usd):
            return {"tier": routed.tier}
    if routed.mixture is not None:
        return {"mixture": routed.mixture}
    return {"tier": routed.tier, "quality": routed.quality, "cost_usd": routed.cost_usd}


def load_run(path: Path, halves: Halves) -> Stored:
    """The run that `save_run` wrote.

    Raises:
        InputDataError: If it was made from other data.
    """
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    about = json.loads(str(arrays["about"]))
    if about["data"] != [halves.tune.data_hash, halves.held_out.data_hash]:
        raise InputDataError(f"{path} was run on other data; name a new output folder")
    run = RouterRun(
        name=about["name"],
        knob=about["knob"],
        settings=arrays["settings"],
        tune=_routed(arrays, "tune", halves.tune),
        held_out=_routed(arrays, "held_out", halves.held_out),
        uses_labels=about["uses_labels"],
        seconds=about["seconds"],
    )
    return Stored(run=run, extra=about["extra"])


def _routed(arrays: dict[str, FloatArray], part: str, table: OutcomeTable) -> Routed:
    if f"{part}_mixture" in arrays:
        shares = arrays[f"{part}_mixture"]
        pure = shares.max(axis=1) == 1.0
        tier = np.where(pure, shares.argmax(axis=1), -1).astype(np.int8)
        return Routed(
            tier=np.repeat(tier[:, None], table.n_queries, axis=1),
            quality=np.clip(shares @ table.quality.T, 0.0, 1.0),
            cost_usd=shares @ table.cost_usd.T,
            mixture=shares,
        )
    tier = np.asarray(arrays[f"{part}_tier"], dtype=np.int8)
    if f"{part}_quality" not in arrays:
        return look_up(table, tier)
    return Routed(tier=tier, quality=arrays[f"{part}_quality"], cost_usd=arrays[f"{part}_cost_usd"])
