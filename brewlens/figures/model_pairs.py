"""Two models of one kind, such as a base and a code-trained one, on the same items where both ran them.

Items are the same where id, prompt and answer are. Then differences are paired by item, which is far more
precise; where the runs have too few items in common, the two are compared as independent samples, and table
and figure say so.

What it does not show: why they differ. A pair is two models, so nothing follows for other models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import norm

from brewlens.decoding.surface_control import OVERALL
from brewlens.figures import theme
from brewlens.figures.accuracy import rows_of
from brewlens.figures.models import ACCURACY, NAMES, ONSETS, depths_of, named, shares_of
from brewlens.lifecycle.curves import onset_curve, restricted_difference, scaled
from brewlens.stats import (
    ClusteredShare,
    Estimate,
    benjamini_hochberg,
    bounded_mean,
    clustered_share,
    paired_difference,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from brewlens.results import Trace

LEAST_COMMON = 0.5
"""Runs are paired where they share at least this part of the items of the smaller one."""
_Z = float(norm.ppf(0.975))


def pairs_table(
    traces: Mapping[str, Trace] | Sequence[Trace],
    pairs: Sequence[tuple[str, str]],
    family: str | None = None,
) -> pd.DataFrame:
    """How the second model of each pair differs from the first.

    Args:
        traces: Name of a model -> its trace; or traces, which are called by their ``model``.
        pairs: Names of two models each, such as ``[("base", "code")]``.
        family: One family, or None for all samples together (``overall``).

    Returns:
        Columns first, second, family, quantity, unit (``samples`` or ``depth``, of which the values are
        shares), paired, in_common (items that both runs have), n, n_second (samples behind the two values;
        the same items where paired), n_shapes (of the first), first_value, second_value, difference (second
        minus first), low, high (95 % interval, clustered by shape), p, p_adjusted (Benjamini and Hochberg
        over the table). Quantities: ``accuracy`` and every outcome as shares of all samples, so that both
        models have one denominator; ``fpcl``, ``fcc``, ``fjc``, first hits as shares of the depth, never
        counted as 1; ``brewing``, over the items with an FJC in both models where paired, else over those of
        each; ``available_from`` and ``ready_from``, mean onsets, never counted as 1. A quantity that a run
        does not have, or that no item has, has n = 0. Intervals of paired shares are those of
        :func:`brewlens.stats.paired_difference`; of unpaired ones they are made of the two intervals (MOVER,
        Zou and Donner 2008), and p of their half nearer to 0.

    Raises:
        ValueError: If there is no pair, a name or family is unknown, or a model is paired with itself.
    """
    import pandas as pd

    traces = named(traces)
    if unknown := sorted({name for pair in pairs for name in pair} - set(traces)):
        raise ValueError(f"asked to pair {unknown}; the models are {', '.join(traces)}")
    if not pairs or any(first == second for first, second in pairs):
        raise ValueError(f"needs pairs of two models each, such as [('base', 'code')]; found {list(pairs)}")
    records = []
    for first, second in pairs:
        sides = [_Side(traces[name], rows_of(traces[name], family)) for name in (first, second)]
        common = _common(*sides)
        paired = len(common[0]) >= max(2, LEAST_COMMON * min(len(side.rows) for side in sides))
        if paired:
            sides = [_Side(side.trace, rows) for side, rows in zip(sides, common, strict=True)]
        head = {"first": first, "second": second, "family": OVERALL if family is None else family}
        head |= {"paired": paired, "in_common": len(common[0])}
        records += [{**head, **record} for record in _records(*sides, paired)]
    columns = ["first", "second", "family", "quantity", "unit", "paired", "in_common", "n", "n_second"]
    columns += ["n_shapes", "first_value", "second_value", "difference", "low", "high", "p"]
    table = pd.DataFrame(records).reindex(columns=columns)
    table[["low", "high"]] = table[["low", "high"]].clip(-1, 1)
    return table.assign(p_adjusted=benjamini_hochberg(table["p"].to_numpy(float)))


@dataclass(frozen=True)
class _Side:
    """One model of a pair, and the rows of its trace that count."""

    trace: Trace
    rows: Int[np.ndarray, "sample"]

    @property
    def shapes(self) -> Int[np.ndarray, "sample"]:
        return self.trace.shapes[self.rows]

    @property
    def families(self) -> np.ndarray:
        return np.array(self.trace.lifecycle.families)[self.rows]


def _common(first: _Side, second: _Side) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the items that both have, in the order of the first."""

    def keys(side: _Side) -> dict[tuple[str, str, str], int]:
        items = side.trace.items
        return {(items[r].id, items[r].prompt, items[r].answer): int(r) for r in side.rows}

    mine, others = keys(first), keys(second)
    both = [key for key in mine if key in others]
    return np.array([mine[key] for key in both], int), np.array([others[key] for key in both], int)


