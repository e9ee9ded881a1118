"""Trend against Cochran-Armitage, Mantel's extension and least squares."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from brewlens.stats import trend


def mantel(hits, steps, strata):
    """Two-sided p of Mantel's extension test; with one stratum that of Cochran and Armitage."""
    score = variance = 0.0
    for stratum in np.unique(strata):
        y, x = hits[strata == stratum], steps[strata == stratum]
        p = y.mean()
        score += (y * (x - x.mean())).sum()
        variance += p * (1 - p) * np.square(x - x.mean()).sum()
    return 2 * norm.sf(abs(score) / np.sqrt(variance))


def draw(rng, slope, n=810):
    steps, strata = np.arange(n) % 3, np.arange(n) // 3 % 9
    return rng.random(n) < 0.4 + 0.03 * (strata - 4) + slope * (steps - 1), steps, strata


@pytest.mark.parametrize("slope", [0.0, -0.03])
@pytest.mark.parametrize("stratified", [False, True])
def test_against_cochran_armitage(slope, stratified):
    rng = np.random.default_rng(0)
    for _ in range(10):
        hits, steps, strata = draw(rng, slope)
        cells = strata if stratified else np.zeros(810, int)
        found = trend(hits, steps, strata=cells if stratified else None)
        z = norm.isf(mantel(hits, steps, cells) / 2)
        assert abs(found.value / found.se) == pytest.approx(z, rel=0.03, abs=0.01)


def test_slope_is_least_squares_within_strata():
    rng = np.random.default_rng(1)
    hits, steps, strata = draw(rng, -0.1)
    keep = rng.random(810) < 0.6  # unbalanced, so that strata matter
    hits, steps, strata = hits[keep], steps[keep], strata[keep]
    design = np.concatenate([np.eye(9)[strata], steps[:, None]], axis=1)
    expected = np.linalg.lstsq(design, hits.astype(float), rcond=None)[0][-1]
    names = np.array(list("abcdefghi"))[strata]
    assert trend(hits, steps, strata=names).value == pytest.approx(expected)
    two = trend(hits[steps < 2], steps[steps < 2])
    assert two.value == pytest.approx(hits[steps == 1].mean() - hits[steps == 0].mean())


def test_strata_guard_against_confounding():
    # Every stratum is flat, but hard strata lie at high levels.
    steps = np.repeat([0, 1, 1, 2], 100)
    strata = np.repeat([0, 0, 1, 1], 100)
    hits = np.concatenate([np.arange(100) < 80] * 2 + [np.arange(100) < 20] * 2)
    assert trend(hits, steps).high < -0.2
    assert trend(hits, steps, strata=strata).value == pytest.approx(0, abs=1e-12)


def test_clusters_within_a_level_widen():
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(90), 9)
    steps = clusters % 3
    hits = rng.random(90)[clusters] < 0.5
    assert trend(hits, steps, clusters).se > 2 * trend(hits, steps).se
    assert trend(hits, steps, clusters).df < 90


def test_finds_what_is_there_and_nothing_in_noise():
    rng = np.random.default_rng(3)
    clusters = rng.integers(0, 700, 810)

    def rejected(slope, repeats):
        found = [trend(*draw(rng, slope)[:2], clusters, np.arange(810) // 3 % 9) for _ in range(repeats)]
        return np.mean([one.p < 0.05 for one in found])

    assert rejected(0.0, 300) <= 0.09
    assert rejected(-0.08, 30) >= 0.9


def test_edges():
    steps = np.arange(90) % 3
    for hits in (np.zeros(90, bool), np.ones(90, bool)):
        flat = trend(hits, steps)
        assert flat.value == pytest.approx(0, abs=1e-12) and flat.p == pytest.approx(1)
        assert flat.high - flat.low > 0.01
    layers = 2.0 * steps + np.random.default_rng(4).random(90)
    assert trend(layers, steps).value == pytest.approx(2, abs=0.15)
    assert trend(hits[:0], steps[:0]) is None
    assert np.isnan(trend(steps == 1, steps, np.zeros(90, int)).p)
    assert trend(steps[:2] == 1, steps[:2]).high == np.inf  # a line through two points
    with pytest.raises(ValueError, match="two levels in one stratum"):
        trend(hits, steps, strata=steps)


@pytest.mark.unchecked("arrays that do not fit")
def test_a_level_for_each_sample():
    with pytest.raises(ValueError, match=r"\(90,\) and \(3,\)"):
        trend(np.zeros(90, bool), np.arange(3))
