"""The comparison of a trained policy with parameters that stand for it."""

import numpy as np

from experiments.per_query import cost_ratio


def test_a_tier_that_bills_nothing_can_be_compared():
    assert cost_ratio(3.0, 2.0) == 1.5
    assert cost_ratio(0.0, 0.0) == 1.0
    assert cost_ratio(1.0, 0.0) == np.inf
    assert np.isnan(cost_ratio(np.nan, np.nan))
