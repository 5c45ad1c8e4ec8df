"""`choose=certified`: a path fixed on the tune split, a walk that stops at the first failure, bad input in one line."""

import json

import numpy as np
import pytest
import yaml
from helpers import json_lines, run_cli, write_recording
from hypothesis import given
from hypothesis import strategies as st

from experiments import tune_output
from experiments.choice import check_certifiable
from experiments.loading import load_data
from experiments.pipeline import prepare
from experiments.settings import TuneSettings, parse_settings
from simulators.errors import ConfigError, InfeasibleError
from toolkit.certify.choice import choose_certified, safe_path
from toolkit.certify.criteria import ConstraintTest, Judge
from toolkit.certify.intervals import Interval
from toolkit.evaluation.constraints import parse_constraints, slack_matrix
from toolkit.evaluation.slices import coverage
from toolkit.pareto.choose import choose
from toolkit.pareto.front import non_dominated
from toolkit.problem import Evaluation

FLOOR = parse_constraints({"quality_floor": 0.8})
BOTH = parse_constraints({"quality_floor": 0.8, "p95_ceiling_s": 2.0})


def evaluation(cost, quality, p95=None, constraints=FLOOR):
    """Candidates with these figures."""
    columns = {"cost_usd": np.asarray(cost, float), "quality": np.asarray(quality, float)}
    if p95 is not None:
        columns["latency_p95_s"] = np.asarray(p95, float)
    n = len(columns["quality"])
    return Evaluation(
        params=np.arange(float(n))[:, None],
        Y=np.stack([-columns["cost_usd"], columns["quality"]], axis=1),
        slack=slack_matrix(constraints, columns, n),
        columns=columns,
        tier_shares=np.zeros((n, 2)),
    )


def random_evaluation(seed, n=80, constraints=FLOOR):
    rng = np.random.default_rng(seed)
    quality = rng.uniform(0.6, 1.0, n)
    return evaluation(1e-3 * np.exp(3 * quality + rng.normal(0, 0.5, n)), quality, rng.uniform(1, 3, n), constraints)


def shown(p, text="quality >= 0.8", note=""):
    return ConstraintTest(text=text, value=Interval(mean=0.9, low=0.8, high=1.0), p_holds=p, p_broken=1 - p, note=note)


# --- the path ---------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), points=st.integers(2, 40), both=st.booleans())
def test_the_path_runs_from_the_safest_to_the_cheapest(seed, points, both):
    constraints = BOTH if both else FLOOR
    found = random_evaluation(seed, constraints=constraints)
    path = safe_path(found, constraints, points)
    safety = (found.slack / ([1.0, 2.0] if both else [1.0])).min(axis=1)
    assert 1 <= len(path) <= points and len(set(path.tolist())) == len(path)
    assert safety[path[0]] == safety.max()
    assert (np.diff(found.columns["cost_usd"][path]) < 0).all() and (np.diff(safety[path]) < 0).all()
    for row in path:
        at_least_as_safe = safety >= safety[row]
        assert found.columns["cost_usd"][row] == found.columns["cost_usd"][at_least_as_safe].min()


@given(seed=st.integers(0, 10_000))
def test_the_path_ends_where_the_ordinary_rule_would_be(seed):
    found = random_evaluation(seed)
    front = np.flatnonzero(found.feasible)[non_dominated(found.Y[found.feasible])]
    ordinary = choose(found, front, "auto", FLOOR)
    assert ordinary.rule == "min_cost" and safe_path(found, FLOOR)[-1] == ordinary.row
    walked = choose_certified(safe_path(found, FLOOR), lambda row: [shown(0.001)], 0.05, ordinary.row)
    assert walked.row == walked.ordinary_row == ordinary.row


def test_the_path_by_hand():
    """Safety 0.2, 0.15, 0.1, 0.05, 0.0, -0.1; the third costs more than the second, so the path skips it."""
    found = evaluation([10, 5, 7, 4, 1, 0.5], [1.0, 0.95, 0.9, 0.85, 0.8, 0.7])
    assert safe_path(found, FLOOR).tolist() == [0, 1, 3, 4]
    assert safe_path(found, FLOOR, 2).tolist() == [0, 4]


def test_among_equally_cheap_the_safer_comes():
    found = evaluation([5, 1, 1, 1], [1.0, 0.8, 0.82, 0.81])
    assert safe_path(found, FLOOR)[-1] == 2


def test_ceilings_count_in_units_of_their_limit():
    """Half a second below 2 s is a quarter of the limit: safer than 0.2 of quality above the floor."""
    found = evaluation([3, 2], [1.0, 0.95], [1.5, 1.0], BOTH)
    assert safe_path(found, BOTH)[0] == 0
    found = evaluation([3, 2], [0.9, 0.95], [1.5, 1.9], BOTH)
    assert safe_path(found, BOTH).tolist() == [0, 1], "0.1 of quality against 0.05 of the limit"


