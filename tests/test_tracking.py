"""Tracking: nothing private leaves, everything logged is there, and a run is always finished."""

from __future__ import annotations

import io
import json
import os
import socket
import string
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from experiments.tracking import open_tracker, run_id, sweep_of
from experiments.tracking_settings import NoTracking, TrackingSettings, WandbTracking
from simulators.errors import ConfigError, MissingDependencyError
from toolkit.tracking.base import UPLOADED, NullTracker, Tracker, redact, shared_bytes
from toolkit.tracking.readback import read_offline_run
from toolkit.tracking.wandb import MAX_ROWS, WandbTracker, _thin

ROOT = Path(__file__).resolve().parent.parent
SECRET = "sk-planted0123456789abcdef"
PROMPT = "Dear doctor, my left elbow\nhurts whenever I play the bassoon"
HOME = "/home/planted-user"
CONFIG = {
    "seed": 3,
    "data": {"kind": "recorded", "queries": f"{HOME}/private/queries.parquet", "prices": None},
    "models": [{"name": "small", "api_key": SECRET, "api_base": f"https://me:{SECRET}@llm.example/v1"}],
    "examples": [PROMPT],
    "note": PROMPT,
    "constraints": {"quality_floor": 0.9, "max_tokens": 512, "infinite": float("inf")},
    "out": f"{HOME}/runs/a",
    "tracking": {"kind": "wandb", "mode": "offline"},
}
FRONT = {"t1": np.array([0.25, 0.5]), "cost_usd": np.array([1e-4, np.nan]), "quality": np.array([0.75, 0.9])}
POINTS = {
    "t1": np.array([0.25, 0.5, 0.7]),
    "feasible": np.array([1.0, 1.0, 0.0]),
    "on_front": np.array([1.0, 1.0, 0.0]),
}
SLICES = [{"slice": "code", "n": 40, "quality": 0.5}, {"slice": "chat", "n": 60, "quality": float("nan"), "low": 0.25}]


def wandb_settings(**changed):
    given = {"mode": "offline", "project": "routefront", "entity": None, "group": None, "tags": [], "directory": None}
    return WandbTracking.model_validate({"kind": "wandb", **given, **changed})


def picture() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "png")
    return buffer.getvalue()


def run_files(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "policy.json").write_text('{"thresholds": [0.5]}\n')
    pa.parquet.write_table(pa.table(FRONT), folder / "front.parquet")
    return [folder / name for name in ("config.yaml", "policy.json", "front.parquet")]


def log_everything(tracker: Tracker, folder: Path) -> None:
    tracker.evaluations(first_index=0, hypervolume=[0.0, float("nan")], feasible_share=[0.0, 0.5])
    tracker.evaluations(first_index=2, hypervolume=[0.25], feasible_share=[0.75])
    tracker.log_front(FRONT)
    tracker.log_points(POINTS)
    tracker.log_slices(SLICES)
    tracker.log_picture("front", picture())
    tracker.summary({"quality": 0.9, "cost_usd": np.float64(1e-4), "latency_p95_s": None, "gap": float("inf")})
    tracker.artifact("policy", run_files(folder))


# ---------------------------------------------------------------- redaction

json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
alphabet = string.ascii_letters + string.digits
unguessable = st.text(alphabet, min_size=24, max_size=40)
secret_names = st.sampled_from(
    ["key", "api_key", "apiKey", "API-KEY", "OPENAI_API_KEY", "token", "hfToken", "access_tokens", "client_secret"]
) | st.sampled_from(["Password", "db.password", "credentials", "Authorization", "headers.authorization", "cookie"])
key_shapes = st.sampled_from(
    ["sk-{}", "sk-proj-{}", "hf_{}", "ghp_{}", "github_pat_{}", "xoxb-{}", "gsk_{}", "see (sk-{}), please"]
) | st.sampled_from(["Bearer {}", "use bearer {} here", "token={}", "Authorization: {}", "first line\n{}"])
url_shapes = st.sampled_from(
    ["https://me:{}@llm.example/v1", "https://{}@llm.example", "https://llm.example/v1?api_key={}&x=1"]
)
path_shapes = st.sampled_from(
    ["/srv/{}/data.csv", "~/{}/q.csv", "C:\\Users\\{}\\q.csv", "file:///home/{}/q.csv", "/home/{}"]
) | st.sampled_from(["read /home/{}/a.csv and /b/c.csv", "/srv/my data/{}/q.csv", "data=/x y/{}/z", "from:/a/{}/b"])


