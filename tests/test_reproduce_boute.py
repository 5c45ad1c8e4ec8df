"""`routefront reproduce paper=boute`: thresholds, exact choices, targets, tables, the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import run_cli, write_columns
from hypothesis import given
from hypothesis import strategies as st

from experiments.reproduce_boute import Cell, searchers_of, waves
from experiments.reproduce_boute_choice import Options, alone, cheapest, fastest, options_of
from experiments.reproduce_boute_data import (
    TIERS,
    Databases,
    Halves,
    make_routing,
    saturation_per_s,
    sum_steps,
)
from experiments.reproduce_boute_note import END, START, filled, read_summary
from experiments.reproduce_boute_paper import LEVELS, SAVINGS, TARGETS, share_of_gap, target_of
from experiments.reproduce_boute_settings import BouteReproduceSettings
from experiments.reproduce_boute_summary import orders, savings, searcher_row
from simulators.errors import InputDataError
from simulators.outcomes import OutcomeTable, QueryBatch
from toolkit.scorers.base import ScoreTable

CONF = Path(__file__).resolve().parent.parent / "conf"
QUICK = (
    *("seeds=1", "workers=1", "fractions=9", "fleet.gpus=types_2_small", "fleet.count=12", "fleet.most=12"),
    *("fleet.requests=200", "fleet.horizon_s=20", "search.types=[3]", "search.budget=12", "search.control_budget=12"),
    *("search.n_queries=300", "search.boundaries=7", "search.only=[boute,random,boute_homogeneous]"),
    *("search.small=types_2_small",),
)


def raw_settings(**changes: object) -> BouteReproduceSettings:
    raw = yaml.safe_load((CONF / "paper" / "boute.yaml").read_text())
    return BouteReproduceSettings.model_validate(raw | changes)


def make_table(quality: np.ndarray) -> OutcomeTable:
    n, k = quality.shape
    nan = np.full((n, k), np.nan)
    return OutcomeTable(
        queries=QueryBatch(query_id=np.array([f"q{i}" for i in range(n)]), prompt=None, signals={}),
        tiers=TIERS,
        slices=("gsm",),
        slice_code=np.zeros(n, dtype=np.int64),
        quality=quality,
        cost_usd=nan,
        latency_s=nan,
        ttft_s=nan,
        input_tokens=np.full((n, k), 100.0),
        output_tokens=np.full((n, k), 50.0),
        error=np.zeros((n, k), dtype=bool),
    )


def make_halves(score: np.ndarray, quality: np.ndarray) -> Halves:
    table, scores = make_table(quality), ScoreTable(score=score)
    return Halves(tune=table, held_out=table, tune_scores=scores, held_out_scores=scores)


class TestRouting:
    @given(st.lists(st.integers(0, 6), min_size=2, max_size=40), st.integers(2, 12))
    def test_thresholds_do_what_the_fractions_say(self, score, fractions):
        """Also where scores are equal: the share and the quality are those of the assignment."""
        rng = np.random.default_rng(0)
        quality = rng.integers(0, 2, (len(score), 2)).astype(float)
        routing = make_routing(make_halves(np.array(score, dtype=float), quality), fractions)
        assert routing.fraction[0] == 0.0 and routing.fraction[-1] == 1.0
        assert (np.diff(routing.fraction) > 0).all()
        for f in range(len(routing.fraction)):
            tier = routing.tune_tier(f)
            assert np.mean(tier == 0) == pytest.approx(routing.fraction[f])
            assert quality[np.arange(len(tier)), tier].mean() == pytest.approx(routing.tune_quality[f])

    def test_floors_lie_between_the_models(self):
        quality = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
        routing = make_routing(make_halves(np.array([3.0, 0.0, 1.0, 2.0]), quality), 5)
        assert routing.floor(0.0) == 0.5 and routing.floor(1.0) == 1.0
        np.testing.assert_allclose(routing.fraction[routing.allowed(1.0)], [0.0, 0.25, 0.5])
        assert len(routing.allowed(0.0)) == 5


class TestTargets:
    def test_floors_are_shares_of_the_papers_gap(self):
        assert share_of_gap(84.5) == 0.0 and share_of_gap(95.1) == 1.0
        assert [round(level.share_of_gap, 3) for level in LEVELS] == [0.236, 0.425, 0.613]

    def test_a_target_lies_between_idle_and_the_paper_share_of_what_load_adds(self):
        strict, loose = (target_of(t, "gsm", 8.0, 40.0) for t in TARGETS)
        assert strict == pytest.approx(8.0 + 8.0 / 25.6 * 32.0) and loose == pytest.approx(8.0 + 12.0 / 25.6 * 32.0)
        assert target_of(TARGETS[0], "gsm", 8.0, 8.0) == 8.0

    def test_savings_of_the_paper_follow_from_its_table(self):
        """So the table is copied right: means over the four rows."""
        rows = np.array([costs for target in TARGETS for costs in target.usd_per_hour.values()])
        saved = 1.0 - rows[:, 4:] / rows[:, :4]
        assert saved[:, :2].mean() == pytest.approx(SAVINGS["stand_alone"], abs=0.01)
        assert saved[:, 2].mean() == pytest.approx(SAVINGS["routed_uniform"], abs=0.001)
        assert saved[:, 3].mean() == pytest.approx(SAVINGS["boute_homogeneous"], abs=0.001)

    def test_steps_of_one_request_alone(self):
        by_hand = sum(0.03 + 1e-5 * (100 + 1 + i) for i in range(9))
        assert sum_steps(0.03, 1e-5, 100.0, 10.0) == pytest.approx(by_hand)


class FakeDatabase:
    """Latency of the large model's share on GPUs: load over GPUs, per model; infinite without GPUs."""

    def latency_s(self, q, fractions, choice):
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.where(fractions > 0, fractions * np.array([1.0, 4.0]) / choice, 0.0)
        return each.max(axis=1)


