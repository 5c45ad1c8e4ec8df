"""The reasoning-eligibility head: the probability that one tier answers a query meaningfully better.

A wrapper around any scorer. Whatever the base says passes through; beside it stands, per query, the probability that

    quality[tier] - quality[against] > margin,

by logistic regression on prompt features where there are prompts, else on the base's score and confidence and the
numeric signals of the queries. A lane (`toolkit.policies.lanes`) pins queries of high probability ahead of the policy.

Notation: N queries, K tiers, D features.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray, OutcomeTable, QueryBatch
from toolkit.scorers.base import FittedScorer, Scorer, ScoreTable
from toolkit.scorers.features import PromptFeatures

_MIN_EXAMPLES = 10
"""Of either kind; with fewer, the head states the base rate."""
_INVERSE_PENALTY = 0.3
"""`C` of the regression; rows of prompt features have a norm of about one, so this shrinks hard."""
_ALMOST_CERTAIN = 1.0 - 1e-6
"""No query is certain, so that a threshold of 1 pins nobody."""
_LARGEST = 1e100
"""Signals are cut here, so that their squares stay finite."""


@dataclass(frozen=True, kw_only=True)
class EligibilityTarget:
    """What "meaningfully better" means.

    Attributes:
        tier: The tier that eligible queries go to.
        against: The tier it is compared with.
        margin: Gain in quality that counts, in [0, 1).
    """

    tier: str
    against: str
    margin: float

    def worthwhile(self, table: OutcomeTable) -> NDArray[np.bool_]:
        """`N`, True where the tier's answer is better by more than the margin."""
        a, b = table.tiers.index(self.tier), table.tiers.index(self.against)
        return np.asarray(table.quality[:, a] - table.quality[:, b] > self.margin)


def make_target(table: OutcomeTable, tier: str | None, against: str | None, margin: float) -> EligibilityTarget:
    """The target with its defaults: the dearest tier, against the best of the cheaper ones on `table`.

    Raises:
        ConfigError: If a tier is unknown, or the two are one, or nothing is cheaper.
    """
    tiers = table.tiers
    for option, name in (("lane.tier", tier), ("lane.against", against)):
        if name is not None and name not in tiers:
            raise ConfigError(f"{option}={name} is none of the tiers {list(tiers)}")
    top = len(tiers) - 1 if tier is None else tiers.index(tier)
    if top == 0 and against is None:
        raise ConfigError(f"lane.tier={tiers[0]} is the cheapest tier; name the one to compare it with: lane.against=")
    other = int(np.argmax(table.quality[:, :top].mean(axis=0))) if against is None else tiers.index(against)
    if other == top:
        raise ConfigError(f"lane.tier and lane.against must differ; both are {tiers[top]}")
    return EligibilityTarget(tier=tiers[top], against=tiers[other], margin=margin)


def threshold_for_recall(eligibility: FloatArray, worthwhile: NDArray[np.bool_], recall: float) -> float:
    """The largest threshold that pins at least a share `recall` of the queries where it is worthwhile.

    Args:
        eligibility: `N` out-of-fold probabilities; NaN where the query cannot be pinned.
        worthwhile: `N`.
        recall: In (0, 1].

    Raises:
        ConfigError: If no query is worthwhile, or too many of those that are cannot be pinned.
    """
    known = np.sort(eligibility[worthwhile & np.isfinite(eligibility)])[::-1]
    n = int(worthwhile.sum())
    if n == 0:
        raise ConfigError(
            f"lane.recall={recall:g} has no meaning here: on no query of the tune split is the tier better by more "
            "than lane.margin; give lane.threshold, or lower lane.margin"
        )
    wanted = max(1, int(np.ceil(recall * n - 1e-9)))
    if wanted > len(known):
        raise ConfigError(
            f"lane.recall={recall:g} cannot be reached: {n - len(known)} of the {n} eligible queries of the tune split "
            "have no usable score and go to the fallback tier; lower it"
        )
    return float(known[wanted - 1])


def target_of(scorer: FittedScorer) -> EligibilityTarget | None:
    """What the scorer's head predicts, or None without a head."""
    return scorer.target if isinstance(scorer, FittedEligibilityScorer) else None


