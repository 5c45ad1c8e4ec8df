"""What every specification in YAML shares: a strict base, and errors of validation as one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias, TypeGuard, get_args, get_origin

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Loc: TypeAlias = Sequence[int | str]


class Spec(BaseModel):
    """Immutable, without unknown keys, without infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def one_line(error: ValidationError, root: str, shape: object = None) -> str:
    """The first wrong field of a validation: where it is, what was expected, what came.

    Args:
        error: What pydantic raised.
        root: What the whole specification is called, such as `scenario`.
        shape: The class (or annotated union) that was validated. With it the line names the keys that an unknown one
            could have been, and leaves out the kinds of unions, which pydantic writes into its paths.
    """
    first, *others = error.errors(include_url=False, include_context=False)
    path, known, expected = _walk(shape, first["loc"])
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected a value that is")
    came = repr(first["input"])
    came = came if len(came) <= 60 else came[:57] + "..."
    if first["type"] == "missing":
        message, came = "expected a value", "nothing"
    elif first["type"] == "extra_forbidden":
        message, came = f"expected one of {', '.join(known)}" if known else "expected no such key", "an unknown key"
    elif first["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        kinds = _members(expected)
        path, message = [*path, "kind"], f"expected one of {', '.join(kinds)}" if kinds else "expected a known kind"
        came = repr(first["input"]["kind"]) if first["type"] == "union_tag_invalid" else "nothing"
    more = f" (and {len(others)} more such error{'s' if len(others) > 1 else ''})" if others else ""
    got = "" if first["type"] == "value_error" and isinstance(first["input"], Mapping) else f"; got {came}"
    return " ".join(f"{'.'.join([root, *path])}: {message}{got}{more}".split())


def _walk(shape: object, loc: Loc) -> tuple[list[str], list[str], object]:
    """The path without kinds of unions, the keys that were possible at its end, and what was expected there."""
    path: list[str] = []
    known: list[str] = []
    for part in loc:
        shape = _bare(shape)
        union = _members(shape)
        if part in union:  # pydantic's own mark of the branch it took
            shape = union[str(part)]
            continue
        path.append(str(part))
        known = list(shape.model_fields) if _is_model(shape) else []
        shape = _inside(shape, part)
    return path, known, _bare(shape)


def _inside(shape: object, part: int | str) -> object:
    if _is_model(shape):
        field = shape.model_fields.get(str(part))
        return None if field is None else field.annotation
    args = get_args(shape)
    return None if not args else args[-1] if isinstance(part, str) else args[0]


def _is_model(shape: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(shape, type) and issubclass(shape, BaseModel)


def _bare(shape: object) -> object:
    """Without `Annotated` and without "or None"."""
    while get_origin(shape) is Annotated:
        shape = get_args(shape)[0]
    given = [arg for arg in get_args(shape) if arg is not type(None)]
    return _bare(given[0]) if type(None) in get_args(shape) and len(given) == 1 else shape


def _members(shape: object) -> dict[str, type[BaseModel]]:
    """The classes of a union by their `kind`."""
    found: dict[str, type[BaseModel]] = {}
    for arg in get_args(shape):
        member = _bare(arg)
        if _is_model(member) and "kind" in member.model_fields:
            kind = member.model_fields["kind"].annotation
            found |= {str(value): member for value in get_args(kind)} if get_origin(kind) is Literal else {}
    return found
