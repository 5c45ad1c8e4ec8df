"""The command `routefront`: sub-commands over Hydra, one line per error, exit codes as documented.

Everything heavy is imported only once a command is known, so that help comes up at once.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from experiments.help import COMMANDS, OVERVIEW

if TYPE_CHECKING:
    from omegaconf import DictConfig

_HYDRA_DEFAULTS = {
    "hydra/job_logging": "none",
    "hydra/hydra_logging": "none",
    "hydra.output_subdir": "null",
    "hydra.run.dir": ".",
}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class _Outcome:
    """What the one job of this process left: Hydra returns nothing itself."""

    exit_code = 0
    result: dict[str, Any] | None = None
    error: Exception | None = None


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in {"-h", "--help", "help"}:
        print(OVERVIEW, end="")
        return 0
    command, *rest = words
    if command == "--version":
        from experiments.run_folder import version

        print(version())
        return 0
    if command not in COMMANDS:
        return _fail(f"unknown command {command!r}; known: {', '.join(COMMANDS)} (routefront --help)")
    if {"-h", "--help"} & set(rest):
        print(COMMANDS[command], end="")
        return 0
    return _run(command, rest)


def entry() -> None:
    """Console-script entry point."""
    sys.exit(main())


def _fail(message: str, code: int = 2) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return code


def _run(command: str, rest: list[str]) -> int:
    for name in _THREADS:
        os.environ.setdefault(name, "2")
    os.environ.setdefault("LITELLM_LOG", "ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    as_json = "--json" in rest
    os.environ["ROUTEFRONT_QUIET"] = "1" if as_json else ""
    arguments = [word for word in rest if word != "--json"]
    multirun = bool({"-m", "--multirun"} & set(arguments))
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from simulators.errors import RoutefrontError

    overrides = _with_defaults(arguments, multirun)
    try:
        _hydra(command, overrides)
        if _Outcome.error is not None:
            raise _Outcome.error
    except RoutefrontError as error:
        if multirun:
            _show_sweep(overrides, as_json=as_json)
        return _fail(str(error), 1 if multirun else error.exit_code)
    except (HydraException, OmegaConfBaseException) as error:
        return _fail(_explain_override(command, str(error)))
    except KeyboardInterrupt:
        return _fail("interrupted; the same command resumes where it stopped", 130)
    if multirun and command == "tune":
        _show_sweep(overrides, as_json=as_json)
    elif _Outcome.result is not None:
        _show(command, _Outcome.result, as_json=as_json)
    return _Outcome.exit_code


def _with_defaults(arguments: list[str], multirun: bool) -> list[str]:
    """Hydra's arguments with ours added where the user did not set them."""
    given = {word.split("=", 1)[0].lstrip("+~") for word in arguments if "=" in word}
    added = [f"{name}={value}" for name, value in _HYDRA_DEFAULTS.items() if name not in given]
    if multirun:
        if "out" not in given:
            import datetime

            added.append(f"out=outputs/{datetime.datetime.now():%Y-%m-%d/%H-%M-%S}")
        added += ["hydra.sweep.dir=${out}", "hydra.sweep.subdir=${hydra.job.num}"]
    return arguments + added


def _hydra(command: str, arguments: list[str]) -> None:
    import hydra

    _Outcome.exit_code, _Outcome.result, _Outcome.error = 0, None, None
    before = sys.argv
    sys.argv = [f"routefront-{command}", *arguments]
    try:
        hydra.main(version_base="1.3", config_path="pkg://conf", config_name=command)(job)()
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise
    finally:
        sys.argv = before


def job(config: DictConfig) -> None:
    """One Hydra job: settings, command, result. In a sweep an error is raised, so that Hydra records the failure."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from simulators.errors import ConfigError, RoutefrontError

    hydra_config = HydraConfig.get()
    swept = hydra_config.mode == RunMode.MULTIRUN
    try:
        raw = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        if not isinstance(raw, dict):
            raise ConfigError("expected a mapping of options")
        if swept and "out" in raw:
            raw["out"] = hydra_config.runtime.output_dir
        _Outcome.result = _dispatch(str(hydra_config.job.config_name), {str(k): v for k, v in raw.items()})
    except RoutefrontError as error:
        if swept:
            from pathlib import Path

            from experiments.files import write_text

            write_text(Path(hydra_config.runtime.output_dir) / "error.txt", f"{error}\n")
            raise
        _Outcome.error = error


def _dispatch(command: str, raw: dict[str, Any]) -> dict[str, Any]:
    from experiments import settings as s

    quiet = bool(os.environ.get("ROUTEFRONT_QUIET"))
    if command == "tune":
        from experiments.run_folder import default_out
        from experiments.tune import run_tune

        tune = s.parse_settings(s.TuneSettings, raw)
        return run_tune(tune, raw, default_out(tune.out), quiet=quiet)
    if command == "study":
        from experiments.study import run_study

        return run_study(s.parse_settings(s.StudySettings, raw), quiet=quiet)
    if command == "evaluate":
        from experiments.evaluate import run_evaluate

        return run_evaluate(s.parse_settings(s.EvaluateSettings, raw), quiet=quiet)
    if command == "route":
        from experiments.route import run_route

        return run_route(s.parse_settings(s.RouteSettings, raw), quiet=quiet)
    if command == "export":
        from experiments.export import run_export

        return run_export(s.parse_settings(s.ExportSettings, raw), quiet=quiet)
    if command == "verify":
        from experiments.export import run_verify

        result, _Outcome.exit_code = run_verify(s.parse_settings(s.VerifySettings, raw), quiet=quiet)
        return result
    from experiments.bench import run_bench

    return run_bench(s.parse_settings(s.BenchSettings, raw), quiet=quiet)


def _show(command: str, result: dict[str, Any], *, as_json: bool) -> None:
    from experiments.show import show

    record = result.pop("_record", None)
    if as_json:
        from experiments.files import jsonable

        print(json.dumps(jsonable(result)))
    else:
        show(command, result, record)


def _show_sweep(overrides: list[str], *, as_json: bool) -> None:
    """The jobs of a sweep, from their folders: launchers may have run them in other processes."""
    from pathlib import Path

    from experiments.files import jsonable
    from experiments.show import show_sweep, sweep_jobs

    out = next(word.split("=", 1)[1] for word in reversed(overrides) if word.startswith("out="))
    jobs = sweep_jobs(Path(out))
    if as_json:
        print(json.dumps(jsonable({"sweep": out, "jobs": jobs})))
    else:
        show_sweep(out, jobs)


def _explain_override(command: str, message: str) -> str:
    """Hydra's message in one line, with the nearest option where a name was misspelt."""
    import difflib
    import re

    from hydra import compose, initialize_config_module

    found = re.search(r"(?:Could not override|Key|No match in the defaults list\. Override)\s+'([^']+)'", message)
    if found is None:
        said = " ".join(message.split("Config search path:")[0].split("See https://")[0].split())
        said = said.removeprefix(f"In '{command}': ")
        return f"{said or 'the options cannot be read'} (routefront {command} --help)"
    with initialize_config_module("conf", version_base="1.3"):
        names = _leaves(compose(config_name=command))
    name = found.group(1)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no option {name!r} here{hint} (routefront {command} --help, or --cfg job for all)"


def _leaves(config: DictConfig, prefix: str = "") -> list[str]:
    from omegaconf import DictConfig

    names = []
    for key, node in config.items_ex(resolve=False):
        names.append(f"{prefix}{key!s}")
        if isinstance(node, DictConfig) and not node._is_none():
            names += _leaves(node, f"{names[-1]}.")
    return names
