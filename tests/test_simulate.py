"""`routefront simulate`: who routes, what becomes of requests as figures, the JSON's contract, the page, bad input.

The fast tests replace the kernels by a world in which nobody waits; the slow ones run the real ones.
"""

import dataclasses
import json
import re

import numpy as np
import pytest
import yaml
from helpers import run_cli
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments.files import jsonable
from experiments.hydra_app import for_hydra
from experiments.settings import parse_settings
from experiments.simulate import run_simulate
from experiments.simulate_figures import (
    CHOSEN,
    FELL_BACK,
    Ledger,
    Series,
    counted_requests,
    ends_of,
    repeated_share,
    series_of,
    station_count,
    station_figures,
)
from experiments.simulate_policy import SharesRouter, in_order
from experiments.simulate_settings import SimulateSettings
from experiments.simulate_show import show_simulate
from experiments.simulate_timeline import window_s
from simulators.errors import ConfigError, RoutefrontError
from simulators.journeys import Journeys
from simulators.scenario import parse_scenario, sample_scenario
from simulators.world import ERROR, SERVED, TIMEOUT, Station, TierRule, World
from toolkit.certify.zero_load import ZeroUnderLoad
from toolkit.report.simulation import nearest_one
from toolkit.report.simulation_html import draw_simulation, render_simulation

TIERS = ("fast", "standard", "reasoning")
TRAFFIC = (
    "scenario.traffic.duration_s=600",
    "scenario.traffic.warmup_s=60",
    "scenario.traffic.arrivals.rate_per_s=2",
    "scenario.traffic.arrivals.cv=1",
    "scenario.traffic.stations.fast.slots=40",
    "scenario.traffic.stations.reasoning.slots=6",
    "+scenario.traffic.stations.reasoning.slot_usd_per_hour=0.5",
    "+scenario.traffic.tiers={fast: {timeout_s: 30}}",
    "+scenario.traffic.outages=[{stations: [fast], start_s: 200, end_s: 260}]",
)
SMALL = (*TRAFFIC, "n_queries=500", "slo_s=5", "output=out.json")
SHARES = "shares=[0.6,0.3,0.1]"


@pytest.fixture(scope="module")
def raw():
    """The composed options, plain."""
    with initialize_config_module("conf", version_base="1.3"):
        return OmegaConf.to_container(compose(config_name="simulate", overrides=[*SMALL, SHARES]), resolve=True)


def make_world(n: int = 6, *, slots: int | None = 2, **options: object) -> World:
    """`n` requests to rows 0, 1, ... one second apart; three tiers with stations of their own."""
    at = np.arange(n, dtype=np.float64)
    return World(
        arrival_s=at,
        ready_s=at,
        row=np.arange(n, dtype=np.int64),
        router_down=np.zeros(n, dtype=np.bool_),
        stations=tuple(Station(name=name, slots=slots, usd_per_hour=1.0) for name in TIERS),
        rules=tuple(TierRule(station=k) for k in range(3)),
        duration_s=float(n),
        **options,
    )


def undisturbed(world, table, tier, *, per_request=False) -> Journeys:
    """Nobody waits; every tenth request fails at its first attempt, every twentieth falls back to the last tier."""
    sent = (tier if per_request else tier[:, world.row]).astype(np.int8)
    n, r = sent.shape
    served, reason = sent.copy(), np.zeros((n, r), dtype=np.int8)
    served[:, ::20] = table.n_tiers - 1
    served[:, 5::10], reason[:, 5::10] = -1, TIMEOUT
    at = (np.arange(n)[:, None], world.row, np.maximum(served, 0))
    outcomes = np.zeros((n, len(world.stations), 7), dtype=np.int64)
    outcomes[:, 0, SERVED], outcomes[:, 0, TIMEOUT] = 90, 10
    return Journeys(
        e2e_s=table.latency_s[at[1:]],
        ttft_s=np.where(served < 0, np.nan, table.ttft_s[at[1:]]),
        served=served,
        cost_usd=table.cost_usd[at[1:]],
        attempts=np.where(served != sent, 2, 1).astype(np.int16),
        reason=reason,
        tier=sent,
        busy_s=np.full((n, len(world.stations)), 3.0 * world.load * world.duration_s),
        outcomes=outcomes,
        longest_line=np.full((n, len(world.stations)), 4),
        checked=np.ones((n, r), dtype=np.bool_),
    )


