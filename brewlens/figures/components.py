"""Which layers write the right answer, and which write the wrong one: direct contributions to the logits.

The contributions of all components add up to the difference of the two logits. Each is the direct effect
only: what a layer does by way of later layers counts as theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from brewlens.figures import theme
from brewlens.figures.causal_use import ALL, FEW, pooled
from brewlens.figures.panels import layer_axis, small_multiples
from brewlens.lifecycle.outcomes import OUTCOMES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brewlens.results import Trace

PARTS = {"attn": ("attention", "#0072b2", -0.2), "mlp": ("MLP", "#e69f00", 0.2)}
"""Name, colour, and place beside the layer, of the two parts of a block."""


def contribution_table(trace: Trace, family: str | None = None, outcome: str | None = None) -> pd.DataFrame:
    """Mean logit contribution, right minus wrong answer, of attention and MLP of each layer.

    Args:
        trace: A trace with the table ``components``; ``overtakes`` is joined where it is there.
        family: One family, or None for all samples together.
        outcome: One outcome, ``all`` for samples of any, or None for each that has at least ``FEW`` samples.

    Returns:
        The rows of ``components`` that are of a whole attention or MLP, and ``overtaken``, the number of
        samples in which the wrong answer overtakes there for good (missing without ``overtakes``).

    Raises:
        ValueError: If the trace has no such rows.
    """
    if "components" not in trace.tables:
        raise ValueError(
            "needs the table of components; found none: run the interventions over the trace, or the same "
            "command over the run folder again"
        )
    table = trace.tables["components"]
    table = table[table["component"].isin(list(PARTS)) & table["head"].isna()]
    for column, value in {"family": family or pooled(table), "outcome": outcome}.items():
        rows = table if value is None else table[table[column] == value]
        if not len(rows):
            found = ", ".join(dict.fromkeys(table[column])) or "no row at all"
            raise ValueError(f"asked for components with {column} {value!r}; found {found}")
        table = rows
    if outcome is None:
        table = table[(table["n"] >= FEW) & (table["outcome"] != ALL)]
    table = table.drop(columns="head").reset_index(drop=True)
    overtakes = trace.tables.get("overtakes")
    if overtakes is None:
        return table.assign(overtaken=np.nan).astype({"overtaken": "Int64"})
    keys = ["family", "outcome", "component", "layer"]
    counts = overtakes[[*keys, "count"]].rename(columns={"count": "overtaken"})
    return table.merge(counts, on=keys, how="left").fillna({"overtaken": 0}).astype({"overtaken": "Int64"})


def plot_contributions(
    trace: Trace,
    *,
    outcome: str = "overprocessed",
    family: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw the contributions of ``contribution_table`` as bars with 95 % intervals, clustered by shape.

    Above zero a part speaks for the right answer, below it for the wrong one. The dashed line is at the
    part at which the wrong answer overtakes most often.

    Args:
        trace: A trace with the table ``components``.
        outcome: Of the samples.
        family: One family, or None for all samples together.
        ax: Where to draw; a new one-column figure by default.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: If the trace has no such rows.
    """
    table = contribution_table(trace, family, outcome)
    ax = theme.new_axes(theme.one_column(), 2.6) if ax is None else ax
    with theme.context():
        _draw(ax, table)
        if legend:
            theme.legend_below(ax, 28, ncols=3)
    return ax


