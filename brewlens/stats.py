"""Intervals: thin layers over scipy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest, ttest_1samp


@dataclass(frozen=True)
class Share:
    """A share of samples with its Wilson interval.

    Attributes:
        count: Samples that have the property.
        n: Samples looked at.
        low: Lower end of the interval.
        high: Upper end.
        level: Its confidence.
    """

    count: int
    n: int
    low: float
    high: float
    level: float = 0.95

    @property
    def value(self) -> float:
        return self.count / self.n

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def share(count: int, n: int, level: float = 0.95) -> Share | None:
    """Share of ``count`` in ``n`` with a Wilson interval; None where ``n`` is 0.

    The interval takes samples as independent.

    Raises:
        ValueError: If ``count`` is not between 0 and ``n``.
    """
    if n == 0:
        return None
    interval = binomtest(int(count), int(n)).proportion_ci(level, method="wilson")
    return Share(int(count), int(n), float(interval.low), float(interval.high), level)


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