@dataclass(frozen=True, kw_only=True)
class NumericFeatures:
    """Standardised numbers, and for each one that may be missing an indicator.

    Attributes:
        signals: Names of the signals that are read beside score and confidence.
        mean, scale: One per number.
    """

    signals: tuple[str, ...]
    mean: FloatArray
    scale: FloatArray

    @staticmethod
    def fit(queries: QueryBatch, scores: ScoreTable) -> NumericFeatures:
        """Learn means and scales from what is known."""
        signals = tuple(sorted(queries.signals))
        values = _numbers(queries, scores, signals)
        known = np.isfinite(values)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, values, 0.0).sum(axis=0) / count
        scale = np.sqrt((np.where(known, values - mean, 0.0) ** 2).sum(axis=0) / count)
        return NumericFeatures(signals=signals, mean=mean, scale=np.where(scale > 0, scale, 1.0))

    def transform(self, queries: QueryBatch, scores: ScoreTable) -> FloatArray:
        """`N x 2d`: the numbers, 0 where missing, then the indicators."""
        values = _numbers(queries, scores, self.signals)
        missing = ~np.isfinite(values)
        standard = np.where(missing, 0.0, (values - self.mean) / self.scale)
        return np.concatenate([standard, missing.astype(np.float64)], axis=1)


def _numbers(queries: QueryBatch, scores: ScoreTable, signals: tuple[str, ...]) -> FloatArray:
    """`N x d`: score, confidence where it is stated, signals."""
    absent = [name for name in signals if name not in queries.signals]
    if absent:
        have = ", ".join(queries.signals) or "none"
        raise InputDataError(f"the eligibility head reads the numeric columns {absent}; the queries have: {have}")
    columns = [scores.score] if scores.confidence is None else [scores.score, scores.confidence]
    columns += [queries.signals[name] for name in signals]
    values = np.stack(columns, axis=1).astype(np.float64)
    return np.clip(np.where(np.isfinite(values), values, np.nan), -_LARGEST, _LARGEST)


@dataclass(frozen=True, kw_only=True)
class EligibilityScorer:
    """Recipe: a scorer, plus the head.

    Attributes:
        base: The scorer.
        tier, against, margin: See `make_target`; None for the defaults.
        seed: Seed of the prompt features' landmarks.
    """

    base: Scorer
    tier: str | None = None
    against: str | None = None
    margin: float = 0.1
    seed: int = 0
    learned = True

    def fit(self, table: OutcomeTable) -> FittedEligibilityScorer:
        """Fit the base and the head on `table`."""
        target = make_target(table, self.tier, self.against, self.margin)
        base = self.base.fit(table)
        y = target.worthwhile(table)
        constant = FittedEligibilityScorer(base=base, target=target, n=len(y), n_positive=int(y.sum()))
        if min(y.sum(), (~y).sum()) < _MIN_EXAMPLES:
            return constant
        features = self._features(table.queries, base)
        unfitted = replace(constant, features=features)
        X = unfitted.matrix(table.queries, base.predict(table.queries))
        found = LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000).fit(X, y)
        return replace(unfitted, coef=found.coef_[0], intercept=float(found.intercept_[0]))

    def _features(self, queries: QueryBatch, base: FittedScorer) -> PromptFeatures | NumericFeatures:
        if queries.prompt is not None and any(prompt.strip() for prompt in queries.prompt):
            return PromptFeatures.fit(queries.prompt, seed=self.seed)
        return NumericFeatures.fit(queries, base.predict(queries))