def planted(value, surroundings, place):
    for name in place:
        value = {name: value, "other": surroundings} if name else [surroundings, value]
    return {"root": value}


places = st.lists(st.sampled_from(["", "model", "data", "scorer"]), max_size=4)


@given(secret_names, unguessable, json_like, places, st.sampled_from(["plain", "list", "nested"]))
def test_no_value_of_a_secret_key_survives(name, secret, surroundings, place, form):
    value = {"plain": secret, "list": [secret], "nested": {"user": {"x": secret}}}[form]
    assert secret not in json.dumps(redact(planted({name: value}, surroundings, place)))


@given(key_shapes | url_shapes | path_shapes, unguessable, json_like, places, st.booleans())
def test_nothing_shaped_like_a_secret_or_a_private_path_survives(shape, secret, surroundings, place, as_key):
    text = shape.format(secret)
    config = planted({text: 1} if as_key else {"value": text}, surroundings, place)
    assert secret not in json.dumps(redact(config))


@given(json_like)
def test_redaction_is_strict_json_and_settles(value):
    once = redact({"value": value})
    json.dumps(once, allow_nan=False)
    assert redact(once) == once


@given(
    st.sampled_from(["prompt", "prompts", "system_prompt", "messages", "example", "answerText"]), st.text(min_size=30)
)
def test_text_under_a_prompt_key_does_not_survive(name, text):
    assert redact({name: text, "x": {name: [{"role": text}]}}) == {name: "<text>", "x": {name: "<text>"}}


def test_what_is_not_private_stays():
    plain = {
        "objectives": ["cost", "quality@code/python", "share_over:5"],
        "constraints": {"quality_floor": 0.9, "bounds": ["latency_p95@chat <= 2.5"]},
        "usd_per_mtok": {"input": 0.25},
        "max_tokens": 512,
        "n_prompts": 400,
        "queries": "data/queries.parquet",
        "api_base": "https://llm.example/v1/chat",
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "scorer": {"kind": "text"},
        "seed": 0,
        "because": "risk-averse choice: 3 / 4 of the front",
        "model": "task-sk",
    }
    assert redact(plain) == plain


def test_paths_are_reduced_to_file_names():
    given = {"a": f"{HOME}/private folder/q.parquet", "b": "/x/q.csv + /y/o.csv", "c": f"{HOME}", "d": Path("/x/y")}
    assert redact(given) == {"a": "q.parquet", "b": "q.csv + o.csv", "c": "~", "d": "y"}


def test_only_listed_files_are_shared_and_config_is_redacted(tmp_path):
    files = run_files(tmp_path)
    shared = {path.name: shared_bytes(path) for path in files}
    assert set(shared) <= set(UPLOADED)
    assert SECRET.encode() not in shared["config.yaml"] and b"bassoon" not in shared["config.yaml"]
    assert yaml.safe_load(shared["config.yaml"])["seed"] == 3
    assert shared["policy.json"] == files[1].read_bytes() and shared["front.parquet"] == files[2].read_bytes()
    for name in ("report.html", "prompts_seen.json", "evaluations.jsonl", "scorer/vocabulary.json"):
        with pytest.raises(ConfigError, match="never uploaded"):
            shared_bytes(tmp_path / name)
    pa.parquet.write_table(pa.table({"prompt": [PROMPT]}), tmp_path / "front.parquet")
    with pytest.raises(ConfigError, match="numbers"):
        shared_bytes(tmp_path / "front.parquet")
    (tmp_path / "policy.json").write_text("[]")
    with pytest.raises(ConfigError, match="cannot upload"):
        shared_bytes(tmp_path / "policy.json")


# ---------------------------------------------------------------- settings and the tracker of none


