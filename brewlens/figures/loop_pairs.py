"""Loops against their exact unrolled twins: the same computation and answer, written in two ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from brewlens.figures import theme
from brewlens.lifecycle.curves import restricted_difference, scaled
from brewlens.stats import benjamini_hochberg, clustered_share, mcnemar, paired_difference

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from brewlens.results import Trace

TWIN = "unrolled"
RESOLVED = "resolved"
CELLS = {
    "both": "both resolved",
    "only_loop": "only the loop",
    "only_unrolled": "only the unrolled",
    "neither": "neither",
}
"""How a pair may end, and what that is called."""
_COLORS = {
    "both": theme.OUTCOME_COLORS["resolved"],
    "only_loop": "#56b4e9",
    "only_unrolled": "#8a5fa8",
    "neither": theme.OUTCOME_COLORS["no_brewing"],
}
_DIFFERENCES = {
    "resolved": ("resolved", "share of pairs"),
    "right": ("answer right", "share of pairs"),
    "available_from": ("available from", "share of depth"),
    "ready_from": ("ready from", "share of depth"),
}
_SHORT = {
    "resolved": "resolved",
    "overprocessed": "overpr.",
    "misresolved": "misres.",
    "unresolved": "unres.",
    "bypassed": "bypassed",
    "no_brewing": "no brew.",
}


def has_twin_pairs(trace: Trace) -> bool:
    """Whether there is a loop whose unrolled twin was traced too."""
    return bool(_found(trace))


def twin_pairs(trace: Trace) -> tuple[Int[np.ndarray, "pair"], Int[np.ndarray, "pair"]]:
    """Rows of the loops whose unrolled twin was traced too, and rows of these twins.

    Raises:
        ValueError: If there is no such pair.
    """
    found = _found(trace)
    if not found:
        raise ValueError(
            "needs loops and their unrolled twins in one run; found no such pair in families "
            f"{', '.join(trace.items.families)}: run both, as in --families loop,loop_unrolled"
        )
    loops, unrolled = np.array(found).T
    return loops, unrolled


def _found(trace: Trace) -> list[tuple[int, int]]:
    items, ids = trace.items, set(trace.items.ids)
    return [
        (row, items.row(item.twins[TWIN])) for row, item in enumerate(items) if item.twins.get(TWIN) in ids
    ]


def loop_pairs_table(trace: Trace) -> pd.DataFrame:
    """How pairs of exact twins end, and how they differ.

    Returns:
        Tidy table with the column ``part``:

        * ``outcomes``: one row per outcome of the loop and of its twin (``loop_outcome``,
          ``unrolled_outcome``, by the repaired rule), value: share of pairs.
        * ``resolved``: ``both``, ``only_loop``, ``only_unrolled``, ``neither``, value: share of pairs.
        * ``differences``: ``resolved``, ``right`` (the model's own answer) in shares of pairs, and, where the
          trace has onsets, ``available_from`` and ``ready_from``, means in shares of the depth where never
          counts as 1. ``loop`` and ``unrolled`` are the two means, value is loop minus unrolled.

        Columns part, name, loop_outcome, unrolled_outcome, count, n (pairs), n_shapes, loop, unrolled, value,
        low, high (95 % interval, clustered by shape), unit, p (of the clustered difference, two-sided),
        p_adjusted (Benjamini and Hochberg over the differences), p_mcnemar (exact; it takes pairs as
        independent, and is there for comparison).

    Raises:
        ValueError: If there is no such pair.
    """
    import pandas as pd

    loops, unrolled = twin_pairs(trace)
    shapes = trace.shapes[loops]
    outcome = trace.lifecycle.outcome
    a, b = outcome[loops], outcome[unrolled]
    records = []
    for first in theme.OUTCOME_COLORS:
        for second in theme.OUTCOME_COLORS:
            both = {"loop_outcome": first, "unrolled_outcome": second}
            records.append({"part": "outcomes", "name": f"{first}-{second}", **both})
            records[-1] |= _share((a == first) & (b == second), shapes)
    loop, twin = a == RESOLVED, b == RESOLVED
    cells = dict(zip(CELLS, (loop & twin, loop & ~twin, twin & ~loop, ~loop & ~twin), strict=True))
    records += [{"part": "resolved", "name": name} | _share(hit, shapes) for name, hit in cells.items()]
    right = trace.lifecycle.output_correct
    for name, x, y in (("resolved", loop, twin), ("right", right[loops], right[unrolled])):
        found = paired_difference(x, y, shapes)
        means = {"loop": x.mean(), "unrolled": y.mean(), "p_mcnemar": mcnemar(x, y)}
        records.append({"part": "differences", "name": name, **means, **_estimate(found, name)})
    for name, which in (("available_from", "available"), ("ready_from", "ready")):
        if which not in trace.onsets:
            continue
        onsets = trace.onsets[which]
        sides = [onsets.posterior[rows] for rows in (loops, unrolled)]
        found = scaled(restricted_difference(*sides, shapes), 1 / onsets.n_layers)
        means = {
            key: onsets.restricted[rows].mean() / onsets.n_layers
            for key, rows in (("loop", loops), ("unrolled", unrolled))
        }
        records.append({"part": "differences", "name": name, **means, **_estimate(found, name)})
    columns = ["part", "name", "loop_outcome", "unrolled_outcome", "count", "n", "n_shapes", "loop"]
    columns += ["unrolled", "value", "low", "high", "unit", "p", "p_mcnemar"]
    table = pd.DataFrame(records, columns=columns)
    table.insert(columns.index("p") + 1, "p_adjusted", benjamini_hochberg(table["p"].to_numpy(float)))
    return table.replace({"low": -np.inf, "high": np.inf}, np.nan).astype({"count": "Int64"})


def _share(hits: np.ndarray, shapes: np.ndarray) -> dict:
    s = clustered_share(hits, shapes)
    counts = {"count": s.count, "n": s.n, "n_shapes": s.clusters}
    return counts | {"value": s.value, "low": s.low, "high": s.high, "unit": "share of pairs"}


def _estimate(found, name: str) -> dict:
    ends = {"value": found.value, "low": found.low, "high": found.high, "p": found.p}
    return {"n": found.n, "n_shapes": found.clusters, **ends, "unit": _DIFFERENCES[name][1]}


def plot_loop_pairs(trace: Trace, *, ax: Axes | None = None) -> Axes:
    """Draw how pairs of exact twins end, and their differences with 95 % intervals.

    The numbers are those of ``loop_pairs_table``. The bar parts all pairs by which of the two is resolved;
    below it, left, are the counts of every outcome of the loop (rows) and its twin (columns), shaded in the
    colours of the bar, the lines parting resolved from not resolved. Of the differences at the right, those
    right of zero say that the loop has more, or is later.

    Args:
        trace: The trace.
        ax: Where to draw, as three insets; a new two-column figure by default.

    Raises:
        ValueError: If there is no loop whose unrolled twin was traced too.
    """
    table = loop_pairs_table(trace)
    if ax is None:
        ax = theme.new_axes(*loop_pairs_size())
    with theme.context():
        ax.set_axis_off()
        cells = table[table["part"] == "resolved"]
        ax.set_title(f"Loops and their exact unrolled twins  (n = {cells['n'].iloc[0]} pairs)")
        _draw_cells(ax.inset_axes((0.0, 0.83, 1.0, 0.12)), cells)
        _draw_outcomes(ax.inset_axes((0.0, 0.0, 0.47, 0.64)), table[table["part"] == "outcomes"])
        _draw_differences(ax.inset_axes((0.71, 0.0, 0.29, 0.64)), table[table["part"] == "differences"])
    return ax


def _draw_cells(ax: Axes, rows: pd.DataFrame) -> None:
    """One bar of all pairs, with the share of each part under it."""
    start = 0.0
    for row in rows.itertuples():
        color = _COLORS[row.name]
        bar = ax.barh(0, row.value, left=start, height=1, color=color, alpha=0.5, linewidth=0)[0]
        bar.set_gid(f"cell-{row.name}")
        middle = start + row.value / 2
        if row.value > 0.06:
            ax.text(middle, 0, str(row.count), ha="center", va="center", weight="bold", gid=f"n-{row.name}")
        start += row.value
    ax.set(xlim=(0, 1), ylim=(-0.5, 0.5))
    ax.set_axis_off()
    # Four labels, evenly set: a part of no pair has one, too.
    for x, row in zip((0.0, 0.26, 0.5, 0.76), rows.itertuples(), strict=True):
        ax.plot(x + 0.006, -0.86, marker="s", markersize=5, color=_COLORS[row.name], alpha=0.6, clip_on=False)
        ax.text(x + 0.018, -0.6, CELLS[row.name], va="top", fontsize=6.8, weight="bold")
        told = {"s": _percent(row), "va": "top", "fontsize": 6.2, "color": theme.MUTED}
        ax.text(x + 0.018, -1.2, **told, gid=f"label-{row.name}")


def _percent(row) -> str:
    return f"{100 * row.value:.1f} % [{100 * row.low:.1f}, {100 * row.high:.1f}]"


def _draw_outcomes(ax: Axes, rows: pd.DataFrame) -> None:
    from matplotlib.patches import Rectangle

    there = rows[rows["count"] > 0]
    seen = {*there["loop_outcome"], *there["unrolled_outcome"]}
    place = {outcome: i for i, outcome in enumerate(o for o in theme.OUTCOME_COLORS if o in seen)}
    most = int(rows["count"].max())
    for row in there.itertuples():
        x, y = place[row.unrolled_outcome], place[row.loop_outcome]
        loop, twin = row.loop_outcome == RESOLVED, row.unrolled_outcome == RESOLVED
        cell = {(1, 1): "both", (1, 0): "only_loop", (0, 1): "only_unrolled", (0, 0): "neither"}[loop, twin]
        # By the root of the count: most pairs are alike, and the others would all be blank.
        alpha = 0.08 + 0.5 * float(np.sqrt(row.count / most))
        color = _COLORS[cell]
        square = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=color, alpha=alpha, linewidth=0)
        square.set_gid(f"pairs-{row.name}")
        ax.add_patch(square)
        ax.text(x, y, str(row.count), ha="center", va="center", fontsize=6.5, gid=f"count-{row.name}")
    n = len(place)
    if RESOLVED in place and n > 1:
        ax.axhline(0.5, color=theme.INK, linewidth=0.8)
        ax.axvline(0.5, color=theme.INK, linewidth=0.8)
    ax.set_xticks(range(n), [_SHORT[o] for o in place], rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(n), [theme.OUTCOME_NAMES[o] for o in place])
    ax.tick_params(length=0)
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), xlabel="unrolled twin", ylabel="loop")
    ax.spines[:].set_visible(False)


def _draw_differences(ax: Axes, rows: pd.DataFrame) -> None:
    names = []
    for y, row in enumerate(rows.itertuples()):
        words, unit = _DIFFERENCES[row.name]
        color, marker = _look(row.name)
        if np.isfinite(row.low):
            ax.hlines(y, 100 * row.low, 100 * row.high, color=color, linewidth=1.3)
        ax.plot(100 * row.value, y, marker=marker, color=color, markersize=4.6, gid=f"difference-{row.name}")
        unit = "% of pairs" if unit == "share of pairs" else "% of depth"
        names.append(f"{words}\n({unit})")
    ax.axvline(0, color=theme.INK, linewidth=0.8, zorder=1.5)
    ax.set_yticks(range(len(rows)), names)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    reach = 100 * np.nanmax(np.abs(rows[["value", "low", "high"]].to_numpy(float)))
    reach = max(2.0, 1.15 * reach)
    ax.set_xlim(-reach, reach)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:+.0f}".replace("-", "−") if x else "0")
    ax.set_xlabel("loop minus unrolled, points")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=theme.GRID, linewidth=0.5)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)


def _look(name: str) -> tuple[str, str]:
    if name == "resolved":
        return theme.OUTCOME_COLORS[name], theme.OUTCOME_MARKERS[name]
    line = theme.DECODERS[{"right": "model", "available_from": "probe"}.get(name, "context_stripped")]
    return line.color, line.marker


def loop_pairs_size() -> tuple[float, float]:
    """Width and height of the figure, in inches."""
    return theme.two_columns(), 3.1


def loop_pairs_alt(table: pd.DataFrame) -> str:
    """What a reader who cannot see the figure needs to know."""
    cells = table[table["part"] == "resolved"]
    counts = ", ".join(f"{CELLS[r.name]} {r.count}" for r in cells.itertuples(index=False))
    parts = []
    for row in table[table["part"] == "differences"].itertuples(index=False):
        words, unit = _DIFFERENCES[row.name]
        ends = f" [{100 * row.low:+.1f}, {100 * row.high:+.1f}]" if np.isfinite(row.low) else ""
        parts.append(f"{words} {100 * row.value:+.1f} points{ends}, {unit}")
    return (
        f"Loops and their exact unrolled twins, {cells['n'].iloc[0]} pairs: {counts}. "
        f"Loop minus unrolled: {'; '.join(parts)}."
    )
