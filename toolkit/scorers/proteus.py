r"""A trained Lagrangian policy at run time: NumPy only, no torch.

For a requested quality tau the network gives each query a strength mu in [0, 1] (the mean of its Beta distribution),
and the query goes to the tier of highest $p_k + \mu b_k - (1 - \mu)^\gamma \tilde c_k$, eq. (2) of [Proteus2026]_.
Training is in `toolkit/search/proteus.py`; both have the same formula, and a test holds them together.

Notation: N queries, K tiers, D query inputs (embedding, predicted quality, log predicted price), T requested qualities,
m multipliers (quality first), B bins of tau, H hidden units.

References:
    [Proteus2026] A. Bhatti, V. Vaddina, D. Birru, PROTEUS, arXiv 2601.19402, 2026.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, QueryBatch
from toolkit.scorers.base import FittedScorer, ScoreTable
from toolkit.scorers.embedding import FittedEmbedding

MOST_CONCENTRATED = 50.0
"""Parameters of the Beta distribution stay below this plus 1, so that its density stays wider than the quadrature."""
MULTIPLIER_UNIT = float(np.log1p(1e4))
"""log(1 + multiplier) enters the network divided by this."""
SMALLEST_PRICE = 1e-6
_CELLS = 4_000_000


def query_inputs(z: FloatArray, quality: FloatArray, price: FloatArray) -> FloatArray:
    """`N x D` what the network sees of a query, not yet standardised: embedding, predicted quality, log price."""
    return np.hstack([z, quality, np.log(np.maximum(price, SMALLEST_PRICE))])


def target_inputs(tau: FloatArray, multipliers: FloatArray, bins: FloatArray) -> FloatArray:
    """`T x (1 + m)`: tau on the trained range as [0, 1], and the multipliers on a log scale."""
    low, high = bins[0], bins[-1]
    scaled = (tau - low) / (high - low) if high > low else np.zeros_like(tau)
    return np.hstack([scaled[:, None], np.log1p(multipliers) / MULTIPLIER_UNIT])


@dataclass(frozen=True, kw_only=True)
class PolicyNetwork:
    """A trained network, its multipliers and its scales.

    Attributes:
        arrays: `w1: (D + 1 + m) x H`, `b1`, `gate: m x H`, `gate0`, `w2: H x H`, `b2`, `w3: H x 2`, `b3`,
            `skip: (1 + m) x 2`, `boost: K`,
            `gamma`, `input_mean: D`, `input_scale: D`, `bins: B` of tau, `multipliers: m x B`.
    """

    arrays: Mapping[str, FloatArray]

    def check(self) -> None:
        """Refuse weights that no training could have left.

        Raises:
            ValueError: If shapes do not fit each other, or a number is not finite.
        """
        a = self.arrays
        d, h = len(a["input_mean"]), len(a["b1"])
        m, n_bins = a["multipliers"].shape
        shapes: dict[str, tuple[int, ...]] = {
            "w1": (d + 1 + m, h),
            "w2": (h, h),
            "w3": (h, 2),
            "gate": (m, h),
            "skip": (1 + m, 2),
        }
        shapes |= {"gate0": (h,), "b2": (h,), "b3": (2,), "input_scale": (d,), "bins": (n_bins,)}
        wrong = [name for name, shape in shapes.items() if a[name].shape != shape]
        wrong += [name for name, values in a.items() if not np.isfinite(values).all()]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} of proteus.npz cannot be what training left")

    def multipliers(self, tau: FloatArray) -> FloatArray:
        """`T x m`, between the bins on a log scale."""
        table = np.log1p(self.arrays["multipliers"])
        return np.stack([np.expm1(np.interp(tau, self.arrays["bins"], row)) for row in table], axis=1)

    def strength(self, inputs: FloatArray, tau: FloatArray, multipliers: FloatArray | None = None) -> FloatArray:
        """`N x T` mean of the Beta distribution of each query (`inputs: N x D`) at each requested quality."""
        a = self.arrays
        lam = self.multipliers(tau) if multipliers is None else multipliers
        at = target_inputs(tau, lam, a["bins"])
        n_inputs = len(a["input_mean"])
        of_query = ((inputs - a["input_mean"]) / a["input_scale"]) @ a["w1"][:n_inputs] + a["b1"]
        of_target = at @ a["w1"][n_inputs:]
        gate = 2.0 / (1.0 + np.exp(-(at[:, 1:] @ a["gate"] + a["gate0"])))
        found = np.empty((len(inputs), len(tau)))
        for t in range(len(tau)):
            hidden = np.maximum(of_query + of_target[t], 0.0) * gate[t]
            hidden = np.maximum(hidden @ a["w2"] + a["b2"], 0.0)
            alpha, beta = beta_parameters(hidden @ a["w3"] + at[t] @ a["skip"] + a["b3"])
            found[:, t] = alpha / (alpha + beta)
        return found

    def levels(
        self,
        inputs: FloatArray,
        quality: FloatArray,
        price: FloatArray,
        tau: FloatArray,
        multipliers: FloatArray | None = None,
    ) -> NDArray[np.int8]:
        """`N x T` tier of each query at each requested quality; of equal scores the cheaper tier."""
        found = np.empty((len(inputs), len(tau)), dtype=np.int8)
        step = max(1, _CELLS // (len(tau) * quality.shape[1] + 2 * self.arrays["w2"].shape[1]))
        for start in range(0, len(inputs), step):
            rows = slice(start, start + step)
            mu = self.strength(inputs[rows], tau, multipliers)[..., None]
            weight = (1.0 - mu) ** float(self.arrays["gamma"])
            score = quality[rows, None] + mu * self.arrays["boost"] - weight * price[rows, None]
            found[rows] = np.argmax(score, axis=2)
        return found


def beta_parameters(raw: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`(N, N)`: both parameters of the Beta distribution from `raw: N x 2`, at least 1 (one peak), bounded above."""
    bounded = MOST_CONCENTRATED * np.tanh(raw / MOST_CONCENTRATED)
    found = 1.0 + np.logaddexp(0.0, bounded)
    return found[:, 0], found[:, 1]


