"""The spaces and the queue on the command line: found, written, read back, routed; one line where it cannot work."""

import json
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import yaml
from helpers import TIERS, recording_columns, run_cli, snapshot, write_columns, write_recording

from simulators.scenario import parse_scenario, sample_scenario
from toolkit.export.schema import read_policy
from toolkit.policies.thresholds import ThresholdPolicy
from toolkit.scorers.base import ScoreTable

CONF = Path(__file__).resolve().parent.parent / "conf"
SCENARIO = ("data.n_queries=300",)
SOBOL = ("controller=sobol", "budget=40")
RECORDED = ("data=recorded", "data.queries=queries.parquet", "data.outcomes=outcomes.parquet")
COLUMN = ("scorer=column", "scorer.column=hardness")


@pytest.fixture(scope="module", autouse=True)
def plain_report():
    """A report without figures: they take most of a small run's time, and other files draw them."""
    from experiments import tune_output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune_output, "write_report", lambda path, record: {})
        yield


def done(*args, cwd):
    result = run_cli(*args, cwd=cwd)
    assert result.exit_code == 0, result.stderr
    return result


def refused(folder, *args):
    """The one line that a refused command says; it leaves nothing behind."""
    before = snapshot(folder)
    result = run_cli(*args, cwd=folder)
    assert (result.exit_code, result.stdout) == (2, ""), result
    assert snapshot(folder) == before
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def decisions(path):
    text = pyarrow.csv.ConvertOptions(column_types={"query_id": "string", "tier": "string"})
    return pyarrow.csv.read_csv(path, convert_options=text).to_pydict()


def front_of(run):
    """Columns of `front.parquet`, sorted by cost."""
    table = pyarrow.parquet.read_table(run / "front.parquet").sort_by("cost_usd")
    return {name: np.array(values) for name, values in table.to_pydict().items()}


def new_queries(path, *, n=200, slices=("code", "puzzles", "maths")):
    """A queries file with the scenario's signals; some queries lack a score."""
    rng = np.random.default_rng(9)
    score = rng.normal(size=n)
    missing = rng.random(n) < 0.05
    columns = {
        "query_id": [f"n{i}" for i in range(n)],
        "difficulty_score": [None if gone else s for s, gone in zip(score.tolist(), missing, strict=True)],
        "confidence": rng.random(n).tolist(),
        "slice": [slices[i % len(slices)] for i in range(n)],
    }
    write_columns(path, columns)
    return columns


def expected_tiers(policy, columns):
    """What `policy.json` says, by the ordinary policy on the columns of the queries file."""
    score = np.array([np.nan if s is None else s for s in columns["difficulty_score"]])
    scores = ScoreTable(score=score, confidence=np.array(columns["confidence"]))
    lanes = policy.runtime_lanes()
    tier = ThresholdPolicy().assign(np.array([policy.thresholds]), scores, lanes)[0]
    for name, own in (policy.slice_thresholds or {}).items():
        rows = np.flatnonzero(np.array(columns["slice"]) == name)
        tier[rows] = ThresholdPolicy().assign(np.array([own]), scores.take(rows), lanes)[0]
    return [policy.tiers[k] for k in tier]


# --- space=confidence -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def confidence_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("confidence")
    search = ("space=confidence", "controller=mobo", "budget=25")
    done("tune", *SCENARIO, *search, "constraints.quality_floor=0.85", "out=run", cwd=folder)
    return folder


