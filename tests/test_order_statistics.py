"""Order statistics of unions of ranges equal sorting."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.evaluation.order_statistics import RangeUnionOrderStatistics

values = st.lists(st.integers(0, 9).map(float), min_size=0, max_size=12)


@given(first=st.lists(st.floats(0, 5), min_size=1, max_size=15), second=values, data=st.data())
@settings(deadline=None, max_examples=80)
def test_select_equals_sorting(first, second, data):
    sequences = [np.array(first), np.array(second, dtype=float)]
    statistics = RangeUnionOrderStatistics(sequences)
    ranges = []
    for sequence in sequences:
        start = data.draw(st.integers(0, len(sequence)))
        ranges.append((start, data.draw(st.integers(start, len(sequence)))))
    union = np.sort(np.concatenate([s[a:b] for s, (a, b) in zip(sequences, ranges, strict=True)]))
    if len(union) == 0:
        return
    n = len(union)
    starts, ends = (np.tile([r[i] for r in ranges], (n, 1)) for i in (0, 1))
    assert statistics.select(starts, ends, np.arange(n)).tolist() == union.tolist()
    found = statistics.quantiles(starts[:1], ends[:1], (0.0, 0.37, 0.5, 0.95, 1.0))
    np.testing.assert_allclose(found[0], np.quantile(union, [0.0, 0.37, 0.5, 0.95, 1.0]), rtol=1e-12)


def test_one_distinct_value():
    statistics = RangeUnionOrderStatistics([np.full(4, 2.5), np.full(3, 2.5)])
    assert statistics.quantiles(np.array([[0, 1]]), np.array([[2, 3]]), (0.5,))[0, 0] == 2.5