class TestChoices:
    fraction = np.linspace(0.0, 1.0, 11)

    def options(self) -> Options:
        choices = np.array([[a, b] for a in range(6) for b in range(6) if a + b])
        usd = choices @ np.array([1.0, 2.5])
        order = np.argsort(usd, kind="stable")
        return Options(database=FakeDatabase(), choices=choices[order], usd_per_hour=usd[order])  # type: ignore[arg-type]

    @pytest.mark.parametrize("target_s", [0.2, 0.5, 1.0, 2.0])
    @pytest.mark.parametrize("most", [0, 4, 10])
    def test_the_cheapest_is_that_of_every_pair_tried(self, target_s, most, monkeypatch):
        monkeypatch.setattr("experiments.reproduce_boute_choice._BLOCK", 4)
        options, allowed = self.options(), np.arange(most + 1)
        best = math.inf
        for choice, usd in zip(options.choices, options.usd_per_hour, strict=True):
            for f in self.fraction[allowed]:
                latency = FakeDatabase().latency_s(0.95, np.array([[f, 1.0 - f]]), choice[None, :])[0]
                best = min(best, usd if latency <= target_s else math.inf)
        found = cheapest(options, allowed, self.fraction, target_s)
        assert (found is None) == math.isinf(best)
        if found is not None:
            assert found.usd_per_hour == best and found.p95_s <= target_s and found.f <= most

    def test_the_fastest_stays_in_the_budget_and_more_money_is_never_slower(self):
        budgets = (2.5, 5.0, 10.0, 17.5)
        found = [fastest(self.options(), np.arange(11), self.fraction, usd) for usd in budgets]
        assert all(one is not None and one.usd_per_hour <= usd for one, usd in zip(found, budgets, strict=True))
        times = [one.p95_s for one in found if one is not None]
        assert times == sorted(times, reverse=True)
        assert fastest(self.options(), np.arange(11), self.fraction, 0.5) is None

    def test_a_method_without_a_router_uses_one_end(self):
        options = Options(
            database=FakeDatabase(),
            choices=np.array([[0, 1]]),
            usd_per_hour=np.ones(1),
            routed=False,
            only=1,  # type: ignore[arg-type]
        )
        np.testing.assert_array_equal(options.fractions(np.arange(11), self.fraction), [0])
        assert cheapest(options, np.array([10]), self.fraction, 100.0) is None


def deploy_cell(**usd: float) -> dict:
    methods = ("large_homogeneous", "large", "routed_uniform", "boute_homogeneous", "boute")
    cost = {
        m: {w: {"usd_per_hour": usd.get(m), "tried_usd_per_hour": None} for w in ("true", "wrong")} for m in methods
    }
    return {"routers": {"text": {"table_3": [{"methods": cost}]}}}