class TestConfidence:
    def test_the_policy_is_a_point_of_the_front_and_carries_its_floor_and_tier(self, confidence_run):
        policy, front = read_policy(confidence_run / "run" / "policy.json"), front_of(confidence_run / "run")
        assert policy.space == "confidence" and 0.5 <= policy.lanes.confidence_floor <= 1.0
        low_tier = policy.tiers.index(policy.lanes.low_confidence_tier)
        wanted = (*policy.thresholds, policy.lanes.confidence_floor, low_tier)
        names = ("t_1", "t_2", "confidence_floor", "low_confidence_tier")
        (row,) = np.flatnonzero((np.stack([front[name] for name in names], axis=1) == wanted).all(axis=1))
        assert front["quality"][row] == pytest.approx(policy.metrics["tune"]["policy"]["quality"])
        assert front["cost_usd"][row] == pytest.approx(policy.metrics["tune"]["policy"]["cost_usd"])

    def test_route_follows_the_policy(self, confidence_run):
        columns = new_queries(confidence_run / "new.parquet")
        done("route", "run=run", "queries=new.parquet", "output=new.csv", cwd=confidence_run)
        policy, found = read_policy(confidence_run / "run" / "policy.json"), decisions(confidence_run / "new.csv")
        assert found["query_id"] == columns["query_id"]
        assert found["tier"] == expected_tiers(policy, columns)
        low = np.array(columns["confidence"]) < policy.lanes.confidence_floor
        missing = np.array([s is None for s in columns["difficulty_score"]])
        below = [reason == "confidence below the floor" for reason in found["reason"]]
        np.testing.assert_array_equal(below, low & ~missing)
        assert {found["tier"][i] for i in np.flatnonzero(missing)} == {policy.lanes.fallback_tier}

    def test_another_point_of_the_front_brings_its_own_floor(self, confidence_run):
        columns = new_queries(confidence_run / "new.parquet")
        front = front_of(confidence_run / "run")
        at = ("at.quality=0.9", "output=at.csv")
        done("route", "run=run", "queries=new.parquet", *at, cwd=confidence_run)
        row = np.flatnonzero(front["quality"] >= 0.9)[0]
        policy = read_policy(confidence_run / "run" / "policy.json")
        lanes = policy.lanes.model_copy(
            update={
                "confidence_floor": front["confidence_floor"][row],
                "low_confidence_tier": policy.tiers[round(front["low_confidence_tier"][row])],
            }
        )
        moved = policy.model_copy(update={"lanes": lanes, "thresholds": [front["t_1"][row], front["t_2"][row]]})
        assert decisions(confidence_run / "at.csv")["tier"] == expected_tiers(moved, columns)

    def test_its_parameters_but_the_tier_have_a_sensitivity(self, confidence_run):
        names = [s["name"] for s in load(confidence_run / "run" / "sensitivity.json")]
        assert set(names) <= {"t_1", "t_2", "confidence_floor"} and "confidence_floor" in names


# --- space=slice_thresholds -------------------------------------------------------------------------------------------


def test_slices_of_the_scenario_get_their_own_boundaries(tmp_path):
    slices = ("space=slice_thresholds", "space.slices=[code,puzzles]")
    done("tune", "data.n_queries=600", *slices, *SOBOL, "out=run", cwd=tmp_path)
    policy = read_policy(tmp_path / "run" / "policy.json")
    assert policy.space == "slice_thresholds" and set(policy.slice_thresholds) == {"code", "puzzles"}
    columns = new_queries(tmp_path / "new.parquet")
    done("route", "run=run", "queries=new.parquet", "output=new.csv", cwd=tmp_path)
    found = decisions(tmp_path / "new.csv")
    assert found["tier"] == expected_tiers(policy, columns)
    named = [r.partition(":")[0] if r.startswith(("code:", "puzzles:")) else "maths" for r in found["reason"]]
    assert named == columns["slice"]
    write_columns(tmp_path / "plain.parquet", {k: v for k, v in columns.items() if k != "slice"})
    line = refused(tmp_path, "route", "run=run", "queries=plain.parquet", "output=plain.csv")
    assert "need a slice column" in line and "code" in line
    assert "space=policy" in refused(
        tmp_path, "route", "run=run", "queries=new.parquet", "at.quality=0.8", "output=at.csv"
    )


