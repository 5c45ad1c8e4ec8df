"""Controllers' options with their defaults, which live in `conf/controller/` and nowhere else."""

from __future__ import annotations

import importlib.resources
from functools import lru_cache
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from experiments.settings import ControllerSettings
from simulators.errors import ConfigError

_ADAPTER: TypeAdapter[ControllerSettings] = TypeAdapter(ControllerSettings)


@lru_cache(maxsize=32)
def _stored(kind: str) -> str:
    return (importlib.resources.files("conf") / "controller" / f"{kind}.yaml").read_text(encoding="utf-8")


def controller_defaults(kind: str) -> dict[str, Any]:
    """What `conf/controller/KIND.yaml` says."""
    found: dict[str, Any] = yaml.safe_load(_stored(kind))
    return found


def controller_settings(name: str, options: dict[str, Any]) -> ControllerSettings:
    """Validated settings of a controller, defaults filled in.

    Args:
        name: What to call it in an error.
        options: `kind` and whatever differs from the defaults.

    Raises:
        ConfigError: If an option is unknown there or has a wrong value.
    """
    defaults = controller_defaults(str(options["kind"]))
    unknown = sorted(set(options) - set(defaults))
    if unknown:
        raise ConfigError(f"{name}: controller={options['kind']} has no option {', '.join(unknown)}")
    try:
        return _ADAPTER.validate_python({**defaults, **options})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        raise ConfigError(f"{name}: {where}: {first['msg']}; got {first['input']!r}") from error


def controller_label(settings: ControllerSettings) -> str:
    """The controller and every option that is not the default: `mobo model=gp q=4`."""
    defaults = controller_defaults(settings.kind)
    options = settings.model_dump(exclude={"kind"}, by_alias=True, mode="json")
    changed = [f"{name}={value}" for name, value in _flat(options).items() if value != _flat(defaults).get(name)]
    return " ".join([settings.kind, *changed])


def _flat(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found
