"""Paired comparisons against textbook formulas and each other."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from brewlens.stats import clustered_mean, mcnemar, paired_difference, sign_flip


def pairs(n, rng, effect=0.0):
    """Correlated pairs of hits; the first has ``effect`` more."""
    base = rng.random(n)
    return (0.5 * base + 0.5 * rng.random(n) < 0.45 + effect), (0.5 * base + 0.5 * rng.random(n) < 0.45)


def test_bonett_price_by_formula():
    a = np.array([1] * 12 + [0] * 3 + [1] * 40 + [0] * 45, dtype=bool)
    b = np.array([0] * 12 + [1] * 3 + [1] * 40 + [0] * 45, dtype=bool)
    more, less = 13 / 102, 4 / 102
    half = 1.959963984540054 * np.sqrt((more + less - (more - less) ** 2) / 102)
    found = paired_difference(a, b)
    assert found.value == pytest.approx(0.09)
    assert (found.low, found.high) == pytest.approx((more - less - half, more - less + half))
    assert (found.p < 0.05) == (found.low > 0)
    back = paired_difference(b, a)
    assert (back.low, back.high, back.p) == pytest.approx((-found.high, -found.low, found.p))


def test_no_discordant_pair_is_no_certainty():
    hits = np.arange(30) < 10
    same = paired_difference(hits, hits)
    assert same.value == 0 and -same.low == same.high > 0.05 and same.p == 1
    assert paired_difference(hits, hits, np.arange(30) // 3).high > same.high
    all_up = paired_difference(np.ones(30, bool), np.zeros(30, bool), np.arange(30) // 3)
    assert all_up.value == 1 and all_up.low < 0.95 and all_up.high == 1 and all_up.p < 0.001


def test_numbers_are_the_mean_of_differences():
    rng = np.random.default_rng(0)
    a, b, clusters = rng.random(60), rng.random(60), rng.integers(0, 20, 60)
    assert paired_difference(a, b, clusters) == clustered_mean(a - b, clusters)
    unsigned = paired_difference(np.array([0, 1], dtype=np.uint8), np.array([2, 1], dtype=np.uint8))
    assert unsigned.value == -1


def test_shares_agree_with_the_mean_where_counts_are_large():
    rng = np.random.default_rng(1)
    a, b = pairs(4000, rng, 0.05)
    clusters = rng.integers(0, 1500, 4000)
    found, plain = paired_difference(a, b, clusters), clustered_mean(a.astype(float) - b, clusters)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.001)


def test_mcnemar_by_enumeration():
    a = np.array([1, 1, 1, 1, 1, 0, 1, 0], dtype=bool)
    b = np.array([0, 0, 0, 0, 0, 1, 1, 0], dtype=bool)
    flips = [abs(sum(signs)) >= 4 for signs in product((-1, 1), repeat=6)]
    assert mcnemar(a, b) == pytest.approx(np.mean(flips)) == pytest.approx(binomtest(1, 6).pvalue)
    assert sign_flip(a.astype(float) - b) == pytest.approx(np.mean(flips))
    assert mcnemar(a, a) == 1 == sign_flip(np.zeros(8))


def test_sign_flip_flips_whole_clusters():
    rng = np.random.default_rng(2)
    values, clusters = rng.standard_normal(24) + 0.3, np.arange(24) // 3
    sums = values.reshape(8, 3).sum(axis=1)
    naive = [abs(np.dot(signs, sums)) >= abs(sums.sum()) - 1e-12 for signs in product((-1, 1), repeat=8)]
    assert sign_flip(values, clusters) == pytest.approx(np.mean(naive))
    many = rng.standard_normal(200) + 0.15
    assert (
        sign_flip(many, seed=3) == sign_flip(many, seed=3) == pytest.approx(clustered_mean(many).p, abs=0.02)
    )


def test_finds_what_is_there_and_nothing_in_noise():
    rng = np.random.default_rng(4)
    clusters = rng.integers(0, 150, 270)
    tests = {
        "interval": lambda a, b: paired_difference(a, b, clusters).p,
        "flips": lambda a, b: sign_flip(a.astype(float) - b, clusters, n_resamples=499),
        "exact": mcnemar,
    }
    noise = [pairs(270, rng) for _ in range(100)]
    signal = [pairs(270, rng, 0.15) for _ in range(20)]
    for name, p in tests.items():
        assert np.mean([p(a, b) < 0.05 for a, b in noise]) <= 0.11, name
        assert np.mean([p(a, b) < 0.05 for a, b in signal]) >= 0.9, name


@pytest.mark.unchecked("arrays that do not fit")
def test_what_is_not_a_pair():
    hits = np.zeros(3, bool)
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        paired_difference(hits, hits[:2])
    with pytest.raises(ValueError, match="bool and float64"):
        paired_difference(hits, np.zeros(3))
    with pytest.raises(ValueError, match="use sign_flip"):
        mcnemar(np.zeros(3), np.zeros(3))
    assert paired_difference(hits[:0], hits[:0]) is None