def test_under_ceilings_alone_the_path_leads_to_quality():
    """The cheapest point is the safest under a budget; what is given up for safety is quality."""
    ceiling = parse_constraints({"cost_ceiling_usd": 4.0})
    found = evaluation([1.0, 2.0, 3.0, 3.9, 5.0], [0.6, 0.7, 0.8, 0.9, 0.95], constraints=ceiling)
    assert safe_path(found, ceiling, 200).tolist() == [0, 1, 2, 3]


def test_failed_evaluations_are_no_candidates():
    found = evaluation([1, 2, 3], [0.9, 0.85, np.nan])
    assert set(safe_path(found, FLOOR).tolist()) <= {0, 1}
    with pytest.raises(InfeasibleError, match="all 2 evaluations failed"):
        safe_path(evaluation([1, 2], [np.nan, np.nan]), FLOOR)


def test_where_nothing_is_feasible_the_safest_is_the_path():
    found = evaluation([1, 2, 3], [0.5, 0.7, 0.6])
    assert safe_path(found, FLOOR).tolist() == [1]


def test_without_costs_the_first_objective_orders_the_path():
    found = evaluation([3, 2, 1], [1.0, 0.9, 0.81])
    del found.columns["cost_usd"]
    assert safe_path(found, FLOOR).tolist() == [0, 1, 2]


# --- the walk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "n_tested", "chosen"),
    [
        ([0.01, 0.02, 0.03], 3, 2),
        ([0.01, 0.2, 0.001], 2, 0),
        ([0.05, 0.051, 0.0], 2, 0),
        ([0.0, 0.05, 0.06], 3, 1),
    ],
)
def test_the_walk_stops_at_the_first_failure(p, n_tested, chosen):
    asked = []

    def test(row):
        asked.append(row)
        return [shown(p[row // 10])]

    found = choose_certified(np.array([0, 10, 20]), test, 0.05, 99)
    assert asked == [10 * i for i in range(n_tested)], "nothing beyond the first failure is looked at"
    assert (found.row, found.ordinary_row, found.alpha) == (10 * chosen, 99, 0.05)
    assert [step.p for step in found.path] == p[:n_tested]
    assert [step.certified for step in found.path] == [value <= 0.05 for value in p[:n_tested]]


def test_every_constraint_must_be_shown():
    tests = {0: [shown(0.01), shown(0.02, "cost_usd <= 1")], 1: [shown(0.001), shown(0.3, "cost_usd <= 1")]}
    found = choose_certified(np.array([0, 1]), tests.__getitem__, 0.05, 1)
    assert found.row == 0 and [(s.p, s.binding) for s in found.path] == [
        (0.02, "cost_usd <= 1"),
        (0.3, "cost_usd <= 1"),
    ]


@pytest.mark.parametrize(("note", "said"), [("", "0.9 [0.8, 1] on validation"), ("no latency here", "no latency here")])
def test_where_nothing_can_be_shown_one_line_says_so(note, said):
    with pytest.raises(InfeasibleError) as caught:
        choose_certified(np.array([4, 5]), lambda row: [shown(0.4, note=note)], 0.05, 5)
    message = str(caught.value)
    assert said in message and "quality >= 0.8" in message and "p = 0.4" in message and "\n" not in message


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9])
def test_senseless_levels_are_refused(alpha):
    with pytest.raises(ConfigError, match="alpha"):
        choose_certified(np.array([0]), lambda row: [shown(0.0)], alpha, 0)


def test_the_chance_of_a_false_certificate_is_alpha_however_long_the_path():
    """p-values of false hypotheses are uniform; all thirty candidates break the constraint."""
    rng, false = np.random.default_rng(0), 0
    for _ in range(2000):
        p = rng.uniform(size=30)
        try:
            choose_certified(np.arange(30), lambda row, p=p: [shown(p[row])], 0.05, 0)
        except InfeasibleError:
            continue
        false += 1
    assert false / 2000 == pytest.approx(0.05, abs=0.015)


def test_what_can_never_be_certified_is_refused_before_the_search():
    with pytest.raises(ConfigError, match="quality_floor"):
        check_certifiable((), simulated_latency=False)
    with pytest.raises(ConfigError, match="latency_p95_s <= 2"):
        check_certifiable(BOTH, simulated_latency=True)
    check_certifiable(BOTH, simulated_latency=False)
    check_certifiable(FLOOR, simulated_latency=True)


# --- a whole tune -----------------------------------------------------------------------------------------------------

SMALL = ("tune", "data.n_queries=1600", "controller.max_evaluations=300", "choose=certified")


def tune(folder, *args):
    result = run_cli(*args, "--json", cwd=folder)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def certified_run(tmp_path_factory):
    """A run `run` whose floor is certified, its journal included."""
    folder = tmp_path_factory.mktemp("certified")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune_output, "write_report", lambda path, record: {})
        tune(folder, *SMALL, "constraints.quality_floor=0.9", "out=run")
    return folder / "run"