@pytest.fixture
def no_kernel(monkeypatch):
    monkeypatch.setattr("simulators.simulate.simulate", undisturbed)


@pytest.fixture(scope="module")
def table(raw):
    return sample_scenario(parse_scenario(raw["scenario"]), n_queries=1_000, rng=np.random.default_rng(0))


def test_shares_are_kept_and_the_harder_go_to_the_dearer(table):
    tier = SharesRouter(shares=(0.6, 0.0, 0.4)).assign(table)
    assert np.bincount(tier, minlength=3).tolist() == [600, 0, 400]
    score = table.queries.signals["difficulty_score"]
    assert score[tier == 0].max() <= score[tier == 2].min()
    with pytest.raises(ConfigError, match="expected 3 values"):
        SharesRouter(shares=(0.5, 0.5)).tiers(TIERS, "s")


def test_tiers_keep_their_order_from_draw_to_draw(table):
    order = ("reasoning", "fast", "standard")
    turned = in_order(table, order)
    assert turned.tiers == order and (turned.quality[:, 1] == table.quality[:, table.tiers.index("fast")]).all()
    assert in_order(table, table.tiers) is table


def test_a_failed_request_is_worth_nothing_and_has_no_latency(table):
    world = make_world(6, warmup_s=1.0)
    shape = (1, 6)
    journeys = Journeys(
        e2e_s=np.arange(6.0)[None],
        ttft_s=np.array([[0, 1, 2, np.nan, 4, 5.0]]) / 10,
        served=np.array([[0, 0, 1, -1, 2, -1]], dtype=np.int8),
        cost_usd=np.full(shape, 0.5),
        attempts=np.array([[1, 1, 3, 4, 1, 0]], dtype=np.int16),
        reason=np.array([[0, 0, 0, ERROR, 0, 6]], dtype=np.int8),
        tier=np.array([[0, 0, 0, 0, 2, -1]], dtype=np.int8),
        busy_s=np.array([[6.0, 12.0, 24.0]]),
        outcomes=np.zeros((1, 3, 7), dtype=np.int64),
        longest_line=np.array([[0, 3, 9]]),
        checked=np.ones(shape, dtype=np.bool_),
    )
    requests = counted_requests(table, world, journeys)
    assert len(requests) == 5 and requests.answered.tolist() == [True, True, False, True, False]
    assert requests.retries.tolist() == [0, 2, 3, 0, 0]
    assert requests.quality[2] == requests.quality[4] == 0.0 and requests.quality[1] == table.quality[2, 1]
    found = {name: s.value() for name, s in series_of(requests, slo_s=2.0, capacity_usd=0.25).items()}
    assert found["quality"] == pytest.approx((table.quality[1, 0] + table.quality[2, 1] + table.quality[4, 2]) / 5)
    assert found["cost_usd"] == 0.75 and found["latency_s.p50"] == 2.0 and found["ttft_s.mean"] == pytest.approx(7 / 30)
    assert (found["slo_share"], found["error_share"], found["fallback_share"], found["retries"]) == (0.4, 0.4, 0.2, 1.0)
    ends = ends_of(requests)
    assert ends[CHOSEN] == 0.4 and ends[FELL_BACK] == ends["failed: error"] == ends["failed: router"] == 0.2
    assert sum(ends.values()) == pytest.approx(1.0)
    fast, standard, reasoning = station_figures(world, [station_count(world, journeys)] * 3)
    assert [s.utilisation.value for s in (fast, standard, reasoning)] == [0.5, 1.0, 2.0]
    assert reasoning.longest_line == 9 and reasoning.endless
    patient = dataclasses.replace(world, rules=tuple(TierRule(station=k, timeout_s=9.0) for k in range(3)))
    assert not station_figures(patient, [station_count(world, journeys)])[2].endless


