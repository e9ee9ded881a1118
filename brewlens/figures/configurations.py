"""Outcome shares by configuration: a family's factors crossed, one cell per combination of their levels."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from brewlens.figures import theme
from brewlens.figures.accuracy import rows_of
from brewlens.figures.difficulty import RIGHT, factor_levels
from brewlens.lifecycle.outcomes import OUTCOMES
from brewlens.stats import clustered_share

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from brewlens.results import Trace

VALUES = (*OUTCOMES, RIGHT)
FEW = 10
"""Samples below which a cell is hatched."""
_PANEL = 2.1  # the least width of a panel, in inches
MOST_CELLS = 400
"""Combinations of levels up to which a family is crossed."""
_NO_LEVEL = "–"
# The cells keep their colours on a page of any colour, so their letters do, too.
_DARK, _LIGHT = "#000000", "#ffffff"
_HATCH = "#8a9199"


def configuration_table(
    trace: Trace, family: str | None = None, *, value: str = "resolved", few: int = FEW
) -> pd.DataFrame:
    """Share of samples with an outcome, or answered rightly, in every combination of the factors' levels.

    Args:
        trace: The trace.
        family: One family, or None for all.
        value: An outcome by the repaired rule, or ``right`` (the model's own answer).
        few: Samples below which a cell is marked.

    Returns:
        Columns family, value, then ``factor_1``, ``level_1``, ``factor_2``, ``level_2``, ... (as text, in the
        generator's order; an item without the factor has ``–``), count, n, n_shapes, share (of all samples of
        the cell), low, high (95 % Wilson interval, clustered by shape), few. A combination without a sample
        has n 0 and no share. Items without factors are one cell.

    Raises:
        ValueError: If the family or the value is unknown, or there are more than ``MOST_CELLS`` combinations.
    """
    import pandas as pd

    if value not in VALUES:
        raise ValueError(f"unknown value {value!r}; choose one of {', '.join(VALUES)}")
    hits = trace.lifecycle.output_correct if value == RIGHT else trace.lifecycle.outcome == value
    records = []
    for name in [family] if family is not None else trace.items.families:
        rows = rows_of(trace, name)
        items = [trace.items[int(row)] for row in rows]
        factors = factor_levels(items)
        levels = {factor: [str(level) for level in found] for factor, found in factors.items()}
        of_row = [tuple(str(item.factors.get(factor, _NO_LEVEL)) for factor in levels) for item in items]
        for number, factor in enumerate(levels):
            if any(cell[number] == _NO_LEVEL for cell in of_row):
                levels[factor].append(_NO_LEVEL)
        if (size := prod(map(len, levels.values()))) > MOST_CELLS:
            told = " x ".join(f"{len(found)} of {factor}" for factor, found in levels.items())
            raise ValueError(
                f"{name}: levels ({told}) make {size} configurations, more than the {MOST_CELLS} that a "
                "reader can take in: give coarser levels"
            )
        for cell in product(*levels.values()):
            here = rows[[own == cell for own in of_row]]
            s = clustered_share(hits[here], trace.shapes[here])
            numbers = (0, 0, 0, np.nan, np.nan, np.nan)
            if s is not None:
                numbers = (s.count, s.n, s.clusters, s.value, s.low, s.high)
            record = {"family": name, "value": value}
            for number, (factor, level) in enumerate(zip(levels, cell, strict=True), start=1):
                record |= {f"factor_{number}": factor, f"level_{number}": level}
            told = ("count", "n", "n_shapes", "share", "low", "high")
            records.append(record | dict(zip(told, numbers, strict=True)) | {"few": numbers[1] < few})
    table = pd.DataFrame(records)
    ends = ["count", "n", "n_shapes", "share", "low", "high", "few"]
    return table[[*(c for c in table.columns if c not in ends), *ends]]


def crossable(trace: Trace) -> bool:
    """Whether there are factors, and no family has more than ``MOST_CELLS`` combinations of their levels."""
    sizes = [
        prod(map(len, factor_levels(trace.items.family(name)).values())) for name in trace.items.families
    ]
    return any(item.factors for item in trace.items) and max(sizes) <= MOST_CELLS


def plot_configurations(
    trace: Trace, *, family: str, value: str = "resolved", ax: Axes | None = None, few: int = FEW
) -> Axes:
    """Draw the shares of ``configuration_table`` as a heat map: the last factor across, the others down.

    Each cell carries its share in per cent and, below it, the 95 % interval, clustered by shape. Darker is
    more, in print without colour, too. Cells of fewer than ``few`` samples are hatched; without any, blank.

    Args:
        trace: The trace.
        family: The family.
        value: An outcome by the repaired rule, or ``right`` (the model's own answer).
        ax: Where to draw; a new one-column figure by default.
        few: Samples below which a cell is hatched.

    Raises:
        ValueError: If the family or the value is unknown, or there are more than ``MOST_CELLS`` combinations.
    """
    table = configuration_table(trace, family, value=value, few=few)
    ax = theme.new_axes(*configurations_size(table)) if ax is None else ax
    with theme.context():
        top = _top(table)
        mesh = _draw(ax, table, top, intervals=True)
        _draw_bar(ax.figure, mesh, [ax], table)
    return ax


def plot_configurations_grid(
    trace: Trace,
    *,
    value: str = "resolved",
    table: pd.DataFrame | None = None,
    figure: Figure | None = None,
    few: int = FEW,
) -> Figure:
    """Small multiples of ``plot_configurations``: one panel per family, one scale; intervals in the table.

    Args:
        trace: The trace.
        value: An outcome by the repaired rule, or ``right`` (the model's own answer).
        table: Its ``configuration_table``, if it is there already.
        figure: Where to draw, empty and with constrained layout; a new two-column figure by default.
        few: Samples below which a cell is hatched.

    Raises:
        ValueError: If the value is unknown, or there are more than ``MOST_CELLS`` combinations.
    """
    numbers = configuration_table(trace, value=value, few=few) if table is None else table
    families = list(dict.fromkeys(numbers["family"]))
    columns = _columns(len(families))
    if figure is None:
        import matplotlib.pyplot as plt

        with theme.context():
            figure = plt.figure(figsize=configurations_size(numbers), layout="constrained")
    with theme.context():
        panels = figure.subplots(-(-len(families) // columns), columns, squeeze=False)
        top = _top(numbers)
        for ax, family in zip(panels.flat, families, strict=False):
            own = numbers[numbers["family"] == family].dropna(axis="columns", how="all")
            # A family without any sample of a share would lose those columns, too.
            mesh = _draw(ax, own.reindex(columns=[*own.columns, *_missing(own)]), top)
        for ax in panels.flat[len(families) :]:
            ax.set_axis_off()
        _draw_bar(figure, mesh, list(panels.flat), numbers)
    return figure


def _missing(table: pd.DataFrame) -> list[str]:
    return [name for name in ("share", "low", "high") if name not in table]


def colours() -> Colormap:
    """One hue, from light to dark: its order stays for colour-blind readers and in grey."""
    import matplotlib as mpl

    return mpl.colormaps["Blues"]


def letters_on(share: float, top: float) -> str:
    """Black or white, whichever stands out more from the cell's colour (WCAG contrast, at least 4.5)."""
    rgb = np.array(colours()(share / top)[:3])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return _DARK if (luminance + 0.05) ** 2 > 0.05 * 1.05 else _LIGHT


def _top(table: pd.DataFrame) -> float:
    """Upper end of the colours: the largest share, rounded up to a tenth."""
    most = table["share"].max()
    return max(0.1, float(np.ceil(10 * most - 1e-9) / 10)) if most == most else 1.0


def _draw(ax: Axes, table: pd.DataFrame, top: float, *, intervals: bool = False):
    factors = [c for c in table.columns if c.startswith("factor_")]
    levels = [c.replace("factor", "level") for c in factors]
    across = list(dict.fromkeys(table[levels[-1]])) if levels else [""]
    share = table["share"].to_numpy(float).reshape(-1, len(across))
    down = table[levels[:-1]].drop_duplicates().to_numpy().tolist() if len(levels) > 1 else [[]]
    grid = np.ma.masked_invalid(share)
    mesh = ax.pcolormesh(
        np.arange(len(across) + 1) - 0.5,
        np.arange(len(share) + 1) - 0.5,
        grid,
        cmap=colours(),
        vmin=0,
        vmax=top,
        edgecolors=theme.PAPER,
        linewidth=0.6,
    )
    mesh.set_gid("cells")
    for number, row in enumerate(table.itertuples()):
        y, x = divmod(number, len(across))
        if row.few:
            _hatch(ax, x, y, f"few-{number}")
        if not row.n:
            continue
        look = {"ha": "center", "color": letters_on(row.share, top)}
        box = {"facecolor": colours()(row.share / top), "edgecolor": "none", "pad": 0.8} if row.few else None
        ax.text(
            x,
            y - 0.14 * intervals,
            f"{100 * row.share:.0f}",
            va="center",
            fontsize=6.8,
            bbox=box,
            gid=f"share-{number}",
            **look,
        )
        if intervals:
            ends = f"{100 * row.low:.0f}–{100 * row.high:.0f}"
            ax.text(x, y + 0.27, ends, va="center", fontsize=5, gid=f"interval-{number}", **look)
    longest = max(len(line) for level in across for line in _words(level).split("\n"))
    small = None if intervals else 6.2 if longest < 9 else 5.6
    ax.set_xticks(range(len(across)), [_words(level) for level in across], fontsize=small)
    names = [table[factor].iloc[0].replace("_", " ") for factor in factors]
    ax.set_xlabel(names[-1] if names else "")
    ax.set_ylabel(", ".join(names[:-1]), labelpad=_name_rows(ax, down) + 4)
    ax.set(xlim=(-0.5, len(across) - 0.5), ylim=(len(share) - 0.5, -0.5))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    # In small multiples the name starts above the levels, or it would run into the next one.
    start = -0.35 if len(factors) > 1 and not intervals else 0.0
    ax.set_title(f"{table['family'].iloc[0]}  (n = {table['n'].sum()})", x=start)
    return mesh


def _hatch(ax: Axes, x: float, y: float, gid: str) -> None:
    """Thin diagonals over a cell; matplotlib's own hatches are of one width, and heavy."""
    from matplotlib.collections import LineCollection

    starts = [c for k in range(1, 6) for c in [(max(0.0, k / 3 - 1), min(1.0, k / 3))]]
    lines = [[(x - 0.5 + a, y - 0.5 + b), (x - 0.5 + b, y - 0.5 + a)] for a, b in starts]
    ax.add_collection(LineCollection(lines, colors=_HATCH, linewidths=0.6, gid=gid), autolim=False)


def _words(level: str) -> str:
    return level.replace("_", "\n")


def _name_rows(ax: Axes, down: list[list[str]]) -> float:
    """Name the inner levels beside each row, the outer ones once beside theirs; width of the outer names."""
    ax.set_yticks(range(len(down)), [levels[-1].replace("_", " ") if levels else "" for levels in down])
    outer = [" ".join(_words(level) for level in levels[:-1]) for levels in down]
    starts = [y for y in range(len(outer)) if y == 0 or outer[y] != outer[y - 1]]
    inner = 8 + 4.4 * max((len(levels[-1]) for levels in down if levels), default=0)
    for start, end in zip(starts, [*starts[1:], len(outer)], strict=True):
        if start:
            ax.axhline(start - 0.5, color=theme.PAPER, linewidth=3)
        if outer[start]:
            ax.annotate(
                outer[start],
                (0, (start + end - 1) / 2),
                (-inner, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=6.5,
                annotation_clip=False,
            )
    return 4.1 * max((len(line) for name in outer for line in name.split("\n")), default=0)


def _draw_bar(figure: Figure, mesh, axes: list[Axes], table: pd.DataFrame) -> None:
    value = table["value"].iloc[0]
    name = "model’s answer right" if value == RIGHT else theme.OUTCOME_NAMES[value]
    bar = figure.colorbar(mesh, ax=axes, location="bottom", aspect=40, pad=0.03, fraction=0.04, shrink=0.8)
    steps = np.linspace(0, mesh.norm.vmax, 6)
    bar.set_ticks(steps, labels=[f"{100 * t:.0f} %" for t in steps])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    few = int(table["few"].sum())
    hatched = f"\nhatched: few samples ({few} of {len(table)} cells)" if few else ""
    bar.set_label(f"{name}, share of all samples{hatched}")


def configurations_size(table: pd.DataFrame) -> tuple[float, float]:
    """Width and height of the figure, in inches: one panel, or small multiples of several families."""
    families = table["family"].nunique()
    inner = table.groupby("family")[[c for c in table.columns if c.startswith("level_")]].nunique()
    rows = int(inner.iloc[:, :-1].prod(axis=1).max()) if inner.shape[1] > 1 else 1
    if families == 1:
        return 1.2 * theme.one_column(), 1.3 + 0.29 * max(3, rows)
    return theme.two_columns(), 0.6 + (0.75 + 0.2 * max(4, rows)) * -(-families // _columns(families))


def _columns(families: int) -> int:
    """Panels beside each other: names of levels need room, and pages are of different widths."""
    return min(families, max(1, int(theme.two_columns() / _PANEL)))


def configurations_alt(table: pd.DataFrame) -> str:
    """What a reader who cannot see the figure needs to know."""
    value = table["value"].iloc[0]
    name = "answered rightly" if value == RIGHT else theme.OUTCOME_NAMES[value]
    levels = [c for c in table.columns if c.startswith("level_")]
    parts = []
    for family, rows in table[table["n"] > 0].groupby("family", sort=False):
        told = []
        for word, end in (("most", rows["share"].idxmax()), ("least", rows["share"].idxmin())):
            row = rows.loc[end]
            where = ", ".join(str(row[level]) for level in levels if row[level] == row[level])
            told.append(f"{word} {100 * row['share']:.0f} % ({where or 'all'}, n {row['n']})")
        parts.append(f"{family}: {'; '.join(told)}")
    return f"Share of samples {name} by configuration of the factors. {'. '.join(parts)}."