def test_a_certified_tune(certified_run):
    policy = json.loads((certified_run / "policy.json").read_text())
    choice, lines = policy["evidence"]["certified_choice"], list(json_lines(certified_run / "evaluations.jsonl"))
    assert policy["chosen_because"].startswith("certified: ") and "quality >= 0.9" in policy["chosen_because"]
    assert 1 <= choice["n_certified"] <= choice["n_tested"] <= choice["n_certified"] + 1
    ordinary, chosen = choice["ordinary"], choice["chosen"]
    assert chosen["tune_cost_usd"] >= ordinary["tune_cost_usd"] and chosen["tune_quality"] >= ordinary["tune_quality"]
    assert chosen["validate_quality"] == policy["metrics"]["validate"]["policy"]["quality"] > 0.9
    assert choice["ordinary_optimism"] == ordinary["tune_quality"] - ordinary["validate_quality"]
    feasible = [list(line["params"].values()) for line in lines if line["slack"]["quality_floor"] >= 0]
    assert policy["thresholds"] in feasible


def test_the_validation_split_shows_what_was_certified(certified_run):
    """Split, scores and test again, from the config alone: the chosen point passes, the next cheaper ones do not."""
    policy = json.loads((certified_run / "policy.json").read_text())
    settings = parse_settings(TuneSettings, yaml.safe_load((certified_run / "config.yaml").read_text()))
    (constraint,) = parse_constraints(settings.constraints)
    prepared = prepare(settings, load_data(settings.data, settings.scenario, 0).table, (constraint,))
    judge = Judge(prepared.validate, coverage(prepared.validate, settings.slices.minimum))

    def p_of(thresholds):
        return judge.test(constraint, prepared.decide(np.array(thresholds))).p_holds

    assert p_of(policy["thresholds"]) <= 0.05
    columns = [line["objectives"] | line["params"] for line in json_lines(certified_run / "evaluations.jsonl")]
    found = evaluation([c["cost_usd"] for c in columns], [c["quality"] for c in columns], constraints=(constraint,))
    walk = safe_path(found, (constraint,))
    tested = [p_of([columns[row]["t_1"], columns[row]["t_2"]]) for row in walk]
    last = int(np.argmax(np.array(tested) > 0.05)) - 1
    assert [columns[walk[last]]["t_1"], columns[walk[last]]["t_2"]] == policy["thresholds"]


@pytest.mark.slow
def test_recorded_data_and_two_constraints(tmp_path, monkeypatch):
    monkeypatch.setattr(tune_output, "write_report", lambda path, record: {})
    write_recording(tmp_path, ".csv", n=900)
    data = ("data=recorded", "data.queries=queries.csv", "data.outcomes=outcomes.csv", "scorer=column")
    bounds = ("constraints.slice_floor=0.7", "constraints.p95_ceiling_s=8")
    options = ("scorer.column=hardness", "controller.max_evaluations=300", "choose=certified", *bounds)
    tune(tmp_path, "tune", *data, *options, "out=run")
    policy = json.loads((tmp_path / "run" / "policy.json").read_text())
    assert policy["constraints"] == {"slice_floor": 0.7, "p95_ceiling_s": 8.0}
    figures = policy["metrics"]["validate"]["policy"]
    assert figures["latency_s"]["p95"] < 8 and policy["evidence"]["certified_choice"]["n_certified"] >= 1


BAD = {
    "no constraint": ([], ["choose=certified", "constraints.quality_floor"]),
    "latency under load": (
        ["constraints.p95_ceiling_s=40", "world=queue", "world.slots={reasoning: 4}", "world.rate_per_s=1.0"],
        ["choose=certified", "latency_p95_s <= 40", "world=none"],
    ),
    "alpha": (["constraints.quality_floor=0.9", "alpha=0.6"], ["alpha", "0.6"]),
    "alpha zero": (["constraints.quality_floor=0.9", "alpha=0"], ["alpha"]),
    "out of reach": (["constraints.quality_floor=0.99"], ["quality_floor=0.99 binds"]),
    "in reach, but not shown": (["constraints.quality_floor=0.93"], ["choose=certified", "quality >= 0.93", "p = "]),
}  # fmt: skip


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow if "alpha" in c else ()) for c in BAD])
def test_bad_input_is_one_line_and_leaves_nothing(case, tmp_path):
    options, fragments = BAD[case]
    result = run_cli(*SMALL, *options, "out=run", cwd=tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and all(f in line for f in fragments), line
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_quality_can_be_certified_where_latency_is_simulated(tmp_path, monkeypatch):
    monkeypatch.setattr(tune_output, "write_report", lambda path, record: {})
    load = ("world=queue", "world.slots={reasoning: 4}", "world.rate_per_s=1.0", "controller.boundaries=8")
    tune(tmp_path, *SMALL, *load, "constraints.quality_floor=0.85", "out=run")
    policy = json.loads((tmp_path / "run" / "policy.json").read_text())
    assert policy["evidence"]["certified_choice"]["n_certified"] >= 1