def test_a_second_stage_is_no_retry(table):
    rules = (TierRule(station=0, second=1), TierRule(station=1), TierRule(station=2))
    world = dataclasses.replace(make_world(6), rules=rules)
    tier = np.zeros((1, table.n_queries), dtype=np.int8)
    journeys = dataclasses.replace(undisturbed(world, table, tier), attempts=np.full((1, 6), 2, dtype=np.int16))
    requests = counted_requests(table, world, journeys)
    assert requests.retries[(requests.served == 0)].tolist() == [0, 0, 0, 0]


def test_replications_give_student_intervals_and_one_gives_batches():
    rng = np.random.default_rng(0)
    several, one = Ledger(replications=5), Ledger(replications=1)
    for _ in range(5):
        several.add(("all", "all"), 10, {"quality": Series(values=rng.uniform(size=10), bounds=(0.0, 1.0))})
    found = several.group(("all", "all"))
    assert found.n == 50 and found.figures["quality"].n == 5
    values = rng.uniform(size=4_000)
    one.add(("all", "all"), 4_000, {"cost_usd": Series(values=values, plus=1.0)})
    cost = one.group(("all", "all")).figures["cost_usd"]
    assert cost.n == 40 and cost.low < 1.5 < cost.high and cost.value == pytest.approx(values.mean() + 1.0)
    one.add(("all", "all"), 4_000, {"cost_usd": Series(values=values)}, repeated=0.5)
    assert "again and again" in one.group(("all", "all")).figures["cost_usd"].note


def test_requests_that_ask_known_queries_are_noticed():
    world = dataclasses.replace(make_world(6), row=np.array([0, 1, 2, 0, 1, 2]))
    assert repeated_share(world) == 0.5 and repeated_share(make_world(6)) == 0.0


def test_small_helpers():
    assert for_hydra("simulate", ["load=0.5,1", "load=[1,2]", "load=2", "policy=a.json"]) == [
        "load=[0.5,1]",
        "load=[1,2]",
        "load=2",
        "policy_file=a.json",
    ]
    assert for_hydra("tune", ["load=0.5,1", "policy=utility"]) == ["load=0.5,1", "policy=utility"]
    assert nearest_one([0.25, 0.5, 3.0]) == 1 and nearest_one([0.5, 2.0]) == 0
    assert window_s(3600.0) == 30.0 and window_s(86_400.0) == 600.0 and window_s(20.0) == 1.0