@dataclass(frozen=True, kw_only=True)
class FittedEligibilityScorer:
    """A fitted scorer with its head.

    Attributes:
        base: The scorer that score, confidence and predictions come from.
        target: What the head predicts.
        n, n_positive: Queries it was fitted on, and on how many of them the tier was meaningfully better.
        features: What the head looks at, or None: every query then gets the base rate.
        coef: `D`.
        intercept: Of the regression.
    """

    base: FittedScorer
    target: EligibilityTarget
    n: int
    n_positive: int
    features: PromptFeatures | NumericFeatures | None = None
    coef: FloatArray | None = None
    intercept: float = 0.0
    kind = "eligibility"

    @property
    def base_rate(self) -> float:
        """Share of the queries on which the tier was meaningfully better."""
        return self.n_positive / self.n

    def matrix(self, queries: QueryBatch, scores: ScoreTable) -> FloatArray | sparse.csr_matrix:
        """`N x D` features."""
        if isinstance(self.features, PromptFeatures):
            if queries.prompt is None:
                raise InputDataError("the eligibility head reads prompts; the queries file needs a prompt column")
            return self.features.transform(queries.prompt)
        assert self.features is not None
        return self.features.transform(queries, scores)

    def predict(self, queries: QueryBatch) -> ScoreTable:
        """What the base predicts, with eligibilities beside it."""
        found = self.base.predict(queries)
        if self.coef is None or len(queries) == 0:
            eligibility = np.full(len(queries), self.base_rate)
        else:
            eligibility = expit(np.asarray(self.matrix(queries, found) @ self.coef) + self.intercept)
        return replace(found, eligibility=np.minimum(eligibility, _ALMOST_CERTAIN))

    def save(self, folder: Path) -> None:
        """Arrays as .npz without pickle, names as JSON, the base scorer beside them."""
        arrays: dict[str, FloatArray] = {"intercept": np.array(self.intercept)}
        plain: dict[str, object] = {"target": asdict(self.target), "n": self.n, "n_positive": self.n_positive}
        if self.coef is not None:
            arrays["coef"] = self.coef
        if isinstance(self.features, PromptFeatures):
            arrays |= {f"features_{name}": array for name, array in self.features.arrays.items()}
            plain["vocabulary"] = dict(self.features.vocabulary)
        elif self.features is not None:
            arrays |= {"features_mean": self.features.mean, "features_scale": self.features.scale}
            plain["signals"] = list(self.features.signals)
        np.savez_compressed(folder / "eligibility.npz", allow_pickle=False, **arrays)
        (folder / "eligibility.json").write_text(json.dumps(plain), encoding="utf-8")
        self.base.save(folder)

    @staticmethod
    def load(folder: Path, base: FittedScorer) -> FittedEligibilityScorer:
        """The scorer that `save` wrote around `base`; it scores identically."""
        plain = json.loads((folder / "eligibility.json").read_text(encoding="utf-8"))
        with np.load(folder / "eligibility.npz", allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        own = {name.removeprefix("features_"): a for name, a in arrays.items() if name.startswith("features_")}
        features: PromptFeatures | NumericFeatures | None = None
        if "vocabulary" in plain:
            features = PromptFeatures(vocabulary=plain["vocabulary"], arrays=own)
        elif "signals" in plain:
            features = NumericFeatures(signals=tuple(plain["signals"]), **own)
        return FittedEligibilityScorer(
            base=base,
            target=EligibilityTarget(**plain["target"]),
            n=plain["n"],
            n_positive=plain["n_positive"],
            features=features,
            coef=arrays.get("coef"),
            intercept=float(arrays["intercept"]),
        )

    def describe(self) -> dict[str, object]:
        """The base, the target, what the head reads, and the base rate."""
        found: dict[str, object] = {"kind": self.kind, "base": self.base.describe(), **asdict(self.target)}
        found |= {"reads": self._reads(), "base_rate": round(self.base_rate, 6), "n": self.n}
        if self.features is None:
            found["note"] = (
                f"{self.target.tier} is better than {self.target.against} by more than {self.target.margin:g} on "
                f"{self.n_positive} of {self.n} queries, fewer than {_MIN_EXAMPLES} of one kind: "
                "the head knows the base rate only"
            )
        return found

    def _reads(self) -> str:
        if self.features is None:
            return "nothing"
        if isinstance(self.features, PromptFeatures):
            return "prompts"
        signals, stated = self.features.signals, ["score", "confidence"]
        known = stated[: len(self.features.mean) - len(signals)]
        return ", ".join(known) + (f", columns {', '.join(signals)}" if signals else "")
