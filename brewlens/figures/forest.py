"""Verdicts on whether the brewed answer is used: a line per family and edit, beside the strongest placebo."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np

from brewlens.figures import theme
from brewlens.figures.causal_use import ALL, edit_name, panels_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from brewlens.results import Trace

VERDICTS = {
    "used": ("#009e73", "o"),
    "not used": ("#d55e00", "s"),
    "cannot tell": (theme.DECODERS["chance"].color, "D"),
}
"""Colour and marker of each verdict."""
_PLACEBO = theme.DECODERS["chance"].color
_TICK = {"color": _PLACEBO, "alpha": 0.75, "marker": "|", "markersize": 5}


def verdict_table(trace: Trace, outcome: str = ALL) -> pd.DataFrame:
    """The verdicts over samples of one outcome.

    Args:
        trace: A trace with the table ``causal_verdicts``.
        outcome: Of the samples, or ``all``.

    Returns:
        The rows of ``causal_verdicts``, by family; edits in the order of the figure. Where the verdict rests
        on ``unchanged`` outputs (erasure) it is turned round to ``changed`` ones, effect and placebo alike,
        so that every positive effect speaks for use.

    Raises:
        ValueError: If the trace has no such verdicts.
    """
    import pandas as pd

    if "causal_verdicts" not in trace.tables:
        raise ValueError(
            "needs the table of causal verdicts; found none: run the interventions over the trace, or the "
            "same command over the run folder again"
        )
    table = trace.tables["causal_verdicts"]
    rows = table[table["outcome"] == outcome]
    if not len(rows):
        found = ", ".join(dict.fromkeys(table["outcome"])) or "no row at all"
        raise ValueError(f"asked for verdicts with outcome {outcome!r}; found {found}")
    order = {name: i for i, name in enumerate(panels_of(rows, "edit"))}
    parts = [
        part.sort_values("edit", key=lambda e: e.map(order), kind="stable")
        for _, part in rows.groupby("family", sort=False)
    ]
    return _towards_use(pd.concat(parts, ignore_index=True))


def _towards_use(table: pd.DataFrame) -> pd.DataFrame:
    turned = table["measure"] == "unchanged"
    flipped = {"measure": table["measure"].where(~turned, "changed")}
    for before in ("", "placebo_"):
        net, low, high = (f"{before}{end}" for end in ("net", "low", "high"))
        flipped |= {
            net: table[net].where(~turned, -table[net]),
            low: table[low].where(~turned, -table[high]),
            high: table[high].where(~turned, -table[low]),
        }
    return table.assign(**flipped)


def plot_verdicts(trace: Trace, *, outcome: str = ALL, ax: Axes | None = None) -> Axes:
    """Draw the net effect of every family and edit with its 95 % interval, and the verdict beside it.

    The numbers are those of ``verdict_table``: the share of outputs that follow the twin, or, where the
    answer is erased, that change. Effects are means over the layers in which the answer is
    available and not yet ready. The light mark below each is its strongest placebo; between the dotted lines
    an effect is too small to matter (``margin``).

    Args:
        trace: A trace with the table ``causal_verdicts``.
        outcome: Of the samples, or ``all``.
        ax: Where to draw; a new two-column figure by default.

    Raises:
        ValueError: If the trace has no such verdicts.
    """
    table = verdict_table(trace, outcome)
    if ax is None:
        ax = theme.new_axes(*verdicts_size(table))
    with theme.context():
        lines = _lines(table)
        for y, line in enumerate(lines):
            if not isinstance(line, str):
                _draw_line(ax, y, line)
        _label_axes(ax, lines, table)
        _name_marks(ax, set(table["verdict"]))
        theme.legend_below(ax, 38, ncols=4, columnspacing=1.4, handletextpad=0.4)
    return ax


def verdicts_size(table: pd.DataFrame) -> tuple[float, float]:
    """Width and height of the figure, in inches."""
    return theme.two_columns(), 1.05 + 0.2 * len(_lines(table))


def said(row: object) -> str:
    """A verdict in words, with the layer from which the answer is used, where that was found."""
    known = row.verdict == "used" and isinstance(row.used_from, Integral)
    return f"{row.verdict} from layer {row.used_from}" if known else str(row.verdict)


def _lines(table: pd.DataFrame) -> list:
    """What stands on each line: the name of a family, then its rows."""
    return [
        line
        for family, rows in table.groupby("family", sort=False)
        for line in (family, *rows.itertuples(index=False))
    ]


def _draw_line(ax: Axes, y: int, row) -> None:
    color, marker = VERDICTS[row.verdict]
    ax.vlines([-row.margin, row.margin], y - 0.5, y + 0.5, color=theme.MUTED, linewidth=0.7, linestyle=":")
    _draw_interval(ax, y + 0.26, row.placebo_low, row.placebo_high, color=_PLACEBO, alpha=0.75, linewidth=2.2)
    ax.plot(row.placebo_net, y + 0.26, gid=f"placebo-{y}", **_TICK)
    _draw_interval(ax, y - 0.08, row.low, row.high, color=color, linewidth=1.3)
    hollow = row.verdict == "cannot tell"
    ax.plot(
        row.net,
        y - 0.08,
        marker=marker,
        markersize=4.4,
        color=color,
        markerfacecolor=theme.PAPER if hollow else color,
        gid=f"effect-{y}",
    )
    ax.text(
        1.02,
        y,
        said(row),
        transform=ax.get_yaxis_transform(),
        va="center",
        fontsize=7,
        color=theme.MUTED if hollow else theme.INK,
        gid=f"verdict-{y}",
    )


def _draw_interval(ax: Axes, y: float, low: float, high: float, **look: object) -> None:
    if np.isfinite(low) and np.isfinite(high):  # none of a single shape
        ax.hlines(y, low, high, **look)


def _label_axes(ax: Axes, lines: list, table: pd.DataFrame) -> None:
    names = [line if isinstance(line, str) else f"{edit_name(line.edit)}, n = {line.n}" for line in lines]
    ax.set_yticks(range(len(lines)), names)
    for tick, line in zip(ax.get_yticklabels(), lines, strict=True):
        if isinstance(line, str):
            tick.set_fontweight("bold")
    heads = [y for y, line in enumerate(lines) if isinstance(line, str)]
    for top, below in list(zip(heads, [*heads[1:], len(lines)], strict=True))[::2]:
        ax.axhspan(top - 0.5, below - 0.5, color=theme.GRID, alpha=0.35, linewidth=0, zorder=0)
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ends = table[["low", "high", "placebo_low", "placebo_high", "margin"]].to_numpy(float)
    ends = ends[np.isfinite(ends)]
    low, high = min(0.0, ends.min(initial=0)), max(0.1, ends.max(initial=0))
    pad = 0.03 * (high - low)
    ax.set_xlim(low - pad, high + pad)
    ax.axvline(0, color=theme.INK, linewidth=0.8, zorder=1.5)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.2g}".replace("-", "−"))
    ax.set_xlabel(
        "share of outputs that follow the twin (erased: that change), net of no edit,\n"
        "mean over the brewing stretch, 95 % interval clustered by shape"
    )
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=theme.GRID, linewidth=0.5)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
    ax.set_title("Is the brewed answer used?")


def _name_marks(ax: Axes, verdicts: set[str]) -> None:
    for name, (color, marker) in VERDICTS.items():
        if name in verdicts:
            face = theme.PAPER if name == "cannot tell" else color
            ax.plot([], [], marker=marker, markersize=4.4, color=color, markerfacecolor=face, label=name)
    ax.plot([], [], linewidth=2.2, label="strongest placebo", **_TICK)


def verdict_alt(table: pd.DataFrame) -> str:
    """What the figure says, for a reader who cannot see it."""
    parts = [
        f"{family}: {'; '.join(f'{edit_name(row.edit)} {said(row)}' for row in rows.itertuples())}"
        for family, rows in table.groupby("family", sort=False)
    ]
    return f"Whether the brewed answer is used, by family and edit. {'. '.join(parts)}."
