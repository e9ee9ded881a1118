"""Population curves: by which layer which share of the samples is available or ready, from onset posteriors.

Onsets are censored at the last layer: a sample that has none by then never has. So there is no mean onset,
but a restricted mean, ``E[min(onset, L)]``, the area above the curve, and a median only where half of the
samples have an onset.

An onset is known only up to its posterior, and posteriors shrink towards the distribution of onsets that they
were fitted with. So their own spread understates the error of their mean. Each sample's influence on a
distribution fitted by maximum likelihood (empirical Bayes) undoes the shrinkage: with posteriors ``r``, their
mean ``p`` and ``G = mean(r r')`` it is ``diag(p) G^-1 r - p``, which is the plain deviation where onsets are
certain (the sandwich with the empirical information of a mixture's weights). Rates and noise behind the
posteriors are taken as known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from brewlens import html
from brewlens.brief import brief
from brewlens.stats import Estimate, clustered_mean
from brewlens.stats.means import t_estimate
from brewlens.stats.robust import Labels, cluster_codes
from brewlens.stats.shares import effective_size, kish_size, wilson

if TYPE_CHECKING:
    import pandas as pd

TINY = 1e-12
LEAST_INFORMATION = 0.1
"""Contrasts between onsets that posteriors tell less of than this share are taken as told this much."""


@dataclass(frozen=True)
class OnsetCurve:
    """Share of samples whose onset has come, by layer.

    Attributes:
        share: ``[layer]`` mean probability that the onset is at that layer or before.
        low: ``[layer]`` lower ends of its intervals, one by one.
        high: ``[layer]`` upper ends.
        restricted: Mean onset in layers, never counted as L.
        median: First layer by which half of the samples have their onset; None where they never have.
        n: Samples.
        clusters: Clusters among them.
        level: Confidence of the intervals.
    """

    share: Float[np.ndarray, "layer"]
    low: Float[np.ndarray, "layer"]
    high: Float[np.ndarray, "layer"]
    restricted: Estimate
    median: int | None
    n: int
    clusters: int
    level: float

    @property
    def n_layers(self) -> int:
        """Number of layers, L."""
        return len(self.share)

    @property
    def relative(self) -> Estimate:
        """Mean onset as a share of the depth, never counted as 1."""
        return scaled(self.restricted, 1 / self.n_layers)

    def to_frame(self) -> pd.DataFrame:
        """One row per layer: layer, share, low, high, n, n_clusters."""
        import pandas as pd

        columns = {"layer": np.arange(self.n_layers), "share": self.share, "low": self.low, "high": self.high}
        return pd.DataFrame(columns | {"n": self.n, "n_clusters": self.clusters})

    __repr__ = brief

    def _repr_html_(self) -> str:
        """The curve with its intervals, and the mean onset."""
        title = f"share with their onset by then, intervals of {self.level:.0%}"
        mean = self.restricted
        row = {
            "n": self.n,
            "clusters": self.clusters,
            "mean onset, layers": html.interval(mean.value, mean.low, mean.high),
            "median": self.median,
            "share by layer": html.sparkline(self.share, title, low=0, high=1, band=(self.low, self.high)),
        }
        return html.card(f"OnsetCurve({self.n_layers} layers)", html.table([row]))


def onset_curve(
    posterior: Float[np.ndarray, "sample layer_or_never"],
    clusters: Labels | None = None,
    level: float = 0.95,
    *,
    groups: Labels | None = None,
) -> OnsetCurve:
    """The curve of a population from the posteriors of its samples.

    Intervals are Wilson's on the effective sample size, of the restricted mean as a share of L. That of a
    share reaches to 0 where no sample more probably has its onset by then than not, to 1 where every one has.

    Args:
        posterior: ``[sample, L + 1]`` probability that the onset is at that layer, the last entry never.
        clusters: Label of each sample's cluster; None where samples are independent.
        level: Confidence of the intervals.
        groups: Label of the samples whose onsets were fitted together; None where all were.

    Raises:
        ValueError: If there is no sample or a row is no distribution.
    """
    posterior = _checked(posterior)
    n, layers = len(posterior), posterior.shape[1] - 1
    unshrunk = _unshrunk(posterior, groups)

    def bounded(at: np.ndarray, most: float = np.inf) -> Estimate:
        mean, spread = _moments(posterior, at)
        value = min(max(float(mean.mean()), 0.0), 1.0)
        return _bounded(_mean(value, unshrunk @ at, spread, clusters, level), clusters, most)

    layer = np.arange(layers + 1)
    shares = [bounded((layer <= last).astype(float), most=n) for last in range(layers)]
    restricted = scaled(bounded(layer / layers), layers)
    share = np.array([found.value for found in shares])
    come = np.cumsum(posterior[:, :-1], axis=1)
    half = np.flatnonzero(share >= 0.5)
    return OnsetCurve(
        share=share,
        low=np.where((come <= 0.5).all(axis=0), 0.0, [found.low for found in shares]),
        high=np.where((come >= 0.5).all(axis=0), 1.0, [found.high for found in shares]),
        restricted=restricted,
        median=int(half[0]) if len(half) else None,
        n=n,
        clusters=restricted.clusters,
        level=level,
    )


def restricted_difference(
    later: Float[np.ndarray, "sample layer_or_never"],
    earlier: Float[np.ndarray, "sample layer_or_never"],
    clusters: Labels | None = None,
    level: float = 0.95,
    *,
    groups: Labels | None = None,
) -> Estimate:
    """Difference of two restricted means of the same samples, in layers; positive where ``later`` is later.

    Args:
        later: ``[sample, L + 1]`` posterior over one onset, the last entry never.
        earlier: The same over the other.
        clusters: Label of each sample's cluster.
        level: Confidence of the interval.
        groups: Label of the samples whose onsets were fitted together; None where all were.

    Raises:
        ValueError: If the shapes differ, there is no sample, or a row is no distribution.
    """
    if np.shape(later) != np.shape(earlier):
        raise ValueError(
            f"both posteriors must be about the same samples and layers; found {np.shape(later)} and "
            f"{np.shape(earlier)}"
        )
    sides = [_checked(posterior) for posterior in (later, earlier)]
    layer = np.arange(sides[0].shape[1], dtype=float)
    (mean, spread), (mean_earlier, spread_earlier) = (_moments(side, layer) for side in sides)
    influence, influence_earlier = (_unshrunk(side, groups) @ layer for side in sides)
    value = float((mean - mean_earlier).mean())
    return _mean(value, influence - influence_earlier, spread + spread_earlier, clusters, level)


def scaled(of: Estimate, factor: float) -> Estimate:
    """An estimate in another unit; ``factor`` is positive."""
    return replace(of, **{name: factor * getattr(of, name) for name in ("value", "low", "high", "se")})


def _checked(posterior: np.ndarray) -> np.ndarray:
    posterior = np.asarray(posterior, dtype=np.float64)
    if posterior.ndim != 2 or not len(posterior) or posterior.shape[1] < 2:
        raise ValueError(f"posteriors must be [sample, layer + 1] with samples; found {posterior.shape}")
    total = posterior.sum(axis=1)
    wrong = np.flatnonzero((posterior.min(axis=1) < 0) | ~(abs(total - 1) < 1e-3))
    if len(wrong):
        raise ValueError(
            f"each row must be a distribution; {len(wrong)} are not, the first at {wrong[0]}; give "
            "probabilities, the last entry never"
        )
    return posterior / total[:, None]


def _unshrunk(posterior: np.ndarray, groups: Labels | None) -> Float[np.ndarray, "sample layer_or_never"]:
    """Influence of each sample on the mean posterior of its group, plus that mean."""
    result = np.empty_like(posterior)
    codes = np.zeros(len(posterior), dtype=int) if groups is None else cluster_codes(groups, len(posterior))
    for group in np.unique(codes):
        rows = codes == group
        root = np.sqrt(np.maximum(posterior[rows].mean(axis=0), TINY))
        scaled_rows = posterior[rows] / root
        information, turn = np.linalg.eigh(scaled_rows.T @ scaled_rows / rows.sum())
        solved = (scaled_rows @ turn) / np.maximum(information, LEAST_INFORMATION)
        result[rows] = solved @ turn.T * root
    return result


def _moments(
    posterior: np.ndarray, at: Float[np.ndarray, "layer_or_never"]
) -> tuple[Float[np.ndarray, "sample"], Float[np.ndarray, "sample"]]:
    """Posterior mean and variance of a function of the onset, ``at`` each layer and never."""
    mean = posterior @ at
    return mean, np.maximum(posterior @ at**2 - mean**2, 0)


def _mean(
    value: float, influence: np.ndarray, spread: np.ndarray, clusters: Labels | None, level: float
) -> Estimate:
    """A mean with the t interval of its influences, no narrower than the posterior variances allow."""
    plain = clustered_mean(influence, clusters, level)
    if plain is None:
        raise ValueError("a mean needs samples, found none")
    se = max(plain.se, float(np.sqrt(spread.mean() / len(spread))))
    return t_estimate(value, se, plain.df, plain.n, plain.clusters, level)


def _bounded(found: Estimate, clusters: Labels | None, most: float = np.inf) -> Estimate:
    """An estimate in [0, 1] with Wilson's interval, as of at most ``most`` independent samples."""
    value, n = found.value, found.n
    if found.clusters == 1:
        return replace(found, low=0.0, high=1.0)
    if value * (1 - value) < TINY:
        size = kish_size(cluster_codes(clusters, n))
    elif found.se == 0:
        return found
    else:
        size = min(most, value * (1 - value) / found.se**2 * n / (n - 1))
        size = effective_size(size, n, found.df, found.level)
    low, high = wilson(value, size, found.level)
    return replace(found, low=low, high=high)
