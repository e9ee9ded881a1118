"""Intervals against their textbook formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from brewlens.stats import mean_interval, share


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 10), (10, 10), (81, 270)])
def test_wilson_by_formula(count, n):
    z, p = 1.959963984540054, count / n
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    found = share(count, n)
    assert (found.value, found.n) == (p, n)
    assert found.low == pytest.approx(max(0, (centre - half) / (1 + z**2 / n)), abs=1e-12)
    assert found.high == pytest.approx(min(1, (centre + half) / (1 + z**2 / n)), abs=1e-12)


def test_no_sample_no_share():
    assert share(0, 0) is None
    with pytest.raises(ValueError):
        share(3, 2)


def test_student_by_formula():
    values = np.array([0.1, 0.4, 0.4, 0.9])
    half = t.ppf(0.975, 3) * values.std(ddof=1) / 2
    assert mean_interval(values) == pytest.approx((values.mean() - half, values.mean() + half))
    assert mean_interval(np.array([0.5, 0.5])) == (0.5, 0.5)
    assert mean_interval(np.array([0.5])) is None
