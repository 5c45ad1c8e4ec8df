"""The README's commands, word for word, on a small recording; its figure exists; its links lead somewhere."""

import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import run_cli, run_cli_process, write_recording

from experiments.help import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def commands() -> list[list[str]]:
    """Every `routefront ...` line of the README's bash blocks, continuation lines joined."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)).replace("\\\n", " ")
    lines = [line for line in blocks.splitlines() if line.startswith("routefront ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


UNDECIDED = 4  # a toy recording of 240 prompts shows little
N_FIRST, N_LOAD, N_SEARCH, N_FLEET = 6, 4, 3, 3  # commands of the first example, load, search, fleet; the rest learn


@pytest.mark.verify
def test_the_example_runs_word_for_word(tmp_path):
    if importlib.util.find_spec("litellm") is None:
        pytest.skip("litellm is not installed")
    write_recording(tmp_path, ".parquet")
    for command in commands()[:N_FIRST]:
        code, out, err = run_cli(*command, cwd=tmp_path)
        assert code == 0 or (command[0] == "certify" and code == UNDECIDED), (command, err)
    assert "tier_boundaries" in (tmp_path / "litellm.yaml").read_text()
    assert (tmp_path / "decisions.csv").read_text().startswith('"query_id","score","tier"')
    assert out


def write_tokens(path):
    """Tokens, and costs and latencies that follow from them, for a recording without."""
    outcomes = pq.read_table(path).drop_columns(["cost_usd", "latency_s"])
    rng, n, model = np.random.default_rng(0), outcomes.num_rows, outcomes["model"].to_pylist()
    tokens = np.rint(rng.lognormal(5.0, 0.5, (2, n)))
    price = np.array([{"small": (0.1, 0.4), "medium": (0.5, 2.0), "large": (2.0, 8.0)}[name] for name in model]).T
    speed = np.array([{"small": 150.0, "medium": 80.0, "large": 40.0}[name] for name in model])
    columns = {
        "input_tokens": tokens[0],
        "output_tokens": tokens[1],
        "cost_usd": (tokens * price).sum(axis=0) / 1e6,
        "latency_s": rng.lognormal(-1.0, 0.3, n) + tokens[1] / speed,
    }
    for name, values in columns.items():
        outcomes = outcomes.append_column(name, pa.array(values))
    pq.write_table(outcomes, path)


@pytest.mark.slow
def test_the_example_under_load_runs_word_for_word(tmp_path):
    _, outcomes = write_recording(tmp_path, ".parquet")
    write_tokens(outcomes)
    for command in commands()[N_FIRST : N_FIRST + N_LOAD]:
        code, _, err = run_cli(*command, cwd=tmp_path)
        assert code == 0, (command, err)
    assert (tmp_path / "runs" / "peak" / "figures" / "loads.png").is_file()
    assert (tmp_path / "runs" / "peak-load.html").is_file() and (tmp_path / "mine.html").is_file()


@pytest.mark.slow
def test_the_search_example_runs_word_for_word(tmp_path):
    for package in ("optuna", "wandb", "hydra_plugins.hydra_joblib_launcher"):
        pytest.importorskip(package)
    for command in commands()[N_FIRST + N_LOAD :][:N_SEARCH]:
        code, _, err = (run_cli_process if "-m" in command else run_cli)(*command, cwd=tmp_path)
        assert code == 0, (command, err)
    assert len(list((tmp_path / "runs" / "sweep").glob("*/policy.json"))) == 9
    assert (tmp_path / "runs" / "comparison" / "report.html").is_file()


@pytest.mark.slow
def test_the_fleet_example_runs_word_for_word(tmp_path):
    for command in commands()[N_FIRST + N_LOAD + N_SEARCH :][:N_FLEET]:
        code, _, err = run_cli(*command, cwd=tmp_path)
        assert code == 0, (command, err)
    assert (tmp_path / "runs" / "cheapest" / "deployment.json").is_file()
    assert "vllm serve" in (tmp_path / "fleet.sh").read_text()


@pytest.mark.slow
def test_the_learning_example_runs_word_for_word(tmp_path):
    for package in ("torch", "gymnasium"):
        pytest.importorskip(package)
    write_recording(tmp_path, ".parquet")
    for command in commands()[N_FIRST + N_LOAD + N_SEARCH + N_FLEET :]:
        code, _, err = run_cli(*command, cwd=tmp_path)
        assert code == 0, (command, err)
    assert "tau" in (tmp_path / "trained.csv").read_text()
    assert (tmp_path / "runs" / "control" / "front.png").is_file()


def test_the_examples_are_there():
    words = [words[0] for words in commands()]
    own, load, rest = words[:N_FIRST], words[N_FIRST : N_FIRST + N_LOAD], words[N_FIRST + N_LOAD :]
    search, fleet, learning = rest[:N_SEARCH], rest[N_SEARCH:][:N_FLEET], rest[N_SEARCH + N_FLEET :]
    assert learning == ["tune", "route", "control"]
    assert own == ["tune", "certify", "export", "verify", "tune", "route"]
    assert load == ["tune", "simulate", "calibrate", "simulate"]
    assert search == ["tune", "tune", "compare"]
    assert fleet == ["tune", "tune", "export"]


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/map.md",
        "docs/controllers.md",
        "docs/search.md",
        "docs/deployment.md",
        "docs/deployment_export.md",
        "docs/evidence.md",
        "docs/metrics.md",
        "docs/traffic.md",
        "docs/scenarios.md",
        "docs/routers.md",
        "docs/learning.md",
        "docs/control.md",
        "docs/environments.md",
        "docs/baselines.md",
        "papers/README.md",
        "CONTRIBUTING.md",
    ],
)
def test_links_and_pictures_exist(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), f"{page} points at {target}"


def test_every_command_is_in_the_table():
    for command in COMMANDS:
        assert f"`routefront {command}" in README


@pytest.mark.parametrize("target", ["help", "setup", "demo", "test", "check", "bench"])
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