def plot_contributions_grid(
    trace: Trace,
    *,
    family: str | None = None,
    table: pd.DataFrame | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Small multiples of ``plot_contributions``: one panel per outcome, one scale, one legend.

    Args:
        trace: A trace with the table ``components``.
        family: One family, or None for all samples together.
        table: Its ``contribution_table``, if it is there already.
        figure: Where to draw, empty and with constrained layout; a new two-column figure by default.

    Raises:
        ValueError: If the trace has no such rows, or no outcome has enough samples.
    """
    numbers = contribution_table(trace, family) if table is None else table
    if not len(numbers):
        raise ValueError(f"needs an outcome of at least {FEW} samples; found none: run more items")
    return small_multiples(
        outcomes_of(numbers),
        lambda ax, outcome: _draw(ax, numbers[numbers["outcome"] == outcome]),
        figure=figure,
        legend_columns=3,
    )


def outcomes_of(table: pd.DataFrame) -> list[str]:
    """The outcomes of a table, in the order of the figures."""
    return [name for name in OUTCOMES if name in set(table["outcome"])]


def overtaken_at(table: pd.DataFrame) -> pd.Series | None:
    """The row of the part at which the wrong answer overtakes most often; None where it never does."""
    if not len(table) or not table["overtaken"].fillna(0).max() > 0:
        return None
    return table.loc[table["overtaken"].astype(float).idxmax()]


def _draw(ax: Axes, table: pd.DataFrame) -> None:
    n_layers = int(table["layer"].max()) + 1
    for part, (name, color, aside) in PARTS.items():
        rows = table[table["component"] == part]
        x = rows["layer"].to_numpy(int) + aside
        value, low, high = (rows[c].to_numpy(float) for c in ("value", "low", "high"))
        bars = ax.bar(x, value, 0.38, color=color, linewidth=0, label=name)
        for bar, layer in zip(bars, rows["layer"], strict=True):
            bar.set_gid(f"{part}-{layer}")
        known = np.isfinite(low) & np.isfinite(high)
        ax.vlines(x[known], low[known], high[known], color=theme.INK, linewidth=0.7)
    ax.axhline(0, color=theme.INK, linewidth=0.8)
    outcome = table["outcome"].iloc[0]
    ax.set_title(f"{theme.OUTCOME_NAMES.get(outcome, f'{outcome} samples')}  (n = {table['n'].iloc[0]})")
    ax.set(xlabel="layer", ylabel="right minus wrong, logits", xlim=(-0.7, n_layers - 0.3))
    layer_axis(ax, n_layers)
    ax.yaxis.set_major_formatter(lambda y, _: f"{y:g}".replace("-", "−"))
    _name_the_overtaker(ax, overtaken_at(table))


def _name_the_overtaker(ax: Axes, row: pd.Series | None) -> None:
    if row is None:
        return
    name, _, aside = PARTS[row["component"]]
    x = int(row["layer"]) + aside
    ax.axvline(x, color=theme.MUTED, linewidth=0.7, linestyle=(0, (2, 2)), zorder=0.9)
    # On the side of the middle, so that it stays inside the panel.
    left, right = ax.get_xlim()
    aligned = {"ha": "right", "dx": -2.5} if x > (left + right) / 2 else {"ha": "left", "dx": 2.5}
    ax.annotate(
        f"wrong overtakes most often:\n{name} {row['layer']}, {row['overtaken']} of {row['n']}",
        (x, 0.99),
        xycoords=("data", "axes fraction"),
        xytext=(aligned["dx"], 0),
        textcoords="offset points",
        ha=aligned["ha"],
        va="top",
        fontsize=6.2,
        color=theme.MUTED,
        gid="overtaker",
    )


def contribution_alt(table: pd.DataFrame) -> str:
    """What the figure says, for a reader who cannot see it."""
    parts = []
    for outcome in outcomes_of(table):
        rows = table[table["outcome"] == outcome]
        ends = [rows.loc[rows["value"].idxmax()], rows.loc[rows["value"].idxmin()]]
        told = [f"{end['component']} of layer {end['layer']} {end['value']:+.2f}" for end in ends]
        where = overtaken_at(rows)
        if where is not None:
            told.append(f"wrong overtakes most often at {where['component']} of layer {where['layer']}")
        parts.append(f"{outcome}: {', '.join(told)}")
    return f"Logit contributions, right minus wrong, by layer: the largest and the least. {'; '.join(parts)}."