def test_slices_of_a_recording_survive_evaluate_and_route(tmp_path):
    """The figures that evaluate writes are those of the decisions that route writes."""
    write_recording(tmp_path, n=240)
    slices = ("space=slice_thresholds", "space.slices=[slice1]", "slices.minimum=20")
    done("tune", *RECORDED, *COLUMN, *slices, *SOBOL, "out=run", cwd=tmp_path)
    policy = read_policy(tmp_path / "run" / "policy.json")
    assert list(policy.slice_thresholds) == ["slice1"]
    done("route", "run=run", "queries=queries.parquet", "output=d.csv", cwd=tmp_path)
    done("evaluate", "run=run", *RECORDED, "output=m.json", cwd=tmp_path)
    queries, outcomes = recording_columns(n=240)
    found = decisions(tmp_path / "d.csv")
    score = np.array(outcomes["score"]).reshape(240, len(TIERS))
    tier = np.array([TIERS.index(t) for t in found["tier"]])
    assert load(tmp_path / "m.json")["policy"]["quality"] == pytest.approx(score[np.arange(240), tier].mean())
    hard, own = np.array(queries["hardness"]), np.array(queries["slice"]) == "slice1"
    cuts = np.where(own[:, None], policy.slice_thresholds["slice1"], policy.thresholds)
    np.testing.assert_array_equal(tier, (hard[:, None] >= cuts).sum(axis=1))
    models = "models={small: a, medium: b, large: c}"
    line = refused(tmp_path, "export", "run=run", "target=litellm", models, "output=c.yaml")
    assert "LiteLLM" in line
    done("export", "run=run", "target=json", "output=p.json", "force=true", cwd=tmp_path)
    assert load(tmp_path / "p.json")["slice_thresholds"] == policy.slice_thresholds


@pytest.mark.slow
@pytest.mark.verify
def test_litellm_cannot_keep_boundaries_per_slice(tmp_path):
    pytest.importorskip("litellm")
    write_recording(tmp_path, n=120)
    slices = ("space=slice_thresholds", "space.slices=[slice1]", "slices.minimum=20")
    done("tune", *RECORDED, "scorer=litellm", *slices, "controller=sobol", "budget=20", "out=run", cwd=tmp_path)
    models = "models={small: a, medium: b, large: c}"
    line = refused(tmp_path, "export", "run=run", "target=litellm", models, "output=c.yaml")
    assert "one set of boundaries" in line and "space=policy" in line
    line = refused(tmp_path, "verify", "run=run", "target=litellm", "queries=queries.parquet", models)
    assert "one set of boundaries" in line


# --- world=queue ------------------------------------------------------------------------------------------------------


def test_waits_show_in_latencies_and_nowhere_else(tmp_path):
    same = (*SCENARIO, "controller.boundaries=12", "objectives=[cost,quality,p95]", "choose=max_quality")
    done("tune", *same, "out=free", cwd=tmp_path)
    queue = ("world=queue", "world.slots={reasoning: 4}", "world.rate_per_s=1.0")
    result = done("tune", *same, *queue, "out=queue", cwd=tmp_path)
    free, loaded = front_of(tmp_path / "free"), front_of(tmp_path / "queue")
    place = {pair: i for i, pair in enumerate(zip(loaded["t_1"], loaded["t_2"], strict=True))}
    pairs = [(i, place[pair]) for i, pair in enumerate(zip(free["t_1"], free["t_2"], strict=True)) if pair in place]
    assert len(pairs) > 5
    here, there = np.array(pairs).T
    for column in ("quality", "cost_usd", "share_reasoning"):
        np.testing.assert_allclose(loaded[column][there], free[column][here])
    many = free["share_reasoning"][here] > 0.5  # half a request per second, 14 seconds each, four slots
    assert many.any()
    for column in ("latency_p95_s", "latency_mean_s"):
        longer = loaded[column][there] - free[column][here]
        assert (longer >= -1e-9).all() and (longer[many] > 1.0).all()
    assert "Poisson arrivals" in result.stdout + result.stderr
    metrics = [load(tmp_path / run / "policy.json")["metrics"]["validate"]["policy"] for run in ("free", "queue")]
    assert metrics[0]["quality"] == pytest.approx(metrics[1]["quality"])
    assert metrics[1]["latency_s"]["mean"] > metrics[0]["latency_s"]["mean"] + 1.0


