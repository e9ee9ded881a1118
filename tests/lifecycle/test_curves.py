"""Population curves: exact where onsets are known, and their intervals cover the truth where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from brewlens.lifecycle.curves import onset_curve, restricted_difference
from brewlens.stats import clustered_mean, clustered_share

LAYERS = 12


def certain(onsets, layers=LAYERS):
    """Posteriors without doubt; L is never."""
    return np.eye(layers + 1)[onsets]


def draw(rng, n, never=0.3, earliest=0):
    return np.where(rng.random(n) < never, LAYERS, rng.integers(earliest, 9, n))


def observe(rng, onsets, hit, guess=0.1, rounds=60):
    """Posteriors from hits and misses: rates are known, how often each onset occurs is fitted (EM)."""
    layer = np.arange(LAYERS)
    right = rng.random((len(onsets), LAYERS)) < np.where(layer >= onsets[:, None], hit, guess)
    before = np.log(np.where(right, guess, 1 - guess))
    after = np.log(np.where(right, hit, 1 - hit))
    logs = np.stack([before[:, :o].sum(axis=1) + after[:, o:].sum(axis=1) for o in range(LAYERS + 1)], axis=1)
    likelihood, share = np.exp(logs - logs.max(axis=1, keepdims=True)), np.full(LAYERS + 1, 1 / (LAYERS + 1))
    for _ in range(rounds):
        posterior = share * likelihood
        posterior /= posterior.sum(axis=1, keepdims=True)
        share = posterior.mean(axis=0)
    return posterior


def test_known_onsets_are_counted():
    onsets = np.array([0, 2, 2, 5, LAYERS, LAYERS])
    clusters = np.array([0, 0, 1, 2, 3, 3])
    curve = onset_curve(certain(onsets), clusters)
    for layer in range(LAYERS):
        expected = clustered_share(onsets <= layer, clusters)
        assert curve.share[layer] == pytest.approx(expected.value)
        if layer > 4:  # a design effect below 1 is taken as 1 in shares
            assert (curve.low[layer], curve.high[layer]) == pytest.approx(
                (expected.low, expected.high), abs=0.02
            )
    mean = clustered_mean(onsets.astype(float), clusters)
    assert curve.restricted.value == pytest.approx(onsets.mean())
    assert curve.restricted.se == pytest.approx(mean.se)
    assert curve.relative.value == pytest.approx(onsets.mean() / LAYERS)
    assert 0 <= curve.restricted.low < curve.restricted.value < curve.restricted.high <= LAYERS
    assert (curve.median, curve.n, curve.clusters, curve.n_layers) == (2, 6, 4, LAYERS)


def test_intervals_of_known_shares_are_those_of_shares():
    rng = np.random.default_rng(0)
    onsets = draw(rng, 300)
    curve = onset_curve(certain(onsets))
    for layer in range(LAYERS):
        expected = clustered_share(onsets <= layer)
        found = (curve.share[layer], curve.low[layer], curve.high[layer])
        assert found == pytest.approx((expected.value, expected.low, expected.high), abs=1e-9)


def test_the_area_above_the_curve_is_the_restricted_mean():
    posterior = np.random.default_rng(0).dirichlet(np.ones(LAYERS + 1), 50)
    curve = onset_curve(posterior)
    assert (1 - curve.share).sum() == pytest.approx(curve.restricted.value)
    assert (np.diff(curve.share) >= 0).all()
    assert (curve.low <= curve.share).all() and (curve.share <= curve.high).all()


def test_doubt_widens():
    onsets = draw(np.random.default_rng(0), 200)
    sharp, vague = certain(onsets), 0.7 * certain(onsets) + 0.3 / (LAYERS + 1)
    assert onset_curve(vague).restricted.se > onset_curve(sharp).restricted.se
    later = np.minimum(onsets + 2, LAYERS)
    assert (
        restricted_difference(0.7 * certain(later) + 0.3 / (LAYERS + 1), vague).se
        > restricted_difference(certain(later), sharp).se
    )


def test_never_is_not_left_out():
    onsets = np.r_[np.full(30, 3), np.full(70, LAYERS)]
    curve = onset_curve(certain(onsets))
    assert curve.share[-1] == pytest.approx(0.3)
    assert curve.restricted.value == pytest.approx(0.3 * 3 + 0.7 * LAYERS)
    assert curve.median is None


def test_nothing_there():
    curve = onset_curve(certain(np.full(100, LAYERS)))
    assert (curve.share == 0).all() and (curve.low == 0).all()
    assert curve.high == pytest.approx(np.full(LAYERS, clustered_share(np.zeros(100, bool)).high))
    assert curve.restricted.value == LAYERS == curve.restricted.high
    assert curve.restricted.low < LAYERS
    almost = np.full((100, LAYERS + 1), 1e-3)
    almost[:, -1] = 1 - 1e-3 * LAYERS
    curve = onset_curve(almost)
    assert (curve.low == 0).all() and curve.high[-1] < 0.07
    assert (onset_curve(almost[:, ::-1]).high == 1).all()


def test_one_cluster_says_nothing_of_the_spread():
    curve = onset_curve(certain(np.array([1, 3, LAYERS])), np.zeros(3))
    assert (curve.low == 0).all() and (curve.high == 1).all()
    assert (curve.restricted.low, curve.restricted.high) == (0, LAYERS)


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    earlier = draw(rng, 400, never=0.0)
    later = earlier + 2 + (rng.random(400) < 0.5)
    difference = restricted_difference(certain(later), certain(earlier))
    plain = clustered_mean((later - earlier).astype(float))
    assert (difference.value, difference.se, difference.low) == pytest.approx(
        (plain.value, plain.se, plain.low)
    )
    assert difference.p < 1e-10
    assert difference.value == -restricted_difference(certain(earlier), certain(later)).value


def test_groups_are_unshrunk_apart():
    rng = np.random.default_rng(0)
    early, late = (observe(rng, draw(rng, 200, never=0.0, earliest=e), 0.8) for e in (0, 7))
    together, groups = np.concatenate([early, late]), np.repeat(["early", "late"], 200)
    apart = onset_curve(together, groups=groups)
    assert apart.share == pytest.approx(onset_curve(together).share)
    assert onset_curve(together, groups=np.zeros(400)).restricted == onset_curve(together).restricted
    halves = [onset_curve(half).restricted for half in (early, late)]
    between = (halves[0].value - halves[1].value) ** 2 / 4
    variance = sum(200 * half.se**2 for half in halves) / 2 + between
    assert apart.restricted.se == pytest.approx(np.sqrt(variance / 400), rel=0.01)


def test_tables_are_tidy():
    frame = onset_curve(certain(np.array([0, 2, LAYERS])), ["a", "a", "b"]).to_frame()
    assert frame.columns.tolist() == ["layer", "share", "low", "high", "n", "n_clusters"]
    assert frame["layer"].tolist() == list(range(LAYERS))
    assert (frame["n"] == 3).all() and (frame["n_clusters"] == 2).all()


def test_what_is_no_posterior_is_refused():
    with pytest.raises(ValueError, match="the first at 1"):
        onset_curve(np.array([[0.5, 0.5], [0.5, 0.6]]))
    with pytest.raises(ValueError, match="the first at 0"):
        onset_curve(np.array([[np.nan, 0.5]]))
    with pytest.raises(ValueError, match="found \\(0, 3\\)"):
        onset_curve(np.zeros((0, 3)))


@pytest.mark.unchecked("arrays that do not fit")
def test_posteriors_of_other_samples_are_refused():
    with pytest.raises(ValueError, match="same samples and layers"):
        restricted_difference(certain(np.array([1])), certain(np.array([1, 2])))


def coverage(runs, hit, n=200, seed=0):
    """How often intervals cover: the curve at each layer, the restricted mean, and a paired difference."""
    rng = np.random.default_rng(seed)
    population = np.full(LAYERS, 0.7) * np.minimum(np.arange(1, LAYERS + 1) / 9, 1)
    mean, later_mean = 0.7 * 4 + 0.3 * LAYERS, 0.7 * 6 + 0.3 * LAYERS
    covered = np.zeros(LAYERS + 2)
    for _ in range(runs):
        onsets = draw(rng, n)
        later = np.where(onsets == LAYERS, LAYERS, onsets + rng.integers(1, 4, n))
        posterior, other = (observe(rng, o, hit) for o in (onsets, later))
        curve, difference = onset_curve(posterior), restricted_difference(other, posterior)
        covered[:LAYERS] += (curve.low <= population) & (population <= curve.high)
        covered[-2] += curve.restricted.low <= mean <= curve.restricted.high
        covered[-1] += difference.low <= later_mean - mean <= difference.high
    return covered


@pytest.mark.parametrize("hit", [0.95, 0.8])
def test_intervals_cover_the_truth(hit):
    runs = 120
    covered = coverage(runs, hit)
    assert (covered >= binom.ppf(1e-4, runs, 0.95)).all(), covered / runs
    assert 0.93 <= covered.mean() / runs <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("hit", [0.95, 0.8])
def test_intervals_cover_the_truth_in_a_thousand_runs(hit):
    covered = coverage(1000, hit) / 1000
    assert 0.93 <= covered.mean() <= 0.97
    assert (covered >= 0.92).all() and (covered <= 0.98).all(), (
        covered
    )  # give or take two errors of 1,000 runs
