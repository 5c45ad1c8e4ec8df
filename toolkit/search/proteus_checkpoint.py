"""Checkpoints of a training: one .npz without pickle, with JSON inside, replaced as a whole.

A killed training goes on from its last checkpoint with the same numbers, to the last bit.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray

_PLAIN = "_plain"


def save_checkpoint(path: Path, arrays: Mapping[str, FloatArray], plain: Mapping[str, object], *, made_of: str) -> None:
    """Write under a temporary name, then rename, so that a kill leaves the last one or this one.

    Args:
        path: Where to; its folder is made if need be.
        arrays: Whatever is numeric.
        plain: Whatever JSON can say.
        made_of: Fingerprint of options and data.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = np.array(json.dumps({"made_of": made_of, "plain": dict(plain)}))
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    with unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, **{_PLAIN: text}, **dict(arrays))
    unfinished.replace(path)


def load_checkpoint(path: Path, *, made_of: str) -> tuple[dict[str, FloatArray], dict[str, Any]] | None:
    """`(arrays, plain)` of a checkpoint, or None where there is none.

    Raises:
        InputDataError: If the file is damaged, or of other options or other data.
    """
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        text = json.loads(str(arrays.pop(_PLAIN)))
        found, plain = text["made_of"], dict(text["plain"])
    except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputDataError(f"{path} is no checkpoint of this version ({type(error).__name__}); delete it") from error
    if found != made_of:
        raise InputDataError(f"{path} is the checkpoint of a training with other options or other data; delete it")
    return arrays, plain