@pytest.fixture(scope="module")
def simulated(raw, tmp_path_factory):
    """A whole command at three loads, with everything it wrote."""
    folder = tmp_path_factory.mktemp("simulated")
    options = {**raw, "load": [4, 0.5, 1], "replications": 3, "output": str(folder / "out.json")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simulators.simulate.simulate", undisturbed)
        result = run_simulate(parse_settings(SimulateSettings, options), quiet=True)
    return folder, result


def test_the_json_keeps_the_contract(simulated):
    folder, result = simulated
    found = json.loads((folder / "out.json").read_text())
    assert jsonable({name: result[name] for name in found}) == found
    assert found["load"] == 1 and [one["load"] for one in found["loads"]] == [0.5, 1.0, 4.0]
    assert set(found["policy"]["latency_s"]) == {"mean", "p50", "p95", "p99"} and found["dropped"] == 0
    assert found["policy"]["tier_shares"] == pytest.approx({"fast": 0.6, "standard": 0.3, "reasoning": 0.1})
    assert set(found["tiers"]) == set(TIERS) and set(found["tiers"]["fast"]["latency_s"]) >= {"mean", "p95"}
    assert 0 < found["zero_router_quality_at_cost"] < 1
    main = found["loads"][1]
    assert found["n"] == main["policy"]["n"] == pytest.approx(3 * main["requests"])
    interval = main["policy"]["latency_s"]["p95"]
    assert interval["low"] < interval["value"] < interval["high"]
    assert main["policy"]["error_share"]["value"] == pytest.approx(0.1, abs=0.01)
    assert sum(one["n"] for one in main["slices"].values()) == found["n"]
    assert main["capacity_usd"] == pytest.approx(6 * 0.5 / 6 / (600 * main["rate_per_s"]), rel=0.05)
    assert main["stations"]["reasoning"]["utilisation"]["value"] == pytest.approx(0.5)
    assert found["loads"][2]["overloaded"] == ["standard", "reasoning"] and main["overloaded"] == []
    assert {"seed", "scenario", "replications", "world", "timeline"} <= set(found)
    assert found["timeline"]["outages"] == [{"name": "fast", "start_s": 200, "end_s": 260}]


def test_the_page_and_the_tables_say_what_matters(simulated, capsys):
    folder, result = simulated
    show_simulate(result)
    out = " ".join(capsys.readouterr().out.split())
    assert "load 0.5" in out and "utilisation of reasoning" in out and "out.html" in out
    assert "reasoning at load 4 (200.0 %)" in out and "traffic.duration_s=600" in out
    assert re.search(r"Requests fail: [\d.]+ % at load 0.5 \(all by the client's time-out\)", out)
    assert "Latencies are those of answered requests" in out and "is capacity paid by the hour" in out
    page = (folder / "out.html").read_text()
    assert (
        page.count("data:image/png;base64,") == 5 and "<script" not in page and "http" not in page.split("</head>")[1]
    )
    for heading in ("By load", "Where requests end", "Over time, at load 1", "Stations", "Slices, at load 1"):
        assert f"<h2>{heading}</h2>" in page


def test_one_load_is_not_plotted_over_loads(simulated, monkeypatch):
    report = simulated[1]["_report"]
    monkeypatch.setattr("toolkit.report.simulation_html.png_bytes", lambda figure: b"")
    assert set(draw_simulation(report)) == {"latency", "quality", "utilisation", "timeline", "ends"}
    assert set(draw_simulation(dataclasses.replace(report, loads=report.loads[1:2]))) == {"timeline", "ends"}


def test_names_in_the_page_are_text(simulated):
    report = dataclasses.replace(simulated[1]["_report"], scenario="<b>x</b>")
    assert "<b>x</b>" not in render_simulation(report, {}) and "&lt;b&gt;x" in render_simulation(report, {})


def test_too_few_replications_have_no_interval(raw, tmp_path, no_kernel, monkeypatch):
    monkeypatch.setattr("experiments.simulate.draw_simulation", lambda report: {})
    options = {**raw, "replications": 2, "output": str(tmp_path / "out.json")}
    found = run_simulate(parse_settings(SimulateSettings, options), quiet=True)
    quality = json.loads((tmp_path / "out.json").read_text())["loads"][0]["policy"]["quality"]
    assert quality["low"] is None and "at least 3 replications" in quality["note"]
    assert any("No interval (an interval takes at least 3" in said for said in found["sentences"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shares": None}, "expected one of run=DIR, policy=FILE and shares=[0.6,0.3,0.1]; got none"),
        ({"run": "here"}, "got run and shares"),
        ({"run": "nowhere", "shares": None}, "run=nowhere is not a folder"),
        ({"policy_file": "nowhere.json", "shares": None}, "nowhere.json, but there is none"),
        ({"shares": [0.6, 0.3]}, "shares that sum to 1"),
        ({"shares": [0.5, 0.5]}, "expected 3 values"),
        ({"shares": [1.5, -0.5, 0.0]}, "shares.0"),
        ({"load": 0}, "positive factors"),
        ({"load": [1, -2]}, "positive factors"),
        ({"load": []}, "positive factors"),
        ({"load": [float("inf")]}, "positive factors"),
        ({"load": "much"}, "load"),
        ({"load": 1e-9}, "expected 1 to"),
        ({"scenario": None}, "needs scenario=NAME"),
        ({"slo_s": 0}, "slo_s"),
        ({"replications": 0}, "replications"),
        ({"output": None}, "output is not set"),
        ({"output": "x.html"}, "name a .json file"),
        ({"output": "."}, "is a folder"),
    ],
)
def test_bad_input_is_one_line(options, said, raw, tmp_path, monkeypatch, no_kernel):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RoutefrontError) as error:
        run_simulate(parse_settings(SimulateSettings, {**raw, **options}), quiet=True)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_scenario_without_traffic_is_refused(raw, no_kernel):
    still = {**raw, "scenario": {**raw["scenario"], "traffic": None}}
    with pytest.raises(ConfigError, match="hybrid_api has no traffic"):
        run_simulate(parse_settings(SimulateSettings, still), quiet=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((SHARES, "scenario=nowhere"), "scenario/nowhere"),
        ((SHARES, "-m", "seed=1,2"), "cannot be swept"),
        (("policy=nowhere.json", "load=0.5,1"), "nowhere.json, but there is none"),
    ],
)
def test_the_command_line_says_it_in_one_line(options, said, tmp_path):
    code, out, err = run_cli("simulate", *options, cwd=tmp_path)
    assert code == 2 and said in err and err.count("\n") == 1 and out == "", err


