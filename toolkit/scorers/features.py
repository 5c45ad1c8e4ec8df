"""Prompt features: words as TF-IDF, and the shape of the text as a radial basis.

Both blocks have rows of norm about one, so a linear model on their concatenation is kernel ridge regression on the
sum of a cosine kernel over words and a Gaussian kernel over shape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.kernel_approximation import Nystroem
from sklearn.metrics.pairwise import rbf_kernel

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray

_TOKEN = r"(?u)\w+|[^\w\s]"
_WORD = re.compile(r"\w+")
_N_LANDMARKS = 300
_STATE = ("idf", "shape_mean", "shape_scale", "landmarks", "projection")


def prompt_shape(prompt: str) -> list[float]:
    """Length, layout and character classes of one prompt: 13 numbers that need no vocabulary."""
    words, n = _WORD.findall(prompt), max(len(prompt), 1)
    symbols = sum(not c.isalnum() and not c.isspace() for c in prompt)
    return [
        np.log1p(len(prompt)),
        np.log1p(len(words)),
        np.log1p(len(set(words))),
        np.log1p(prompt.count("\n")),
        np.log1p(sum(c.isdigit() for c in prompt)),
        np.log1p(prompt.count("?")),
        np.log1p(prompt.count("(")),
        np.log1p(prompt.count("$") + prompt.count("\\")),
        np.log1p(prompt.count('"')),
        np.log1p(symbols),
        sum(map(len, words)) / max(len(words), 1),
        sum(c.isupper() for c in prompt) / n,
        float("?" in prompt),
    ]


@dataclass(frozen=True, kw_only=True)
class PromptFeatures:
    """A fitted feature map, wholly described by its vocabulary and arrays.

    Attributes:
        vocabulary: Token or token pair -> column.
        arrays: The arrays named in `_STATE`.
    """

    vocabulary: Mapping[str, int]
    arrays: Mapping[str, FloatArray]

    @staticmethod
    def fit(prompts: tuple[str, ...], *, seed: int) -> PromptFeatures:
        """Learn vocabulary, document frequencies, scales and landmarks."""
        minimum = 2 if len(prompts) >= 20 else 1
        words = _fit_words(prompts, minimum)
        shape = np.array([prompt_shape(p) for p in prompts])
        mean, scale = shape.mean(axis=0), shape.std(axis=0)
        scale[scale == 0] = 1.0
        n_landmarks = min(_N_LANDMARKS, len(prompts))
        basis = Nystroem(gamma=1.0 / (2 * shape.shape[1]), n_components=n_landmarks, random_state=seed)
        basis.fit((shape - mean) / scale)
        arrays = (words.idf_, mean, scale, basis.components_, basis.normalization_)
        vocabulary = {token: int(column) for token, column in words.vocabulary_.items()}
        return PromptFeatures(vocabulary=vocabulary, arrays=dict(zip(_STATE, map(np.asarray, arrays), strict=True)))

    def transform(self, prompts: tuple[str, ...]) -> sparse.csr_matrix:
        """`N x D` features."""
        shape = (np.array([prompt_shape(p) for p in prompts]) - self.arrays["shape_mean"]) / self.arrays["shape_scale"]
        kernel = rbf_kernel(shape, self.arrays["landmarks"], gamma=1.0 / (2 * shape.shape[1]))
        block = sparse.csr_matrix(kernel @ self.arrays["projection"].T)
        return sparse.csr_matrix(sparse.hstack([self._words().transform(prompts), block]))

    def known_share(self, prompts: tuple[str, ...]) -> FloatArray:
        """`N` share of each prompt's tokens that the vocabulary holds; NaN for a prompt without any token."""
        token = re.compile(_TOKEN)
        shares = []
        for prompt in prompts:
            found = token.findall(prompt.lower())
            shares.append(sum(t in self.vocabulary for t in found) / len(found) if found else np.nan)
        return np.array(shares)

    def _words(self) -> TfidfVectorizer:
        words = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, token_pattern=_TOKEN, vocabulary=dict(self.vocabulary)
        )
        words.idf_ = self.arrays["idf"]
        return words


def _fit_words(prompts: tuple[str, ...], minimum: int) -> TfidfVectorizer:
    """TF-IDF over words and pairs; where no token is shared by `minimum` prompts, over all tokens."""
    token = re.compile(_TOKEN)
    if not any(token.search(prompt) for prompt in prompts):
        raise InputDataError("scorer=text found no word in any prompt; use another scorer")
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=minimum, token_pattern=_TOKEN)
    try:
        return words.fit(prompts)
    except ValueError:  # scikit-learn's "no terms remain"
        return words.set_params(min_df=1).fit(prompts)
