"""Means with t intervals, of independent samples and of clusters, and the spread between seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Real
from scipy.stats import t as t_distribution
from scipy.stats import ttest_1samp

from brewlens.stats.robust import Labels, cluster_codes, contrast
from brewlens.stats.shares import effective_size, kish_size, wilson


def mean_interval(values: Float[np.ndarray, "sample"], level: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of a mean; None with fewer than two values.

    The interval takes samples as independent.
    """
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    interval = ttest_1samp(values, 0.0).confidence_interval(level)
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: The estimate.
        low: Lower end of the interval; minus infinity where one cluster, or none to spare, leaves it open.
        high: Upper end; then infinity.
        se: Standard error; then infinity.
        df: Degrees of freedom of the t distribution behind the interval.
        n: Samples.
        clusters: Clusters of samples; ``n`` where samples are independent.
        level: Confidence of the interval.
        centre: Middle of the interval on which the p-value rests, where it is not ``value``.
    """

    value: float
    low: float
    high: float
    se: float
    df: float
    n: int
    clusters: int
    level: float = 0.95
    centre: float | None = None

    @property
    def p(self) -> float:
        """Two-sided p-value against 0; NaN where there is no standard error."""
        if not np.isfinite(self.se):
            return float("nan")
        distance = abs(self.value if self.centre is None else self.centre)
        if self.se == 0:
            return 1.0 if distance == 0 else 0.0
        return float(2 * t_distribution.sf(distance / self.se, self.df))

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def t_estimate(value: float, se: float, df: float, n: int, clusters: int, level: float) -> Estimate:
    """An estimate with its symmetric t interval, open at both ends where no degree of freedom is left."""
    if clusters < 2 or df <= 0:
        return Estimate(value, -np.inf, np.inf, np.inf, 0.0, n, clusters, level)
    half = float(t_distribution.ppf((1 + level) / 2, df)) * se
    return Estimate(value, value - half, value + half, se, df, n, clusters, level)


def clustered_mean(
    values: Real[np.ndarray, "sample"], clusters: Labels | None = None, level: float = 0.95
) -> Estimate | None:
    """Mean over samples with a cluster-robust t interval; None where there is no sample.

    Every sample has the same weight, so clusters weigh by their size. The variance is CR2, the degrees of
    freedom are Satterthwaite's (see ``robust.contrast``). With single-sample clusters this is Student's
    interval, with clusters of one size Student's interval of the cluster means. One cluster says nothing of
    the spread between clusters: its interval is infinite, its p-value NaN.

    The interval knows no bounds. Of restricted means (whole layers 0 to L, some samples at L) the 95 %
    interval covers 93 to 97 % with up to half of the samples at L, but 90 to 94 % with nine tenths there and
    72 to 93 % with 98 %; where all are at L it is a point. ``bounded_mean`` is for those.

    Args:
        values: One value per sample, in any unit.
        clusters: Cluster of each sample; None for independent samples.
        level: Confidence.

    Raises:
        ValueError: If there is not one label per sample.
    """
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    codes = cluster_codes(clusters, n)
    if n == 0:
        return None
    count = int(codes.max()) + 1
    if count == 1:
        return t_estimate(float(values.mean()), np.inf, 0.0, n, count, level)
    fit = contrast(np.ones((n, 1)), values, codes, np.ones(1))
    # Rounding of equal values must not pass for variance.
    se = fit.se if np.ptp(values) > 0 else 0.0
    return t_estimate(float(values.mean()), se, fit.df, n, count, level)


def bounded_mean(
    values: Bool[np.ndarray, "sample"] | Real[np.ndarray, "sample"],
    low: float,
    high: float,
    clusters: Labels | None = None,
    level: float = 0.95,
) -> Estimate | None:
    """Mean of values between two bounds, with an interval between them; None where there is no sample.

    Wilson's interval of the rescaled mean, on the effective sample size of ``clustered_share`` times what the
    values vary less than hits of the same mean would, one value more on either bound included. Of hits and
    bounds 0 and 1 it is the interval of ``clustered_share``. ``se`` and ``df`` are those of
    ``clustered_mean``, the p-value too.

    Of restricted means the 95 % interval covers 93 to 98 % with up to 98 % of the samples at a bound, in
    clusters like those of the program families. With 30 clusters of 1 to 40 strongly alike samples
    (correlation .8) it covers 86 to 95 %.

    Args:
        values: One value per sample, in any unit.
        low: Smallest possible value.
        high: Largest possible value.
        clusters: Cluster of each sample; None for independent samples.
        level: Confidence.

    Raises:
        ValueError: If a value lies outside the bounds, or there is not one label per sample.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) and not (low <= values.min() and values.max() <= high):
        found = f"{values.min():g} to {values.max():g}"
        raise ValueError(f"values must lie between {low:g} and {high:g}; found {found}: name wider bounds")
    plain = clustered_mean(values, clusters, level)
    if plain is None or plain.clusters == 1:
        return plain
    n, m = plain.n, (plain.value - low) / (high - low)
    if plain.clusters == n:
        size = float(n)
    elif plain.se == 0:
        size = kish_size(cluster_codes(clusters, n))
    else:
        size = effective_size(n / max(1.0, plain.se**2 / (values.var() / (n - 1))), n, plain.df, level)
    # One sample more on either bound, so that values close to one bound by luck do not pass for precision.
    more = np.concatenate([(values - low) / (high - low), [0, 1]])
    size *= float(more.mean() * (1 - more.mean()) / more.var())
    lower, upper = (low + (high - low) * end for end in wilson(m, size, level))
    return replace(plain, low=lower, high=upper)


@dataclass(frozen=True)
class Between:
    """A quantity over several seeds.

    Attributes:
        mean: Mean over the seeds.
        sd: Standard deviation between the seeds; NaN with one.
        low: Lower end of the t interval of the mean.
        high: Upper end.
        n: Seeds.
        level: Confidence of the interval.
    """

    mean: float
    sd: float
    low: float
    high: float
    n: int
    level: float = 0.95


def between(values: Float[np.ndarray, "seed"], level: float = 0.95) -> Between | None:
    """Mean and spread of one value per seed, with Student's t interval of ``seeds - 1`` degrees of freedom.

    Right for few seeds, where a bootstrap over them is too narrow. With one seed the interval is infinite;
    with none there is no result.
    """
    values = np.asarray(values, dtype=np.float64)
    found = clustered_mean(values, level=level)
    if found is None:
        return None
    sd = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return Between(found.value, sd, found.low, found.high, len(values), level)
