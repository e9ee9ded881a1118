"""A plate: one figure of a run with the numbers behind it, and what draws it when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from brewlens.brief import brief
from brewlens.figures import theme

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plate:
    """One figure of a run.

    Attributes:
        name: Stem of its files.
        figure: The figure.
        data: The exact numbers that it draws.
        alt: What a reader who cannot see it needs to know.
        row: The sample that it shows, for a figure of one sample.
    """

    name: str
    figure: Figure
    data: pd.DataFrame
    alt: str
    row: int | None = None

    __repr__ = brief


Makers = dict[str, Callable[[], Plate]]
"""What draws each figure, by its name."""


def one(
    name: str,
    table: pd.DataFrame,
    draw: Callable[[Axes], object],
    size: tuple[float, float],
    alt: str,
    row: int | None = None,
) -> Plate:
    """A plate of a single pair of axes."""
    figure = theme.blank(*size)
    with theme.context():
        ax = figure.add_subplot()
    draw(ax)
    return Plate(name, figure, table, alt, row)


def several(
    name: str, table: pd.DataFrame, draw: Callable[[Figure], object], size: tuple[float, float], alt: str
) -> Plate:
    """A plate of several panels."""
    figure = theme.blank(*size)
    draw(figure)
    return Plate(name, figure, table, alt)
