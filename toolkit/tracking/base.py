"""What a run tells a tracking service, whichever it is, and what never leaves the machine.

Trackers are write-only: nothing is ever read back into a run. Configs are redacted. Of files only those of `UPLOADED`
are taken: `report.html` and `scorer/` hold words of prompts, `prompts_seen.json` their hashes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import yaml

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray

UPLOADED = ("front.parquet", "policy.json", "metrics.json", "config.yaml", "comparison.json")

_SECRET_WORDS = {"key", "token", "secret", "password", "passwd", "passphrase", "pwd", "credential", "auth", "bearer"}
_SECRET_WORDS |= {
    "authorization",
    "cookie",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "authtoken",
    "accesstoken",
}
_TOKEN_SETTINGS = {"tokenCount", "token_thresholds", "token_simple", "token_complex"}  # of LiteLLM's score: no secrets
_TEXT_WORDS = {"prompt", "message", "content", "completion", "question", "answer", "example", "text"}
_HASH_WORDS = {"commit", "hash", "sha", "digest", "revision"}
_LONGEST_TEXT = 300
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRETS = re.compile(
    r"""(?<![A-Za-z0-9])(?:
        (?:sk|pk|rk|gsk|hf|gh[pousr]|github_pat|glpat|xox[a-z]|pplx|r8|wandb_v\d)[-_][\w-]{8,}
        | (?:AKIA|ASIA)[0-9A-Z]{12,} | AIza[\w-]{20,} | eyJ[\w-]{8,}\.[\w.-]+
    ) | (?i:\b(?:bearer|basic)\s+[^\s"',;]{6,})""",
    re.VERBOSE,
)
_NAMED_SECRET = re.compile(
    r"(?i)([\w-]*(?:key|token|secret|password|passwd|signature|authorization|credential)s?[\"']?\s*[=:]\s*)[^\s&;,]+"
)
_WANDB_KEY = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])")
_URL_USER = re.compile(r"([A-Za-z][\w+.-]*://)\S*@")
_HOME = re.compile(r"/(?:home|Users)/[^/\s,;:'\"]+(?=$|[\s,;:'\"])")
_FOLDERS = re.compile(r"(?:(?<![\w.~/:])|(?<=:)(?!//))(?:~[\w-]*)?/(?=\S)(?:(?:(?! [/~])[^\n,;'\"])*/)?")
_WINDOWS_FOLDERS = re.compile(r"(?:(?<![A-Za-z])[A-Za-z]:[\\/]|\\\\)(?:[^\n,;'\"]*[\\/])?")
_ABSOLUTE = re.compile(r"~|/|\\\\|[A-Za-z]:[\\/]")


@runtime_checkable
class Tracker(Protocol):
    """One tracked run. `with tracker:` always finishes it, as failed if the block raises anything, Ctrl-C included."""

    def evaluations(self, *, first_index: int, hypervolume: Sequence[float], feasible_share: Sequence[float]) -> None:
        """Progress of the search.

        Args:
            first_index: Index of the first of these evaluations in the search.
            hypervolume: Per evaluation, hypervolume of all evaluations up to and including it.
            feasible_share: Per evaluation, feasible share of all evaluations up to and including it, in [0, 1].
        """
        ...

    def log_front(self, columns: Mapping[str, FloatArray]) -> None:
        """The front: parameters and objectives in natural units, one row per point."""
        ...

    def log_points(self, columns: Mapping[str, FloatArray]) -> None:
        """All evaluations: parameters, objectives, `feasible` and `on_front` as 0 or 1."""
        ...

    def log_slices(self, rows: Sequence[Mapping[str, float | str]]) -> None:
        """One row per slice: its name, size, quality with bounds, cost."""
        ...

    def log_picture(self, name: str, png: bytes) -> None:
        """A figure."""
        ...

    def summary(self, values: Mapping[str, float | str | None]) -> None:
        """Flat scalars of the chosen policy, by which runs are compared; None is left out."""
        ...

    def artifact(self, name: str, files: Sequence[Path]) -> None:
        """The files that others need to use the policy."""
        ...

    def finish(self, *, failed: bool) -> None:
        """End the run; a second call does nothing."""
        ...

    def __enter__(self) -> Self:
        """This tracker."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish, as failed if there is an error; it goes on."""
        ...


