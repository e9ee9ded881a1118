"""Paired comparisons: two values of each sample."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Real
from scipy.stats import binomtest, norm, permutation_test

from brewlens.stats.means import Estimate, clustered_mean
from brewlens.stats.robust import Labels, cluster_codes
from brewlens.stats.shares import effective_size, kish_size


def paired_difference(
    a: Bool[np.ndarray, "sample"] | Real[np.ndarray, "sample"],
    b: Bool[np.ndarray, "sample"] | Real[np.ndarray, "sample"],
    clusters: Labels | None = None,
    level: float = 0.95,
) -> Estimate | None:
    """Mean of ``a - b`` over paired samples, with an interval; None where there is no sample.

    Of numbers, ``clustered_mean`` of the differences. Of two boolean arrays, the difference of shares with
    the interval of Bonett and Price (2012, J. Educ. Behav. Stat. 37), which adds one pair to either kind of
    discordant pairs, on the effective number of pairs (see ``clustered_share``). It does not shrink to a
    point where no pair is discordant; there, pairs of one cluster count as alike. ``centre`` and ``se`` are
    those of the interval, and give the p-value.

    The 95 % interval covers 93 to 97 % for shares from .1 to .9, and up to 98 % where fewer than about ten
    pairs are discordant; but 90 % for shares of .05 and .02 in 30 clusters of 1 to 40 samples whose normal
    scores correlate by .8.

    Args:
        a: One value per sample; of dtype bool for shares.
        b: The other value of the same samples.
        clusters: Cluster of each sample; None for independent samples.
        level: Confidence.

    Raises:
        ValueError: If the two are not of one length, or only one is boolean.
    """
    a, b = _pair(a, b)
    differences = np.subtract(a, b, dtype=np.float64)
    if a.dtype == bool:
        return score_difference(differences, clusters, level)
    return clustered_mean(differences, clusters, level)


def score_difference(
    differences: Float[np.ndarray, "sample"], clusters: Labels | None = None, level: float = 0.95
) -> Estimate | None:
    """Mean of paired differences of shares or scores, most of them 0; None where there is no sample.

    The interval of Bonett and Price for differences of -1, 0 and 1 (see :func:`paired_difference`), and the
    same for those between: one sample more with a difference of 1, and one with -1, so that it does not
    shrink to a point where nothing differs. It ends at -1 and 1.

    Args:
        differences: One per sample.
        clusters: Cluster of each sample; None for independent samples.
        level: Confidence.

    Raises:
        ValueError: If there is not one label per sample.
    """
    differences = np.asarray(differences, dtype=np.float64)
    plain = clustered_mean(differences, clusters, level)
    if plain is None or plain.clusters == 1:
        return plain
    n = plain.n
    square = float((differences**2).mean())
    spread = square - plain.value**2
    if plain.clusters == n:
        size = float(n)
    elif spread <= 1e-12 * square or square == 0:
        size = kish_size(cluster_codes(clusters, n))
    else:
        effect = plain.se**2 / (spread / (n - 1))
        size = effective_size(n / max(1.0, effect), n, plain.df, level)
    centre = plain.value * size / (size + 2)
    se = float(np.sqrt(((square * size + 2) / (size + 2) - centre**2) / (size + 2)))
    half = float(norm.ppf((1 + level) / 2)) * se
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return Estimate(plain.value, low, high, se, np.inf, n, plain.clusters, level, centre)


def mcnemar(a: Bool[np.ndarray, "sample"], b: Bool[np.ndarray, "sample"]) -> float:
    """Exact two-sided p-value of McNemar's test that two shares of the same samples are equal.

    The binomial test of the discordant pairs; samples are independent. 1 where no pair is discordant.

    Raises:
        ValueError: If the two are not boolean and of one length.
    """
    a, b = _pair(a, b)
    if a.dtype != bool:
        raise ValueError(f"McNemar's test compares hits, of dtype bool; found {a.dtype}: use sign_flip")
    up, down = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(up, up + down).pvalue) if up + down else 1.0


def sign_flip(
    differences: Float[np.ndarray, "sample"],
    clusters: Labels | None = None,
    *,
    n_resamples: int = 9999,
    seed: int = 0,
) -> float:
    """Two-sided p-value that differences are symmetric about 0, by flipping the signs of whole clusters.

    Exact where ``2**clusters`` is at most ``n_resamples`` (clusters that sum to 0 do not count), else from
    random flips. scipy's ``permutation_test`` of the cluster sums.

    Args:
        differences: One difference per sample.
        clusters: Cluster of each sample; None for independent samples.
        n_resamples: Largest number of flips tried; the p-value is at least ``2 / (n_resamples + 1)``.
        seed: Of the random flips.

    Raises:
        ValueError: If there is not one label per sample.
    """
    differences = np.asarray(differences, dtype=np.float64)
    sums = np.bincount(cluster_codes(clusters, len(differences)), weights=differences)
    sums = sums[np.abs(sums) > 1e-12 * np.abs(differences).max(initial=0)]
    if len(sums) < 2:
        return 1.0
    rng = np.random.default_rng(seed)
    found = permutation_test(
        (sums,), np.sum, permutation_type="samples", n_resamples=n_resamples, batch=1000, rng=rng
    )
    return float(found.pvalue)


def sign_flips(
    differences: Float[np.ndarray, "sample cell"],
    clusters: Labels | None = None,
    *,
    n_resamples: int = 9999,
    seed: int = 0,
) -> Float[np.ndarray, "cell"]:
    """:func:`sign_flip` of many cells at once, with the same flips in each.

    A sample that does not count in a cell has a difference of 0 there. Exact where there are at most
    ``n_resamples`` ways to flip all clusters, else from random flips.

    Args:
        differences: One column per cell.
        clusters: Cluster of each sample; None for independent samples.
        n_resamples: Largest number of flips tried; then the p-value is at least ``1 / (n_resamples + 1)``.
        seed: Of the random flips.

    Raises:
        ValueError: If there is not one label per sample.
    """
    differences = np.asarray(differences, dtype=np.float64)
    codes = cluster_codes(clusters, len(differences))
    sums = np.zeros((int(codes.max(initial=-1)) + 1, differences.shape[1]))
    np.add.at(sums, codes, differences)
    sums = sums[(sums != 0).any(1)]
    count = len(sums)
    exact = 2 ** (count - 1) <= n_resamples if count else True
    if exact:  # the other half are mirror images
        bits = np.arange(2 ** max(0, count - 1))[:, None] >> np.arange(count) & 1
        signs = 1.0 - 2.0 * bits
    else:
        rng = np.random.default_rng(seed)
        signs = 1.0 - 2.0 * rng.integers(0, 2, (n_resamples, count))
    observed = np.abs(sums.sum(0))
    reached = np.zeros(differences.shape[1])
    for part in np.array_split(signs, -(-len(signs) // 1000)):
        reached += (np.abs(part @ sums) >= observed * (1 - 1e-9)).sum(0)
    p = reached / len(signs) if exact else (reached + 1) / (len(signs) + 1)
    return np.where(observed > 0, p, 1.0)


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"paired samples come in two arrays of one length; found {a.shape} and {b.shape}")
    if (a.dtype == bool) != (b.dtype == bool):
        raise ValueError(f"paired values are both hits or both numbers; found {a.dtype} and {b.dtype}")
    return a, b
