"""The command line that the fits of shipped config share: read a folder of data, write one YAML file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.files import write_text
from simulators.errors import RoutefrontError


def run_fit(
    argv: Sequence[str] | None, fit: Callable[[Path], str], *, description: str, holds: str, output: str
) -> int:
    """Fit and write; returns the exit code.

    Args:
        argv: Arguments, or None for those of the process.
        fit: From the folder of data to the text of the file.
        description: What is fitted.
        holds: What the folder must hold.
        output: Where the file goes unless told otherwise.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data_dir", type=Path, help=f"folder with {holds}")
    parser.add_argument("--output", type=Path, default=Path(output))
    arguments = parser.parse_args(argv)
    try:
        write_text(arguments.output, fit(arguments.data_dir))
    except RoutefrontError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"wrote {arguments.output}")
    return 0
