"""`routefront compare`: numbers by hand, refusals, and outputs that are whole, escaped and equal each time."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import snapshot
from scipy import stats

from experiments import compare
from experiments.compare import run_compare, show_compare
from experiments.compare_settings import CompareSettings
from experiments.settings import parse_settings
from simulators.errors import ConfigError, InputDataError, RoutefrontError
from toolkit.pareto.axes import Axes, Axis
from toolkit.pareto.comparison import bootstrap, holm
from toolkit.report.comparison_figures import natural_points, thinned

COST = Axis(column="cost_usd", maximise=False, log=True, worst=1e-1, best=1e-3)
QUALITY = Axis(column="quality", maximise=True, log=False, worst=0.0, best=1.0)
LATENCY = Axis(column="latency_p95_s", maximise=False, log=True, worst=10.0, best=1.0)
SLICE = Axis(column="quality[math]", maximise=True, log=False, worst=0.0, best=1.0)
MIDDLE, ENDS = [(1e-2, 0.5)], [(1e-1, 1.0), (1e-3, 0.0)]
FILES = {"comparison.json", "table.csv", "report.html", "figures", "figures/fronts.png", "figures/hypervolume.png"}


def write_run(
    folder, points, *, axes=(COST, QUALITY), margin=0.1, controller="sobol", seed=0, slack=None, status="done", **info
):
    """A run folder as tune leaves it; `points` are natural values per axis, None where an evaluation failed."""
    folder.mkdir(parents=True)
    described = Axes(axes=tuple(axes), margin=margin)
    run = {
        "status": status,
        "seed": seed,
        "data_hash": "d" * 64,
        "controller": controller,
        "problem": "recorded text thresholds",
        "objectives": [a.column for a in axes],
        "axes": described.describe(),
    }
    (folder / "run.json").write_text(json.dumps(run | info))
    lines = []
    for i, point in enumerate(points):
        values = [None] * len(axes) if point is None else point
        record = {
            "index": i,
            "x": [0.5],
            "params": {"t1": 0.5},
            "objectives": dict(zip([a.column for a in axes], values, strict=True)),
            "slack": {} if slack is None else {"quality_floor": slack[i]},
            "tier_shares": [1.0],
            "status": "failed" if point is None else "ok",
            "seconds": 0.25,
        }
        lines.append(json.dumps(record) + "\n")
    (folder / "evaluations.jsonl").write_text("".join(lines))
    figures = {"quality": 0.48, "cost_usd": 0.011, "latency_s": {"p95": 2.5}}
    (folder / "metrics.json").write_text(json.dumps({"policy": figures}))
    (folder / "policy.json").write_text(json.dumps({"constraints": {} if slack is None else {"quality_floor": 0.5}}))
    return str(folder)


def write_seeds(folder, controller, values, first_seed=0, **more):
    """One run per value, each with the one point of that quality at middle cost."""
    return [
        write_run(folder / f"{controller}{s}", [(1e-2, v)], controller=controller, seed=s, **more)
        for s, v in enumerate(values, start=first_seed)
    ]


def call(runs, output, **more):
    return run_compare(CompareSettings(runs=runs, output=str(output), **more), quiet=True)


@pytest.fixture
def two(tmp_path):
    return [write_run(tmp_path / "a", MIDDLE), write_run(tmp_path / "b", ENDS, controller="random")]


class TestNumbers:
    def test_by_hand(self, two, tmp_path):
        a, b = call(two, tmp_path / "out")["runs"]
        # a is the point (1/2, 1/2), b the points (0, 1) and (1, 0); the reference point is (-0.1, -0.1)
        assert (a["hypervolume"], b["hypervolume"]) == (pytest.approx(0.36), pytest.approx(0.21))
        assert (a["regret"], b["regret"]) == (pytest.approx(0.10), pytest.approx(0.25))
        assert (a["igd_plus"], b["igd_plus"]) == (pytest.approx(1 / 3), pytest.approx(0.5 / 3))
        assert (a["epsilon_additive"], b["epsilon_additive"]) == (pytest.approx(0.5), pytest.approx(0.5))
        assert (a["hypervolume_at_1"], b["hypervolume_at_1"]) == (pytest.approx(0.36), pytest.approx(0.11))
        assert b["course"]["hypervolume"] == pytest.approx([0.11, 0.21])
        # the best one point covers 0.36, the best two 0.41, all three 0.46
        assert b["course"]["efficiency"] == pytest.approx([0.11 / 0.36, 0.21 / 0.41])
        assert (a["evaluations_to_95"], b["evaluations_to_95"]) == (1, None)
        assert a["front"] == {"cost_usd": [1e-2], "quality": [0.5]}
        assert a["regret_to_exact"] is None and a["seconds"] == 0.25

    def test_plane(self, two, tmp_path):
        found = call(two, tmp_path / "out")
        a, b = found["runs"]
        # hulls over [1e-3, 1e-1]: a is 1/2 from 1e-2 on; b is the straight line from 0 to 1
        assert (a["aiq"], b["aiq"]) == (pytest.approx(0.5 * 0.09 / 0.099), pytest.approx(0.5))
        assert found["cost_levels_usd"] == pytest.approx([10**-2.5, 1e-2, 10**-1.5])
        assert [a[f"quality_at_{c:.3g}_usd"] for c in found["cost_levels_usd"]] == [None, 0.5, 0.5]
        assert found["quality_levels"] == pytest.approx([0.5, 0.75, 0.95])
        assert [b[f"cost_usd_at_quality_{q:.3g}"] for q in found["quality_levels"]] == [0.1, 0.1, 0.1]
        assert [a[f"cost_usd_at_quality_{q:.3g}"] for q in found["quality_levels"]] == [0.01, None, None]
        assert (a["validation_quality"], a["validation_cost_usd"], a["validation_latency_p95_s"]) == (0.48, 0.011, 2.5)

    def test_failed_and_infeasible_evaluations_count_but_dominate_nothing(self, tmp_path):
        runs = [
            write_run(tmp_path / "a", [None, (1e-3, 1.0), (1e-2, 0.5)], slack=[None, -0.1, 0.0]),
            write_run(tmp_path / "b", [(1e-3, 1.0)], controller="random", slack=[-1.0]),
        ]
        found = call(runs, tmp_path / "out")
        a, b = found["runs"]
        assert a["course"]["hypervolume"] == pytest.approx([0, 0, 0.36])
        assert a["evaluations"] == 3 and a["feasible_share"] == pytest.approx(1 / 3)
        assert b["hypervolume"] == 0.0 and b["igd_plus"] is None and b["front_points"] == 0
        assert any("Nothing feasible was found by b" in note for note in found["notes"])

    def test_exact_run_is_the_yardstick(self, two, tmp_path):
        two.append(write_run(tmp_path / "exact", [(1e-3, 1.0)], controller="exact"))
        found = call(two, tmp_path / "out")
        assert found["runs"][0]["regret_to_exact"] == pytest.approx(1.21 - 0.36) == found["runs"][0]["regret"]
        assert not any("No exact run" in note for note in found["notes"])

    @pytest.mark.slow
    def test_each_split_has_its_own_best(self, tmp_path):
        runs = []
        for seed, quality in enumerate((0.5, 0.9)):
            for controller in ("sobol", "random"):
                folder = tmp_path / f"{controller}{seed}"
                runs.append(write_run(folder, [(1e-2, quality)], controller=controller, seed=seed))
                (folder / "prompts_seen.json").write_text(json.dumps({"tune": [f"prompt {seed}"], "validate": []}))
        found = call(runs, tmp_path / "out")
        assert [run["regret"] for run in found["runs"]] == [0, 0, 0, 0]
        assert any("their own split" in note and "Alone" not in note for note in found["notes"])
        notes = call(runs[:3], tmp_path / "out")["notes"]
        assert any(note.endswith("Alone on theirs, and without regret for that reason only: sobol1.") for note in notes)

    def test_nothing_known_of_cost(self, tmp_path):
        runs = [write_run(tmp_path / n, [(2.0, 0.5)], axes=(LATENCY, QUALITY), controller=n) for n in ("a", "b")]
        found = call(runs, tmp_path / "out")
        assert found["cost_levels_usd"] == [] and found["runs"][0]["aiq"] is None


class TestControllers:
    def test_over_seeds(self, tmp_path):
        sobol, other = [0.50, 0.52, 0.49, 0.55, 0.51, 0.53], [0.60, 0.61, 0.58, 0.59, 0.66, 0.62]
        found = call([*write_seeds(tmp_path, "sobol", sobol), *write_seeds(tmp_path, "mobo", other)], tmp_path / "out")
        first, second = found["controllers"]
        volume = 0.6 * (np.array(sobol) + 0.1)
        assert first["hypervolume"]["mean"] == pytest.approx(volume.mean())
        drawn = volume[np.random.default_rng(0).integers(6, size=(2000, 6))].mean(axis=1)
        assert first["hypervolume"]["low"] == pytest.approx(np.quantile(drawn, 0.025))
        assert second["median_attainment_surface"] == [
            {"cost_usd": pytest.approx(1e-2), "quality": pytest.approx(0.61)}
        ]
        (pair,) = found["pairs"]
        assert (pair["first"], pair["second"]) == ("sobol", "mobo")
        assert pair["difference"]["mean"] == pytest.approx(0.6 * (np.mean(sobol) - np.mean(other)))
        assert pair["p_value"] == pytest.approx(stats.wilcoxon(np.array(sobol) - other).pvalue) == pair["p_holm"]
        assert not any("no evidence" in note for note in found["notes"])

    @pytest.mark.slow
    def test_too_few_seeds_for_a_test(self, tmp_path):
        runs = [*write_seeds(tmp_path, "sobol", [0.5, 0.6]), *write_seeds(tmp_path, "mobo", [0.6, 0.7, 0.8], 1)]
        found = call(runs, tmp_path / "out")
        assert found["pairs"][0]["seeds"] == [1] and found["pairs"][0]["p_value"] is None
        assert "too few seeds for a test" in (tmp_path / "out" / "report.html").read_text()
        assert any(note.startswith("Few seeds: sobol (2), mobo (3)") for note in found["notes"])

    def test_single_runs_are_no_evidence(self, two, tmp_path):
        found = call(two, tmp_path / "out")
        assert any("differences between single runs are no evidence" in note for note in found["notes"])
        assert found["controllers"][0]["hypervolume"]["low"] is None
        assert found["controllers"][0]["median_attainment_surface"] is None

    def test_equal_runs_have_p_1(self, tmp_path):
        values = [0.5, 0.6, 0.7, 0.4, 0.3]
        found = call([*write_seeds(tmp_path, "a", values), *write_seeds(tmp_path, "b", values)], tmp_path / "out")
        assert found["pairs"][0]["p_holm"] == 1.0

    def test_runs_of_one_seed_are_one_repetition(self, tmp_path):
        runs = [write_run(tmp_path / f"r{i}", [(1e-2, q)]) for i, q in enumerate((0.4, 0.6))]
        found = call(runs, tmp_path / "out")
        assert found["controllers"][0]["hypervolume_by_seed"] == {"0": pytest.approx(0.36)}
        assert any("Several runs of one seed are averaged: sobol" in note for note in found["notes"])

    def test_problems_are_kept_apart(self, tmp_path):
        runs = [write_run(tmp_path / n, MIDDLE, problem=n) for n in ("thresholds", "utility")]
        assert [g["controller"] for g in call(runs, tmp_path / "out")["controllers"]] == [
            "sobol (thresholds)",
            "sobol (utility)",
        ]

    def test_unequal_budgets_and_constraints_are_said(self, tmp_path):
        runs = [write_run(tmp_path / "a", ENDS, slack=[0.0, 0.0]), write_run(tmp_path / "b", MIDDLE, controller="b")]
        notes = " ".join(call(runs, tmp_path / "out")["notes"])
        assert "1 to 2 evaluations" in notes and "different constraints (quality_floor=0.5; none)" in notes

    def test_holm(self):
        assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
        assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []

    def test_bootstrap(self):
        assert math.isnan(bootstrap([1.0], resamples=100, seed=0).low)
        found = bootstrap([1.0, 2.0, 3.0], resamples=5000, seed=0)
        assert found.mean == 2.0 and found.low == 1.0 and found.high == 3.0


class TestInput:
    def test_sweep_with_a_failed_job(self, tmp_path):
        sweep = tmp_path / "sweep"
        write_run(sweep / "10", MIDDLE, seed=2)
        write_run(sweep / "2", ENDS, seed=1)
        write_run(sweep / "3", MIDDLE, seed=3, status="running")
        (sweep / "0").mkdir()
        (sweep / "0" / "error.txt").write_text("no policy meets all constraints")
        found = call(str(sweep), tmp_path / "out")
        assert [run["run"] for run in found["runs"]] == ["sweep/2", "sweep/10"]
        assert found["skipped"] == [f"{sweep}/0 has failed", f"{sweep}/3 has not finished (its status is running)"]
        assert f"Left out: {sweep}/0 has failed." in found["notes"]

    def test_sweep_with_one_finished_job(self, tmp_path):
        write_run(tmp_path / "sweep" / "0", MIDDLE)
        write_run(tmp_path / "sweep" / "1", MIDDLE, status="running")
        with pytest.raises(ConfigError, match=r"gives 1 \(.*sweep/1 has not finished"):
            call([str(tmp_path / "sweep")], tmp_path / "out")

    def test_unfinished_run_is_refused_by_name(self, two, tmp_path):
        two.append(write_run(tmp_path / "late", MIDDLE, status="running"))
        self.refused(two, tmp_path, r"late has not finished \(its status is running\)")

    @pytest.mark.parametrize(
        "change, words",
        [
            ({"data_hash": "e" * 64}, r"odd differs from .*a in data \(eeeeeeeeeeee instead of dddddddddddd\)"),
            ({"margin": 0.2}, r"odd differs from .*a in axes \(.*margin 0.2 instead of .*margin 0.1\)"),
            (
                {"axes": (COST, LATENCY)},
                r"in objectives \(cost_usd, latency_p95_s instead of cost_usd, quality\) and axes",
            ),
            ({"axes": (Axis(**{**vars(COST), "worst": 0.2}), QUALITY)}, r"axes \(cost_usd 0.2 to 0.001 log"),
        ],
    )
    def test_different_runs_are_refused(self, two, tmp_path, change, words):
        two.append(write_run(tmp_path / "odd", MIDDLE, controller="odd", **change))
        self.refused(two, tmp_path, words)

    def test_allow_different(self, two, tmp_path):
        wide = Axis(**{**vars(COST), "worst": 10.0})
        two.append(
            write_run(tmp_path / "odd", MIDDLE, axes=(wide, QUALITY), margin=0.5, data_hash="e", controller="odd")
        )
        found = call(two, tmp_path / "out", allow_different=True)
        assert found["runs"][2]["hypervolume"] == pytest.approx(0.36)  # in the axes of the first run
        assert found["notes"][0].startswith("NOT COMPARABLE AS THEY STAND") and "axes of a" in found["notes"][0]
        assert "odd differs from" in found["notes"][1] and len(found["different"]) == 1
        page = (tmp_path / "out" / "report.html").read_text()
        assert page.index("NOT COMPARABLE") < page.index("Final hypervolume") and "box warn" in page

    def test_allow_different_needs_the_columns(self, two, tmp_path):
        two.append(write_run(tmp_path / "odd", [(1.0, 0.5)], axes=(LATENCY, QUALITY)))
        with pytest.raises(InputDataError, match="odd did not record cost_usd"):
            call(two, tmp_path / "out", allow_different=True)

    def test_doubles(self, two, tmp_path):
        self.refused([*two, two[0] + "/."], tmp_path, "are the same run")
        (tmp_path / "link").symlink_to(tmp_path / "a")
        self.refused([*two, str(tmp_path / "link")], tmp_path, "are the same run")
        copies = [write_run(tmp_path / n, MIDDLE, config_hash="c") for n in ("x", "y")]
        self.refused(copies, tmp_path, "y and .*x are the same run")

    def test_missing_things(self, two, tmp_path):
        self.refused([], tmp_path, "gives 0")
        self.refused(two[:1], tmp_path, "gives 1")
        self.refused([*two, str(tmp_path / "nowhere")], tmp_path, "nowhere is not a folder")
        (tmp_path / "empty").mkdir()
        self.refused([*two, str(tmp_path / "empty")], tmp_path, r"empty is not a run \(no run.json\)")

    @pytest.mark.parametrize(
        "name, text, words",
        [
            ("run.json", "{", "run.json cannot be read"),
            ("run.json", "[]", "run.json is not a JSON object"),
            ("run.json", '{"status": "done", "seed": 1, "data_hash": "x"}', "run.json: controller: .* run tune again"),
            ("evaluations.jsonl", "", "holds no"),
            ("evaluations.jsonl", '{"index": 0\n', "evaluations.jsonl cannot be read"),
            ("evaluations.jsonl", '{"objectives": 3}\n', "evaluations.jsonl cannot be read"),
            ("metrics.json", "{", "metrics.json cannot be read"),
        ],
    )
    def test_damaged_files(self, two, tmp_path, name, text, words):
        (tmp_path / "b" / name).write_text(text)
        self.refused(two, tmp_path, words)

    def test_nothing_but_the_journal_is_needed(self, two, tmp_path):
        for name in ("metrics.json", "policy.json"):
            (tmp_path / "b" / name).unlink()
        assert "validation_quality" not in call(two, tmp_path / "out")["runs"][1]

    @staticmethod
    def refused(runs, tmp_path, words):
        with pytest.raises(RoutefrontError, match=words) as caught:
            call(runs, tmp_path / "out")
        assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


class TestOutput:
    def test_files(self, two, tmp_path):
        found = call(two, tmp_path / "deep" / "out")
        assert set(snapshot(tmp_path / "deep" / "out")) == FILES
        stored = json.loads((tmp_path / "deep" / "out" / "comparison.json").read_text(), parse_constant=pytest.fail)
        assert stored == {k: v for k, v in found.items() if k not in ("output", "report")}
        assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]
        with (tmp_path / "deep" / "out" / "table.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["run"] for row in rows] == ["a", "b"] and float(rows[0]["hypervolume"]) == pytest.approx(0.36)
        assert "course" not in rows[0] and rows[0]["regret_to_exact"] == ""

    @pytest.mark.slow
    def test_equal_input_gives_equal_bytes(self, two, tmp_path):
        call(two, tmp_path / "x")
        call(two, tmp_path / "y")
        assert snapshot(tmp_path / "x") == snapshot(tmp_path / "y")

    def test_an_earlier_comparison_is_replaced_and_nothing_else(self, two, tmp_path):
        (tmp_path / "out").mkdir()
        call(two, tmp_path / "out")
        first = snapshot(tmp_path / "out")
        (tmp_path / "out" / "my notes.txt").write_text("kept")
        call([*two, write_run(tmp_path / "c", MIDDLE, seed=1)], tmp_path / "out")
        second = snapshot(tmp_path / "out")
        assert second["table.csv"] != first["table.csv"] and second["my notes.txt"] == b"kept"

    @pytest.mark.parametrize("content", [None, "{", '{"command": "tune"}'])
    def test_foreign_folders_are_left_alone(self, two, tmp_path, content):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / ("comparison.json" if content else "thesis.tex")).write_text(content or "years of work")
        before = snapshot(tmp_path / "out")
        with pytest.raises(ConfigError, match="is not an earlier comparison"):
            call(two, tmp_path / "out")
        assert snapshot(tmp_path / "out") == before

    def test_a_run_is_no_output(self, two):
        with pytest.raises(ConfigError, match="is not an earlier comparison"):
            call(two, two[0])

    def test_output_must_be_a_folder(self, two, tmp_path):
        with pytest.raises(ConfigError, match="output is not set"):
            run_compare(CompareSettings(runs=two, output=None))
        (tmp_path / "file").write_text("")
        for path in ("file", "file/out"):
            with pytest.raises(ConfigError, match="file"):
                call(two, tmp_path / path)

    @pytest.mark.parametrize("broken", ["write_json", "write_text"])
    def test_nothing_is_half_written(self, two, tmp_path, monkeypatch, broken):
        def fail(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(compare, broken, fail)
        with pytest.raises(ConfigError, match="No space left"):
            call(two, tmp_path / "out")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]

    def test_hostile_names(self, tmp_path, capsys):
        evil = '<script>alert("x")</script>&$\\frac$[red] 模型\n\x1b[31m'
        runs = [write_run(tmp_path / n, ENDS, controller=evil, problem=n + evil) for n in ("a<b>", "c$_d&[bold]")]
        found = call(runs, tmp_path / "out")
        page = (tmp_path / "out" / "report.html").read_text()
        assert "<script" not in page and "&lt;script&gt;" in page and "a<b>" not in page
        assert 'src="http' not in page and "default-src 'none'" in page
        show_compare(found)
        assert "c$_d&[bold]" in capsys.readouterr().out

    def test_show(self, two, tmp_path, capsys):
        show_compare(call(two, tmp_path / "out"))
        shown = capsys.readouterr().out
        assert "0.3600" in shown and "not reached" in shown and "no evidence" in shown and "report.html" in shown

    def test_tracker(self, two, tmp_path):
        seen = []

        class Tracker:
            def log_picture(self, name, png):
                seen.append((name, png[:4]))

            def summary(self, values):
                seen.append(values)

            def artifact(self, name, files):
                seen.append((name, [Path(f).is_file() for f in files]))

        run_compare(CompareSettings(runs=two, output=str(tmp_path / "out")), quiet=True, tracker=Tracker())
        assert seen[:2] == [("fronts", b"\x89PNG"), ("hypervolume", b"\x89PNG")]
        assert seen[2] == {"sobol/hypervolume": pytest.approx(0.36), "random/hypervolume": pytest.approx(0.21)}
        assert seen[3] == ("comparison", [True])  # comparison.json alone: pictures and page are not uploaded as files


@pytest.mark.slow
class TestPictures:
    @pytest.mark.parametrize(
        "axes", [(QUALITY,), (QUALITY, SLICE), (COST, QUALITY, LATENCY), (COST, QUALITY, LATENCY, SLICE)]
    )
    @pytest.mark.parametrize("seeds", [1, 3])
    def test_any_number_of_objectives(self, tmp_path, axes, seeds):
        rng = np.random.default_rng(0)
        runs = []
        for controller in ("exact", "sobol", "random"):
            for seed in range(seeds):
                points = [[float(a.best + (a.worst - a.best) * rng.uniform()) for a in axes] for _ in range(12)]
                runs.append(
                    write_run(tmp_path / f"{controller}{seed}", points, axes=axes, controller=controller, seed=seed)
                )
        found = call(runs, tmp_path / "out")
        surface = found["controllers"][0]["median_attainment_surface"]
        assert (surface is None) == (seeds == 1 or len(axes) > 3)

    @pytest.mark.slow
    def test_many_controllers(self, tmp_path):
        runs = [p for i in range(17) for p in write_seeds(tmp_path, f"controller number {i}", [0.5, 0.5 + i / 100])]
        call(runs, tmp_path / "out")

    def test_natural_points_undo_the_scaling(self):
        axes = Axes(axes=(COST, QUALITY, LATENCY))
        natural = np.array([[0.02, 0.3, 4.0], [0.5, 0.9, 0.5]])
        signs = np.array([1 if a.maximise else -1 for a in axes.axes])
        assert natural_points(axes, axes.scale(natural * signs)) == pytest.approx(natural)

    def test_nothing_feasible_anywhere(self, tmp_path):
        runs = [
            write_run(tmp_path / f"{c}{s}", ENDS, controller=c, seed=s, slack=[-1, -1]) for c in "ab" for s in (0, 1)
        ]
        found = call(runs, tmp_path / "out")
        assert found["runs"][0]["course"]["efficiency"] == [None, None]
        assert found["controllers"][0]["evaluations_to_95"] == {"median": None, "least": None, "most": None}

    def test_thinned(self):
        assert thinned(1).tolist() == [1] and thinned(5).tolist() == [1, 2, 3, 4, 5]
        assert thinned(10_000)[[0, -1]].tolist() == [1, 10_000] and len(thinned(10_000)) <= 200


class TestSettings:
    def test_the_config_file_gives_them(self):
        text = Path(__file__).parent.parent.joinpath("conf", "compare.yaml").read_text()
        assert text.startswith("# routefront compare")
        raw = yaml.safe_load(text)
        assert raw.pop("defaults") == [{"tracking": "none"}, "_self_"]
        raw["tracking"] = {"kind": "none"}
        assert parse_settings(CompareSettings, raw) == CompareSettings(runs=[], output=None)

    @pytest.mark.parametrize("wrong", [{"resamples": 0}, {"seed": -1}, {"runs": 3}, {"folder": "x"}])
    def test_wrong_ones_are_refused(self, wrong):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            parse_settings(CompareSettings, {"runs": [], "output": None} | wrong)
