"""Cluster-robust errors against dense matrices, a jackknife, and Student."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from brewlens.stats import bounded_mean, clustered_mean, clustered_share, mean_interval, share
from brewlens.stats.robust import cluster_codes, contrast


def dense(design, values, codes, weights, rho):
    """CR2 and Satterthwaite's degrees of freedom, matrix by matrix."""
    n = len(values)
    bread = np.linalg.inv(design.T @ design)
    hat = design @ bread @ design.T
    keep = np.eye(n) - hat
    parts = []
    for cluster in range(codes.max() + 1):
        inside = np.flatnonzero(codes == cluster)
        square, turn = np.linalg.eigh(keep[np.ix_(inside, inside)])
        root = turn @ np.diag([1 / np.sqrt(x) if x > 1e-9 else 0 for x in square]) @ turn.T
        parts.append(keep[:, inside] @ root @ design[inside] @ bread @ weights)
    p = np.stack(parts, axis=1)
    working = (1 - rho) * np.eye(n) + rho * (codes[:, None] == codes)
    m = p.T @ working @ p
    return np.sqrt(np.square(p.T @ values).sum()), m.trace() ** 2 / (m @ m).trace()


@pytest.mark.parametrize("rho", [0.0, 0.6])
@pytest.mark.parametrize("columns", [1, 4])
def test_contrast_is_the_dense_formula(rho, columns):
    rng = np.random.default_rng(columns)
    codes = cluster_codes(rng.integers(0, 25, 60), 60)
    design = np.concatenate([np.ones((60, 1)), rng.random((60, columns - 1))], axis=1)
    values = np.sqrt(rho) * rng.standard_normal(60)[codes] + rng.random(60)
    weights = rng.random(columns)
    found = contrast(design, values, codes, weights)
    se, df = dense(design, values, codes, weights, found.correlation)
    assert found.value == pytest.approx(weights @ np.linalg.lstsq(design, values, rcond=None)[0])
    assert (found.se, found.df) == pytest.approx((se, df))
    assert 0 <= found.correlation <= 1 and (found.correlation > 0.2) == (rho > 0.2)


def test_a_cluster_that_alone_sets_a_coefficient():
    design = np.kron(np.eye(2), np.ones((3, 1)))
    values, codes = np.array([0.0, 1, 2, 5, 7, 9]), np.array([0, 1, 2, 3, 3, 3])
    found = contrast(design, values, codes, np.array([1.0, 1.0]))
    assert (found.se, found.df) == pytest.approx(dense(design, values, codes, np.ones(2), found.correlation))
    keep = np.eye(6) - design @ np.linalg.pinv(design)
    assert np.allclose(keep[3:, 3:].sum(axis=1), 0)


def test_single_samples_are_student():
    values = np.random.default_rng(0).random(40)
    student = ttest_1samp(values, 0.5)
    for clusters in (None, np.arange(40)[::-1], [f"shape {i}" for i in range(40)]):
        found = clustered_mean(values, clusters)
        assert (found.low, found.high) == pytest.approx(mean_interval(values))
        assert (found.df, found.n, found.clusters) == (pytest.approx(39), 40, 40)
        assert clustered_mean(values - 0.5, clusters).p == pytest.approx(student.pvalue)


def test_equal_clusters_are_student_of_their_means():
    values = np.random.default_rng(1).random((12, 5))
    found = clustered_mean(values.ravel(), np.repeat(np.arange(12), 5))
    assert (found.low, found.high) == pytest.approx(mean_interval(values.mean(axis=1)))
    assert (found.df, found.n, found.clusters) == (pytest.approx(11), 60, 12)


def test_against_a_jackknife_over_clusters():
    rng = np.random.default_rng(2)
    clusters = np.sort(rng.integers(0, 40, 150))
    values = rng.standard_normal(40)[clusters] + rng.standard_normal(150)
    labels = np.unique(clusters)
    without = np.array([values[clusters != label].mean() for label in labels])
    jackknife = np.sqrt((len(labels) - 1) / len(labels) * np.square(without - without.mean()).sum())
    found = clustered_mean(values, clusters)
    assert found.se == pytest.approx(jackknife, rel=0.05)
    assert found.se > 1.3 * clustered_mean(values).se  # clusters matter here
    assert found.df < len(labels) - 1


def test_order_and_names_do_not_matter():
    rng = np.random.default_rng(3)
    values, clusters = rng.random(50), rng.integers(0, 20, 50)
    order = rng.permutation(50)
    names = np.array([f"s{label}" for label in clusters])
    one, two = clustered_mean(values, clusters), clustered_mean(values[order], names[order])
    assert (one.value, one.se, one.df) == pytest.approx((two.value, two.se, two.df))


def test_one_cluster_leaves_the_interval_open():
    for found in (clustered_mean(np.array([1.0, 2.0]), ["a", "a"]), clustered_mean(np.array([1.0]))):
        assert (found.low, found.high, found.df) == (-np.inf, np.inf, 0)
        assert np.isnan(found.p)
    assert clustered_mean(np.array([])) is None and clustered_mean(np.array([]), []) is None
    with pytest.raises(ValueError, match="one label per sample, 3"):
        clustered_mean(np.ones(3), [1, 2])


def test_equal_values():
    found = clustered_mean(np.full(7, 0.1), [0, 0, 1, 1, 2, 2, 3])
    assert (found.value, found.se, found.p) == (pytest.approx(0.1), 0, 0)
    assert clustered_mean(np.zeros(7)).p == 1
    kept = bounded_mean(np.full(7, 28.0), 0, 28)
    assert kept.low < kept.high == 28


def test_share_of_single_samples_is_wilson():
    hits = np.random.default_rng(4).random(90) < 0.2
    for h in (hits, np.zeros(90, bool), np.ones(90, bool)):
        plain, found = share(int(h.sum()), 90), clustered_share(h)
        assert (found.low, found.high) == pytest.approx((plain.low, plain.high))
        assert (found.count, found.n, found.effective, found.clusters) == (h.sum(), 90, 90, 90)
    assert clustered_share(np.zeros(0, bool)) is None


def test_share_of_alike_samples_counts_clusters():
    rng = np.random.default_rng(5)
    whole = rng.random(60) < 0.4
    found = clustered_share(np.repeat(whole, 5), np.repeat(np.arange(60), 5))
    plain = share(int(whole.sum()), 60)
    assert found.effective == pytest.approx(60, rel=0.05)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.005)
    none = clustered_share(np.zeros(300, bool), np.repeat(np.arange(60), 5))
    assert (none.effective, none.high) == pytest.approx((60, share(0, 60).high))
    one = clustered_share(np.array([True, False]), ["a", "a"])
    assert one.effective == 1 and one.low < 0.1 and one.high > 0.9


def test_bounded_mean_of_hits_is_their_share():
    rng = np.random.default_rng(6)
    clusters = rng.integers(0, 30, 100)
    for p in (0.0, 0.03, 0.5, 1.0):
        hits = rng.random(100) < p
        for labels in (None, clusters):
            found, plain = bounded_mean(hits, 0, 1, labels), clustered_share(hits, labels)
            assert (found.low, found.high) == pytest.approx((plain.low, plain.high))
    with pytest.raises(ValueError, match="between 0 and 28; found 3 to 29"):
        bounded_mean(np.array([3, 29]), 0, 28)