def write_policy(folder, tiers=TIERS, **changes):
    """A `policy.json` on the scenario's own classifier."""
    policy = {
        "schema_version": 1,
        "policy": "thresholds",
        "tiers": list(tiers),
        "thresholds": [0.0, 1.0][: len(tiers) - 1],
        "utility": None,
        "lanes": {"fallback_tier": tiers[1], "low_confidence_tier": tiers[-1]},
        "scorer": {"column": "difficulty_score", "confidence_column": "confidence", "kind": "scenario"},
        "objectives": ["cost", "quality"],
        "constraints": {},
        "chosen_because": "a test",
        "data_hash": "",
        "metrics": {},
        "evidence": {},
        "provenance": {"routefront_version": "0", "git_commit": None, "seed": 0, "created": "", "source": ""},
    }
    path = folder / "policy.json"
    path.write_text(json.dumps(policy | changes))
    return path


def test_a_lone_policy_file_routes(raw, tmp_path, no_kernel, monkeypatch):
    monkeypatch.setattr("experiments.simulate.draw_simulation", lambda report: {})
    path = str(write_policy(tmp_path))
    options = {**raw, "shares": None, "policy_file": path, "replications": 3, "output": str(tmp_path / "out.json")}
    found = run_simulate(parse_settings(SimulateSettings, options), quiet=True)
    shares = found["policy"]["tier_shares"]
    assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) > 0
    with pytest.raises(ConfigError, match="is an input of this command"):
        run_simulate(parse_settings(SimulateSettings, {**options, "output": path}), quiet=True)
    write_policy(tmp_path, tiers=("cheap", "mid", "dear"))
    with pytest.raises(ConfigError, match=r"routes to \['cheap', 'mid', 'dear'\], but scenario hybrid_api has"):
        run_simulate(parse_settings(SimulateSettings, options), quiet=True)


