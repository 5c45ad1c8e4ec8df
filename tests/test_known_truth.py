"""How often verdicts, intervals and choices are right, in worlds whose truth is known.

Shares of few draws, so limits are widened by three standard errors of what is claimed; `python -m
experiments.known_truth` gives the figures of the documentation, with more draws.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from experiments.known_choices import ChoiceFigures, choices
from experiments.known_truth import (
    LOSS,
    SHARE,
    Coverage,
    coverages,
    draw_hidden_loss,
    hidden_loss,
    naive_coverage,
    recommended_size,
)

REPLICATIONS = 200
ALPHA, POWER, CONFIDENCE = 0.05, 0.8, 0.95
WORLDS = [(n_slices, discordance) for n_slices in (6, 20) for discordance in (0.15, 0.25)]
pytestmark = pytest.mark.slow


def three_errors(share: float, replications: int = REPLICATIONS) -> float:
    """Three standard errors of a share that is truly `share`."""
    return float(3 * np.sqrt(share * (1 - share) / replications))


def test_the_world_loses_what_it_says() -> None:
    table = draw_hidden_loss(np.random.default_rng(0), n=400_000, n_slices=6, discordance=0.25, loss=LOSS)
    difference = table.quality[:, 0] - table.quality[:, 1]
    hidden = table.slice_code == 0
    assert hidden.mean() == pytest.approx(SHARE, abs=0.002)
    assert difference[hidden].mean() == pytest.approx(-LOSS, abs=0.015)
    assert difference[~hidden].mean() == pytest.approx(0.0, abs=0.005)
    assert (difference != 0).mean() == pytest.approx(0.25, abs=0.005)


@pytest.mark.parametrize(("n_slices", "discordance"), WORLDS)
def test_a_hidden_loss_is_found(n_slices: int, discordance: float) -> None:
    """The aggregate moves by 0.0075 and would mostly pass."""
    found = hidden_loss(n_slices, discordance, loss=LOSS, margin=0.02, replications=REPLICATIONS)
    assert found.certificate["fail"] >= 0.90
    assert found.certificate["pass"] == 0.0
    assert found.aggregate["pass"] > 0.4 > found.aggregate["fail"]
    assert sum(found.certificate.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("n_slices", "discordance", "margin"), [*((*world, 0.02) for world in WORLDS), (6, 0.15, None), (20, 0.25, None)]
)
def test_a_loss_is_seldom_seen_where_there_is_none(n_slices: int, discordance: float, margin: float | None) -> None:
    found = hidden_loss(n_slices, discordance, loss=0.0, margin=margin, replications=REPLICATIONS)
    assert found.certificate["fail"] <= ALPHA + three_errors(ALPHA)
    if margin is None:  # the smallest margin that the data resolves is one that it mostly resolves
        assert found.certificate["pass"] >= POWER - ALPHA - three_errors(POWER)


@pytest.mark.parametrize("discordance", [0.15, 0.25])
def test_a_loss_of_the_margin_seldom_passes(discordance: float) -> None:
    """The hardest case for a pass: one slice loses just what is no longer tolerated."""
    found = hidden_loss(6, discordance, loss=0.1, margin=0.1, replications=2 * REPLICATIONS)
    assert found.certificate["pass"] <= ALPHA + three_errors(ALPHA, 2 * REPLICATIONS)


@pytest.mark.parametrize(("n_slices", "discordance"), WORLDS)
def test_the_labels_that_power_asks_for_are_enough(n_slices: int, discordance: float) -> None:
    replications = REPLICATIONS // 2
    n, found = recommended_size(n_slices, discordance, margin=0.05, replications=replications)
    assert found.certificate["pass"] >= POWER - three_errors(POWER, replications)
    assert 5_000 < n < 50_000


@functools.cache
def all_coverages() -> dict[str, Coverage]:
    return coverages(2 * REPLICATIONS)


@pytest.mark.parametrize("name", list(coverages(2)))
def test_intervals_cover(name: str) -> None:
    found = all_coverages()[name]
    assert found.share >= CONFIDENCE - 0.01 - three_errors(CONFIDENCE, 2 * REPLICATIONS)
    assert 0 < found.width < 2


def test_the_naive_interval_of_the_worst_slice_does_not_cover() -> None:
    naive = naive_coverage(REPLICATIONS)
    ours = all_coverages()["worst of 6 equal slices, graded, n = 100 each"]
    assert naive.share < 0.5 and ours.share > 0.9 and ours.width < 3 * naive.width


@functools.cache
def chosen(option: str, limit: float) -> ChoiceFigures:
    return choices(option, limit, REPLICATIONS)


@pytest.mark.parametrize(("option", "limit"), [("quality_floor", 0.90), ("slice_floor", 0.80)])
def test_a_certified_choice_keeps_what_it_promises(option: str, limit: float) -> None:
    found = chosen(option, limit)
    assert found.violated["certified"] <= ALPHA + three_errors(ALPHA)
    assert found.violated["ordinary"] > 0.15, "what a choice by the tune split alone does"
    assert found.cost_usd["certified"] > found.cost_usd["oracle"]
    assert found.cost_usd["certified"] > found.cost_usd["ordinary"], "the price of being sure"
    assert found.none < 0.2


def test_a_certified_quality_floor_is_not_much_dearer() -> None:
    costs = chosen("quality_floor", 0.90).cost_usd
    assert costs["certified"] < 1.3 * costs["oracle"]
