"""How outcomes, right answers and onsets answer to each factor of a family: means by level, and trends.

A level's mean is taken over all samples with that level, whatever their other levels. Generated sets are
balanced, so that it is a marginal mean; in other sets it is one of what was there. Trends hold the other
factors fixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from brewlens.figures import theme
from brewlens.figures.accuracy import rows_of
from brewlens.lifecycle.claims import MOST_STRATA
from brewlens.lifecycle.curves import onset_curve
from brewlens.lifecycle.outcomes import OUTCOMES
from brewlens.stats import Estimate, benjamini_hochberg, clustered_share, trend
from brewlens.tasks.difficulty import difficulty_levels
from brewlens.tasks.families import FAMILY_MODULES
from brewlens.tasks.item import Item

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brewlens.results import Trace

RIGHT = "right"
ONSET_QUANTITIES = {
    "available_from": "available",
    "ready_from": "ready",
    "available_from_median": "available",
    "ready_from_median": "ready",
}
QUANTITIES = (*OUTCOMES, RIGHT, *ONSET_QUANTITIES)
ALPHA = 0.05
COLUMNS = 2
MOST_NAMED = 8
_NAMES = {
    RIGHT: "model’s answer right",
    "available_from": "available from",
    "ready_from": "ready from",
    "available_from_median": "available from (median)",
    "ready_from_median": "ready from (median)",
}


def factor_levels(items: Iterable[Item]) -> dict[str, list[str | int]]:
    """Factors of one family and their levels, in order.

    The generator's order where it knows the family and its levels; else factors in that of the items,
    numbers by size and names by first appearance.
    """
    found: dict[str, dict[str | int, None]] = {}
    families = set()
    for item in items:
        families.add(item.family)
        for name, level in item.factors.items():
            found.setdefault(name, {})[level] = None
    known: dict = {}
    if len(families) == 1 and (family := families.pop()) in FAMILY_MODULES:
        known = FAMILY_MODULES[family].FACTORS
    if set(found) <= set(known):
        found = {name: found[name] for name in known if name in found}
    ordered: dict[str, list[str | int]] = {}
    for name, levels in found.items():
        if set(levels) <= set(known.get(name, ())):
            ordered[name] = [level for level in known[name] if level in levels]
        elif all(isinstance(level, int) for level in levels):
            ordered[name] = sorted(levels, key=int)
        else:
            ordered[name] = list(levels)
    return ordered


def difficulty_table(
    trace: Trace, family: str | None = None, *, quantity: str | Sequence[str] = "resolved"
) -> pd.DataFrame:
    """A quantity at every level of every factor.

    Args:
        trace: The trace.
        family: One family, or None for all.
        quantity: One or several of ``QUANTITIES``. An outcome by the repaired rule, or ``right`` (the model's
            own answer), is a share of all samples of the level. ``available_from`` and ``ready_from`` are
            means of the onset as a share of the depth, where never counts as 1; with ``_median`` the depth by
            which half of the samples have it, missing where half never do.

    Returns:
        Columns quantity, family, factor, level, rank (0 for the easiest; missing where levels have no order),
        n, n_shapes, value, low, high (95 % interval, clustered by shape; of a median, where the ends of the
        curve's own interval reach a half, 1 where they do not), slope (per level, the other factors held
        fixed), slope_low, slope_high, p (two-sided, against no slope), p_adjusted (Benjamini and Hochberg
        over the factors of the table). Only factors with an order have a slope (see
        ``brewlens.tasks.difficulty``), medians none. Slopes of onsets are those of posterior means, which
        lean towards each other: a little too flat.

    Raises:
        ValueError: If the family or quantity is unknown, an onset is asked for that the trace does not have,
            or no item has factors.
    """
    import pandas as pd

    asked = [quantity] if isinstance(quantity, str) else list(quantity)
    names = [family] if family is not None else list(trace.items.families)
    records = []
    for kind in asked:
        measure = _measure(trace, kind)
        for name in names:
            records += [(kind, name, *row) for row in _factors(trace, rows_of(trace, name), measure)]
    if not records:
        raise ValueError(
            f"needs items with factors; those of {', '.join(names)} have none: give them, as in "
            '{"prompt": ..., "answer": ..., "factors": {"depth": 2}}'
        )
    columns = ["quantity", "family", "factor", "level", "rank", "n", "n_shapes", "value", "low", "high"]
    table = pd.DataFrame(records, columns=[*columns, "slope", "slope_low", "slope_high", "p"])
    tests = table.drop_duplicates(["quantity", "family", "factor"]).set_index(
        ["quantity", "family", "factor"]
    )
    adjusted = pd.Series(benjamini_hochberg(tests["p"].to_numpy(float)), index=tests.index)
    table = table.replace({"slope_low": -np.inf, "slope_high": np.inf}, np.nan)
    keys = pd.MultiIndex.from_frame(table[["quantity", "family", "factor"]])
    return table.assign(p_adjusted=adjusted.reindex(keys).to_numpy()).astype({"rank": "Int64"})


@dataclass(frozen=True)
class _Measure:
    """What is averaged: the mean with its interval of some samples, and the value of each for a trend."""

    mean: object
    values: np.ndarray | None


def _measure(trace: Trace, kind: str) -> _Measure:
    if kind not in QUANTITIES:
        raise ValueError(f"unknown quantity {kind!r}; choose of {', '.join(QUANTITIES)}")
    if kind not in ONSET_QUANTITIES:
        hits = trace.lifecycle.output_correct if kind == RIGHT else trace.lifecycle.outcome == kind

        def share(rows: np.ndarray) -> tuple:
            s = clustered_share(hits[rows], trace.shapes[rows])
            return s.n, s.clusters, s.value, s.low, s.high

        return _Measure(share, np.asarray(hits, dtype=bool))
    which = ONSET_QUANTITIES[kind]
    if which not in trace.onsets:
        raise ValueError(
            f"{kind} needs the onset {which}; found {', '.join(trace.onsets) or 'none'}: trace the items "
            "anew, or run the same command over the run folder again"
        )
    onsets, median = trace.onsets[which], kind.endswith("_median")
    families = np.asarray(trace.lifecycle.families)

    def depth(rows: np.ndarray) -> tuple:
        curve = onset_curve(onsets.posterior[rows], trace.shapes[rows], groups=families[rows])
        if not median:
            mean = curve.relative
            return mean.n, mean.clusters, mean.value, mean.low, mean.high
        early, late = _half(curve.high), _half(curve.low)
        value = np.nan if curve.median is None else curve.median / onsets.n_layers
        return curve.n, curve.clusters, value, early, late

    return _Measure(depth, None if median else onsets.restricted / onsets.n_layers)


def _half(share: np.ndarray) -> float:
    """Depth at which a curve reaches a half; 1 where it does not."""
    reached = np.flatnonzero(share >= 0.5)
    return reached[0] / len(share) if len(reached) else 1.0


def _factors(trace: Trace, rows: np.ndarray, measure: _Measure) -> Iterator[tuple]:
    items = [trace.items[int(row)] for row in rows]
    ranks = difficulty_levels(items)
    for factor, levels in factor_levels(items).items():
        order = ranks.get(factor, {})
        slope = _slope(trace, rows, factor, order, measure.values) if order else None
        ends = (np.nan,) * 4 if slope is None else (slope.value, slope.low, slope.high, slope.p)
        for level in levels:
            here = np.array(
                [r for r, item in zip(rows, items, strict=True) if item.factors.get(factor) == level]
            )
            yield (factor, level, order.get(level), *measure.mean(here), *ends)


def _slope(
    trace: Trace, rows: np.ndarray, factor: str, order: dict, values: np.ndarray | None
) -> Estimate | None:
    """The trend over the levels; none where the other factors cannot be held fixed."""
    within = np.array([r for r in rows if factor in trace.items[int(r)].factors])
    others, rank = [], []
    for row in within:
        levels = trace.items[int(row)].factors
        others.append("\t".join(f"{k}={v}" for k, v in levels.items() if k != factor))
        rank.append(order[levels[factor]])
    cells = set(zip(others, rank, strict=True))
    if values is None or len(cells) == len(set(others)) or len(set(others)) > MOST_STRATA:
        return None
    return trend(values[within], np.array(rank), trace.shapes[within], strata=np.array(others))


def plot_difficulty(
    trace: Trace,
    *,
    family: str,
    quantity: str | Sequence[str] = "resolved",
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw a quantity at every level of a family's factors, side by side, with 95 % intervals.

    The numbers are those of ``difficulty_table``. Levels that have an order are joined by a line; above them
    stands the change per level, in percentage points, where it is clear (adjusted p at most .05); of several
    quantities ``n.s.`` where it is not.

    Args:
        trace: The trace.
        family: The family.
        quantity: One or several of ``QUANTITIES``, all shares of samples or all shares of the depth.
        ax: Where to draw; a new one-column figure by default.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: If the family or quantity is unknown, shares of samples and of the depth are mixed, an
            onset is asked for that the trace does not have, or no item has factors.
    """
    table = difficulty_table(trace, family, quantity=quantity)
    _one_unit(table)
    ax = theme.new_axes(*difficulty_size(1)) if ax is None else ax
    with theme.context():
        _draw(ax, table)
        if legend:
            theme.legend_below(ax, 52, ncols=2, handlelength=2.2, **_legend_title(table))
    return ax