class TestSummary:
    def test_savings_are_per_seed_and_gaps_are_counted(self):
        whole = deploy_cell(large_homogeneous=40.0, large=40.0, routed_uniform=20.0, boute_homogeneous=12.5, boute=10.0)
        gap = deploy_cell(large=40.0, routed_uniform=20.0, boute_homogeneous=10.0, boute=10.0)
        found = savings({"gsm": [whole, gap]}, ["text"])["text"]
        assert found["true usd_per_hour"]["stand_alone"]["mean"] == pytest.approx(0.75)
        assert found["true usd_per_hour"]["boute_homogeneous"]["mean"] == pytest.approx(0.1)
        assert found["true usd_per_hour"]["missing"]["mean"] == pytest.approx(0.5)
        assert math.isnan(found["true tried_usd_per_hour"]["stand_alone"]["mean"])

    def test_orders_need_both_figures_in_order(self):
        names = ("small_alone", "boute", "boute_homogeneous", "large_alone", "routed_uniform")
        rows = [{"motivating": {n: {"p95_s": float(i)} for i, n in enumerate(names)}} for _ in range(2)]
        rows[1]["motivating"]["boute"] = {"p95_s": 2.5}
        found = orders(rows)
        assert found["boute < boute_homogeneous"] == 0.5 and found["small_alone < boute"] == 1.0

    def test_a_searcher_is_measured_against_the_front(self):
        cell = {
            "Z": [[0.2, 0.2], [None, None], [1.0, 1.0]],
            "feasible": [True, False, True],
            "seconds": [1.0, 2.0, 4.0],
            "stopped_at": None,
        }
        row = searcher_row(cell, np.zeros(2), 1.0, np.ones(3))
        assert row["evaluations"] == row["evaluations_share"] == 3 and row["seconds_share"] == 4.0
        np.testing.assert_allclose(row["efficiency"], [0.04, 0.04, 1.0])
        assert row["infeasible"] == pytest.approx(1 / 3)