@pytest.mark.parametrize(
    "scorer",
    [
        {"kind": "text"},
        {"kind": "litellm"},
        {"kind": "calibrated", "base": {"kind": "binned", "base": {"kind": "text"}}},
        {"kind": "eligibility", "reads": "prompts", "base": {"kind": "scenario", "column": "difficulty_score"}},
    ],
)
@pytest.mark.parametrize("option", ["policy_file", "run"])
def test_a_policy_that_reads_prompts_is_refused(scorer, option, raw, tmp_path, no_kernel):
    path = write_policy(tmp_path, scorer=scorer)
    options = {**raw, "shares": None, option: str(path if option == "policy_file" else tmp_path)}
    with pytest.raises(ConfigError, match=r"reads prompts, and the queries of a scenario have none.*shares=\["):
        run_simulate(parse_settings(SimulateSettings, options), quiet=True)


def run_once(raw, folder, monkeypatch, **changes):
    """A command without pictures; its JSON."""
    monkeypatch.setattr("experiments.simulate.draw_simulation", lambda report: {})
    options = {**raw, "replications": 1, "output": str(folder / "out.json"), **changes}
    run_simulate(parse_settings(SimulateSettings, options), quiet=True)
    return json.loads((folder / "out.json").read_text())


def mean_cost(groups):
    known = [group for group in groups.values() if group["n"]]
    return sum(g["n"] * g["cost_usd"]["value"] for g in known) / sum(g["n"] for g in known)


def test_all_groups_pay_for_the_capacity(raw, tmp_path, no_kernel, monkeypatch):
    main = run_once(raw, tmp_path, monkeypatch)["loads"][0]
    assert main["capacity_usd"] > 1e-4
    for kind in ("slices", "tiers", "classes"):
        assert mean_cost(main[kind]) == pytest.approx(main["policy"]["cost_usd"]["value"]), kind


def test_batch_queries_pay_for_no_capacity(raw, tmp_path, no_kernel, monkeypatch):
    scenario = {**raw["scenario"], "slices": {k: dict(s) for k, s in raw["scenario"]["slices"].items()}}
    batch = sorted(scenario["slices"])[0]
    scenario["slices"][batch]["batch"] = True
    found = run_once(raw, tmp_path, monkeypatch, scenario=scenario)
    main, slices = found["loads"][0], found["loads"][0]["slices"]
    cost = {name: group["cost_usd"]["value"] for name, group in main["classes"].items()}
    interactive = {name: group for name, group in slices.items() if name != batch}
    assert mean_cost(interactive) == pytest.approx(cost["interactive"])
    assert slices[batch]["cost_usd"]["value"] == pytest.approx(cost["batch"])
    low, high = sorted(cost.values())
    assert low < main["policy"]["cost_usd"]["value"] < high
    share = (cost["interactive"] - main["policy"]["cost_usd"]["value"]) / (cost["interactive"] - cost["batch"])
    free = run_once(raw, tmp_path, monkeypatch, scenario=without_capacity(scenario))
    for name in TIERS:  # a single tier has its batch queries too, so that it compares with the policy
        paid = found["tiers"][name]["cost_usd"] - free["tiers"][name]["cost_usd"]
        assert paid == pytest.approx(main["capacity_usd"])
    assert share == pytest.approx(slices[batch]["n"] / 500)


def without_capacity(scenario):
    traffic = json.loads(json.dumps(scenario["traffic"]))
    del traffic["stations"]["reasoning"]["slot_usd_per_hour"]
    return {**scenario, "traffic": traffic}