def test_settings_and_config_files_agree():
    adapter = TypeAdapter(TrackingSettings)
    stored = {p.stem: yaml.safe_load(p.read_text()) for p in (ROOT / "conf" / "tracking").glob("*.yaml")}
    assert isinstance(adapter.validate_python(stored["none"]), NoTracking)
    assert adapter.validate_python(stored["wandb"]) == wandb_settings()
    for wrong in ({"kind": "mlflow"}, {**stored["wandb"], "mode": "shared"}, {**stored["wandb"], "extra": 1}):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)


def test_null_tracker_takes_everything_and_hides_no_error(tmp_path):
    tracker = open_tracker(
        NoTracking(kind="none"), config=CONFIG, out=tmp_path / "run", controller="exact", problem="toy", seed=0
    )
    assert isinstance(tracker, NullTracker) and isinstance(tracker, Tracker) and issubclass(WandbTracker, Tracker)
    with pytest.raises(ZeroDivisionError), tracker:
        log_everything(tracker, tmp_path)
        raise ZeroDivisionError
    tracker.finish(failed=True)
    assert not (tmp_path / "run").exists()


def test_run_id_depends_on_the_search_alone():
    own = run_id(CONFIG, 3)
    assert own == run_id({**CONFIG, "out": "elsewhere", "tracking": {"kind": "none"}}, 3)
    assert len({own, run_id(CONFIG, 4), run_id({**CONFIG, "note": ""}, 3), run_id(CONFIG, 3, "other data")}) == 4


def test_jobs_of_a_sweep_share_a_group():
    assert sweep_of(Path("outputs/sweep/3")) == "sweep"
    assert sweep_of(Path("outputs/2026-01-01/10-00-00")) is None and sweep_of(Path("runs/a")) is None


def test_wandb_not_installed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'routefront\[wandb\]'"):
        open_tracker(wandb_settings(), config={}, out=tmp_path, controller="exact", problem="toy", seed=0)
    assert not list(tmp_path.iterdir())


def test_wandb_is_imported_only_when_a_run_starts():
    modules = "experiments.tracking, toolkit.tracking.wandb, toolkit.tracking.readback"
    code = f"import sys, {modules}; print('wandb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"


@given(st.integers(0, 40_000), st.integers(0, 12_000))
def test_long_tables_keep_the_front(n, n_front):
    on_front = np.zeros(n)
    on_front[: min(n, n_front)] = 1
    kept = _thin(n, on_front)
    assert len(kept) == min(n, MAX_ROWS) and np.all(np.diff(kept) > 0)
    assert on_front[kept].sum() == min(on_front.sum(), MAX_ROWS)


# ---------------------------------------------------------------- offline runs, read back


@pytest.fixture
def clean_wandb(tmp_path, monkeypatch):
    """wandb as on a fresh machine: an empty home, none of its variables, and no service left behind."""
    wandb = pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield wandb
    wandb.teardown()


def start(out: Path, **changed) -> Tracker:
    settings = wandb_settings(**changed)
    return open_tracker(settings, config=CONFIG, out=out, controller="exact", problem="toy", seed=3)


def the_run(out: Path) -> Path:
    (found,) = (out / "wandb").glob("offline-run-*")
    return found


