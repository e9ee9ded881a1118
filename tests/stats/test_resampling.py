"""Hierarchical bootstrap against loops, against scipy, and against formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, ks_2samp, norm

from brewlens.stats import between, clustered_mean, hierarchical_bootstrap, mean_interval


def naive(values, levels, rng):
    """One resample by recursion."""
    if not levels:
        return list(values)
    labels = np.unique(levels[0])
    drawn = []
    for label in rng.choice(labels, len(labels)):
        inside = levels[0] == label
        drawn += naive(values[inside], [level[inside] for level in levels[1:]], rng)
    return drawn


@pytest.fixture
def nested():
    rng = np.random.default_rng(0)
    seeds, shapes = rng.integers(0, 6, 80), rng.integers(0, 12, 80)
    values = rng.standard_normal(6)[seeds] + rng.standard_normal((6, 12))[seeds, shapes] + rng.random(80)
    return values, seeds, shapes


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_same_distribution_as_loops(nested, depth):
    values, seeds, shapes = nested
    levels = [seeds, shapes, np.arange(80)][:depth]
    found = hierarchical_bootstrap(values, levels, n_resamples=2000, seed=1)
    rng = np.random.default_rng(2)
    slow = [np.mean(naive(values, levels, rng)) for _ in range(800)]
    assert ks_2samp(found.resamples, slow).pvalue > 0.01
    assert found.se == pytest.approx(np.std(slow), rel=0.1)
    assert (found.value, found.n) == (values.mean(), 80)
    pairs = len(set(zip(seeds, shapes, strict=True)))  # equal shape labels in two seeds are two units
    assert found.units == (6, pairs, 80)[:depth]


def test_units_stay_whole():
    clusters = np.array(list("abcabbcdde"))
    rows = []
    hierarchical_bootstrap(np.arange(10), [clusters], lambda x: rows.append(x) or 0.0, n_resamples=50)
    for drawn in rows[:-1]:
        count = np.bincount(drawn, minlength=10)
        for label in "abcde":
            assert len(set(count[clusters == label])) == 1
        assert sum(count[clusters == label][0] for label in "abcde") == 5


def test_single_samples_are_the_percentile_bootstrap():
    values = np.random.default_rng(3).exponential(size=300)
    found = hierarchical_bootstrap(values, [np.arange(300)], np.median, n_resamples=3000, seed=0)
    plain = bootstrap(
        (values,), np.median, n_resamples=3000, method="percentile", rng=np.random.default_rng(1)
    )
    interval = plain.confidence_interval
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.03)
    assert found.se == pytest.approx(plain.standard_error, rel=0.1)


def test_many_clusters_agree_with_the_robust_interval():
    rng = np.random.default_rng(4)
    clusters = rng.integers(0, 200, 500)
    values = rng.standard_normal(200)[clusters] + rng.standard_normal(500)
    found, plain = hierarchical_bootstrap(values, [clusters], seed=0), clustered_mean(values, clusters)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.03)


def test_widened_for_few_units():
    values = np.random.default_rng(5).standard_normal(12)
    found = hierarchical_bootstrap(values, [np.arange(12)], n_resamples=20000)
    low, high = np.quantile(found.resamples, [0.025, 0.975])
    student = mean_interval(values)
    assert student[1] - student[0] == pytest.approx(found.high - found.low, rel=0.1)
    assert high - low < 0.9 * (found.high - found.low)


def test_statistic_of_rows_and_seed():
    rows = np.random.default_rng(6).random((60, 2))
    found = [
        hierarchical_bootstrap(
            rows, [np.arange(60)], lambda x: np.corrcoef(x.T)[0, 1], n_resamples=99, seed=s
        )
        for s in (0, 0, 1)
    ]
    assert found[0].low == found[1].low != found[2].low
    with pytest.raises(ValueError, match="two units of the outermost level; found 1"):
        hierarchical_bootstrap(rows, [np.zeros(60)])
    with pytest.raises(ValueError, match="no level"):
        hierarchical_bootstrap(rows, [])
    with pytest.raises(ValueError, match="60 in all"):
        hierarchical_bootstrap(rows, [np.zeros(6)])


def test_between_seeds():
    values = np.array([0.30, 0.34, 0.29, 0.33, 0.35])
    found = between(values)
    assert (found.low, found.high) == pytest.approx(mean_interval(values))
    assert (found.mean, found.sd, found.n) == pytest.approx((values.mean(), values.std(ddof=1), 5))
    one = between(values[:1])
    assert one.mean == 0.3 and np.isnan(one.sd) and one.high == np.inf
    assert between(values[:0]) is None
    wide = norm.ppf(0.975) * values.std(ddof=1) / np.sqrt(5)
    assert found.high - found.mean > 1.3 * wide
