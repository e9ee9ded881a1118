"""Variance components and intraclass correlations of samples and prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution


def two_way(
    values: Float[np.ndarray, "*table sample prompt"] | Bool[np.ndarray, "*table sample prompt"],
    level: float = 0.95,
) -> dict[str, np.ndarray]:
    """Variance components and intraclass correlations of tables sample x prompt, both random.

    The two-way random-effects model without replication; ICC(A,1) and ICC(A,k) of McGraw and Wong (1996),
    which are ICC(2,1) and ICC(2,k) of Shrout and Fleiss (1979).

    Args:
        values: One value per cell; leading axes are separate tables.
        level: Confidence of the intervals.

    Returns:
        Arrays ``[*table]``: ``mean, mean_low, mean_high`` (Satterthwaite's degrees of freedom),
        ``var_sample, var_prompt, var_rest``, ``icc_single, icc_single_low, icc_single_high`` (A,1),
        ``icc_pooled, icc_pooled_low, icc_pooled_high`` (A,k), and ``reason``: empty, or why there is no
        intraclass correlation (it is NaN then).
    """
    x = np.asarray(values, dtype=np.float64)
    n, k = x.shape[-2:]
    mean = x.mean(axis=(-2, -1))
    if n < 2 or k < 2:
        nothing = np.full(mean.shape, np.nan)
        why = np.full(mean.shape, f"needs two samples and two prompts, found {n} and {k}", dtype=object)
        return {"mean": np.asarray(mean), **dict.fromkeys(_SPREAD, nothing), "reason": why}
    centred = x - mean[..., None, None]
    of_sample, of_prompt = centred.mean(axis=-1, keepdims=True), centred.mean(axis=-2, keepdims=True)
    rest = centred - of_sample - of_prompt
    # Rounding of equal values must not pass for variance.
    scale = np.abs(x).max(axis=(-2, -1), initial=0)
    tiny = (8 * np.finfo(np.float64).eps * scale) ** 2

    def mean_square(part: np.ndarray, repeats: int, df: int) -> np.ndarray:
        square = np.square(part).sum(axis=(-2, -1)) * repeats / df
        return np.where(square <= tiny * n * k, 0.0, square)

    sample = mean_square(of_sample, k, n - 1)
    prompt = mean_square(of_prompt, n, k - 1)
    error = mean_square(rest, 1, (n - 1) * (k - 1))
    over_rest = np.maximum(sample - error, 0) + np.maximum(prompt - error, 0) + error
    with np.errstate(divide="ignore", invalid="ignore"):
        df = over_rest**2 / (sample**2 / (n - 1) + prompt**2 / (k - 1) + error**2 / ((n - 1) * (k - 1)))
        half = t_distribution.ppf((1 + level) / 2, df) * np.sqrt(over_rest / (n * k))
        half = np.where(over_rest > 0, half, 0.0)
        below = sample + (k - 1) * error + k / n * (prompt - error)
        below_pooled = sample + (prompt - error) / n
        single, pooled = np.asarray((sample - error) / below), (sample - error) / below_pooled
        ends = _intervals((sample, prompt, error), single, n, k, level)
    constant = (sample == 0) & (error == 0)
    undefined = constant | (below <= 0) | (below_pooled <= 0)
    reason = np.where(undefined, "the mean squares of samples and prompts are too small beside the rest", "")
    reason = np.where(constant, "samples do not differ: with any one prompt all have one value", reason)
    correlations = dict(zip(_ICC, (single, *ends[0], pooled, *ends[1]), strict=True))
    found = {
        "mean": mean,
        "mean_low": mean - half,
        "mean_high": mean + half,
        "var_sample": (sample - error) / k,
        "var_prompt": (prompt - error) / n,
        "var_rest": error,
        **{name: np.where(undefined, np.nan, value) for name, value in correlations.items()},
        "reason": reason.astype(object),
    }
    return {name: np.asarray(value) for name, value in found.items()}


_ICC = tuple(f"icc_{of}{end}" for of in ("single", "pooled") for end in ("", "_low", "_high"))
_SPREAD = ("mean_low", "mean_high", "var_sample", "var_prompt", "var_rest", *_ICC)


def _intervals(
    squares: Sequence[np.ndarray], single: np.ndarray, n: int, k: int, level: float
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Intervals of ICC(A,1) and ICC(A,k) from mean squares (McGraw and Wong 1996, table 7)."""
    sample, prompt, error = squares
    a = k * single / (n * (1 - single))
    b = 1 + k * single * (n - 1) / (n * (1 - single))
    df = (a * prompt + b * error) ** 2 / (
        (a * prompt) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    )
    tail = (1 + level) / 2
    f_low, f_high = f_distribution.ppf(tail, n - 1, df), f_distribution.ppf(tail, df, n - 1)
    exact = (prompt == 0) & (error == 0)

    def ends(repeats: int) -> tuple[np.ndarray, np.ndarray]:
        # McGraw and Wong's two rows of the table in one: their other row is its Spearman-Brown step-up.
        other = k / repeats * prompt + (k * n / repeats - k / repeats - n) * error
        below = f_low * other + n * sample
        low = np.where(below > 0, n * (sample - f_low * error) / below, -np.inf)
        high = n * (f_high * sample - error) / (other + n * f_high * sample)
        return np.where(exact, 1.0, low), np.where(exact, 1.0, high)

    return ends(1), ends(k)