class NullTracker:
    """Tells nobody anything."""

    def evaluations(self, *, first_index: int, hypervolume: Sequence[float], feasible_share: Sequence[float]) -> None:
        pass

    def log_front(self, columns: Mapping[str, FloatArray]) -> None:
        pass

    def log_points(self, columns: Mapping[str, FloatArray]) -> None:
        pass

    def log_slices(self, rows: Sequence[Mapping[str, float | str]]) -> None:
        pass

    def log_picture(self, name: str, png: bytes) -> None:
        pass

    def summary(self, values: Mapping[str, float | str | None]) -> None:
        pass

    def artifact(self, name: str, files: Sequence[Path]) -> None:
        pass

    def finish(self, *, failed: bool) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def redact(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without secrets, local folders and prompts.

    Masked are: values of keys that name a secret (counts under `tokens` or `keys` stay), whatever has the shape of a
    common key, user parts and key parameters of URLs, text of keys that name prompts or answers, and any text of
    several lines or over 300 characters. Of absolute paths the file name stays. Non-finite numbers become None.
    """
    return {clean_text(str(key)): _clean(value, str(key)) for key, value in config.items()}


def _clean(value: Any, key: str) -> Any:
    words = {word.lower() for word in _WORD.findall(key)}
    stems = {word.removesuffix("s") for word in words}
    if value is None or isinstance(value, bool):
        return value
    number = isinstance(value, int | float)
    counts = bool(words & {"tokens", "keys"}) or key in _TOKEN_SETTINGS
    if stems & _SECRET_WORDS and not (counts and (number or key in _TOKEN_SETTINGS)):
        return "<redacted>"
    if number:
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return redact(value)
    if stems & _TEXT_WORDS:
        return "<text>"
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(part, key) for part in value]
    return (
        "<bytes>" if isinstance(value, bytes) else clean_text(str(value), keep_hash=bool((words | stems) & _HASH_WORDS))
    )


def clean_text(text: str, *, keep_hash: bool = False) -> str:
    """One text as `redact` leaves it; `keep_hash` spares 40 hexadecimal digits, which may be a W&B key or a commit."""
    if "\n" in text.strip() or len(text) > _LONGEST_TEXT:
        return f"<{len(text)} characters>"
    text = _SECRETS.sub("<redacted>", text)
    text = _NAMED_SECRET.sub(r"\1<redacted>", text)
    if not keep_hash:
        text = _WANDB_KEY.sub("<redacted>", text)
    text = _URL_USER.sub(r"\1<redacted>@", text)
    text = re.sub(r"(?i)file://[^/\s]*", "", text)
    text = _HOME.sub("~", text)
    if _ABSOLUTE.match(text) and " /" not in text:
        return re.split(r"[\\/]", text.rstrip("\\/"))[-1]
    return _FOLDERS.sub("", _WINDOWS_FOLDERS.sub("", text))


def shared_bytes(path: Path) -> bytes:
    """Content of a file of the run folder as it may leave the machine.

    `config.yaml` is redacted; a JSON file is as it is, unless redaction changes something; a Parquet file must hold
    numbers only.

    Raises:
        ConfigError: If its name is not in `UPLOADED`, or it cannot be read.
    """
    if path.name not in UPLOADED:
        raise ConfigError(f"{path.name} is never uploaded, because it may hold words of prompts; only {UPLOADED} are")
    try:
        content = path.read_bytes()
        if path.suffix == ".parquet":
            _check_numeric(path)
            return content
        if path.suffix == ".yaml":
            return yaml.safe_dump(redact(yaml.safe_load(content)), sort_keys=False, allow_unicode=True).encode()
        stored = json.loads(content)
        clean = redact(stored)
        return content if clean == stored else (json.dumps(clean, indent=2) + "\n").encode()
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot upload {path}: {first_line(error)}") from error


def _check_numeric(path: Path) -> None:
    import pyarrow.parquet
    import pyarrow.types as types

    schema = pyarrow.parquet.read_schema(path)
    tests: tuple[Callable[[Any], bool], ...] = (types.is_floating, types.is_integer, types.is_boolean)
    words = [field.name for field in schema if not any(test(field.type) for test in tests)]
    if words:
        raise ConfigError(f"{path.name} is uploaded only if all columns are numbers; {words} are not")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, redacted."""
    return clean_text((str(error).strip().splitlines() or [type(error).__name__])[0])
