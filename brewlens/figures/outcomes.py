"""Outcome shares per family, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from brewlens.decoding.surface_control import OVERALL
from brewlens.figures import theme
from brewlens.lifecycle.outcomes import OUTCOMES, RESOLUTION, TAXONOMIES
from brewlens.stats import clustered_share, detectable_shares

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from brewlens.results import Trace

_TITLES = {"repaired": "repaired rule", "paper": "the paper's rule"}


def labels_of(trace: Trace, taxonomy: str) -> np.ndarray:
    """Outcome of each sample by one of the rules.

    Raises:
        ValueError: If the taxonomy is unknown.
    """
    if taxonomy not in TAXONOMIES:
        raise ValueError(f"unknown taxonomy {taxonomy!r}; choose one of {', '.join(TAXONOMIES)}")
    return trace.lifecycle.outcome if taxonomy == "repaired" else trace.lifecycle.outcome_paper


def outcome_table(trace: Trace, taxonomy: str = "repaired") -> pd.DataFrame:
    """How the samples of each family end.

    Args:
        trace: The trace.
        taxonomy: ``repaired`` (has ``bypassed``) or ``paper``.

    Returns:
        Columns family, taxonomy, outcome, count, n, n_shapes, share, low, high (95 % Wilson interval,
        clustered by shape), detectable (the least difference between two such shares that four of five
        comparisons would find), denominator.
        Outcomes are shares of the samples with an FPCL (``with_fpcl``); ``no_brewing`` and
        ``format_miss`` are shares of all samples (``all``). A share of nothing is missing. Where there
        is more than one family, the last is ``overall``.

    Raises:
        ValueError: If the taxonomy is unknown.
    """
    import pandas as pd

    life, label = trace.lifecycle, labels_of(trace, taxonomy)
    drawn = RESOLUTION if taxonomy == "paper" else tuple(o for o in OUTCOMES if o != "no_brewing")
    families, shapes = np.asarray(life.families), trace.shapes
    names = list(dict.fromkeys(families.tolist()))
    groups = {name: families == name for name in names}
    if len(names) > 1 and OVERALL not in groups:
        groups[OVERALL] = np.ones(len(trace), dtype=bool)
    records = []
    for family, rows in groups.items():
        brewed = rows & (label != "no_brewing")
        parts = [(o, label == o, brewed, "with_fpcl") for o in drawn]
        parts.append(("no_brewing", label == "no_brewing", rows, "all"))
        parts.append(("format_miss", life.format_miss, rows, "all"))
        for outcome, hits, among, denominator in parts:
            s = clustered_share(hits[among], shapes[among])
            numbers = (0, 0, 0, np.nan, np.nan, np.nan, np.nan)
            if s is not None:
                least = detectable_shares(s.effective, s.value)
                numbers = (s.count, s.n, s.clusters, s.value, s.low, s.high, least)
            records.append((family, taxonomy, outcome, *numbers, denominator))
    columns = ["count", "n", "n_shapes", "share", "low", "high", "detectable", "denominator"]
    return pd.DataFrame(records, columns=["family", "taxonomy", "outcome", *columns])


def plot_outcomes(trace: Trace, *, taxonomy: str = "repaired", ax: Axes | None = None) -> Axes:
    """Draw the shares of ``outcome_table`` as dots with 95 % intervals, clustered by shape, family by family.

    Filled marks are shares of the samples that have an FPCL. The hollow mark below them is no_brewing, a
    share of all samples: it stands apart because it is left out of the others' denominator.

    Args:
        trace: The trace.
        taxonomy: ``repaired`` or ``paper``.
        ax: Where to draw; a new two-column figure by default.

    Raises:
        ValueError: If the taxonomy is unknown.
    """
    table = outcome_table(trace, taxonomy)
    table = table[table["outcome"] != "format_miss"]
    families = list(dict.fromkeys(table["family"]))
    outcomes = list(dict.fromkeys(table["outcome"]))
    if ax is None:
        ax = theme.new_axes(*outcomes_size(trace))
    step = 0.84 / (len(outcomes) + 0.4)
    with theme.context():
        for number, outcome in enumerate(outcomes):
            rows = table[table["outcome"] == outcome]
            apart = outcome == "no_brewing"
            offset = step * (number + 0.4 * apart - (len(outcomes) - 0.6) / 2)
            y = np.arange(len(families)) + offset
            x, low, high = (rows[c].to_numpy() for c in ("share", "low", "high"))
            color = theme.OUTCOME_COLORS[outcome]
            ax.hlines(y, 0, x, color=color, alpha=0.28, linewidth=2.6)
            drawn = ax.errorbar(
                x,
                y,
                xerr=[
                    (x - low).tolist(),
                    (high - x).tolist(),
                ],  # arrays of one number: numpy 1.25 to 2.3 warns
                fmt=theme.OUTCOME_MARKERS[outcome],
                color=color,
                markersize=4.2,
                markerfacecolor=theme.PAPER if apart else color,
                markeredgewidth=0.9 if apart else 0.4,
                markeredgecolor=color if apart else theme.PAPER,
                elinewidth=1.1,
                label=theme.OUTCOME_NAMES[outcome] + (" (of all)" if apart else ""),
            )
            drawn.lines[0].set_gid(outcome)
        for number in range(0, len(families), 2):
            ax.axhspan(number - 0.5, number + 0.5, color=theme.GRID, alpha=0.35, linewidth=0, zorder=0)
        _label_axes(ax, table, families, taxonomy)
    return ax


def _label_axes(ax: Axes, table: pd.DataFrame, families: list[str], taxonomy: str) -> None:
    names = []
    for family in families:
        rows = table[table["family"] == family].set_index("outcome")["n"]
        names.append(f"{family}\nn = {rows['resolved']} of {rows['no_brewing']}")
    ax.set_yticks(range(len(families)), names)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(families) - 0.5, -0.5)
    right = np.nanmax([*table["high"], 0.1])
    ax.set_xlim(0, min(1.005, 1.06 * right))
    ax.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.0f} %")
    ax.set_xlabel(
        "share of the n samples with an FPCL (no brewing: of all), 95 % interval clustered by shape"
    )
    ax.grid(axis="x", color=theme.GRID, linewidth=0.5)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
    ax.set_title(f"How samples end ({_TITLES[taxonomy]})")
    theme.legend_below(ax, 28, ncols=6, columnspacing=1.2, handletextpad=0.3)


def outcomes_size(trace: Trace) -> tuple[float, float]:
    """Width and height of the figure, in inches."""
    families = len(trace.items.families)
    return theme.two_columns(), 1.0 + 0.64 * (families + (families > 1))


def outcome_alt(table: pd.DataFrame) -> str:
    """What the figure says, for a reader who cannot see it."""
    parts = []
    for family, rows in table[table["outcome"] != "format_miss"].groupby("family", sort=False):
        shares = ", ".join(
            f"{theme.OUTCOME_NAMES[r.outcome]} {100 * r.share:.1f} %"
            for r in rows.itertuples()
            if r.share == r.share
        )
        parts.append(f"{family}: {shares}")
    return "Outcome shares with 95 % intervals. " + "; ".join(parts) + "."