class TestPlan:
    def test_references_come_before_searches_and_ablations_run_where_they_should(self):
        settings = raw_settings(seeds=2)
        deploy, references, searches = waves(settings)
        assert [c.part for c in deploy[0]] == ["deploy", "control"] and len(deploy) == 5
        assert [(c.part, c.seed) for c in deploy[-1]] == [("small", 0), ("small", 1)]  # one process, one enumeration
        assert [c.of for group in references for c in group] == ["3", "4", "5", "6"]
        assert len(searches) == 8 and "boute_no_exclusion" not in searchers_of(settings, 4)
        paths = {c.path(Path("x")) for wave in (deploy, references, searches) for group in wave for c in group}
        assert len(paths) == sum(len(group) for wave in (deploy, references, searches) for group in wave)
        assert Cell(part="search", of="3", searcher="tpe", seed=1).path(Path("x")) == Path(
            "x/cells/search/3/tpe/1.json"
        )

    def test_the_note_has_one_place_for_its_tables(self):
        note = (CONF.parent / "papers" / "Boute2026" / "README.md").read_text()
        assert note.count(START) == note.count(END) == 1
        with pytest.raises(InputDataError, match="expected one line"):
            filled("no marks", {})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Answers of both models to 60 queries of each slice; long prompts are hard for the small one."""
    folder = tmp_path_factory.mktemp("boute")
    rng = np.random.default_rng(3)
    n = 60
    slices = ["gsm"] * n + ["crux"] * n
    ids = [f"{s}-{i}" for i, s in enumerate(slices)]
    hard = rng.random(2 * n)
    queries = {
        "slice": slices,
        "query_id": ids,
        "prompt": [f"{'very ' * int(9 * h)}hard {i}" for i, h in enumerate(hard)],
    }
    rows: dict[str, list] = {k: [] for k in ("slice", "query_id", "model", "score", "input_tokens", "output_tokens")}
    for m, tier in enumerate(TIERS):
        for s, i, h in zip(slices, ids, hard, strict=True):
            right = rng.random() < (0.95 - 0.4 * h * (1 - m))
            for key, value in zip(rows, (s, i, tier, float(right), 130.0, float(rng.integers(80, 260))), strict=True):
                rows[key].append(value)
    write_columns(folder / "zeroeval_queries.parquet", queries)
    write_columns(folder / "zeroeval_outcomes.parquet", rows)
    return folder


class TestCommand:
    @pytest.mark.slow
    def test_it_runs_and_goes_on_where_it_stopped(self, data, tmp_path):
        options = ("reproduce", "paper=boute", f"data_dir={data}", "output=out", *QUICK)
        code, out, err = run_cli(*options, "--json", cwd=tmp_path)
        assert code == 0, err
        found = json.loads(out)
        for name in ("gsm", "crux"):
            methods = found["workloads"][name]["routers"]["text"]["table_3"][0]["methods"]
            homogeneous, every = (methods[m]["true"]["usd_per_hour"]["mean"] for m in ("boute_homogeneous", "boute"))
            assert every is not None and (homogeneous is None or every <= homogeneous + 1e-9)
        searchers = found["search"]["3"]["searchers"]
        assert set(searchers) == {"boute", "random", "boute_homogeneous"}
        small = found["small"]
        assert small["p95_s"] <= small["candidates_p95_s"] and small["deployments"] > small["candidate_deployments"] > 0
        text = (tmp_path / "out" / "summary.md").read_text()
        for title in ("Motivating example", "Table 1", "Table 2", "Table 3", "What BOute saves", "by the controller"):
            assert title in text
        for name in ("costs.png", "search.png"):
            assert (tmp_path / "out" / name).stat().st_size > 5_000
        note = filled(f"head\n{START}\nold\n{END}\ntail\n", read_summary(tmp_path / "out" / "summary.json"))
        assert note.startswith("head\n") and note.endswith("tail\n") and "old" not in note and text.strip() in note
        cells = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").rglob("*.json")}
        lost = tmp_path / "out" / "cells" / "search" / "3" / "random" / "0.json"
        lost.unlink()
        code, again, err = run_cli(*options, "--json", cwd=tmp_path)
        assert code == 0, err
        assert {p for p, at in cells.items() if p.stat().st_mtime_ns != at} == {lost}
        assert json.loads(again)["savings"] == found["savings"]
        code, out, err = run_cli(*options, "fleet.used=0.7", cwd=tmp_path)
        assert code == 2 and "other options" in err

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("output=out",), "data_dir is not set"),
            (("data_dir=DATA",), "output is not set"),
            (("data_dir=.", "output=out"), "holds no zeroeval_queries.parquet"),
            (("data_dir=DATA", "output=out", "search.only=[magic]"), "search.only=['magic'] are no searchers"),
            (("data_dir=DATA", "output=out", "fleet.homogeneous=tpu"), "fleet.homogeneous=tpu is not one of"),
            (("data_dir=DATA", "output=DATA"), "is no reproduction"),
            (("data_dir=DATA", "output=out", "fleet.coun=3"), "did you mean fleet.count"),
        ],
    )
    def test_bad_input_is_one_line(self, options, said, data, tmp_path):
        words = [word.replace("DATA", str(data)) for word in options]
        code, out, err = run_cli("reproduce", "paper=boute", *words, cwd=tmp_path)
        assert code == 2 and out == ""
        assert err.count("\n") == 1 and said in err, err


@pytest.mark.slow
def test_recorded_data(data_dir, tmp_path):
    """The load is what the rule says, and co-optimisation never costs more than its special cases."""
    from experiments.reproduce_boute_data import make_databases, read_workload

    settings = raw_settings(data_dir=str(data_dir))
    workload = read_workload(settings, "gsm")
    assert workload.table.n_queries == 604
    np.testing.assert_allclose(workload.table.quality.mean(axis=0), [0.846, 0.934], atol=5e-4)
    saturation = saturation_per_s(workload.fleet, settings.fleet, workload.table)
    assert workload.fleet.rate_per_s == pytest.approx(0.8 * saturation) and saturation < 100
    small = settings.model_copy(
        update={"fleet": settings.fleet.model_copy(update={"requests": 200, "most": 40, "horizon_s": 30.0})}
    )
    fleet = workload.fleet.model_copy(update={"horizon_s": 30.0})
    databases: Databases = make_databases(small, fleet, workload.table, 0)
    fraction, allowed = np.linspace(0.0, 1.0, 11), np.arange(6)
    costs = {
        m: cheapest(options_of(databases, m), allowed, fraction, 20.0) for m in ("large", "boute_homogeneous", "boute")
    }
    every = costs["boute"]
    assert every is not None
    for other in costs.values():
        assert other is None or every.usd_per_hour <= other.usd_per_hour + 1e-9
    assert len(alone(databases.homogeneous, 1).choices) > 0