@pytest.mark.slow
def test_offline_runs_hold_what_was_logged_and_nothing_private(clean_wandb, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(socket, "gethostname", lambda: "planted-host")
    (tmp_path / "config-defaults.yaml").write_text(f"leak: {{desc: null, value: {SECRET}}}\n")
    before, outs = set(os.environ), [tmp_path / "sweep" / "0", tmp_path / "sweep" / "1"]
    for out in outs:
        with start(out, tags=["nightly"]) as tracker:
            log_everything(tracker, tmp_path / "files")
    assert capfd.readouterr() == ("", "")
    assert set(os.environ) - before <= {"WANDB_SERVICE"} and not (tmp_path / "home").exists()
    for out in outs:
        check_contents(read_offline_run(the_run(out)))
        content = {path: path.read_bytes() for path in (out / "wandb").rglob("*") if path.is_file()}
        assert any(b"exact toy seed 3" in data for path, data in content.items() if path.suffix == ".wandb")
        private = (SECRET, "bassoon", "planted-user", "planted-host", str(Path(__file__).resolve().parent))
        found = [(word, path) for path, data in content.items() for word in private if word.encode() in data]
        assert not found


def check_contents(run):
    assert run["finished"] and run["exit_code"] == 0
    about = run["run"]
    assert (about["display_name"], about["run_group"], about["job_type"]) == ("exact toy seed 3", "sweep", "exact")
    assert (about["run_id"], about["tags"], about["host"]) == (run_id(CONFIG, 3), ["nightly"], "-")
    assert {k: v for k, v in run["config"].items() if k != "_wandb"} == redact(CONFIG)
    assert run["metrics"]["search/*"] == "evaluation"
    rows = [row for row in run["history"] if "evaluation" in row and "search/feasible_share" in row]
    assert [row["evaluation"] for row in rows] == [0, 1, 2]
    assert [row.get("search/hypervolume") for row in rows] == [0, None, 0.25]
    assert [row["search/feasible_share"] for row in rows] == [0, 0.5, 0.75]
    assert (run["summary"]["quality"], run["summary"]["cost_usd"]) == (0.9, 1e-4)
    assert not {"latency_p95_s", "gap"} & set(run["summary"])
    tables = {name: (table["columns"], table["data"]) for name, table in run["tables"].items()}
    assert tables["front"] == (list(FRONT), [[0.25, 1e-4, 0.75], [0.5, None, 0.9]])
    assert tables["points"] == (list(POINTS), [[0.25, 1, 1], [0.5, 1, 1], [0.7, 0, 0]])
    columns = ["slice", "n", "quality", "low"]
    assert tables["slices"] == (columns, [["code", 40, 0.5, None], ["chat", 60, None, 0.25]])
    assert any(name.startswith("media/images/figures/front") for name in run["files"])
    uploaded = {name: Path(path).read_bytes() for name, path in run["artifacts"]["policy"].items()}
    assert set(uploaded) == {"config.yaml", "policy.json", "front.parquet"}
    assert yaml.safe_load(uploaded["config.yaml"]) == redact(CONFIG)


@pytest.mark.slow
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_failed_run_is_finished_as_failed_and_the_error_goes_on(clean_wandb, tmp_path, error):
    with pytest.raises(error), start(tmp_path) as tracker:
        tracker.evaluations(first_index=0, hypervolume=[0.5], feasible_share=[1.0])
        raise error
    tracker.finish(failed=False)
    run = read_offline_run(the_run(tmp_path))
    assert run["finished"] and run["exit_code"] == 1
    assert run["history"][0]["search/hypervolume"] == 0.5


@pytest.mark.slow
def test_environment_may_only_make_it_more_private(clean_wandb, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with start(tmp_path / "disabled", mode="online") as tracker:
        log_everything(tracker, tmp_path / "files")
    assert not list((tmp_path / "disabled").rglob("*.wandb"))
    monkeypatch.setenv("WANDB_MODE", "online")
    start(tmp_path / "offline").finish(failed=False)
    assert the_run(tmp_path / "offline").is_dir()


@pytest.mark.parametrize(("key", "said"), [(None, "no W&B key is configured"), ("short", "WANDB_API_KEY invalid")])
def test_online_without_a_usable_key_is_one_line_at_once(clean_wandb, tmp_path, monkeypatch, key, said):
    if key is not None:
        monkeypatch.setenv("WANDB_API_KEY", key)
    began, before = time.monotonic(), set(os.environ)
    with pytest.raises(ConfigError, match=said) as caught:
        start(tmp_path / "run", mode="online")
    assert time.monotonic() - began < 10 and set(os.environ) - before <= {"WANDB_SERVICE"}  # W&B's own
    assert "tracking.mode=offline" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_online_without_a_server_is_one_line_in_bounded_time(clean_wandb, tmp_path, monkeypatch):
    monkeypatch.setattr("toolkit.tracking.wandb.INIT_TIMEOUT_S", 2.0)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    with pytest.raises(ConfigError, match="tracking.mode=offline") as caught:
        start(tmp_path / "run", mode="online")
    assert "\n" not in str(caught.value) and "a" * 40 not in str(caught.value)


def test_what_wandb_refuses_is_one_line(clean_wandb, tmp_path):
    with pytest.raises(ConfigError, match="W&B: ") as caught:
        start(tmp_path, project="a/b:c")
    assert "\n" not in str(caught.value)


def test_reading_back_something_else_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="no W&B run"):
        read_offline_run(tmp_path)
