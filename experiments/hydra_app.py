"""Hydra's side of the command line: flags and overrides in, one job run, its outcome kept.

Hydra's own entry returns nothing and prints a line of its own when a job raises, so an error that is the user's is kept
here and raised again outside, where it becomes one line and an exit code.
"""

from __future__ import annotations

import datetime
import difflib
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import settings as s
from experiments.files import write_text
from simulators.errors import ConfigError, RoutefrontError

_DEFAULTS = {
    "hydra/job_logging": "none",
    "hydra/hydra_logging": "none",
    "hydra.output_subdir": "null",
    "hydra.run.dir": ".",
}
_GROUPS = ("data", "scenario", "scorer", "policy", "lane", "space", "world", "controller", "tracking", "paper")
_LISTS = {"simulate": ("load", "shares")}
_RENAMED = {("simulate", "policy"): "policy_file"}
_FLAGS = {"-m", "--multirun", "--resolve", "--hydra-help"}
_FLAGS_WITH_VALUE = {"-c", "--cfg", "-p", "--package", "-i", "--info", "-cd", "--config-dir"}


@dataclass(kw_only=True)
class Outcome:
    """What a job left.

    Attributes:
        exit_code: 0, or the code of a verdict.
        result: What the command returned.
        error: The user's error, if the job met one.
    """

    exit_code: int = 0
    result: dict[str, Any] | None = None
    error: Exception | None = None


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Words of the command line, told apart.

    Attributes:
        flags: Hydra's flags with their values, in order.
        overrides: `name=value` words.
    """

    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)

    @property
    def multirun(self) -> bool:
        """Whether this is a sweep."""
        return bool({"-m", "--multirun"} & set(self.flags))

    @property
    def names(self) -> set[str]:
        """Options the user set."""
        return {word.split("=", 1)[0].lstrip("+~") for word in self.overrides}


_OUTCOME = Outcome()


def for_hydra(command: str, words: list[str]) -> list[str]:
    """The words as Hydra must see them.

    A list such as `load=0.5,1,2` becomes `load=[0.5,1,2]`, because it is no sweep here; an option that is called like a
    config group gets the name that it has in the command's config.
    """
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        if name in _LISTS.get(command, ()) and "," in value and not value.startswith("["):
            value = f"[{value}]"
        found.append(_RENAMED.get((command, name), name) + equals + value)
    return found


def parse_arguments(words: list[str]) -> Arguments:
    """Tell flags from overrides, wherever they stand.

    Raises:
        ConfigError: If a flag is unknown or lacks its value.
    """
    flags, overrides, rest = [], [], iter(words)
    for word in rest:
        name = word.split("=", 1)[0]
        if word in _FLAGS:
            flags.append(word)
        elif name in _FLAGS_WITH_VALUE:
            value = word.split("=", 1)[1] if "=" in word else next(rest, None)
            if value is None:
                raise ConfigError(f"{word} needs a value, such as --cfg job")
            flags += [name, value]
        elif word.startswith("-"):
            known = ", ".join(sorted([*_FLAGS, *_FLAGS_WITH_VALUE, "--json", "--help"]))
            raise ConfigError(f"unknown flag {word}; known: {known}. Options are written name=value")
        elif word in {f"{group}=null" for group in _GROUPS} or word in {f"{group}=" for group in _GROUPS}:
            raise ConfigError(f"{word}: name one of the choices (routefront COMMAND --help)")
        else:
            overrides.append(word)
    return Arguments(flags=flags, overrides=overrides)


def run_hydra(command: str, arguments: Arguments, overrides: list[str]) -> Outcome:
    """Run one command through Hydra with `all_overrides(arguments)`.

    Raises:
        RoutefrontError: If the user's input is at fault.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _OUTCOME.exit_code, _OUTCOME.result, _OUTCOME.error = 0, None, None
    before = sys.argv
    sys.argv = [f"routefront-{command}", *arguments.flags, *overrides]
    try:
        hydra.main(version_base="1.3", config_path="pkg://conf", config_name=command)(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(command, arguments, str(error))) from error
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise
    finally:
        sys.argv = before
    if _OUTCOME.error is not None:
        raise _OUTCOME.error
    return _OUTCOME


def check_sweep(command: str, overrides: list[str]) -> None:
    """Refuse a sweep of a command without run folders, and a sweep root that is not one."""
    if command != "tune":
        raise ConfigError(f"-m sweeps tune; {command} writes one file and cannot be swept")
    root = sweep_root(overrides)
    if root.exists() and not root.is_dir():
        raise ConfigError(f"out={root} is a file; name a folder")
    names = [p.name for p in root.iterdir()] if root.exists() else []
    strange = [name for name in names if not name.isdigit() and name != "multirun.yaml"]
    if strange:
        raise ConfigError(f"out={root} exists and is no sweep's folder (it holds {strange[0]}); name a new folder")


def sweep_root(overrides: list[str]) -> Path:
    """The `out` of a sweep."""
    return Path(next(word.split("=", 1)[1] for word in reversed(overrides) if word.startswith("out=")))


def all_overrides(arguments: Arguments) -> list[str]:
    """The overrides, with ours added where the user did not set them."""
    added = [f"{name}={value}" for name, value in _DEFAULTS.items() if name not in arguments.names]
    if arguments.multirun:
        if "out" not in arguments.names:
            added.append(f"out=outputs/{datetime.datetime.now():%Y-%m-%d/%H-%M-%S}")
        added += ["hydra.sweep.dir=${out}", "hydra.sweep.subdir=${hydra.job.num}"]
    return arguments.overrides + added


