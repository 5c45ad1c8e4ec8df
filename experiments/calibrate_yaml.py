"""Documents whose numbers carry their source: a mapping for the program, YAML with comments for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml


@dataclass(frozen=True)
class Sourced:
    """A value and the comment that says where it comes from."""

    value: float | str | bool
    source: str


_IN_FULL = 1e5

Node = Sourced | float | str | bool | Sequence[float] | dict[str, "Node"]


def sourced(value: float, source: str, digits: int) -> Sourced:
    """`value` rounded to so many significant digits, with its source."""
    return Sourced(float(f"{value:.{digits}g}"), source)


def plain(node: Mapping[str, Node]) -> dict[str, object]:
    """The document without its comments: what the YAML parses to."""
    leaf = {key: value.value if isinstance(value, Sourced) else value for key, value in node.items()}
    return {key: plain(value) if isinstance(value, dict) else value for key, value in leaf.items()}


def render(node: Mapping[str, Node], indent: str = "") -> list[str]:
    """YAML lines, the source as a comment after each number."""
    lines = []
    for key, value in node.items():
        name = scalar(key)
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:", *render(value, indent + "  ")]
        elif isinstance(value, Sourced):
            lines.append(f"{indent}{name}: {scalar(value.value)}  # {_comment(value.source)}")
        else:
            lines.append(f"{indent}{name}: {_flow(value)}")
    return lines


def _comment(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _flow(value: float | str | bool | Sequence[float] | Mapping[str, Node]) -> str:
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(scalar(part) for part in value)}]"
    return scalar(value)


def scalar(value: float | str | bool) -> str:
    """A scalar that every YAML reader takes for what it is: text that looks like something else is quoted."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number(float(value))
    try:
        as_is = yaml.safe_load(value) == value and "#" not in value and ": " not in value and value.isprintable()
    except yaml.YAMLError:
        as_is = False
    return value if as_is else yaml.safe_dump(value, default_style='"', width=1_000_000).strip()


def _number(value: float) -> str:
    """Up to ten digits, large numbers (instants since 1970) in full.

    YAML 1.1 takes an exponent only after a point, so `1e-05` becomes `1.0e-05`.
    """
    text = f"{value:.10g}" if abs(value) < _IN_FULL else repr(value).removesuffix(".0")
    mantissa, e, exponent = text.partition("e")
    return text if not e or "." in mantissa else f"{mantissa}.0e{exponent}"
