"""One unseen episode over time: load, tiers and late answers of a few methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.control import Book
from experiments.control_methods import PACING
from experiments.control_ppo import late_limits, play_policy
from experiments.control_settings import Method
from simulators.envs.telemetry import Telemetry
from simulators.envs.windows import Coming, play
from simulators.outcomes import FloatArray
from toolkit.baselines.windows import Decide, Episode, Rule, Tiers, tiers_of

_BINS = 48


@dataclass(frozen=True, kw_only=True)
class Course:
    """A method in one episode, by part of the episode in which requests ended.

    Attributes:
        at_s: `B` ends.
        sent: `B x K` shares by the tier that was asked first; NaN where nothing ended.
        late: `B` shares; NaN where nothing ended.
        requests: `B` that ended.
    """

    at_s: FloatArray
    sent: FloatArray
    late: FloatArray
    requests: FloatArray


@dataclass(frozen=True, kw_only=True)
class PathRule:
    """Cuts that were fixed beforehand.

    Attributes:
        cuts: `W x (K-1)`, by equal parts of the episode; one row never changes.
        window_s: Length of a window.
    """

    cuts: FloatArray
    window_s: float

    @property
    def n(self) -> int:
        """See `Rule`."""
        return 1

    def begin(self, episode: Episode) -> Decide:
        """See `Rule`."""
        world, rank = episode.world, episode.known.rank

        def decide(telemetry: Telemetry, coming: Coming) -> Tiers:
            part = np.minimum((coming.ready_s / world.duration_s * len(self.cuts)).astype(int), len(self.cuts) - 1)
            tiers = [tiers_of(self.cuts[[p]], rank[[row]])[0, 0] for p, row in zip(part, coming.row, strict=True)]
            return np.array(tiers, dtype=np.int8)[None, :]

        return decide


def timelines(book: Book, rows: dict[Method, dict[str, Any]]) -> dict[str, Course]:
    """Seed 0 under static, the best pacing rule, index, trained policy and clairvoyant thresholds, if done."""
    paced = [m for m in PACING if m in rows and rows[m]["advantage"] is not None]
    best = max(paced, key=lambda m: rows[m]["advantage"]["mean"], default=None)
    chosen = [m for m in ("static", best, "index", "ppo_lagrangian", "clairvoyant") if m in rows]
    return {m: _course(book, m, rows[m]["number"]) for m in chosen}


def _course(book: Book, method: Method, number: int) -> Course:
    site, episode = book.site, book.site.unseen(0)
    if method == "ppo_lagrangian":
        windows = play_policy(site, episode, book.policies()[number], late_limits(book.plan)[number])[1]
        return _binned(episode, [(w["at_s"], w["requests"], w["late"], w["sent"]) for w in windows])
    if method == "static":
        rule: Rule = PathRule(cuts=book.plan.cuts[[number]], window_s=site.window_s)
    elif method == "clairvoyant":
        cuts = book.unseen(method, 0).cuts
        assert cuts is not None
        rule = PathRule(cuts=cuts, window_s=site.window_s)
    else:
        rule = book.plan.sweep(method).rule(np.array([number]))
    done = play(
        episode.world,
        episode.table,
        None,
        rule.begin(episode),
        window_s=rule.window_s,
        latency_limit_s=episode.slo_s,
        label_share=0.0,
        keep=True,
    )
    ends = (np.arange(len(done.windows)) + 1) * rule.window_s
    parts = zip(ends, done.windows, strict=True)
    return _binned(episode, [(at, w.requests[0].sum(), w.late[0].sum(), w.sent[0]) for at, w in parts])


def _binned(episode: Episode, windows: list[tuple[Any, Any, Any, Any]]) -> Course:
    duration_s = episode.world.duration_s
    part = np.array([min(int((float(w[0]) - 1e-6) / duration_s * _BINS), _BINS - 1) for w in windows])
    requests, late = (np.bincount(part, weights=[float(w[i]) for w in windows], minlength=_BINS) for i in (1, 2))
    sent = np.zeros((_BINS, len(windows[0][3])))
    np.add.at(sent, part, np.array([w[3] for w in windows], dtype=np.float64))
    none = requests == 0
    ratio = np.where(none, np.nan, late / np.maximum(requests, 1))
    shares = np.where(none[:, None], np.nan, sent / np.maximum(sent.sum(axis=1, keepdims=True), 1))
    at_s = (np.arange(_BINS) + 1) * duration_s / _BINS
    return Course(at_s=at_s, sent=shares, late=ratio, requests=requests.astype(np.float64))
