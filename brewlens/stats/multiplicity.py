"""Many tests at once, and what a design can detect."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control, norm
from scipy.stats import t as t_distribution


def benjamini_hochberg(p: Float[np.ndarray, "*cells"]) -> Float[np.ndarray, "*cells"]:
    """P-values adjusted for the false discovery rate over all cells (Benjamini and Hochberg 1995).

    NaN, a cell without a test, stays NaN and is not counted.

    Raises:
        ValueError: If a p-value lies outside [0, 1].
    """
    p = np.asarray(p, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    known = ~np.isnan(p)
    if known.any():
        adjusted[known] = false_discovery_control(p[known])
    return adjusted


def detectable(se: float, df: float = np.inf, alpha: float = 0.05, power: float = 0.8) -> float:
    """Minimum detectable difference: what a two-sided t test finds with the given power.

    ``(t[1 - alpha/2] + t[power]) se`` (Bloom 1995), in the unit of ``se``; infinite where that or ``df`` says
    nothing.

    Args:
        se: Standard error of the difference.
        df: Its degrees of freedom.
        alpha: Level of the test.
        power: Share of tests that find it.
    """
    if df <= 0 or not np.isfinite(se):
        return float("inf")
    return float((t_distribution.ppf(1 - alpha / 2, df) + t_distribution.ppf(power, df)) * se)


def detectable_shares(n: float, share: float = 0.5, alpha: float = 0.05, power: float = 0.8) -> float:
    """Minimum detectable difference of two shares of ``n`` independent samples each, one of them ``share``.

    By Cohen's (1988) arcsine transform. The other share lies towards .5 or beyond, where the difference has
    to be larger; NaN where not even 0 against 1 is found.

    Args:
        n: Samples in each of the two; the effective number where they are in clusters.
        share: One of the two shares.
        alpha: Level of the two-sided test.
        power: Share of tests that find it.

    Raises:
        ValueError: If ``share`` is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1; found {share}")
    if n <= 0:
        return float("nan")
    near = min(share, 1 - share)
    distance = (norm.ppf(1 - alpha / 2) + norm.ppf(power)) * np.sqrt(2 / n)
    angle = 2 * np.arcsin(np.sqrt(near)) + distance
    return float(np.sin(angle / 2) ** 2 - near) if angle <= np.pi else float("nan")
