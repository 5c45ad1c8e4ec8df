"""An offline database in one file: arrays as npz without pickle, and JSON as an array of bytes.

The file keeps the tables of the replicas and which deployments the candidates are. Their latency over load follows from
those and is made anew on loading, to the last bit, so that the file stays small.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from simulators.deployment.plan import Replica
from simulators.deployment.specs import FleetSpec
from simulators.errors import InputDataError
from toolkit.deployment.candidates import Candidates, tabulate
from toolkit.deployment.database import OfflineDatabase, make_suitability
from toolkit.deployment.needs import CandidateRecipe
from toolkit.deployment.offline import OfflineRecipe, ReplicaTable

_FORMAT = 2


def save_database(database: OfflineDatabase, path: Path) -> None:
    """Write `path`."""
    about = {
        "format": _FORMAT,
        "source": database.source,
        "fleet": database.fleet.model_dump(mode="json"),
        "recipe": dataclasses.asdict(database.recipe),
        "candidates": dataclasses.asdict(database.candidate_recipe),
        "replicas": [[dataclasses.asdict(table.replica) for table in tier.tables] for tier in database.tiers],
    }
    arrays: dict[str, np.ndarray] = {"about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)}
    for m, tier in enumerate(database.tiers):
        arrays |= {f"table_{m}": tier.table, f"replicas_{m}": tier.replicas}
        for t, table in enumerate(tier.tables):
            arrays |= {f"loads_{m}_{t}": table.loads_per_s, f"cdf_{m}_{t}": table.cdf, f"p95_{m}_{t}": table.p95_s}
            arrays[f"capacity_{m}_{t}"] = np.array(table.capacity_per_s)
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_database(path: Path) -> OfflineDatabase:
    """Read `path`.

    Raises:
        InputDataError: If it is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        about = json.loads(arrays["about"].tobytes())
        if about["format"] != _FORMAT:
            raise ValueError(f"format {about['format']}")
        return _restored(about, arrays)
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, ValidationError) as error:
        raise InputDataError(f"{path} holds no offline tables of this version ({error}); delete it") from error


def _restored(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> OfflineDatabase:
    fleet = FleetSpec.model_validate(about["fleet"])
    recipe, candidates = OfflineRecipe(**about["recipe"]), CandidateRecipe(**about["candidates"])
    tiers: list[Candidates] = []
    for m, (name, replicas) in enumerate(zip(fleet.models, about["replicas"], strict=True)):
        tables = tuple(_table(arrays, f"{m}_{t}", Replica(**replica)) for t, replica in enumerate(replicas))
        deployed = arrays[f"table_{m}"], arrays[f"replicas_{m}"]
        tiers.append(tabulate(fleet, name, tables, deployed, recipe=candidates, offline=recipe))
    return OfflineDatabase(
        fleet=fleet,
        recipe=recipe,
        candidate_recipe=candidates,
        edges_s=recipe.edges_s,
        tiers=tuple(tiers),
        suitability=make_suitability(fleet, [tier.tables for tier in tiers]),
        source=about["source"],
    )


def _table(arrays: dict[str, np.ndarray], key: str, replica: Replica) -> ReplicaTable:
    return ReplicaTable(
        replica=replica,
        capacity_per_s=float(arrays[f"capacity_{key}"]),
        loads_per_s=arrays[f"loads_{key}"],
        cdf=arrays[f"cdf_{key}"],
        p95_s=arrays[f"p95_{key}"],
    )