def test_a_ceiling_under_load_is_met_by_sending_less_to_the_busy_tier(tmp_path):
    bounded = (*SCENARIO, "controller.boundaries=12", "constraints.mean_latency_ceiling_s=14", "choose=max_quality")
    shares = []
    for world in ((), ("world=queue", "world.slots={reasoning: 2}")):
        out = f"out=run{len(world)}"
        done("tune", *bounded, *world, out, cwd=tmp_path)
        found = load(tmp_path / f"run{len(world)}" / "policy.json")["metrics"]["tune"]["policy"]
        shares.append(found["tier_shares"]["reasoning"])
        assert found["latency_s"]["mean"] <= 14
    assert shares[1] < shares[0]


# --- one line where it cannot work ------------------------------------------------------------------------------------

REFUSED = {
    "a scorer without confidence": (
        (*RECORDED, *COLUMN, "space=confidence", *SOBOL),
        ["space=confidence needs a scorer that states its confidence"],
    ),
    "a floor upside down": ((*SCENARIO, "space=confidence", "space.confidence_floor=[0.9,0.1]", *SOBOL), ["floor"]),
    "a floor above one": ((*SCENARIO, "space=confidence", "space.confidence_floor=[0.5,1.5]", *SOBOL), ["1.5"]),
    "enumeration of a large space": (
        (*SCENARIO, "space=confidence", "controller=exact"),
        ["space=confidence", "controller=mobo"],
    ),
    "enumeration of slices": (
        (*SCENARIO, "space=slice_thresholds", "space.slices=[maths]", "controller=exact"),
        ["space=slice_thresholds", "controller=mobo"],
    ),
    "a slice that is not there": (
        (*SCENARIO, "space=slice_thresholds", "space.slices=[nowhere]", *SOBOL),
        ["'nowhere'", "no query", "code", "puzzles"],
    ),
    "no slices": ((*SCENARIO, "space=slice_thresholds", *SOBOL), ["space.slices", "code", "puzzles"]),
    "a utility in a space of thresholds": (
        (*SCENARIO, "space=confidence", "policy=utility", *SOBOL),
        ["policy=thresholds", "space=policy"],
    ),
    "weights of another score": ((*RECORDED, "scorer=text", "space=litellm", *SOBOL), ["scorer=litellm"]),
    "a queue without slots": ((*SCENARIO, "world=queue", *SOBOL), ["world.slots"]),
    "a queue of an unknown tier": (
        (*SCENARIO, "world=queue", "world.slots={nobody: 4}", *SOBOL),
        ["world.slots", "nobody", "reasoning"],
    ),
    "a tier without slots": ((*SCENARIO, "world=queue", "world.slots={reasoning: 0}", *SOBOL), ["world.slots"]),
    "no arrivals": (
        (*SCENARIO, "world=queue", "world.slots={reasoning: 4}", "world.rate_per_s=0", *SOBOL),
        ["world.rate_per_s"],
    ),
    "axes upside down": ((*SCENARIO, "axes.bounds={cost_usd: [0.001, 0.01]}", *SOBOL), ["axes.bounds", "less better"]),
    "axes without a number": ((*SCENARIO, "axes.bounds={cost_usd: [.nan, 0.01]}", *SOBOL), ["axes.bounds"]),
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recording")
    write_recording(folder, n=60)
    return folder


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.slow
def test_what_cannot_work_is_one_line(case, recording):
    args, fragments = REFUSED[case]
    line = refused(recording, "tune", *args, "out=run")
    assert all(fragment in line for fragment in fragments), line


def test_a_recording_without_slices_or_latencies_says_so(tmp_path):
    queries, outcomes = recording_columns(n=60, latency=False)
    write_columns(tmp_path / "queries.parquet", {k: v for k, v in queries.items() if k != "slice"})
    write_columns(tmp_path / "outcomes.parquet", outcomes)
    start = ("tune", *RECORDED, *COLUMN, *SOBOL, "out=run")
    assert "slice column" in refused(tmp_path, *start, "space=slice_thresholds", "space.slices=[slice1]")
    assert "latency_s" in refused(tmp_path, *start, "world=queue", "world.slots={large: 2}")


def test_the_scenario_states_the_slices_of_its_queries():
    spec = parse_scenario(yaml.safe_load((CONF / "scenario" / "hybrid_api.yaml").read_text(encoding="utf-8")))
    table = sample_scenario(spec, n_queries=50, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(table.queries.slice, np.array(table.slices)[table.slice_code])
