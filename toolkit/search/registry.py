"""Searchers by name, all with the same initial design for the same seed."""

from __future__ import annotations

from typing import Any

from simulators.errors import ConfigError
from simulators.seeds import spawn_rng
from toolkit.pareto.axes import Axes
from toolkit.problem import Problem
from toolkit.search.base import Controller

SEARCHERS = ("mobo", "boute", "parego", "tutorial", "nsga2", "tpe", "sobol", "random")


def make_searcher(kind: str, problem: Problem, *, axes: Axes, budget: int, seed: int, **options: Any) -> Controller:
    """A searcher that samples.

    Args:
        kind: One of `SEARCHERS`.
        problem: What is searched.
        axes: Axes and reference point.
        budget: Evaluations, the initial design included.
        seed: Of the initial design and of everything else.
        options: The searcher's own, such as `n_initial`.

    Raises:
        ConfigError: If there is no such searcher.
    """
    design = spawn_rng(seed, "design")
    if kind == "sobol":
        from toolkit.search.sobol import SobolController

        return SobolController(problem, budget=budget, rng=design)
    rng = spawn_rng(seed, "search", kind)
    if kind == "mobo":
        from toolkit.search.mobo import MoboController, MoboOptions

        chosen = MoboOptions(**options)
        return MoboController(problem, axes=axes, budget=budget, options=chosen, design_rng=design, rng=rng)
    if kind == "boute":
        from toolkit.search.boute import BouteController, BouteOptions

        settings = BouteOptions(**options)
        return BouteController(problem, axes=axes, budget=budget, options=settings, design_rng=design, rng=rng)
    common: dict[str, Any] = {"budget": budget, "design_rng": design, "rng": rng, "n_initial": None, **options}
    if kind == "random":
        from toolkit.search.random import RandomController

        return RandomController(problem, **common)
    if kind == "nsga2":
        from toolkit.search.nsga2 import Nsga2Controller

        return Nsga2Controller(problem, axes=axes, **common)
    if kind == "tpe":
        from toolkit.search.tpe import TpeController

        return TpeController(problem, axes=axes, **common)
    if kind == "parego":
        from toolkit.search.parego import ParegoController

        return ParegoController(problem, axes=axes, **common)
    if kind == "tutorial":
        from toolkit.search.tutorial import TutorialController

        return TutorialController(problem, axes=axes, **common)
    raise ConfigError(f"controller={kind} is not known; known: exact, {', '.join(SEARCHERS)}")