def test_where_requests_fail_the_zero_router_is_simulated(raw, tmp_path, no_kernel, monkeypatch):
    asked = []

    def zero(table, world, loaded, tier, rng):
        asked.append((world.load, table.n_queries))
        rows = np.arange(table.n_queries)
        assert loaded.quality[rows, tier].mean() < table.quality[rows, tier].mean()
        return ZeroUnderLoad(quality=0.125, difference=None, latency_p95_s=1.0)

    monkeypatch.setattr("experiments.simulate_run.zero_under_load", zero)
    found = run_once(raw, tmp_path, monkeypatch, load=[0.5, 1], replications=3)
    assert found["zero_router_quality_at_cost"] == 0.125 and asked == [(1.0, 500)]
    monkeypatch.setattr("experiments.simulate_run._MOST_MIXED", 10)
    assert run_once(raw, tmp_path, monkeypatch)["zero_router_quality_at_cost"] is None
    assert "The Zero router is not simulated" in (tmp_path / "out.html").read_text()
    calm = {key: value for key, value in raw["scenario"]["traffic"].items() if key not in {"tiers", "outages"}}
    calm = {**raw["scenario"], "traffic": calm}
    assert run_once(raw, tmp_path, monkeypatch, scenario=calm)["zero_router_quality_at_cost"] > 0.5
    assert len(asked) == 1


def partly_checked(world, table, tier, *, per_request=False) -> Journeys:
    """As `undisturbed`; every fourth check never came."""
    found = undisturbed(world, table, tier, per_request=per_request)
    checked = np.ones(found.served.shape, dtype=np.bool_)
    checked[:, ::4] = ~np.array([rule.second_async for rule in world.rules])[np.maximum(found.served[:, ::4], 0)]
    return dataclasses.replace(found, checked=checked)


