"""Samples in clusters with a known truth, and how often an interval covers it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import norm

from brewlens.stats import (
    between,
    bounded_mean,
    clustered_mean,
    clustered_share,
    hierarchical_bootstrap,
    paired_difference,
    trend,
)

LAYERS = 28
# How many shapes of the families `conditional` and `loop_unrolled` have how many of the 810 items.
SHAPES = {
    "shapes": {1: 659, 2: 36, 3: 4, 4: 7, 5: 2, 7: 2, 15: 1},
    "coarse": {1: 552, 2: 68, 3: 14, 4: 6, 5: 2, 6: 3, 8: 1, 10: 2},
}


def layout(name, n, rng):
    """Cluster of each sample."""
    if name == "single":
        return np.arange(n)
    if name == "hard":
        return np.repeat(np.arange(30), rng.integers(1, 41, 30))
    sizes = np.repeat(list(SHAPES[name]), list(SHAPES[name].values()))
    return np.unique(rng.permutation(np.repeat(np.arange(len(sizes)), sizes))[:n], return_inverse=True)[1]


def uniforms(clusters, correlation, rng, draws=1, shared=0.0):
    """Uniform values [draw, sample] of normal scores that correlate within clusters and between draws."""

    def scores(size):
        own = rng.standard_normal((draws, size))
        return np.sqrt(shared) * rng.standard_normal(size) + np.sqrt(1 - shared) * own

    groups = scores(clusters.max() + 1)[:, clusters]
    return norm.cdf(np.sqrt(correlation) * groups + np.sqrt(1 - correlation) * scores(len(clusters)))


def restricted(u, never):
    """Onsets in layers, evenly spread over 0 .. L-1, of which a share lies at L."""
    return np.where(u < never, LAYERS, np.floor((u - never) / (1 - never) * LAYERS))


@dataclass(frozen=True)
class Design:
    """Where samples lie: clusters, number of samples, correlation within clusters."""

    clusters: str
    n: int
    correlation: float

    def draw(self, rng, **kind):
        clusters = layout(self.clusters, self.n, rng)
        return clusters, uniforms(clusters, self.correlation, rng, **kind)


def of_share(design, p, rng):
    clusters, u = design.draw(rng)
    return clustered_share(u[0] < p, clusters), p


def of_mean(design, never, rng, bounded=False):
    clusters, u = design.draw(rng)
    truth = never * LAYERS + (1 - never) * (LAYERS - 1) / 2
    values = restricted(u[0], never)
    if bounded:
        return bounded_mean(values, 0, LAYERS, clusters), truth
    return clustered_mean(values, clusters), truth


def of_pair(design, p, q, rng):
    clusters, u = design.draw(rng, draws=2, shared=0.6)
    return paired_difference(u[0] < p, u[1] < q, clusters), p - q


def of_mean_pair(design, never, rng):
    clusters, u = design.draw(rng, draws=2, shared=0.6)
    late, early = restricted(u[0], never), restricted(u[1], never / 2)
    return paired_difference(late, early, clusters), never / 2 * (LAYERS - (LAYERS - 1) / 2)


def of_trend(design, base, slope, rng):
    """Three levels by nine strata, whose shares differ by up to half of ``base``."""
    clusters, u = design.draw(rng)
    steps, strata = np.arange(len(clusters)) % 3, np.arange(len(clusters)) // 3 % 9
    p = base * (1 + (strata - 4) / 8) + slope * (steps - 1)
    return trend(u[0] < p, steps, clusters, strata), slope


def of_bootstrap(design, p, rng):
    clusters, u = design.draw(rng)
    seed = int(rng.integers(2**31))
    return hierarchical_bootstrap(u[0] < p, [clusters], n_resamples=400, seed=seed), p


def of_seeds(seeds, rng, bootstrap=False):
    """Shares of several runs of 100 samples, whose truth spreads around .5 by .08."""
    p = norm.cdf(0.2 * rng.standard_normal(seeds))
    hits = rng.random((seeds, 100)) < p[:, None]
    if not bootstrap:
        return between(hits.mean(axis=1)), 0.5
    labels, seed = np.repeat(np.arange(seeds), 100), int(rng.integers(2**31))
    return hierarchical_bootstrap(hits.ravel(), [labels], n_resamples=400, seed=seed), 0.5


SIZES = [("single", n, 0.0) for n in (100, 270, 810)]
SIZES += [("shapes", n, 0.5) for n in (100, 270, 810)] + [("coarse", 810, 0.0), ("coarse", 810, 0.8)]
HARD = [("hard", 0, 0.0), ("hard", 0, 0.3), ("hard", 0, 0.8)]


def cases():
    """Name -> function of a random generator that gives an interval and the truth."""
    found = {}
    for where in (*SIZES, *HARD):
        design = Design(*where)
        name = f"{design.clusters} n={design.n or 'varies'} r={design.correlation}"
        for p in (0.02, 0.1, 0.5, 0.9):
            found[f"share {p} | {name}"] = partial(of_share, design, p)
        for never in (0.1, 0.5, 0.9, 0.98):
            found[f"restricted mean, never {never} | {name}"] = partial(of_mean, design, never)
            found[f"bounded mean, never {never} | {name}"] = partial(of_mean, design, never, bounded=True)
        for p, q in ((0.5, 0.5), (0.3, 0.2), (0.9, 0.85), (0.05, 0.02)):
            found[f"paired shares {p} {q} | {name}"] = partial(of_pair, design, p, q)
        found[f"paired restricted means | {name}"] = partial(of_mean_pair, design, 0.4)
        for base, slope in ((0.5, -0.1), (0.2, 0.0), (0.04, -0.01)):
            found[f"trend {base} {slope} | {name}"] = partial(of_trend, design, base, slope)
        for p in (0.1, 0.5) if design.n != 100 else ():
            found[f"bootstrap {p} | {name}"] = partial(of_bootstrap, design, p)
    for seeds in (3, 5, 10):
        found[f"between {seeds} seeds"] = partial(of_seeds, seeds)
        found[f"bootstrap {seeds} seeds"] = partial(of_seeds, seeds, bootstrap=True)
    return found


def coverage(case, repeats, seed=0):
    """Share of intervals that cover the truth."""
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(repeats):
        found, truth = case(rng)
        hits += found.low <= truth <= found.high
    return hits / repeats
