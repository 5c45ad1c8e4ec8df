"""`scenario=PATH.yaml`: a scenario of one's own wherever `scenario=NAME` is taken.

The file's content becomes a choice of the config group, so that overrides such as `scenario.difficulty_sd=1`, sweeps
and the hash that guards a resumed run treat it like a shipped one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from simulators.errors import ConfigError

_SUFFIXES = (".yaml", ".yml")
_PATH_KEYS = frozenset({"path"})


def with_scenario_files(overrides: list[str]) -> list[str]:
    """The overrides, files in `scenario=...` replaced by the names under which their content is known to Hydra.

    Raises:
        ConfigError: If a file is missing, not YAML, or not a mapping.
    """
    return [_replaced(word) if word.startswith("scenario=") else word for word in overrides]


def _replaced(word: str) -> str:
    values = [value.strip() for value in word.split("=", 1)[1].split(",")]
    if not any(_unquoted(value).lower().endswith(_SUFFIXES) for value in values):
        return word
    names = [_registered(Path(_unquoted(v))) if _unquoted(v).lower().endswith(_SUFFIXES) else v for v in values]
    return f"scenario={','.join(names)}"


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"" else value


def _registered(path: Path) -> str:
    from hydra.core.config_store import ConfigStore

    content = read_scenario_file(path)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    name = f"file_{digest[:16]}"
    ConfigStore.instance().store(group="scenario", name=name, node=content, provider=str(path))
    return name


def read_scenario_file(path: Path) -> dict[str, Any]:
    """The mapping in a scenario file, its relative paths seen from the file's folder.

    Raises:
        ConfigError: If the file is missing, not YAML, or not a mapping.
    """
    if not path.is_file():
        raise ConfigError(f"scenario={path}: there is no such file; give the path of a scenario in YAML, or a name")
    try:
        text = path.read_text(encoding="utf-8")
        content = _unique(yaml.safe_load(text), text)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"scenario={path} is not YAML: {' '.join(str(error).split())[:200]}") from error
    except OSError as error:
        raise ConfigError(f"scenario={path} cannot be read: {error.strerror or error}") from error
    if not isinstance(content, dict) or not content:
        kind = "nothing" if content is None else type(content).__name__
        raise ConfigError(f"scenario={path} should hold a mapping such as conf/scenario/hybrid_api.yaml; got {kind}")
    if "${" in text:
        raise ConfigError(f"scenario={path}: interpolations (${{...}}) are not read from files; write the value")
    keys = [key for key in content if not isinstance(key, str)]
    if keys:
        raise ConfigError(f"scenario={path}: expected names as keys; got {keys[0]!r}")
    return with_absolute_paths(content, path.resolve().parent)


def _unique(content: Any, text: str) -> Any:
    """The content as Hydra would read it: no key twice, and `1e-5` is a number."""
    if not isinstance(content, dict):
        return content
    return OmegaConf.to_container(OmegaConf.create(text), resolve=False)


def with_absolute_paths(node: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The mapping with every `path` that is relative seen from `folder`."""

    def walked(key: object, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: walked(name, part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [walked(None, part) for part in value]
        if key in _PATH_KEYS and isinstance(value, str) and not Path(value).is_absolute():
            return str(folder / value)
        return value

    return {name: walked(name, value) for name, value in node.items()}
