"""Every `papers/KEY/reproduce.py` runs, and prints what its README shows."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "papers").glob("*/reproduce.py"))
NEEDS = {
    "Ament2023": "botorch",
    "Daulton2020": "botorch",
    "Daulton2021": "botorch",
    "Deb2002": "pymoo",
    "Knowles2006": "botorch",
    "Ozaki2022": "optuna",
}
# Searches: another machine's rounding leads them elsewhere. The first figure of each line must be near.
SEARCHES = {"Daulton2021", "Deb2002", "Knowles2006", "Ozaki2022"}
NEAR = 0.1


def shown(key: str) -> list[str]:
    """Lines of the README's block of output."""
    return re.findall(r"```text\n(.*?)```", (ROOT / "papers" / key / "README.md").read_text(), re.DOTALL)[
        0
    ].splitlines()


def words(line: str) -> str:
    return re.sub(r"-?\d+(\.\d+)?", "#", line)


def first_figure(line: str) -> float | None:
    found = re.search(r"\d+\.\d+", line)
    return float(found.group()) if found else None


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.parent.name)
def test_it_prints_what_the_readme_shows(script):
    key = script.parent.name
    if key in NEEDS and importlib.util.find_spec(NEEDS[key]) is None:
        pytest.skip(f"{NEEDS[key]} is not installed")
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=ROOT, env=env, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    printed, expected = done.stdout.splitlines(), shown(key)
    if key not in SEARCHES:
        assert printed == expected
        return
    assert [words(line) for line in printed] == [words(line) for line in expected]
    for line, other in zip(printed, expected, strict=True):
        if (figure := first_figure(line)) is not None:
            assert figure == pytest.approx(first_figure(other), abs=NEAR), (line, other)


def test_every_script_is_shown():
    for script in SCRIPTS:
        readme = (script.parent / "README.md").read_text()
        assert f"python papers/{script.parent.name}/reproduce.py" in readme and "```text\n" in readme
