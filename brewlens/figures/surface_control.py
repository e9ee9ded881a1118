"""The probe minus the text-only baseline, layer by layer: what it reads that the text does not give away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from brewlens.decoding.surface_control import OVERALL
from brewlens.figures import theme
from brewlens.figures.accuracy import decodable, marked, panel_title, rows_of
from brewlens.figures.panels import layer_axis, small_multiples
from brewlens.stats import benjamini_hochberg, clustered_mean, detectable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brewlens.results import Trace


def surface_control_table(trace: Trace, family: str | None = None) -> pd.DataFrame:
    """Share of samples that the probe gets right, minus that of the text-only baseline on the same folds.

    Both are right or wrong on the same samples, so the difference is paired by sample.

    Args:
        trace: The trace.
        family: One family, ``overall`` for all samples together, or None for all of these.

    Returns:
        Columns family, layer (0-based), n, n_shapes, probe, surface (shares right), difference (probe minus
        surface), low, high (95 % interval, clustered by shape), p (two-sided, against no difference),
        p_adjusted (Benjamini and Hochberg over all cells, those of ``overall`` apart), detectable (the least
        difference that four of five such sets would show), decodable (whether the baseline reaches
        ``DECODABLE``). Where there is more than one family, the last is ``overall``. With a single shape
        there is no interval; where no difference is large enough to be found, ``detectable`` is missing.

    Raises:
        ValueError: If the family is unknown, or the trace has no probe or no baseline.
    """
    import pandas as pd

    if missing := [name for name in ("probe", "surface") if name not in trace.readouts]:
        raise ValueError(
            f"needs readouts of probe and surface; found no {' and no '.join(missing)} among "
            f"{', '.join(trace.readouts)}"
        )
    answers = trace.lifecycle.answers
    probe = trace.readouts["probe"].correct(answers).astype(float)
    text = trace.readouts["surface"].correct(answers)[:, 0].astype(float)
    families = list(trace.items.families)
    names = [family] if family is not None else [*families, *([OVERALL] if len(families) > 1 else [])]
    records = []
    for name in names:
        one = None if name == OVERALL and OVERALL not in families else name
        rows, marked = rows_of(trace, one), decodable(trace, one)
        shapes = trace.shapes[rows]
        for layer, hits in enumerate(probe[rows].T):
            found = clustered_mean(hits - text[rows], shapes)
            shares = (hits.mean(), text[rows].mean())
            ends = (found.value, found.low, found.high, found.p, detectable(found.se, found.df))
            records.append((name, layer, found.n, found.clusters, *shares, *ends, marked))
    columns = ["family", "layer", "n", "n_shapes", "probe", "surface", "difference", "low", "high", "p"]
    table = pd.DataFrame(records, columns=[*columns, "detectable", "decodable"])
    pooled = (table["family"] == OVERALL) & (OVERALL not in families)
    adjusted = table["p"].groupby(pooled).transform(lambda p: benjamini_hochberg(p.to_numpy()))
    table.insert(columns.index("p") + 1, "p_adjusted", adjusted)
    table = table.replace({"low": -np.inf, "high": np.inf}, np.nan)
    table[["low", "high"]] = table[["low", "high"]].clip(-1, 1)
    return table.assign(detectable=table["detectable"].where(table["detectable"] <= 1))


def plot_surface_control(
    trace: Trace, *, family: str | None = None, ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Draw the probe minus the text-only baseline by layer, with 95 % bands clustered by shape.

    The numbers are those of ``surface_control_table``. A difference inside the grey band about zero would be
    missed in more than one of five sets of this size.

    Args:
        trace: The trace.
        family: One family, or None for all samples together.
        ax: Where to draw; a new one-column figure by default.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: If the family is unknown, or the trace has no probe or no baseline.
    """
    table = surface_control_table(trace, OVERALL if family is None else family)
    ax = theme.new_axes(theme.one_column(), 2.6) if ax is None else ax
    with theme.context():
        _draw(ax, table)
        if legend:
            theme.legend_below(ax, 28, ncols=1, handlelength=2.6)
    return ax


def _draw(ax: Axes, table: pd.DataFrame) -> None:
    look, grey = theme.decoder("probe"), theme.decoder("chance").color
    layer = table["layer"].to_numpy(int)
    value, low, high, least = (100 * table[c].to_numpy() for c in ("difference", "low", "high", "detectable"))
    missed = ax.fill_between(layer, -least, least, color=grey, alpha=0.2, linewidth=0)
    missed.set(label="below the minimum detectable difference", gid="detectable")
    ax.axhline(0, color=theme.INK, linewidth=0.8, zorder=1.5)
    band = ax.fill_between(layer, low, high, color=look.color, alpha=0.18, linewidth=0)
    band.set(label="95 % interval, clustered by shape", gid="interval")
    ax.plot(
        layer,
        value,
        color=look.color,
        marker=look.marker,
        markersize=2.8,
        markevery=max(1, len(layer) // 12),
        label="probe minus surface",
        gid="difference",
    )
    ax.set_title(panel_title(table))
    ax.set(xlabel="layer", ylabel="probe minus surface,\npercentage points", xlim=(-0.3, layer[-1] + 0.3))
    ax.yaxis.set_major_formatter(lambda y, _: f"{y:+.0f}".replace("-", "−") if y else "0")
    layer_axis(ax, len(layer))


def plot_surface_control_grid(
    trace: Trace, *, table: pd.DataFrame | None = None, figure: Figure | None = None
) -> Figure:
    """Small multiples of ``plot_surface_control``: one panel per family, one scale, one legend.

    Args:
        trace: The trace.
        table: Its ``surface_control_table``, if it is there already.
        figure: Where to draw, empty and with constrained layout; a new two-column figure by default.

    Raises:
        ValueError: If the trace has no probe or no baseline.
    """
    numbers = surface_control_table(trace) if table is None else table
    return small_multiples(
        trace.items.families,
        lambda ax, family: _draw(ax, numbers[numbers["family"] == family]),
        figure=figure,
        legend_columns=3,
    )


def surface_control_alt(table: pd.DataFrame) -> str:
    """What the figure says, for a reader who cannot see it."""
    parts = []
    for _, rows in table.groupby("family", sort=False):
        clear = rows[(rows["low"] > 0)]["layer"]
        first = (
            f"first clearly above zero at layer {clear.iloc[0]}" if len(clear) else "never clearly above zero"
        )
        best = rows.loc[rows["difference"].idxmax()]
        most = f"most at layer {best['layer']}, {100 * best['difference']:+.0f} points"
        parts.append(f"{marked(rows)}: {first}, {most}")
    return "Probe minus the text-only baseline, by layer. " + "; ".join(parts) + "."
