"""A run as Weights & Biases sees it: offline by default, quiet, and without anything private.

What leaves the machine (now, or at a later `wandb sync`) is what `WandbTracker` logs and nothing else: no host, user,
program, command line, git state, installed packages, console output or system metrics; configs and files as
`toolkit/tracking/base.py` lets them through. Everything W&B writes stays below `directory/wandb`; it reads `~/.netrc`
and `~/.config/wandb`, never writes them. An offline run names its staged files by absolute path: sync it before you
move the folder.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from simulators.errors import ConfigError, MissingDependencyError
from simulators.outcomes import FloatArray, IntArray
from toolkit.tracking.base import clean_text, first_line, redact, shared_bytes

if TYPE_CHECKING:
    import wandb as wandb_types

MAX_ROWS = 10_000  # W&B cuts longer tables, from the end
INIT_TIMEOUT_S = 20.0  # to reach the server when online
FINISH_TIMEOUT_S = 300.0  # to upload what is left when online

_REMEDY = "set WANDB_API_KEY (or run wandb login), or use tracking.mode=offline"
_GO_WITHOUT = "tracking=none goes without it"


class WandbTracker:
    """One run at W&B. Get it from `start_wandb`."""

    def __init__(self, run: wandb_types.Run, module: ModuleType, environment: _Environment) -> None:
        self._run, self._wandb, self._environment = run, module, environment
        self._finished = False

    def evaluations(self, *, first_index: int, hypervolume: Sequence[float], feasible_share: Sequence[float]) -> None:
        pairs = list(zip(hypervolume, feasible_share, strict=True))
        with _one_line(self._wandb):
            for i, (volume, share) in enumerate(pairs, start=first_index):
                values = {"search/hypervolume": _plain(volume), "search/feasible_share": _plain(share)}
                known = {name: value for name, value in values.items() if value is not None}
                self._run.log({"evaluation": i, **known})

    def log_front(self, columns: Mapping[str, FloatArray]) -> None:
        self._log_table("front", list(columns), _rows(columns))

    def log_points(self, columns: Mapping[str, FloatArray]) -> None:
        """All evaluations; of more than `MAX_ROWS` the front and an even sample of the rest, in order."""
        n = len(next(iter(columns.values()), ()))
        kept = _thin(n, columns.get("on_front", np.zeros(n)))
        self._log_table("points", list(columns), _rows({name: values[kept] for name, values in columns.items()}))

    def log_slices(self, rows: Sequence[Mapping[str, float | str]]) -> None:
        names = list(dict.fromkeys(name for row in rows for name in row))
        self._log_table("slices", names, [[_plain(row.get(name)) for name in names] for row in rows])

    def log_picture(self, name: str, png: bytes) -> None:
        with _one_line(self._wandb), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture.png"
            path.write_bytes(png)
            self._run.log({f"figures/{name}": self._wandb.Image(str(path))})

    def summary(self, values: Mapping[str, float | str | None]) -> None:
        known = {name: plain for name, value in values.items() if (plain := _plain(value)) is not None}
        with _one_line(self._wandb):
            self._run.summary.update(known)

    def artifact(self, name: str, files: Sequence[Path]) -> None:
        """Upload copies of files named in `UPLOADED`, as `shared_bytes` gives them.

        Raises:
            ConfigError: If another file is given.
        """
        contents = {path.name: shared_bytes(path) for path in files}
        with _one_line(self._wandb):
            if self._run.disabled:
                return
            artifact = self._wandb.Artifact(name, type="policy")
            for file_name, content in contents.items():
                with artifact.new_file(file_name, mode="wb") as file:
                    file.write(content)
            self._run.log_artifact(artifact)

    def finish(self, *, failed: bool) -> None:
        if self._finished:
            return
        self._finished = True
        try:
            with _one_line(self._wandb):
                self._run.finish(exit_code=1 if failed else 0)
        finally:
            self._environment.restore()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish(failed=False)
            return
        with contextlib.suppress(ConfigError):  # the error of the block is the one to show
            self.finish(failed=True)

    def _log_table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        if rows:
            with _one_line(self._wandb):
                self._run.log({name: self._wandb.Table(columns=columns, data=rows, allow_mixed_types=True)})


def start_wandb(
    *,
    project: str,
    entity: str | None,
    mode: Literal["offline", "online"],
    group: str | None,
    job_type: str,
    name: str,
    tags: Sequence[str],
    config: Mapping[str, object],
    directory: Path,
    run_id: str,
) -> WandbTracker:
    """Start one run.

    Args:
        project, entity, group, job_type, name, tags: As W&B has them; no entity means W&B's default.
        mode: `WANDB_MODE=offline` or `disabled` in the environment overrules `online`, never the other way round.
        config: The resolved config; it is redacted here.
        directory: W&B's files go to `wandb` in it.
        run_id: The same for the same run, so that online a repetition continues it.

    Raises:
        MissingDependencyError: If wandb is not installed.
        ConfigError: If W&B refuses, such as online without a key or a network.
    """
    module = _import_wandb()
    environment = _Environment(directory.absolute() / "wandb")
    chosen = _mode(mode)
    with contextlib.ExitStack() as undo:  # whatever goes wrong, the environment is put back
        undo.callback(environment.restore)
        with _one_line(module, _REMEDY if chosen == "online" else _GO_WITHOUT):
            directory.mkdir(parents=True, exist_ok=True)
            if chosen == "online":
                _require_key(module)
            with contextlib.chdir(directory):  # W&B would add a config-defaults.yaml of the current folder, unredacted
                run = module.init(
                    project=project,
                    entity=entity,
                    mode=chosen,
                    group=group,
                    job_type=job_type,
                    name=clean_text(name)[:128],
                    tags=list(tags) or None,
                    config=redact(config),
                    dir=str(Path.cwd()),
                    id=run_id,
                    resume="allow" if chosen == "online" else None,
                    reinit="create_new",
                    settings=_settings(module),
                )
            run.define_metric("evaluation", hidden=True)
            run.define_metric("search/*", step_metric="evaluation")
        undo.pop_all()
    return WandbTracker(run, module, environment)


def _import_wandb() -> ModuleType:
    try:
        import wandb
    except ImportError as error:
        raise MissingDependencyError(
            "tracking=wandb needs wandb, which is not installed: pip install 'routefront[wandb]'"
        ) from error
    return wandb


def _mode(mode: Literal["offline", "online"]) -> Literal["offline", "online", "disabled"]:
    """The more private of the option and `WANDB_MODE`."""
    asked = os.environ.get("WANDB_MODE", "")
    if asked == "disabled":
        return "disabled"
    return "offline" if asked in {"offline", "dryrun"} else mode


def _require_key(module: ModuleType) -> None:
    """Fail where W&B would open a dialogue; reads what W&B reads: environment, `~/.netrc`, its settings."""
    from wandb.sdk.lib import wbauth

    host = module.setup().settings.base_url
    if wbauth.authenticate_session(host=host, source="routefront", prompt=False) is None:
        raise ConfigError(f"tracking.mode=online: no W&B key is configured; {_REMEDY}")


def _settings(module: ModuleType) -> Any:
    """Quiet and private; W&B fills in what is None, so host and the like get a dash."""
    return module.Settings(
        silent=True,
        console="off",
        save_code=False,
        sagemaker_disable=True,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        host="-",
        program="-",
        docker="-",
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
        init_timeout=INIT_TIMEOUT_S,
        finish_timeout=FINISH_TIMEOUT_S,
        finish_timeout_raises=True,
    )


class _Environment:
    """What W&B takes from the environment only, set until `restore`; the user's own values stay.

    Without `WANDB_ERROR_REPORTING=false` even an offline run looks up a name in the DNS; without the folders it writes
    to `~/.cache` and `~/.local/share`.
    """

    def __init__(self, folder: Path) -> None:
        wanted = {
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_SILENT": "true",
            "WANDB_DATA_DIR": str(folder / "data"),
            "WANDB_CACHE_DIR": str(folder / "cache"),
        }
        self._added = {name: value for name, value in wanted.items() if name not in os.environ}
        os.environ.update(self._added)

    def restore(self) -> None:
        """Take out what was put in."""
        for name in self._added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _one_line(module: ModuleType, remedy: str = _GO_WITHOUT) -> Iterator[None]:
    """Turn whatever W&B raises into one line that says what to do."""
    try:
        yield
    except TimeoutError as error:
        raise ConfigError(
            f"W&B did not finish in time; the rest is on disk: wandb sync ({first_line(error)})"
        ) from error
    except (module.Error, OSError, ValueError) as error:
        raise ConfigError(f"W&B: {first_line(error).rstrip('.')}; {remedy}") from error


def _plain(value: float | str | None) -> float | str | None:
    """A Python scalar; None for what is not finite."""
    if value is None:
        return None
    if isinstance(value, str):
        return clean_text(value)
    number = value.item() if isinstance(value, np.generic) else value
    return number if math.isfinite(number) else None


def _rows(columns: Mapping[str, FloatArray]) -> list[list[Any]]:
    return [list(row) for row in zip(*([_plain(v) for v in values] for values in columns.values()), strict=True)]


def _thin(n: int, on_front: FloatArray) -> IntArray:
    """At most `MAX_ROWS` of n rows, ascending: the front first, then an even sample."""
    front, rest = np.flatnonzero(on_front), np.flatnonzero(np.asarray(on_front) == 0)
    front = front[:MAX_ROWS]
    room = min(len(rest), MAX_ROWS - len(front))
    sample = rest[np.linspace(0, len(rest) - 1, room).round().astype(np.int64)] if room else rest[:0]
    return np.sort(np.concatenate([front, sample]))
