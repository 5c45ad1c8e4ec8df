"""How often the tests are right, where the truth is known: `python -m experiments.known_truth [REPLICATIONS]`.

`python -m experiments.known_truth figure FILE.png` draws one certificate of the first world.

Four worlds, each drawn many times: a loss that hides in one slice (source document S3), no loss at all, means and
quantiles of known distributions, and choices among thresholds whose true quality is known. Nothing here is used by a
command; `tests/test_known_truth.py` holds the figures to what the documentation claims.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from simulators.outcomes import FloatArray, IntArray, OutcomeTable, QueryBatch
from simulators.seeds import spawn_rng
from toolkit.certify.certificate import Certificate, certify
from toolkit.certify.intervals import UNIT, Interval, mean_interval, quantile_interval, two_sided, worst_interval
from toolkit.certify.labels import differences_per_slice, plan_labels
from toolkit.evaluation.slices import coverage
from toolkit.report.certificate_wording import aggregate_alone
from toolkit.statistics import estimate_mean

MINIMUM = 30
SHARE = 0.05
"""Traffic of the slice that loses."""
LOSS = 0.15
N_QUERIES = 5_000
VERDICTS = ("pass", "fail", "undecided")


def _paired_table(code: IntArray, ours: FloatArray, theirs: FloatArray, n_slices: int) -> OutcomeTable:
    """Two "tiers", the policy's answers and the baseline's."""
    n = len(code)
    unknown = np.full((n, 2), np.nan)
    return OutcomeTable(
        tiers=("policy", "baseline"),
        queries=QueryBatch(query_id=np.arange(n).astype(np.str_), prompt=None, signals={}),
        quality=np.stack([ours, theirs], axis=1),
        cost_usd=unknown,
        latency_s=unknown,
        ttft_s=unknown,
        input_tokens=unknown,
        output_tokens=unknown,
        error=np.zeros((n, 2), dtype=np.bool_),
        slices=tuple(f"slice{s:02d}" for s in range(n_slices)),
        slice_code=code,
    )


def draw_hidden_loss(
    rng: np.random.Generator, *, n: int, n_slices: int, discordance: float, loss: float
) -> OutcomeTable:
    """0/1 answers of policy and baseline that differ for a share `discordance` of the queries, in every slice.

    Slice 0 has 5 % of the traffic and loses `loss`; elsewhere gains and losses balance.
    """
    shares = np.concatenate([[SHARE], np.full(n_slices - 1, (1 - SHARE) / (n_slices - 1))])
    code = rng.choice(n_slices, size=n, p=shares).astype(np.int64)
    lost = np.where(code == 0, loss, 0.0)
    u = rng.uniform(size=n)
    loses, wins = u < (discordance + lost) / 2, u > 1 - (discordance - lost) / 2
    same = (rng.uniform(size=n) < 0.85).astype(np.float64)
    theirs = np.where(loses, 1.0, np.where(wins, 0.0, same))
    ours = np.where(loses, 0.0, np.where(wins, 1.0, same))
    return _paired_table(code, ours, theirs, n_slices)


def certify_table(table: OutcomeTable, margin: float | None, rng: np.random.Generator) -> Certificate:
    """Column 0 against column 1, with the defaults of `routefront certify`."""
    n = table.n_queries
    return certify(
        table,
        np.zeros(n, dtype=np.int64),
        np.ones(n, dtype=np.int64),
        coverage=coverage(table, MINIMUM),
        constraints=(),
        margin=margin,
        alpha=0.05,
        power=0.8,
        rng=rng,
    )


@dataclass(kw_only=True)
class Tally:
    """Shares of verdicts: of the certificate, and of the aggregate alone."""

    certificate: dict[str, float]
    aggregate: dict[str, float]


def tally(certificates: Iterator[Certificate], replications: int) -> Tally:
    """Count verdicts."""
    ours, alone = dict.fromkeys(VERDICTS, 0.0), dict.fromkeys(VERDICTS, 0.0)
    for found in certificates:
        ours[found.verdict] += 1 / replications
        alone[aggregate_alone(found)] += 1 / replications
    return Tally(certificate=ours, aggregate=alone)


def hidden_loss(n_slices: int, discordance: float, *, loss: float, margin: float | None, replications: int) -> Tally:
    """Verdicts on S3's example at N = 5,000."""
    rng = spawn_rng(0, "hidden loss", str(n_slices), str(discordance), str(loss))

    def draws() -> Iterator[Certificate]:
        for _ in range(replications):
            table = draw_hidden_loss(rng, n=N_QUERIES, n_slices=n_slices, discordance=discordance, loss=loss)
            yield certify_table(table, margin, rng)

    return tally(draws(), replications)