def plot_difficulty_grid(
    trace: Trace,
    *,
    quantity: str | Sequence[str] = "resolved",
    table: pd.DataFrame | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Small multiples of ``plot_difficulty``: one panel per family that has factors, one scale, one legend.

    Trends are adjusted over all of them.

    Args:
        trace: The trace.
        quantity: One or several of ``QUANTITIES``, all shares of samples or all shares of the depth.
        table: Its ``difficulty_table``, if it is there already.
        figure: Where to draw, empty and with constrained layout; a new two-column figure by default.

    Raises:
        ValueError: As ``plot_difficulty``.
    """
    numbers = difficulty_table(trace, quantity=quantity) if table is None else table
    _one_unit(numbers)
    families = list(dict.fromkeys(numbers["family"]))
    columns = min(COLUMNS, len(families))
    if figure is None:
        import matplotlib.pyplot as plt

        with theme.context():
            figure = plt.figure(figsize=difficulty_size(len(families)), layout="constrained")
    with theme.context():
        panels = figure.subplots(-(-len(families) // columns), columns, sharey=True, squeeze=False)
        for number, family in enumerate(families):
            _draw(panels.flat[number], numbers[numbers["family"] == family])
            if number % columns:
                panels.flat[number].set_ylabel("")
        for ax in panels.flat[len(families) :]:
            ax.set_axis_off()
        handles, labels = panels.flat[0].get_legend_handles_labels()
        title = _legend_title(numbers)
        figure.legend(handles, labels, loc="outside lower center", ncols=4, handlelength=2.2, **title)
    return figure


def _legend_title(table: pd.DataFrame) -> dict[str, object]:
    """What the numbers above the factors are, where there are several."""
    names = [_look(kind)[2] for kind in dict.fromkeys(table["quantity"])]
    if len(names) == 1 or table["p"].isna().all():
        return {}
    return {"title": f"above: points per level, {' / '.join(names)}", "title_fontsize": 6.5}


def _one_unit(table: pd.DataFrame) -> None:
    kinds = list(dict.fromkeys(table["quantity"]))
    if len({kind in ONSET_QUANTITIES for kind in kinds}) > 1:
        raise ValueError(
            f"one scale holds shares of samples or shares of the depth; found {', '.join(kinds)}: draw them "
            "apart"
        )


def _look(quantity: str) -> tuple[str, str, str]:
    """Colour, marker and name of a quantity."""
    if quantity in ONSET_QUANTITIES:
        line = theme.DECODERS["probe" if ONSET_QUANTITIES[quantity] == "available" else "context_stripped"]
        return line.color, line.marker, _NAMES[quantity]
    if quantity == RIGHT:
        return theme.DECODERS["model"].color, theme.DECODERS["model"].marker, _NAMES[RIGHT]
    return theme.OUTCOME_COLORS[quantity], theme.OUTCOME_MARKERS[quantity], theme.OUTCOME_NAMES[quantity]


def _draw(ax: Axes, table: pd.DataFrame) -> None:
    kinds = list(dict.fromkeys(table["quantity"]))
    factors = {f: list(dict.fromkeys(rows["level"])) for f, rows in table.groupby("factor", sort=False)}
    start, ticks, names, slanted = 0.0, [], [], []
    for number, (factor, levels) in enumerate(factors.items()):
        # Of many levels, as of sizes in a user's items, none more room than that of eight, and few are named.
        x = start + np.linspace(0, min(len(levels), MOST_NAMED) - 1, len(levels))
        if number % 2 == 0:
            ax.axvspan(x[0] - 0.6, x[-1] + 0.6, color=theme.GRID, alpha=0.35, linewidth=0, zorder=0)
        for which, kind in enumerate(kinds):
            rows = table[(table["factor"] == factor) & (table["quantity"] == kind)]
            _draw_factor(ax, x + 0.22 * (which - (len(kinds) - 1) / 2), rows, kind, number == 0)
        _name_factor(ax, x.mean(), factor, table[table["factor"] == factor])
        every = -(-len(levels) // MOST_NAMED)
        ticks += list(x[::every])
        named = [str(level).replace("_", " ") for level in levels[::every]]
        names += named
        slanted += [max(map(len, named)) > 3] * len(named)
        start = x[-1] + 1.3
    ax.set_xticks(ticks, names)
    for label, slant in zip(ax.get_xticklabels(), slanted, strict=True):
        if slant:
            label.set(rotation=35, ha="right", rotation_mode="anchor")
    ax.tick_params(axis="x", length=0)
    size = table.drop_duplicates(["factor", "level"]).groupby("factor")["n"].sum().max()
    ax.set_title(f"{table['family'].iloc[0]}  (n = {size})", pad=23)
    unit = "depth" if kinds[0] in ONSET_QUANTITIES else "samples"
    ax.set(xlim=(-0.6, start - 0.7), ylim=(-0.02, 1.02), ylabel=f"share of {unit}")
    ax.set_yticks(np.linspace(0, 1, 6), [f"{100 * t:.0f} %" for t in np.linspace(0, 1, 6)])
    ax.grid(axis="y", color=theme.GRID, linewidth=0.5)
    ax.set_axisbelow(True)


def _draw_factor(ax: Axes, x: np.ndarray, rows: pd.DataFrame, kind: str, named: bool) -> None:
    color, marker, name = _look(kind)
    value, low, high = (rows[c].to_numpy(float) for c in ("value", "low", "high"))
    joined = rows["rank"].notna().all()
    ax.vlines(x, low, high, color=color, linewidth=1.1)
    ax.plot(
        x,
        value,
        color=color,
        linestyle="-" if joined else "none",
        linewidth=0.9,
        marker=marker,
        markersize=5 if marker == "*" else 3.8,
        markeredgewidth=0.3,
        markeredgecolor=theme.PAPER,
        label=name if named else None,
        gid=f"{kind}-{rows['factor'].iloc[0]}",
    )


def _name_factor(ax: Axes, x: float, factor: str, rows: pd.DataFrame) -> None:
    told = []
    for _, part in rows.groupby("quantity", sort=False):
        row = part.iloc[0]
        clear = row["p_adjusted"] <= ALPHA
        told.append(f"{100 * row['slope']:+.1f}".replace("-", "−") if clear else "n.s.")
    tested, none = rows["p"].notna().any(), set(told) == {"n.s."}
    per_level = " per level" if len(told) == 1 else ""  # of several, the legend says so
    text = " / ".join(told) + per_level if not none else "no clear trend" if tested else ""
    place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center"}
    ax.annotate(factor.replace("_", " "), (x, 1), (0, 11), va="bottom", fontsize=6.5, weight="bold", **place)
    color = theme.MUTED if none else theme.INK
    ax.annotate(text, (x, 1), (0, 3), va="bottom", fontsize=6.2, color=color, gid=f"trend-{factor}", **place)


def difficulty_size(families: int) -> tuple[float, float]:
    """Width and height of the small multiples of so many families, in inches."""
    width = theme.two_columns() if families > 1 else 1.2 * theme.one_column()
    return width, 0.45 + 2.15 * -(-families // COLUMNS)


def difficulty_alt(table: pd.DataFrame) -> str:
    """What a reader who cannot see the figure needs to know."""
    parts = []
    for (quantity, family), rows in table.groupby(["quantity", "family"], sort=False):
        told = []
        for factor, levels in rows.groupby("factor", sort=False):
            ends = ", ".join(
                f"{r.level} {100 * r.value:.0f} %" if np.isfinite(r.value) else f"{r.level} never for half"
                for r in levels.itertuples()
            )
            row = levels.iloc[0]
            clear = row["p_adjusted"] <= ALPHA
            change = f", {100 * row['slope']:+.1f} points per level" if clear else ""
            told.append(f"{factor} {ends}{change}")
        parts.append(f"{family}, {_look(quantity)[2]}: {'; '.join(told)}")
    return f"Means by level of each factor, with 95 % intervals. {'. '.join(parts)}."
