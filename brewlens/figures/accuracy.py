"""Accuracy by layer of every decoder, beside the text-only baseline, chance and the model's own answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from brewlens.decoding.surface import DECODABLE
from brewlens.decoding.surface_control import OVERALL
from brewlens.figures import theme
from brewlens.figures.panels import layer_axis, small_multiples
from brewlens.stats import clustered_share, detectable_shares

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brewlens.results import Trace

MARK = "decodable from text"


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


def decodable(trace: Trace, family: str | None = None) -> bool:
    """Whether the text-only baseline reaches ``DECODABLE``, so that a probe may have read no more than text.

    False without a baseline.

    Raises:
        ValueError: If the family is unknown.
    """
    rows = rows_of(trace, family)
    if "surface" not in trace.readouts:
        return False
    hits = trace.readouts["surface"].select(rows).correct([trace.lifecycle.answers[r] for r in rows])
    return bool(hits.mean() >= DECODABLE)


def accuracy_table(trace: Trace, family: str | None = None) -> pd.DataFrame:
    """Accuracy of each decoder at each layer.

    Args:
        trace: The trace.
        family: One family, or None for all samples together (``overall``).

    Returns:
        Columns family, decoder, layer (0-based; missing for what has no layer), n, n_shapes, correct,
        accuracy (fraction of n), low, high (95 % Wilson interval, clustered by shape), detectable (the least
        difference from another such share that four of five comparisons would find), decodable. After the
        decoders come ``surface``, ``model`` (the model's own answer) and ``chance`` (one in the number of
        classes; no n).

    Raises:
        ValueError: If the family is unknown.
    """
    import pandas as pd

    rows = rows_of(trace, family)
    answers = [trace.lifecycle.answers[r] for r in rows]
    shapes = trace.shapes[rows]
    records: list[tuple] = []

    def add(decoder: str, layer: int | None, hits: Bool[np.ndarray, "sample"]) -> None:
        s = clustered_share(hits, shapes)
        least = detectable_shares(s.effective, s.value)
        records.append((decoder, layer, s.n, s.clusters, s.count, s.value, s.low, s.high, least))

    classes = 0
    # Decoders with layers first; what reads only the text has a single entry and no layer.
    for name, readout in sorted(trace.readouts.items(), key=lambda pair: pair[1].n_layers < trace.n_layers):
        classes = len(readout.classes)
        for layer, hits in enumerate(readout.select(rows).correct(answers).T):
            add(name, layer if readout.n_layers == trace.n_layers else None, hits)
    add("model", None, trace.lifecycle.output_correct[rows])
    if classes:
        records.append(("chance", None, None, None, None, 1 / classes, None, None, None))
    columns = ["decoder", "layer", "n", "n_shapes", "correct", "accuracy", "low", "high", "detectable"]
    frame = pd.DataFrame(records, columns=columns)
    frame.insert(0, "family", OVERALL if family is None else family)
    frame["decodable"] = decodable(trace, family)
    whole = dict.fromkeys(("layer", "n", "n_shapes", "correct"), "Int64")
    return frame.astype({**whole, "low": float, "high": float, "detectable": float})


def plot_accuracy(
    trace: Trace, *, family: str | None = None, ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Draw accuracy by layer, with 95 % bands; the numbers are those of ``accuracy_table``.

    Args:
        trace: The trace.
        family: One family, or None for all samples together.
        ax: Where to draw; a new one-column figure by default.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: If the family is unknown.
    """
    table = accuracy_table(trace, family)
    ax = theme.new_axes(theme.one_column(), 3.1) if ax is None else ax
    with theme.context():
        last = trace.n_layers - 1
        for name, rows in table.groupby("decoder", sort=False):
            look = theme.decoder(name)
            if name == "model":
                _draw_model(ax, rows.iloc[0], last + 0.09 * max(last, 4), look)
            elif rows["layer"].isna().any():
                _draw_level(ax, rows.iloc[0], look)
            else:
                _draw_line(ax, rows, look)
        ax.set_title(panel_title(table))
        ax.set(xlabel="layer", ylabel="share right", ylim=(0, 1.02), xlim=(-0.3, last + 0.16 * max(last, 4)))
        ax.set_yticks(np.linspace(0, 1, 6), [f"{t:.0%}".replace("%", " %") for t in np.linspace(0, 1, 6)])
        layer_axis(ax, trace.n_layers)
        if legend:
            theme.legend_below(ax, 28, ncols=2, handlelength=2.6)
    return ax


def panel_title(table: pd.DataFrame) -> str:
    """Family and n of a panel's table, and a mark where the answer can be had from the text."""
    row = table.iloc[0]
    mark = f"\n{MARK}" if row["decodable"] else ""
    return f"{row['family']}  (n = {row['n']}){mark}"


def _draw_line(ax: Axes, rows: pd.DataFrame, look: theme.Line) -> None:
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


def _draw_level(ax: Axes, row: pd.Series, look: theme.Line) -> None:
    if np.isfinite(row["low"]):
        ax.axhspan(row["low"], row["high"], color=look.color, alpha=0.12, linewidth=0)
    ax.axhline(row["accuracy"], color=look.color, linestyle=look.dashes, linewidth=1.1, label=look.name)


def _draw_model(ax: Axes, row: pd.Series, x: float, look: theme.Line) -> None:
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
    return small_multiples(
        trace.items.families,
        lambda ax, family: plot_accuracy(trace, family=family, ax=ax, legend=False),
        figure=figure,
    )


def marked(table: pd.DataFrame) -> str:
    """Family of a panel's table in words, and whether its answers can be had from the text."""
    row = table.iloc[0]
    return f"{row['family']} ({MARK})" if row["decodable"] else str(row["family"])


def accuracy_alt(table: pd.DataFrame) -> str:
    """What the figure says, for a reader who cannot see it."""
    parts = []
    for _, rows in table.groupby("family", sort=False):
        best = rows[rows["layer"].notna()].sort_values("accuracy", ascending=False, kind="stable")
        tops = [f"{theme.decoder(d).name} {100 * r.iloc[0]['accuracy']:.0f} % at layer {r.iloc[0]['layer']}"
                for d, r in best.groupby("decoder", sort=False)]  # fmt: skip
        parts.append(f"{marked(rows)}: {', '.join(tops)}")
    return "Accuracy by layer. Best layer of each decoder, by family. " + "; ".join(parts) + "."
