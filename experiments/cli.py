"""The command `routefront`: one line per error, exit codes as documented.

Everything heavy, Hydra included, is imported only once a command is known, so that help comes up at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import Any

from experiments.help import COMMANDS, OVERVIEW

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


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
    """Console-script entry point; a reader that closes the pipe early is no error."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _fail(message: str, code: int = 2) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return code


def _run(command: str, rest: list[str]) -> int:
    for name in _THREADS:
        os.environ.setdefault(name, "2")
    os.environ.setdefault("LITELLM_LOG", "ERROR")
    as_json = "--json" in rest
    os.environ["ROUTEFRONT_QUIET"] = "1" if as_json else ""
    from experiments.hydra_app import all_overrides, check_sweep, for_hydra, parse_arguments, run_hydra
    from experiments.scenario_file import with_scenario_files
    from simulators.errors import RoutefrontError

    try:
        arguments = parse_arguments(for_hydra(command, [word for word in rest if word != "--json"]))
        arguments = dataclasses.replace(arguments, overrides=with_scenario_files(arguments.overrides))
        overrides = all_overrides(arguments)
        if arguments.multirun:
            check_sweep(command, overrides)
    except RoutefrontError as error:
        return _fail(str(error), error.exit_code)
    is_sweep = arguments.multirun and command == "tune"
    try:
        outcome = run_hydra(command, arguments, overrides)
    except RoutefrontError as error:
        if is_sweep:
            _show_sweep(overrides, as_json=as_json)
        return _fail(str(error), 1 if arguments.multirun else error.exit_code)
    except KeyboardInterrupt:
        return _fail(f"interrupted; {_after_interruption(command)}", 130)
    if is_sweep:
        _show_sweep(overrides, as_json=as_json)
    elif outcome.result is not None:
        _show(command, outcome.result, as_json=as_json)
    return outcome.exit_code


def _after_interruption(command: str) -> str:
    """Commands with a folder of their own keep what is done; the others write when all is done."""
    if command == "tune":
        return "the same command with the same out=DIR resumes where it stopped"
    resumes = command in {"race", "reproduce", "control"}
    return "the same command resumes where it stopped" if resumes else "nothing was written"


def _show(command: str, result: dict[str, Any], *, as_json: bool) -> None:
    from experiments.show import show

    record = result.pop("_record", None)
    if as_json:
        from experiments.files import jsonable

        print(json.dumps(jsonable({name: value for name, value in result.items() if not name.startswith("_")})))
    else:
        show(command, result, record)


def _show_sweep(overrides: list[str], *, as_json: bool) -> None:
    """The jobs of a sweep, from their folders: launchers may have run them in other processes."""
    from experiments.files import jsonable
    from experiments.hydra_app import sweep_root
    from experiments.show import show_sweep, sweep_jobs

    root = sweep_root(overrides)
    out, jobs = str(root), sweep_jobs(root)
    if as_json:
        print(json.dumps(jsonable({"sweep": out, "jobs": jobs})))
    else:
        show_sweep(out, jobs)
