"""Writing results: to a temporary name first, then renamed, so that nothing is ever half-written."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from simulators.errors import ConfigError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a temporary neighbour of `path`, then rename it.

    Raises:
        ConfigError: If the folder cannot be written to.
    """
    if path.is_dir():
        raise ConfigError(f"output={path} is a folder; name a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def checked_output(output: str | None, inputs: Iterable[str | None]) -> Path:
    """The output file, if it is named and is none of the command's inputs.

    Raises:
        ConfigError: If it is unset, a folder, or one of the inputs.
    """
    if not output:
        raise ConfigError("output is not set; give output=FILE")
    path = Path(output)
    if path.is_dir():
        raise ConfigError(f"output={path} is a folder; name a file")
    if any(name and Path(name).resolve() == path.resolve() for name in inputs):
        raise ConfigError(f"output={path} is an input of this command; name another file")
    return path


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically; NaN and infinities become null, because JSON has none."""
    write_text(path, json.dumps(jsonable(value), indent=2) + "\n")


def jsonable(value: Any) -> Any:
    """The value with non-finite numbers replaced by None and tuples by lists, all the way down."""
    if isinstance(value, dict):
        return {str(key): jsonable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
