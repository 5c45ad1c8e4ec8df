"""`routefront simulate`: a policy on a scenario's traffic, at several loads."""

from __future__ import annotations

from typing import Any

from experiments.console import busy, progress, say
from experiments.files import checked_output, write_json, write_text
from experiments.simulate_output import report_json
from experiments.simulate_policy import open_router
from experiments.simulate_run import ROWS, Setup, compile_kernel, simulate_loads
from experiments.simulate_settings import SimulateSettings, check_router
from simulators.errors import ConfigError
from simulators.scenario import parse_scenario, sample_scenario, traffic_of
from simulators.seeds import spawn_rng
from toolkit.report.simulation_html import draw_simulation, render_simulation
from toolkit.report.simulation_sentences import simulation_sentences


def run_simulate(settings: SimulateSettings, *, quiet: bool = False) -> dict[str, Any]:
    """Figures at every load; JSON at `output` and a page beside it; the JSON is returned."""
    output = checked_output(settings.output, [settings.policy_file])
    page = output.with_suffix(".html")
    if page == output:
        raise ConfigError(f"output={output} is where the page would lie; name a .json file")
    check_router(settings)
    setup = _open(settings)
    existed = [path for path in (output, page) if path.exists()]
    with busy("Compiling the kernel, once per machine", quiet=quiet):
        compile_kernel(setup)
    with progress("simulate", quiet=quiet) as update:
        report, single = simulate_loads(setup, update)
    result = report_json(report, single) | {"world": setup.traffic.model_dump(mode="json")}
    drawn = render_simulation(report, draw_simulation(report))
    write_json(output, result)
    write_text(page, drawn)
    for path in existed:
        say(f"{path} existed and was replaced.", quiet=quiet)
    said = {"output": str(output), "report": str(page), "sentences": simulation_sentences(report)}
    return result | said | {"_report": report}


def _open(settings: SimulateSettings) -> Setup:
    """Scenario, traffic and router, all names checked before anything runs."""
    if settings.scenario is None:
        raise ConfigError("simulate needs scenario=NAME with a traffic section")
    spec = parse_scenario(settings.scenario)
    if spec.traffic is None:
        raise ConfigError(f"scenario {spec.name} has no traffic to simulate; name one with a traffic section")
    router = open_router(settings)
    known = sample_scenario(spec, n_queries=ROWS, rng=spawn_rng(settings.seed, "simulate", "tiers")).tiers
    tiers = router.tiers(known, spec.name)
    return Setup(settings=settings, spec=spec, traffic=traffic_of(spec), router=router, tiers=tiers)