def _records(first: _Side, second: _Side, paired: bool) -> list[dict[str, object]]:
    records = []
    for unit, of in (("samples", shares_of), ("depth", depths_of)):
        columns = [of(side.trace) for side in (first, second)]
        for name in columns[0]:
            values = [column[name][side.rows] for column, side in zip(columns, (first, second), strict=True)]
            found = _paired(*values, first.shapes) if paired else _apart(values, (first, second))
            records.append({"quantity": name, "unit": unit, **found})
    for name, role in ONSETS.items():
        there = all(role in side.trace.onsets for side in (first, second))
        found = _onsets(first, second, role, paired) if there else {"n": 0, "n_second": 0, "n_shapes": 0}
        records.append({"quantity": name, "unit": "depth", **found})
    return records


def _paired(a: np.ndarray, b: np.ndarray, shapes: np.ndarray) -> dict[str, object]:
    known = np.isfinite(a.astype(float)) & np.isfinite(b.astype(float))
    a, b = a[known], b[known]
    found = paired_difference(b, a, shapes[known])
    if found is None:
        return {"n": 0, "n_second": 0, "n_shapes": 0}
    return _stated(found, float(a.mean()), float(b.mean()))


def _stated(found: Estimate, first: float, second: float) -> dict[str, object]:
    known = np.isfinite(found.se)
    return {
        **{"n": found.n, "n_second": found.n, "n_shapes": found.clusters},
        **{"first_value": first, "second_value": second, "difference": found.value, "p": found.p},
        **{"low": found.low if known else np.nan, "high": found.high if known else np.nan},
    }


def _apart(values: Sequence[np.ndarray], sides: Sequence[_Side]) -> dict[str, object]:
    found: list[ClusteredShare | Estimate | None] = []
    for column, side in zip(values, sides, strict=True):
        known = np.isfinite(column.astype(float))
        shapes = side.shapes[known]
        whole = column.dtype == bool
        found.append(
            clustered_share(column[known], shapes) if whole else bounded_mean(column[known], 0, 1, shapes)
        )
    return _mover(*found)


def _mover(a: ClusteredShare | Estimate | None, b: ClusteredShare | Estimate | None) -> dict[str, object]:
    """Difference of two independent estimates: an interval from theirs."""
    if a is None or b is None:
        return {"n": 0 if a is None else a.n, "n_second": 0 if b is None else b.n, "n_shapes": 0}
    difference = b.value - a.value
    low = difference - np.hypot(b.value - b.low, a.high - a.value)
    high = difference + np.hypot(b.high - b.value, a.value - a.low)
    nearer = difference - low if difference > 0 else high - difference
    p = 2 * norm.sf(abs(difference) * _Z / nearer) if nearer > 0 else float(difference == 0)
    known = np.isfinite(nearer) and a.clusters > 1 and b.clusters > 1
    return {
        **{"n": a.n, "n_second": b.n, "n_shapes": a.clusters, "first_value": a.value},
        **{"second_value": b.value, "difference": difference, "p": p if known else np.nan},
        **{"low": low if known else np.nan, "high": high if known else np.nan},
    }


def _onsets(first: _Side, second: _Side, role: str, paired: bool) -> dict[str, object]:
    sides = (first, second)
    posteriors = [side.trace.onsets[role].posterior[side.rows] for side in sides]
    if not paired:
        curves = [
            onset_curve(posterior, side.shapes, groups=side.families).relative
            for posterior, side in zip(posteriors, sides, strict=True)
        ]
        return _mover(*curves)
    grid = int(np.lcm(*(side.trace.n_layers for side in sides)))
    a, b = (_on_grid(posterior, grid) for posterior in posteriors)
    found = scaled(restricted_difference(b, a, first.shapes, groups=first.families), 1 / grid)
    means = [float((posterior @ np.arange(grid + 1)).mean() / grid) for posterior in (a, b)]
    return _stated(found, *means)