def test_checks_and_fidelity_are_reported(raw, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("simulators.simulate.simulate", partly_checked)
    with initialize_config_module("conf", version_base="1.3"):
        composed = compose(config_name="simulate", overrides=["scenario=dual_lane"])
        lanes = OmegaConf.to_container(composed, resolve=True)["scenario"]
    arms = ("action-now", "action-verified", "reasoning-raw", "reasoning-formatted")
    found = run_once(raw, tmp_path, monkeypatch, scenario=lanes, shares=[0.0, 0.5, 0.0, 0.5], n_queries=2_000)
    main = found["loads"][0]
    assert set(found["tiers"]) == set(arms)
    assert found["tiers"]["reasoning-raw"]["expected_success"] == {"format": 0.5, "tools": 0.775}
    assert found["tiers"]["reasoning-formatted"]["expected_success"] == {"format": 1.0, "tools": 0.775}
    assert main["tiers"]["action-verified"]["checked_share"] == pytest.approx(0.75, abs=0.05)
    assert 0 < main["tiers"]["action-verified"]["corrected_share"] < 0.75
    assert "checked_share" not in main["tiers"]["reasoning-formatted"]
    assert main["expected_success"]["format"] == 1.0 and 0.775 < main["expected_success"]["tools"] < 0.912
    options = {**raw, "scenario": lanes, "shares": [0.0, 0.5, 0.0, 0.5], "replications": 1}
    options["output"] = str(tmp_path / "out.json")
    show_simulate(run_simulate(parse_settings(SimulateSettings, options), quiet=True))
    out = " ".join(capsys.readouterr().out.split())
    assert "checks and fidelity at load 1" in out and "Never checked, and so not corrected" in out
    assert "Checks and fidelity, at load 1" in (tmp_path / "out.html").read_text()


def test_scenarios_without_them_say_nothing_of_checks_and_fidelity(simulated, capsys):
    folder, result = simulated
    show_simulate(result)
    assert "fidelity" not in capsys.readouterr().out and "fidelity" not in (folder / "out.html").read_text()
    assert result["loads"][0]["expected_success"] == {} and "expected_success" not in result["tiers"]["fast"]


def test_a_trace_is_found_beside_the_scenario_file(raw, tmp_path, monkeypatch):
    """From another working directory."""
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    (there / "trace.csv").write_text("arrival_s\n" + "".join(f"{i}.5\n" for i in range(600)))
    arrivals = {"kind": "trace", "path": "trace.csv", "repeat": True}
    own = {**raw["scenario"], "traffic": {**raw["scenario"]["traffic"], "arrivals": arrivals}}
    (there / "own.yaml").write_text(yaml.safe_dump(own))
    monkeypatch.setattr("simulators.simulate.simulate", undisturbed)
    monkeypatch.setattr("experiments.simulate.draw_simulation", lambda report: {})
    options = ("n_queries=500", "replications=1", "--json")
    code, out, err = run_cli("simulate", "scenario=../there/own.yaml", SHARES, *options, cwd=here)
    assert code == 0, err
    assert json.loads(out)["loads"][0]["requests"] == 540


@pytest.mark.slow
def test_a_run_and_its_policy_file_give_the_same_figures_twice(tmp_path):
    code, _, err = run_cli("tune", "data.n_queries=400", "world=none", "out=run", cwd=tmp_path)
    assert code == 0, err
    found = []
    for who in ("run=run", "policy=run/policy.json", "run=run"):
        code, out, err = run_cli("simulate", who, "load=0.5,2", "replications=3", *SMALL, "--json", cwd=tmp_path)
        assert code == 0, err
        found.append(json.loads(out))
    assert found[0]["loads"] == found[1]["loads"] == found[2]["loads"]
    assert found[0]["tiers"] == found[2]["tiers"]


@pytest.mark.slow
def test_more_load_means_more_waiting_on_the_same_requests(tmp_path):
    options = (SHARES, "load=0.5,1,2", "replications=4", *SMALL, "--json")
    code, out, err = run_cli("simulate", *options, cwd=tmp_path)
    assert code == 0, err
    loads = json.loads(out)["loads"]
    used = [one["stations"]["reasoning"]["utilisation"]["value"] for one in loads]
    assert used[1] == pytest.approx(2 * used[0], rel=0.2) and used[2] == pytest.approx(2 * used[1], rel=0.2)
    waits = [one["tiers"]["reasoning"]["ttft_s"]["p95"]["value"] for one in loads]
    assert waits[2] > 1.5 * max(waits[:2])
    assert loads[0]["stations"]["fast"]["lost"]["outage"] == pytest.approx(60 / 600, abs=0.05)
    assert loads[0]["ends"]["failed: outage"] == pytest.approx(0.6 * 60 / 540, abs=0.03)
    assert loads[0]["policy"]["error_share"]["low"] > 0


@pytest.mark.slow
def test_without_capacity_nobody_waits(tmp_path):
    plain = ("~scenario.traffic.stations", "scenario.traffic.arrivals.rate_per_s=5", "scenario.traffic.duration_s=600")
    options = (SHARES, *plain, "replications=3", "n_queries=2000", "output=out.json", "--json")
    code, out, err = run_cli("simulate", *options, cwd=tmp_path)
    assert code == 0, err
    found = json.loads(out)
    assert found["policy"]["error_share"] == found["policy"]["retries"] == 0
    code, out, err = run_cli("simulate", "load=8", *options, cwd=tmp_path)
    assert code == 0, err
    busier = json.loads(out)["policy"]
    assert busier["latency_s"]["p95"] == pytest.approx(found["policy"]["latency_s"]["p95"], rel=0.1)
    assert busier["quality"] == pytest.approx(found["policy"]["quality"], abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["hybrid_api", "peak_hours", "drift", "outage", "dual_lane", "effort_levels"])
def test_every_scenario_with_traffic_is_simulated(scenario, tmp_path):
    shares = "shares=[0.2,0.2,0.2,0.4]" if scenario in {"dual_lane", "effort_levels"} else "shares=[0.2,0.3,0.5]"
    options = (f"scenario={scenario}", shares, "replications=1", "n_queries=2000", "output=out.json", "--json")
    code, out, err = run_cli("simulate", *options, cwd=tmp_path)
    assert code == 0, err
    found = json.loads(out)
    assert 0.5 < found["policy"]["quality"] < 1
    assert ("batch" in found["loads"][0]["classes"]) == any("batch" in str(s) for s in found["loads"][0]["classes"])
    page = (tmp_path / "out.html").read_text()
    assert re.search(r"<h1>.* under load</h1>", page)
