"""Accuracy by layer of every decoder, beside the text-only baseline, chance and the model's own answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from brewlens.figures import style
from brewlens.stats import share

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brewlens.results import Trace

OVERALL = "overall"


def rows_of(trace: Trace, family: str | None) -> np.ndarray:
    """Rows of one family, or of all samples.

    Raises:
        ValueError: If the trace has no sample of that family.
    """
    families = np.asarray(trace.lifecycle.families)
    rows = np.arange(len(trace)) if family is None else np.flatnonzero(families == family)
    if not len(rows):
        raise ValueError(
            f"asked for family {family!r}; this trace has {list(dict.fromkeys(families.tolist()))}"
        )
    return rows


def accuracy_table(trace: Trace, family: str | None = None) -> pd.DataFrame:
    """Accuracy of each decoder at each layer.

    Args:
        trace: The trace.
        family: One family, or None for all samples together (``overall``).

    Returns:
        Columns family, decoder, layer (0-based; missing for what has no layer), n, correct, accuracy
        (fraction of n), low, high (95 % Wilson interval). After the decoders come ``surface``, ``model``
        (the model's own answer) and ``chance`` (one in the number of classes; no n).

    Raises:
        ValueError: If the family is unknown.
    """
    import pandas as pd

    rows = rows_of(trace, family)
    answers = [trace.lifecycle.answers[r] for r in rows]
    n = len(rows)
    records: list[tuple] = []

    def add(decoder: str, layer: int | None, correct: int) -> None:
        s = share(correct, n)
        records.append((decoder, layer, n, correct, s.value, s.low, s.high))

    classes = 0
    # Decoders with layers first; what reads only the text has a single entry and no layer.
    for name, readout in sorted(trace.readouts.items(), key=lambda pair: pair[1].n_layers < trace.n_layers):
        hits = readout.select(rows).correct(answers).sum(axis=0)
        classes = len(readout.classes)
        for layer, correct in enumerate(hits.tolist()):
            add(name, layer if readout.n_layers == trace.n_layers else None, correct)
    add("model", None, int(trace.lifecycle.output_correct[rows].sum()))
    if classes:
        records.append(("chance", None, None, None, 1 / classes, None, None))
    frame = pd.DataFrame(records, columns=["decoder", "layer", "n", "correct", "accuracy", "low", "high"])
    frame.insert(0, "family", OVERALL if family is None else family)
    return frame.astype({"layer": "Int64", "n": "Int64", "correct": "Int64", "low": float, "high": float})


def plot_accuracy(
    trace: Trace, *, family: str | None = None, ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Draw accuracy by layer, with 95 % Wilson bands; the numbers are those of ``accuracy_table``.

    Args:
        trace: The trace.
        family: One family, or None for all samples together.
        ax: Where to draw; a new one-column figure by default.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: If the family is unknown.
    """
    table = accuracy_table(trace, family)
    ax = style.new_axes(style.ONE_COLUMN, 3.1) if ax is None else ax
    with style.context():
        last = trace.n_layers - 1
        for name, rows in table.groupby("decoder", sort=False):
            look = style.decoder(name)
            if name == "model":
                _draw_model(ax, rows.iloc[0], last + 0.09 * max(last, 4), look)
            elif rows["layer"].isna().any():
                _draw_level(ax, rows.iloc[0], look)
            else:
                _draw_line(ax, rows, look)
        n = int(table["n"].iloc[0])
        ax.set_title(f"{table['family'].iloc[0]}  (n = {n})")
        ax.set(xlabel="layer", ylabel="share right", ylim=(0, 1.02), xlim=(-0.3, last + 0.16 * max(last, 4)))
        step = max(1, -(-trace.n_layers // 8))
        ax.set_xticks(range(0, trace.n_layers, step))
        ax.set_yticks(np.linspace(0, 1, 6), [f"{t:.0%}".replace("%", " %") for t in np.linspace(0, 1, 6)])
        ax.grid(axis="y", color=style.GRID, linewidth=0.5)
        ax.set_axisbelow(True)
        if legend:
            style.legend_below(ax, 28, ncols=2, handlelength=2.6)
    return ax


def _draw_line(ax: Axes, rows: pd.DataFrame, look: style.Line) -> None:
    layer = rows["layer"].to_numpy(int)
    low, high = rows["low"].to_numpy(), rows["high"].to_numpy()
    ax.fill_between(layer, low, high, color=look.color, alpha=0.16, linewidth=0)
    ax.plot(
        layer,
        rows["accuracy"].to_numpy(),
        color=look.color,
        linestyle=look.dashes,
        marker=look.marker,
        markersize=2.8,
        markevery=max(1, len(layer) // 12),
        label=look.name,
    )


def _draw_level(ax: Axes, row: pd.Series, look: style.Line) -> None:
    if np.isfinite(row["low"]):
        ax.axhspan(row["low"], row["high"], color=look.color, alpha=0.12, linewidth=0)
    ax.axhline(row["accuracy"], color=look.color, linestyle=look.dashes, linewidth=1.1, label=look.name)


def _draw_model(ax: Axes, row: pd.Series, x: float, look: style.Line) -> None:
    error = [[row["accuracy"] - row["low"]], [row["high"] - row["accuracy"]]]
    ax.errorbar(
        x,
        row["accuracy"],
        error,
        color=look.color,
        fmt=look.marker,
        markersize=6,
        elinewidth=0.9,
        label=look.name,
    )


def plot_accuracy_grid(trace: Trace, *, figure: Figure | None = None) -> Figure:
    """Small multiples of ``plot_accuracy``: one panel per family, one legend.

    Args:
        trace: The trace.
        figure: Where to draw, empty and with constrained layout; a new two-column figure by default.
    """
    families = trace.items.families
    columns = min(3, len(families))
    rows = -(-len(families) // columns)
    if figure is None:
        import matplotlib.pyplot as plt

        with style.context():
            figure = plt.figure(figsize=grid_size(trace), layout="constrained")
    with style.context():
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for number, family in enumerate(families):
            ax = plot_accuracy(trace, family=family, ax=panels.flat[number], legend=False)
            if number % columns:
                ax.set_ylabel("")
            if number + columns < len(families):
                ax.set_xlabel("")
            else:
                ax.xaxis.set_tick_params(labelbottom=True)
        for ax in panels.flat[len(families) :]:
            ax.set_axis_off()
        handles, labels = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, handlelength=2.8)
    return figure


def grid_size(trace: Trace) -> tuple[float, float]:
    """Width and height of the small multiples, in inches."""
    families = len(trace.items.families)
    return style.TWO_COLUMNS if families > 1 else 1.3 * style.ONE_COLUMN, 0.6 + 1.85 * -(-families // 3)