def recommended_size(n_slices: int, discordance: float, *, margin: float, replications: int) -> tuple[int, Tally]:
    """Labels that `power` asks for after a pilot of 5,000, and the verdicts at that size when nothing is lost."""
    rng = spawn_rng(0, "power", str(n_slices), str(discordance))
    pilot = draw_hidden_loss(rng, n=N_QUERIES, n_slices=n_slices, discordance=discordance, loss=0.0)
    zeros, ones = np.zeros(N_QUERIES, dtype=np.int64), np.ones(N_QUERIES, dtype=np.int64)
    differences = differences_per_slice(pilot, zeros, ones, coverage(pilot, MINIMUM))
    n = plan_labels(differences, N_QUERIES, margin=margin, alpha=0.05, power=0.8).total

    def draws() -> Iterator[Certificate]:
        for _ in range(replications):
            table = draw_hidden_loss(rng, n=n, n_slices=n_slices, discordance=discordance, loss=0.0)
            yield certify_table(table, margin, rng)

    return n, tally(draws(), replications)


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How often an interval holds the truth, and how wide it is on average."""

    share: float
    width: float


def interval_coverage(
    draw: Callable[[np.random.Generator], Interval], truth: float, *, replications: int, name: str
) -> Coverage:
    """Coverage over many draws."""
    rng = spawn_rng(0, "coverage", name)
    found = [draw(rng) for _ in range(replications)]
    held = np.mean([i.low <= truth <= i.high for i in found])
    widths = [i.high - i.low for i in found if np.isfinite(i.high - i.low)]
    return Coverage(share=float(held), width=float(np.mean(widths)))


def graded(rng: np.random.Generator, n: int, mean: float) -> FloatArray:
    """Judge scores like those of the embedded scenario."""
    return rng.beta(mean * 5.24, (1 - mean) * 5.24, n)


def binary(rng: np.random.Generator, n: int, mean: float) -> FloatArray:
    """Right or wrong."""
    return (rng.uniform(size=n) < mean).astype(np.float64)


def coverages(replications: int) -> dict[str, Coverage]:
    """Coverage of every kind of interval in a report."""
    cases: dict[str, tuple[Callable[[np.random.Generator], Interval], float]] = {}
    for kind, source in (("graded", graded), ("0/1", binary)):
        for n, what in ((5_000, "mean"), (250, "slice"), (30, "slice")):
            cases[f"{what}, {kind}, n = {n}"] = (partial(_mean_of, source, n), 0.9)
        for s, n in ((6, 100), (20, 50)):
            cases[f"worst of {s} equal slices, {kind}, n = {n} each"] = (
                partial(_worst_drawn, source, [0.9] * s, n),
                0.9,
            )
        uneven = [0.85] + [0.9] * 5
        cases[f"worst of 6 slices, one 5 points worse, {kind}, n = 100 each"] = (
            partial(_worst_drawn, source, uneven, 100),
            0.85,
        )
    for n in (5_000, 250):
        cases[f"p95 of lognormal latencies, n = {n}"] = (
            partial(_p95_of, n),
            float(np.exp(0.8 * 1.6448536269514722)),
        )
    cases["paired difference in a slice, discordance 0.15, n = 60"] = (_paired_interval, 0.0)
    return {
        name: interval_coverage(draw, truth, replications=replications, name=name)
        for name, (draw, truth) in cases.items()
    }


Source = Callable[[np.random.Generator, int, float], FloatArray]


def _mean_of(source: Source, n: int, rng: np.random.Generator) -> Interval:
    return mean_interval(source(rng, n, 0.9), bounds=UNIT)


def _worst_drawn(source: Source, means: list[float], n: int, rng: np.random.Generator) -> Interval:
    return worst_of([source(rng, n, mean) for mean in means])


def _p95_of(n: int, rng: np.random.Generator) -> Interval:
    return quantile_interval(rng.lognormal(0.0, 0.8, n), 0.95)


def worst_of(groups: list[FloatArray]) -> Interval:
    """Simultaneous interval of the worst slice."""
    return worst_interval([estimate_mean(values, bounds=UNIT) for values in groups])


def naive_worst(groups: list[FloatArray], rng: np.random.Generator, resamples: int = 400) -> Interval:
    """Percentile bootstrap of the smallest slice mean: what not to do."""
    n = len(groups[0])
    drawn = np.stack([g[rng.integers(0, n, (resamples, n))].mean(axis=1) for g in groups])
    low, high = np.quantile(drawn.min(axis=0), [0.025, 0.975])
    return Interval(mean=min(float(g.mean()) for g in groups), low=float(low), high=float(high))


def naive_coverage(replications: int) -> Coverage:
    """Coverage of the naive interval with six equal slices."""

    def draw(rng: np.random.Generator) -> Interval:
        return naive_worst([graded(rng, 100, 0.9) for _ in range(6)], rng)

    return interval_coverage(draw, 0.9, replications=replications, name="naive")


def _paired_interval(rng: np.random.Generator) -> Interval:
    table = draw_hidden_loss(rng, n=60, n_slices=2, discordance=0.15, loss=0.0)
    difference = table.quality[:, 0] - table.quality[:, 1]
    return two_sided(estimate_mean(difference, bounds=(-1.0, 1.0)))


def draw_example(path: str) -> None:
    """The forest plot of one draw of S3's example: what `certify` shows where the average passes."""
    from experiments.files import write_bytes
    from toolkit.report.certificate import CertificateReport
    from toolkit.report.certificate_figures import draw_certificate

    rng = spawn_rng(0, "example")
    table = draw_hidden_loss(rng, n=N_QUERIES, n_slices=6, discordance=0.15, loss=LOSS)
    report = CertificateReport(
        certificate=certify_table(table, 0.02, rng),
        policy="policy",
        baseline="the reasoning tier",
        source="scenario with a known loss of 0.15 in slice00",
        created="",
    )
    write_bytes(Path(path), draw_certificate(report))


