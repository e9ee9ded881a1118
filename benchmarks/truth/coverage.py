"""Coverage: how often a 95 % interval holds the truth that the samples were drawn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import numpy as np
from scipy.stats import norm

from benchmarks.truth.nulls import programs
from brewlens.lifecycle.curves import onset_curve, restricted_difference
from brewlens.lifecycle.onsets import fit_onsets
from brewlens.planted import NOISE, Truth, draw_truth, simulate
from brewlens.stats import clustered_share, paired_difference

LAYERS = 24
N = 270
WITHIN = 0.3
"""Correlation of samples of one shape, on the scale of the normal scores behind them."""


@lru_cache(maxsize=1)
def _shapes() -> np.ndarray:
    """Shape of each of the first items of the loops and their twins, as whole numbers."""
    items, _ = programs(405)
    return np.unique([item.shape for item in items], return_inverse=True)[1]


def _scores(rng: np.random.Generator, shapes: np.ndarray, k: int) -> np.ndarray:
    """Normal scores ``[k, sample]``; those of one shape are correlated."""
    common = rng.standard_normal((k, shapes.max() + 1))[:, shapes]
    return np.sqrt(WITHIN) * common + np.sqrt(1 - WITHIN) * rng.standard_normal((k, len(shapes)))


def share_interval(p: float, seed: int) -> bool:
    """Whether the interval of a share holds ``p``; samples of one shape are alike."""
    rng, shapes = np.random.default_rng(seed), _shapes()
    found = clustered_share(_scores(rng, shapes, 1)[0] < norm.ppf(p), shapes)
    return found is not None and found.low <= p <= found.high


def paired_share_interval(p: float, gain: float, seed: int) -> bool:
    """Whether the interval of the difference of two shares of the same samples holds ``gain``."""
    rng, shapes = np.random.default_rng(seed), _shapes()
    first, second = _scores(rng, shapes, 2)
    second = 0.6 * first + 0.8 * second
    found = paired_difference(second < norm.ppf(p + gain), first < norm.ppf(p), shapes)
    return found is not None and found.low <= gain <= found.high


@lru_cache(maxsize=1)
def _population() -> tuple[float, float]:
    """Restricted means of available_from and ready_from over many planted samples, in layers."""
    many = draw_truth(400_000, LAYERS, seed=2**31)

    def restricted(onset: np.ndarray) -> float:
        return float(np.where(onset < 0, LAYERS, onset).mean())

    return restricted(many.available_from), restricted(many.ready_from)


def restricted_intervals(noise: str, seed: int) -> dict[str, bool]:
    """Whether the intervals of restricted means of onsets, and of their difference, hold the truth."""
    # Kinds are drawn, not dealt out, as the interval takes them to be.
    rng = np.random.default_rng(seed)
    pool = draw_truth(40 * N, LAYERS, seed=seed)
    rows = rng.choice(40 * N, N, replace=False)
    truth = _pick(pool, rows)
    made = simulate(truth, hit=NOISE[noise], seed=seed + 1)
    available = fit_onsets(made.readouts["probe"], made.answers).posterior
    ready = fit_onsets(made.readouts["context_stripped"], made.answers, ends=True).posterior
    wanted = _population()
    found = {
        ": available_from": (onset_curve(available).restricted, wanted[0]),
        ": ready_from": (onset_curve(ready).restricted, wanted[1]),
        ": ready_from - available_from": (restricted_difference(ready, available), wanted[1] - wanted[0]),
    }
    return {name: of.low <= true <= of.high for name, (of, true) in found.items()}


def _pick(truth: Truth, rows: np.ndarray) -> Truth:
    values = {name: v[rows] if isinstance(v, np.ndarray) else v for name, v in vars(truth).items()}
    return Truth(**values)


def _named(draw: Callable[[int], bool]) -> Callable[[int], dict[str, bool]]:
    return lambda seed: {"": draw(seed)}


INTERVALS: Mapping[str, Callable[[int], dict[str, bool]]] = {
    **{f"share {p:.0%}": _named(partial(share_interval, p)) for p in (0.05, 0.2, 0.5, 0.9)},
    "paired difference of shares, 10 points": _named(partial(paired_share_interval, 0.5, 0.1)),
    "paired difference of shares, none": _named(partial(paired_share_interval, 0.3, 0.0)),
    **{f"restricted mean, {n} noise": partial(restricted_intervals, n) for n in ("low", "medium")},
}
"""Name -> what one simulation says, by what is added to the name."""
