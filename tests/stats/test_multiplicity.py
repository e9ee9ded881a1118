"""Adjusted p-values by loop, and detectable differences by simulation of the test they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import nct, norm
from scipy.stats import t as t_distribution

from brewlens.stats import benjamini_hochberg, detectable, detectable_shares


def test_benjamini_hochberg_by_loop():
    p = np.random.default_rng(0).random(30) ** 3
    order = np.argsort(p)
    slow, least = np.empty(30), 1.0
    for rank in range(30, 0, -1):
        least = min(least, p[order[rank - 1]] * 30 / rank)
        slow[order[rank - 1]] = least
    assert np.allclose(benjamini_hochberg(p), slow)
    table = np.full((6, 7), np.nan)
    table[:, :5] = p.reshape(6, 5)
    found = benjamini_hochberg(table)
    assert np.allclose(found[:, :5].ravel(), slow) and np.isnan(found[:, 5:]).all()
    assert np.isnan(benjamini_hochberg(np.array([np.nan]))).all()
    assert benjamini_hochberg(np.zeros(0)).shape == (0,)
    with pytest.raises(ValueError):
        benjamini_hochberg(np.array([1.2]))


def test_benjamini_hochberg_keeps_its_rate():
    rng = np.random.default_rng(1)
    null = [(benjamini_hochberg(rng.random(40)) < 0.05).any() for _ in range(500)]
    assert np.mean(null) <= 0.08
    p = np.concatenate([rng.random(30), norm.sf(rng.standard_normal(10) + 4)])
    assert (benjamini_hochberg(p)[30:] < 0.05).sum() >= 7


@pytest.mark.parametrize("df", [5, 20, 400, np.inf])
def test_detectable_has_its_power(df):
    distance = detectable(0.02, df) / 0.02
    bound = t_distribution.isf(0.025, df)
    power = norm.sf(bound - distance) if np.isinf(df) else nct.sf(bound, df, distance)
    assert power == pytest.approx(0.8, abs=0.02)
    assert detectable(np.inf, 0) == np.inf


@pytest.mark.parametrize(("n", "p"), [(270, 0.5), (270, 0.1), (810, 0.02), (100, 0.9)])
def test_detectable_shares_have_their_power(n, p):
    distance = detectable_shares(n, p)
    rng = np.random.default_rng(2)
    other = p + distance if p <= 0.5 else p - distance
    a, b = rng.binomial(n, p, 20000) / n, rng.binomial(n, other, 20000) / n
    z = (np.arcsin(np.sqrt(a)) - np.arcsin(np.sqrt(b))) * 2 / np.sqrt(2 / n)
    assert np.mean(np.abs(z) > 1.96) == pytest.approx(0.8, abs=0.03)


def test_detectable_shares_edges():
    assert detectable_shares(100, 0.2) == pytest.approx(detectable_shares(100, 0.8))
    assert detectable_shares(400) < detectable_shares(100)
    assert np.isnan(detectable_shares(1)) and np.isnan(detectable_shares(0))
    with pytest.raises(ValueError, match=r"found 1\.5"):
        detectable_shares(10, 1.5)