def job(config: DictConfig) -> None:
    """One Hydra job: settings, command, result. In a sweep an error is raised, so that Hydra records the failure."""
    hydra_config = HydraConfig.get()
    swept = hydra_config.mode == RunMode.MULTIRUN
    failure = Path(hydra_config.runtime.output_dir) / "error.txt"
    if swept:
        failure.unlink(missing_ok=True)
    try:
        raw = _plain(config)
        if swept and "out" in raw:
            raw["out"] = hydra_config.runtime.output_dir
        _OUTCOME.result = _dispatch(str(hydra_config.job.config_name), raw)
    except RoutefrontError as error:
        if swept:
            write_text(failure, f"{error}\n")
            raise
        _OUTCOME.error = error


def _plain(config: DictConfig) -> dict[str, Any]:
    """The resolved config as plain containers."""
    try:
        raw = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the options cannot be resolved: {str(error).splitlines()[0]}") from error
    if not isinstance(raw, dict):
        raise ConfigError("expected a mapping of options")
    return {str(name): value for name, value in raw.items()}


def _dispatch(command: str, raw: dict[str, Any]) -> dict[str, Any]:
    quiet = bool(os.environ.get("ROUTEFRONT_QUIET"))
    if command == "tune":
        from experiments.run_folder import default_out
        from experiments.tune import run_tune

        tune = s.parse_settings(s.TuneSettings, raw)
        return run_tune(tune, raw, default_out(tune.out), quiet=quiet)
    if command == "study":
        from experiments.study import run_study

        return run_study(s.parse_settings(s.StudySettings, raw), quiet=quiet)
    if command == "diagnose":
        from experiments.diagnose import run_diagnose

        return run_diagnose(s.parse_settings(s.DiagnoseSettings, raw), quiet=quiet)
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

        result, _OUTCOME.exit_code = run_verify(s.parse_settings(s.VerifySettings, raw), quiet=quiet)
        return result
    if command == "certify":
        from experiments.certify import run_certify

        result, _OUTCOME.exit_code = run_certify(s.parse_settings(s.CertifySettings, raw), quiet=quiet)
        return result
    if command == "power":
        from experiments.power import run_power

        return run_power(s.parse_settings(s.PowerSettings, raw), quiet=quiet)
    if command == "simulate":
        from experiments.simulate import run_simulate
        from experiments.simulate_settings import SimulateSettings

        return run_simulate(s.parse_settings(SimulateSettings, raw), quiet=quiet)
    if command == "race":
        from experiments.race import run_race
        from experiments.race_settings import RaceSettings

        return run_race(s.parse_settings(RaceSettings, raw), quiet=quiet)
    if command == "reproduce":
        if raw["paper"] == "boute":
            from experiments.reproduce_boute import run_boute
            from experiments.reproduce_boute_settings import BouteReproduceSettings

            return run_boute(s.parse_settings(BouteReproduceSettings, raw), quiet=quiet)
        from experiments.reproduce import run_reproduce
        from experiments.reproduce_settings import ReproduceSettings

        return run_reproduce(s.parse_settings(ReproduceSettings, raw), quiet=quiet)
    if command == "control":
        from experiments.control import run_control
        from experiments.control_settings import ControlSettings

        return run_control(s.parse_settings(ControlSettings, raw), quiet=quiet)
    if command == "compare":
        from experiments.compare import tracked_compare
        from experiments.compare_settings import CompareSettings

        return tracked_compare(s.parse_settings(CompareSettings, raw), raw, quiet=quiet)
    if command == "calibrate":
        from experiments.calibrate import run_calibrate
        from experiments.calibrate_settings import CalibrateSettings

        return run_calibrate(s.parse_settings(CalibrateSettings, raw), quiet=quiet)
    from experiments.bench import run_bench

    return run_bench(s.parse_settings(s.BenchSettings, raw), quiet=quiet)


def _explain(command: str, arguments: Arguments, message: str) -> str:
    """Hydra's message in one line, with the nearest option where a name was misspelt."""
    found = re.search(r"(?:Could not override|Key|No match in the defaults list\. Override)\s+'([^']+)'", message)
    if found is None:
        said = " ".join(message.split("Config search path:")[0].split("See https://")[0].split())
        said = said.removeprefix(f"In '{command}': ")
        return f"{said or 'the options cannot be read'} (routefront {command} --help)"
    name = found.group(1)
    groups = [word for word in arguments.overrides if word.split("=", 1)[0] in _GROUPS and "," not in word]
    with initialize_config_module("conf", version_base="1.3"):
        try:
            config = compose(config_name=command, overrides=groups)
        except HydraException:  # a group that this command does not have
            config = compose(config_name=command)
        names = _leaves(config)
    if name in names:
        return f"{name} has other keys than those given; to replace it whole: '~{name}' '+{name}={{...}}'"
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    group, _, leaf = name.partition(".")
    if leaf and group in _GROUPS and not (near and near[0].startswith(f"{group}.")):
        hint = f" with the chosen {group}; another choice of {group}=... may have it"
    return f"there is no option {name!r} here{hint} (routefront {command} --help, or --cfg job for all)"


def _leaves(config: DictConfig, prefix: str = "") -> list[str]:
    names = []
    for key, node in config.items_ex(resolve=False):
        names.append(f"{prefix}{key!s}")
        if isinstance(node, DictConfig) and not node._is_none():
            names += _leaves(node, f"{names[-1]}.")
    return names
