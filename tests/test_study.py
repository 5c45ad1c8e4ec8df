"""The interval of `study` holds the truth; keys cited in docstrings are folders in papers/."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments.study import _Contrast

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_corrected_interval_covers_and_the_naive_one_does_not():
    """A mean over random halves of 200 draws with true mean 0, 20 splits (Nadeau and Bengio 2003)."""
    held, naive = [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        population = rng.normal(size=200)
        contrast = _Contrast(ratio=1.0)
        contrast.differences = [float(population[rng.permutation(200)[:100]].mean()) for _ in range(20)]
        found = contrast.summary()
        held.append(found["low"] <= 0 <= found["high"])
        spread = np.std(contrast.differences, ddof=1) / np.sqrt(20) * stats.t.ppf(0.975, 19)
        naive.append(abs(found["mean"]) <= spread)
    assert 0.92 <= np.mean(held) <= 0.99
    assert np.mean(naive) < 0.6


def test_contrast_known_answer():
    contrast = _Contrast(ratio=1.0)
    contrast.differences = [0.0, 2.0]
    found = contrast.summary()
    half = stats.t.ppf(0.975, 1) * np.sqrt(2.0) * np.sqrt(0.5 + 1.0)
    assert found["mean"] == 1.0 and found["high"] == pytest.approx(1.0 + half)


def test_cited_papers_have_a_folder():
    cited = set()
    for package in ("simulators", "toolkit", "experiments"):
        for path in (ROOT / package).rglob("*.py"):
            cited |= set(re.findall(r"\[(\w+\d{4})\]_", path.read_text()))
    folders = {p.name for p in (ROOT / "papers").iterdir() if p.is_dir()}
    assert cited == folders
    assert all((ROOT / "papers" / name / "README.md").is_file() for name in folders)