def main(replications: int) -> None:
    """Print all figures."""
    for n_slices in (6, 20):
        for discordance in (0.15, 0.25, 0.35):
            for loss in (LOSS, 0.0):
                found = hidden_loss(n_slices, discordance, loss=loss, margin=0.02, replications=replications)
                print(f"S = {n_slices}, discordance {discordance}, loss {loss}: {_shares(found)}")
    for n_slices in (6, 20):
        for discordance in (0.15, 0.25, 0.35):
            n, found = recommended_size(n_slices, discordance, margin=0.05, replications=replications)
            print(f"power: S = {n_slices}, discordance {discordance}, margin 0.05: n = {n:,}, {_shares(found)}")
    for name, coverage_found in coverages(replications).items():
        print(f"coverage: {name}: {coverage_found.share:.3f}, width {coverage_found.width:.4f}")
    naive = naive_coverage(replications)
    print(f"coverage: naive bootstrap of the worst of 6 equal slices: {naive.share:.3f}, width {naive.width:.4f}")
    from experiments.known_choices import print_choices

    print_choices(replications)


def _shares(found: Tally) -> str:
    ours = ", ".join(f"{name} {share:.3f}" for name, share in found.certificate.items())
    alone = ", ".join(f"{name} {share:.3f}" for name, share in found.aggregate.items())
    return f"{ours}; aggregate alone {alone}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["figure"]:
        draw_example(sys.argv[2])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
