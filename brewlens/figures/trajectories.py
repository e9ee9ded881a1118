"""Mean trajectories: the probability of the right answer by layer, within each outcome.

Outcomes are told from these same readouts: that resolved samples are right late, and misresolved ones wrong,
is so by definition, and a mean within an outcome shows no effect. What it does show is when, and how sharply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from brewlens.figures import theme
from brewlens.figures.accuracy import rows_of
from brewlens.figures.panels import grid_size, layer_axis, small_multiples
from brewlens.figures.ridges import ROLES, roles_of
from brewlens.lifecycle.outcomes import OUTCOMES
from brewlens.stats import bounded_mean

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brewlens.results import Trace


def trajectory_table(
    trace: Trace,
    family: str | None = None,
    *,
    availability: str | None = None,
    readiness: str | None = None,
) -> pd.DataFrame:
    """Mean probability of the right answer by layer, within each outcome.

    Args:
        trace: The trace.
        family: One family, or None for all samples together.
        availability: Readout of availability; that of the trace's landmarks by default.
        readiness: Readout of readiness; likewise.

    Returns:
        Columns outcome (by the repaired rule, those that occur), role (``availability``, ``readiness``),
        decoder, layer (0-based), n, n_shapes, probability (mean over the samples), low, high (95 % interval,
        clustered by shape; missing with a single shape), chance (one in the number of classes).

    Raises:
        ValueError: If the family or a readout is unknown, or a readout reads no layers.
    """
    import pandas as pd

    rows, life, records = rows_of(trace, family), trace.lifecycle, []
    readouts = roles_of(trace, availability, readiness)
    for outcome in OUTCOMES:
        here = rows[life.outcome[rows] == outcome]
        if not len(here):
            continue
        for role, readout in zip(ROLES, readouts, strict=True):
            chosen = readout.select(here)
            target = chosen.target_index([life.answers[row] for row in here])
            right = chosen.probabilities[np.arange(len(here)), :, target].astype(np.float64)
            for layer, values in enumerate(right.T.clip(0, 1)):
                m = bounded_mean(values, 0, 1, trace.shapes[here])
                ends = (m.n, m.clusters, m.value, m.low, m.high, 1 / len(readout.classes))
                records.append((outcome, role, readout.decoder, layer, *ends))
    columns = ["outcome", "role", "decoder", "layer", "n", "n_shapes", "probability", "low", "high", "chance"]
    return pd.DataFrame(records, columns=columns).replace({"low": -np.inf, "high": np.inf}, np.nan)


def plot_trajectories(
    trace: Trace,
    *,
    role: str = "readiness",
    family: str | None = None,
    table: pd.DataFrame | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw the mean probability of the right answer by layer, a line per outcome, with 95 % bands.

    The numbers are those of ``trajectory_table``.

    Args:
        trace: The trace.
        role: ``availability`` (the probe) or ``readiness`` (context-stripped decoding).
        family: One family, or None for all samples together.
        table: Its ``trajectory_table``, if it is there already.
        ax: Where to draw; a new one-column figure by default.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: If the family or the role is unknown.
    """
    if role not in ROLES:
        raise ValueError(f"unknown role {role!r}; choose one of {', '.join(ROLES)}")
    table = trajectory_table(trace, family) if table is None else table
    ax = theme.new_axes(theme.one_column(), 3.1) if ax is None else ax
    rows = table[table["role"] == role]
    with theme.context():
        for outcome, points in rows.groupby("outcome", sort=False):
            name = f"{theme.OUTCOME_NAMES[outcome]} (n = {points['n'].iloc[0]})"
            look = {"color": theme.OUTCOME_COLORS[outcome], "marker": theme.OUTCOME_MARKERS[outcome]}
            _draw_trajectory(ax, points, name, f"{role}-{outcome}", **look)
        _label_trajectories(ax, rows, theme.decoder(rows["decoder"].iloc[0]).name)
        if legend:
            theme.legend_below(ax, 28, ncols=2, handlelength=2.2)
    return ax


def plot_trajectories_grid(
    trace: Trace,
    *,
    family: str | None = None,
    table: pd.DataFrame | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Small multiples: one panel per outcome, with both decoders; the numbers of ``trajectory_table``.

    Args:
        trace: The trace.
        family: One family, or None for all samples together.
        table: Its ``trajectory_table``, if it is there already.
        figure: Where to draw, empty and with constrained layout; a new two-column figure by default.

    Raises:
        ValueError: If the family is unknown.
    """
    numbers = trajectory_table(trace, family) if table is None else table

    def draw(ax: Axes, outcome: str) -> None:
        rows = numbers[numbers["outcome"] == outcome]
        for role, points in rows.groupby("role", sort=False):
            line = theme.decoder(points["decoder"].iloc[0])
            look = {"color": line.color, "linestyle": line.dashes, "marker": line.marker}
            _draw_trajectory(ax, points, line.name, f"{role}-{outcome}", **look)
        _label_trajectories(ax, rows, f"{theme.OUTCOME_NAMES[outcome]}  (n = {rows['n'].iloc[0]})")

    return small_multiples(list(dict.fromkeys(numbers["outcome"])), draw, figure=figure)


def _draw_trajectory(ax: Axes, points: pd.DataFrame, name: str, gid: str, **look: object) -> None:
    layer, value = points["layer"].to_numpy(int), points["probability"].to_numpy()
    low, high = points["low"].to_numpy(float), points["high"].to_numpy(float)
    ax.fill_between(layer, low, high, color=look["color"], alpha=0.16, linewidth=0)
    every = max(1, len(layer) // 12)
    ax.plot(layer, value, label=name, gid=gid, markersize=2.8, markevery=every, **look)


def _label_trajectories(ax: Axes, rows: pd.DataFrame, title: str) -> None:
    chance, layers = theme.decoder("chance"), int(rows["layer"].max()) + 1
    look = {"color": chance.color, "linestyle": chance.dashes, "linewidth": 1.0}
    ax.axhline(rows["chance"].iloc[0], label=chance.name, gid="chance", **look)
    ax.set_title(title)
    ax.set(xlabel="layer", ylabel="p(right answer)", ylim=(0, 1.02), xlim=(-0.3, layers - 0.7))
    layer_axis(ax, layers)


def trajectories_size(outcomes: int = len(OUTCOMES)) -> tuple[float, float]:
    """Width and height of the small multiples of so many outcomes, in inches."""
    return grid_size(outcomes)


def trajectories_alt(table: pd.DataFrame) -> str:
    """What a reader who cannot see the figure needs to know."""
    parts = []
    for outcome, rows in table.groupby("outcome", sort=False):
        told = []
        for _, points in rows.groupby("role", sort=False):
            top = points.loc[points["probability"].idxmax()]
            last = points["probability"].iloc[-1]
            name = theme.decoder(top["decoder"]).name
            told.append(
                f"{name} most {top['probability']:.2f} at layer {top['layer']}, at the end {last:.2f}"
            )
        parts.append(f"{theme.OUTCOME_NAMES[outcome]}, n {rows['n'].iloc[0]}: {'; '.join(told)}")
    return f"Mean probability of the right answer by layer, within each outcome. {'. '.join(parts)}."
