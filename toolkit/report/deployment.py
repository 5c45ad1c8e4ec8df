"""The chosen deployment in the report: which model on which GPUs, and what of each GPU type is left."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from toolkit.export.deployment_schema import DeploymentFile, GroupFile, TierFile
from toolkit.report.markup import UNKNOWN, Row, escaped, image_html, table_html
from toolkit.report.record import RunRecord

_COLOURS = ("#56B4E9", "#E69F00", "#0072B2", "#CC79A7", "#F0E442", "#4D4D4D", "#009E73", "#D55E00")
_HATCHES = ("", "///", "...")
_FREE = "#E4E4E4"
_HEAD = ("tier", "model", "requests", "GPUs", "replicas", "requests/s per replica", "USD per hour", "speed known from")


def deployment_section(record: RunRecord, picture: bytes | None) -> list[str]:
    """The part of the page on GPUs; nothing where none were searched."""
    deployment = record.deployment
    if deployment is None or picture is None:
        return []
    expected = deployment.expected
    times = [
        f"{seconds:.3g} s {how}"
        for seconds, how in (
            (expected.latency_p95_table_s, "by the offline tables"),
            (expected.latency_p95_simulated_s, "in a simulation of unseen queries"),
        )
        if seconds is not None
    ]
    lead = (
        f"{deployment.fleet_usd_per_hour:.2f} USD per hour of at most {deployment.budget_usd_per_hour:.2f}, for "
        f"{deployment.rate_per_s:g} requests per second. p95 latency of all requests: {', '.join(times) or 'unknown'}."
    )
    return [
        "<h2>What runs where</h2>",
        f"<p>{escaped(lead)}</p>",
        image_html(picture, "GPUs of each type, by the tier that uses them"),
        table_html(_HEAD, _rows(deployment)),
    ]


def _rows(deployment: DeploymentFile) -> list[Row]:
    rows: list[Row] = []
    for tier in deployment.tiers:
        requests = f"{100 * tier.share:.0f} % ({tier.load_per_s:.3g}/s)"
        if not tier.groups:
            rows.append([tier.name, tier.weights, requests, "none", *[UNKNOWN] * 4])
        rows += [_row(deployment, tier, group, requests) for group in tier.groups]
    return rows


def _row(deployment: DeploymentFile, tier: TierFile, group: GroupFile, requests: str) -> Row:
    used = group.replicas * group.replica.n_gpus
    gpu = deployment.gpus[group.gpu]
    known = "measurements" if gpu.basis == tier.basis == "measured" else "extrapolation"
    split = "" if len(tier.groups) == 1 else f", {100 * group.share:.0f} % of them here"
    return [
        tier.name,
        tier.weights,
        requests + split,
        f"{used} x {group.gpu}",
        f"{group.replicas} (TP {group.tensor_parallel}, PP {group.pipeline_parallel})",
        f"{group.load_per_replica_per_s:.3g}",
        f"{used * gpu.usd_per_hour:.2f}",
        known,
    ]


def gpus_by_tier(deployment: DeploymentFile) -> Mapping[str, list[int]]:
    """GPU type in use -> GPUs of each tier."""
    return {
        name: [sum(g.replicas * g.replica.n_gpus for g in tier.groups if g.gpu == name) for tier in deployment.tiers]
        for name in deployment.gpus
    }


def deployment_figure(deployment: DeploymentFile) -> Figure:
    """One bar per GPU type: what each tier takes, and what is left of those that can be had."""
    used = gpus_by_tier(deployment)
    names = list(used)
    figure = Figure(figsize=(8.0, 1.3 + 0.5 * len(names)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    counts = np.array([used[name] for name in names], dtype=np.int64).reshape(len(names), -1)
    left = np.zeros(len(names))
    for k, tier in enumerate(deployment.tiers):
        colour, hatch = _COLOURS[k % len(_COLOURS)], _HATCHES[k // len(_COLOURS) % len(_HATCHES)]
        axes.barh(names, counts[:, k], left=left, color=colour, hatch=hatch, edgecolor="white", label=tier.name)
        left += counts[:, k]
    free = np.array([deployment.gpus[name].available for name in names]) - left
    axes.barh(names, free, left=left, color=_FREE, edgecolor="white", label="not used")
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("GPUs")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(6, len(deployment.tiers) + 1), fontsize=9.5, frameon=False)
    return figure