def _on_grid(
    posterior: Float[np.ndarray, "sample layer_or_never"], grid: int
) -> Float[np.ndarray, "sample place_or_never"]:
    """The same on a depth of ``grid`` layers, of which those of the model are every so many."""
    layers = posterior.shape[1] - 1
    found = np.zeros((len(posterior), grid + 1))
    found[:, np.arange(layers + 1) * (grid // layers)] = posterior
    return found


def plot_pairs(
    traces: Mapping[str, Trace] | Sequence[Trace],
    pairs: Sequence[tuple[str, str]],
    *,
    family: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the second model of each pair minus the first; the numbers are those of ``pairs_table``.

    Lines are 95 % intervals, clustered by shape; a filled mark differs from 0 (adjusted p below .05), a
    hollow one may not. Above each pair stands whether it is paired by item.

    Args:
        traces: Name of a model -> its trace; or traces, which are called by their ``model``.
        pairs: Names of two models each, such as ``[("base", "code")]``.
        family: One family, or None for all samples together.
        ax: Where to draw; a new two-column figure by default.

    Raises:
        ValueError: As ``pairs_table``.
    """
    table = pairs_table(traces, pairs, family)
    ax = theme.new_axes(*pairs_size(table)) if ax is None else ax
    with theme.context():
        lines = [
            line
            for _, rows in table.groupby(["first", "second"], sort=False)
            for line in (_heading(rows), *rows.itertuples())
        ]
        for y, line in enumerate(lines):
            if not isinstance(line, str):
                _draw_line(ax, y, line)
        _label_axes(ax, lines, table)
    return ax


def pairs_size(table: pd.DataFrame) -> tuple[float, float]:
    """Width and height of the figure, in inches."""
    pairs = len(table[["first", "second"]].drop_duplicates())
    return theme.two_columns(), 0.85 + 0.185 * (len(table) + pairs)


def _heading(rows: pd.DataFrame) -> str:
    row = rows.iloc[0]
    if row["paired"]:
        return f"{row['second']} minus {row['first']}, paired by item (n = {row['in_common']})"
    counts = f"n = {row['n_second']} and {row['n']}; {row['in_common']} in common"
    return f"{row['second']} minus {row['first']}, not paired ({counts})"


def _color(quantity: str) -> str:
    known = {
        ACCURACY: theme.DECODERS["model"].color,
        **theme.OUTCOME_COLORS,
        **theme.LANDMARK_COLORS,
        "available_from": theme.LANDMARK_COLORS["fpcl"],
        "ready_from": theme.LANDMARK_COLORS["fcc"],
    }
    return known[quantity]


def _draw_line(ax: Axes, y: int, row) -> None:
    told = {"va": "center", "fontsize": 6.4, "color": theme.MUTED, "transform": ax.get_yaxis_transform()}
    if row.difference != row.difference:
        ax.text(1.02, y, "not known", gid=f"told-{y}", **told)
        return
    color = _color(row.quantity)
    if row.low == row.low:
        ax.hlines(y, row.low, row.high, color=color, linewidth=1.3)
    clear = row.p_adjusted < 0.05
    look = {"markersize": 4.2, "color": color, "markerfacecolor": color if clear else theme.PAPER}
    ax.plot(row.difference, y, marker=theme.OUTCOME_MARKERS.get(row.quantity, "o"), gid=f"pair-{y}", **look)
    values = f"{row.first_value:.3f} to {row.second_value:.3f}: "
    ends = "" if row.low != row.low else f" [{row.low:+.3f}, {row.high:+.3f}]"
    text = f"{values}{row.difference:+.3f}{ends}".replace("-", "−").replace("0.", ".")
    ax.text(1.02, y, text, gid=f"told-{y}", **{**told, "color": theme.INK if clear else theme.MUTED})


def _label_axes(ax: Axes, lines: list, table: pd.DataFrame) -> None:
    ax.set_yticks(range(len(lines)), ["" if isinstance(line, str) else _name(line) for line in lines])
    ends = table[["low", "high", "difference"]].to_numpy(float)
    most = max(0.05, np.abs(ends[np.isfinite(ends)]).max(initial=0))
    ax.set(xlim=(-1.06 * most, 1.06 * most), ylim=(len(lines) - 0.5, -0.6))
    for y, line in enumerate(lines):
        if isinstance(line, str):
            ax.axhspan(y - 0.5, y + 0.5, color=theme.GRID, linewidth=0, zorder=1.6)
            ax.text(-1.03 * most, y, line, va="center", fontsize=7, fontweight="bold", gid=f"head-{y}")
        elif line.unit != getattr(lines[y - 1], "unit", line.unit):
            ax.axhline(y - 0.5, color=theme.GRID, linewidth=0.8)
    ax.axvline(0, color=theme.INK, linewidth=0.8, zorder=1.5)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:+.2g}".replace("-", "−") if x else "0")
    ax.set_xlabel(
        f"second model minus first, {table['family'].iloc[0]}: share of all samples, or of the depth\n"
        "95 % interval clustered by shape; filled: adjusted p < .05"
    )
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=theme.GRID, linewidth=0.5)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)


def _name(row) -> str:
    name = NAMES[row.quantity]
    if row.quantity != "brewing" or not row.n:
        return name
    return f"{name}, n = {row.n}" if row.paired else f"{name}, n = {row.n_second} and {row.n}"


def pairs_alt(table: pd.DataFrame) -> str:
    """What the figure says, for a reader who cannot see it, from ``pairs_table``."""
    parts = []
    for _, rows in table.groupby(["first", "second"], sort=False):
        clear = rows[rows["p_adjusted"] < 0.05]
        told = [
            f"{NAMES[r.quantity]} {r.difference:+.3f} [{r.low:+.3f}, {r.high:+.3f}]"
            for r in clear.itertuples()
        ]
        parts.append(f"{_heading(rows)}: {'; '.join(told) or 'no clear difference'}")
    return f"Differences between pairs of models. {'. '.join(parts)}."