@dataclass(frozen=True, kw_only=True)
class FittedProteus:
    """A scorer with a trained policy on top.

    Attributes:
        base: The scorer that predicts quality and cost per tier.
        embedding: What the network sees of a query beside those predictions.
        network: The trained policy.
        targets: `T` requested qualities that `predict` answers for, ascending.
        cost_scale: Quality per USD (or per step of the tier index) by which predicted costs become prices.
        summary: Options and what training found, for a reader; of a fit, `seconds` of training too.
    """

    base: FittedScorer
    embedding: FittedEmbedding
    network: PolicyNetwork
    targets: FloatArray
    cost_scale: float
    summary: Mapping[str, object]
    kind = "proteus"

    @property
    def reachable(self) -> float | None:
        """Largest requested quality that the policy reached on its training queries; None: not even the smallest."""
        found = self.summary.get("reachable")
        return found if isinstance(found, float) else None

    def predict(self, queries: QueryBatch) -> ScoreTable:
        """What the base predicts, with the tiers beside it; tier 0 where the base failed, which a lane catches."""
        found = self.base.predict(queries)
        quality, price = priced_predictions(found, self.cost_scale)
        usable = np.isfinite(quality).all(axis=1) & np.isfinite(price).all(axis=1)
        levels = np.zeros((len(queries), len(self.targets)), dtype=np.int8)
        rows = np.flatnonzero(usable)
        if len(rows):
            inputs = query_inputs(self.embedding.transform(queries.take(rows)), quality[rows], price[rows])
            levels[rows] = self.network.levels(inputs, quality[rows], price[rows], self.targets)
        return replace(found, levels=levels, level_targets=self.targets)

    def save(self, folder: Path) -> None:
        """Arrays as .npz without pickle, the summary as JSON, the base scorer in a folder of its own."""
        arrays = {**self.network.arrays, "targets": self.targets, "cost_scale": np.array(self.cost_scale)}
        np.savez_compressed(folder / "proteus.npz", allow_pickle=False, **arrays)
        (folder / "proteus.json").write_text(json.dumps(self._lasting), encoding="utf-8")
        self.embedding.save(folder)
        (folder / "base").mkdir()
        self.base.save(folder / "base")

    @staticmethod
    def load(folder: Path, base: FittedScorer) -> FittedProteus:
        """The scorer that `save` wrote around `base`; it routes identically."""
        if not zipfile.is_zipfile(folder / "proteus.npz"):
            raise ValueError("proteus.npz is no archive of arrays")
        with np.load(folder / "proteus.npz", allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        targets, cost_scale = arrays.pop("targets"), float(arrays.pop("cost_scale"))
        network = PolicyNetwork(arrays=arrays)
        network.check()
        return FittedProteus(
            base=base,
            embedding=FittedEmbedding.load(folder),
            network=network,
            targets=targets,
            cost_scale=cost_scale,
            summary=json.loads((folder / "proteus.json").read_text(encoding="utf-8")),
        )

    def describe(self) -> dict[str, object]:
        """The base, what the network reads, the options and what training found."""
        ends = {"from": float(self.targets[0]), "to": float(self.targets[-1]), "n": len(self.targets)}
        found: dict[str, object] = {"kind": self.kind, "base": self.base.describe(), "targets": ends}
        return {**found, "embedding": self.embedding.describe(), **self._lasting}

    @property
    def _lasting(self) -> dict[str, object]:
        """The summary without what differs from run to run, because a certificate is valid for what is stored."""
        return {name: value for name, value in self.summary.items() if name != "seconds"}


def priced_predictions(scores: ScoreTable, cost_scale: float) -> tuple[FloatArray, FloatArray]:
    """Predicted quality and price, both `N x K`; without predicted costs the index of the tier stands in.

    Raises:
        ConfigError: If the scorer predicts no quality per tier.
    """
    if scores.quality is None:
        raise ConfigError("controller=proteus needs predicted quality per tier; this scorer gives a score only")
    if scores.cost_usd is not None:
        return scores.quality, cost_scale * scores.cost_usd
    return scores.quality, np.broadcast_to(cost_scale * stand_in_cost(scores.quality.shape[1]), scores.quality.shape)


def stand_in_cost(n_tiers: int) -> FloatArray:
    """`K`: 0 for the first tier to 1 for the last, where no cost is known."""
    return np.linspace(0.0, 1.0, n_tiers)
