"""Panels over the layers, and small multiples of them: one per family, one scale, one legend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from brewlens.figures import theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3


def small_multiples(
    families: Sequence[str],
    draw: Callable[[Axes, str], object],
    *,
    figure: Figure | None = None,
    legend_columns: int = 4,
) -> Figure:
    """Draw a panel per family.

    Args:
        families: The families, in the order of the panels.
        draw: Draws one family on the axes that it is given, without a legend.
        figure: Where to draw, empty and with constrained layout; a new two-column figure by default.
        legend_columns: Columns of the legend, which is that of the first panel.
    """
    columns = min(COLUMNS, len(families))
    if figure is None:
        import matplotlib.pyplot as plt

        with theme.context():
            figure = plt.figure(figsize=grid_size(len(families)), layout="constrained")
    with theme.context():
        panels = figure.subplots(
            -(-len(families) // columns), columns, sharex=True, sharey=True, squeeze=False
        )
        for number, family in enumerate(families):
            ax = panels.flat[number]
            draw(ax, family)
            if number % columns:
                ax.set_ylabel("")
            if number + columns < len(families):
                ax.set_xlabel("")
            else:
                ax.xaxis.set_tick_params(labelbottom=True)
        for ax in panels.flat[len(families) :]:
            ax.set_axis_off()
        handles, labels = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns, handlelength=2.8)
    return figure


def layer_axis(ax: Axes, n_layers: int) -> None:
    """Layers across, at most about eight of them named, and a grid behind what is drawn."""
    ax.set_xticks(range(0, n_layers, max(1, -(-n_layers // 8))))
    ax.grid(axis="y", color=theme.GRID, linewidth=0.5)
    ax.set_axisbelow(True)


def grid_size(families: int) -> tuple[float, float]:
    """Width and height of the small multiples of so many families, in inches."""
    width = theme.two_columns() if families > 1 else 1.3 * theme.one_column()
    return width, 0.6 + 1.85 * -(-families // COLUMNS)
