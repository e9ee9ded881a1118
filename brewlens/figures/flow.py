"""From family to outcome: every sample flows from the left to the right, none is left out.

``outcomes.py`` gives shares of the samples that have an FPCL; here all samples count, those without one too,
so that flows add up to n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy.optimize import isotonic_regression

from brewlens.decoding.surface_control import OVERALL
from brewlens.figures import theme
from brewlens.figures.outcomes import labels_of
from brewlens.stats import clustered_share

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from brewlens.results import Trace

_RULES = {"repaired": "repaired rule", "paper": "the paper's rule"}
_BAR = 0.02  # width of a node, as a share of the axes
_GAPS = 0.24  # of all gaps between the nodes of one side, as a share of the samples
_LABEL = 0.088  # least distance of two labels, as a share of the height
_NAMED = 0.028  # least height of a ribbon that is labelled


def flow_table(trace: Trace, *, taxonomy: str = "repaired") -> pd.DataFrame:
    """How many samples of each family end in each outcome, as shares of all its samples.

    Args:
        trace: The trace.
        taxonomy: ``repaired`` (has ``bypassed``) or ``paper``.

    Returns:
        Columns family, taxonomy, outcome, count, n (samples of the family), n_shapes, share (of n), low, high
        (95 % Wilson interval, clustered by shape). Outcomes are in the order of ``theme.OUTCOME_COLORS``,
        also those without a sample. The last family is ``overall`` (``all samples`` where a family is called
        so): the nodes on the right.

    Raises:
        ValueError: If the taxonomy is unknown.
    """
    import pandas as pd

    life, label = trace.lifecycle, labels_of(trace, taxonomy)
    family, shapes = np.asarray(life.families), trace.shapes
    groups = {name: family == name for name in dict.fromkeys(life.families)}
    groups[OVERALL if OVERALL not in groups else "all samples"] = np.ones(len(trace), dtype=bool)
    records = []
    for name, rows in groups.items():
        for outcome in theme.OUTCOME_COLORS:
            if taxonomy == "paper" and outcome == "bypassed":
                continue
            s = clustered_share(label[rows] == outcome, shapes[rows])
            records.append((name, taxonomy, outcome, s.count, s.n, s.clusters, s.value, s.low, s.high))
    columns = ["family", "taxonomy", "outcome", "count", "n", "n_shapes", "share", "low", "high"]
    return pd.DataFrame(records, columns=columns)


def plot_flow(trace: Trace, *, taxonomy: str = "repaired", ax: Axes | None = None) -> Axes:
    """Draw the numbers of ``flow_table``: ribbons from families to outcomes, as wide as their samples.

    Nodes at the right carry n and the share of all samples; the line beside a node spans its 95 % interval,
    measured from the node's top. Ribbons that are wide enough carry their share of the family.

    Args:
        trace: The trace.
        taxonomy: ``repaired`` or ``paper``.
        ax: Where to draw; a new two-column figure by default.

    Raises:
        ValueError: If the taxonomy is unknown.
    """
    table = flow_table(trace, taxonomy=taxonomy)
    if ax is None:
        ax = theme.new_axes(*flow_size(trace))
    table = table[table["outcome"].isin(table.loc[table["count"] > 0, "outcome"])]
    total = table["family"] == table["family"].iloc[-1]
    flows, nodes = table[~total], table[total]
    sizes = flows.groupby("family", sort=False)["n"].first()
    n = int(sizes.sum())
    left = _tops(sizes.to_numpy(), n)
    right = _tops(nodes["count"].to_numpy(), n)
    with theme.context():
        _draw_ribbons(ax, flows, dict(zip(sizes.index, left, strict=True)), right, n)
        for top, (family, size) in zip(left, sizes.items(), strict=True):
            _draw_bar(ax, 0, top, size, theme.MUTED, f"family-{family}")
            ax.text(-0.012, top + size / 2, f"{family}\nn = {size}", ha="right", va="center")
        _draw_outcomes(ax, nodes, right, n)
        ax.set(xlim=(0, 1.02), ylim=((1 + _GAPS) * n * 1.01, -0.01 * n))
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        ax.set_xlabel("shares of all samples, with or without an FPCL; 95 % interval clustered by shape")
        ax.set_title(f"How samples end, family by family ({_RULES[taxonomy]})")
    return ax


def _tops(sizes: np.ndarray, n: int) -> Float[np.ndarray, "node"]:
    """Where each node of one side begins: gaps between them, so that both sides are equally high."""
    gap = _GAPS * n / max(1, len(sizes) - 1)
    start = 0.0 if len(sizes) > 1 else _GAPS * n / 2
    return start + np.cumsum(sizes) - sizes + gap * np.arange(len(sizes))


def _draw_ribbons(
    ax: Axes, flows: pd.DataFrame, left: dict[str, float], right: Float[np.ndarray, "outcome"], n: int
) -> None:
    outcomes = list(dict.fromkeys(flows["outcome"]))
    ends = dict(zip(outcomes, right, strict=True))
    starts = dict(left)
    for row in flows.itertuples():
        if not row.count:
            continue
        y0, y1 = starts[row.family], ends[row.outcome]
        starts[row.family] += row.count
        ends[row.outcome] += row.count
        color = theme.OUTCOME_COLORS[row.outcome]
        ax.add_patch(_ribbon(y0, y1, row.count, color, f"{row.family}-{row.outcome}"))
        if row.count >= _NAMED * (1 + _GAPS) * n:
            ax.text(
                _BAR + 0.012,
                y0 + row.count / 2,
                f"{100 * row.share:.0f} %",
                va="center",
                fontsize=6.2,
                gid=f"share-{row.family}-{row.outcome}",
            )


def _ribbon(y0: float, y1: float, width: float, color: str, gid: str):
    """A band of constant height between two nodes, with Bezier edges that leave and arrive level."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    a, b = _BAR, 1 - _BAR
    middle = (a + b) / 2
    points = [
        *((a, y0), (middle, y0), (middle, y1), (b, y1)),
        *((b, y1 + width), (middle, y1 + width), (middle, y0 + width), (a, y0 + width)),
        (a, y0),
    ]
    curve = [Path.CURVE4] * 3
    path = Path(points, [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY])
    # A thin edge, so that a single sample of thousands can be seen.
    patch = PathPatch(path, facecolor=color, edgecolor=color, linewidth=0.25, alpha=0.42)
    patch.set_gid(gid)
    return patch


def _draw_bar(ax: Axes, x: float, top: float, size: float, color: str, gid: str) -> None:
    from matplotlib.patches import Rectangle

    bar = Rectangle((x, top), _BAR, size, facecolor=color, edgecolor=color, linewidth=0.25)
    bar.set_gid(gid)
    ax.add_patch(bar)


def _draw_outcomes(ax: Axes, nodes: pd.DataFrame, tops: Float[np.ndarray, "outcome"], n: int) -> None:
    middles = tops + nodes["count"].to_numpy() / 2
    places = spread(middles, _LABEL * (1 + _GAPS) * n, 0.03 * n, (1 + _GAPS - 0.03) * n)
    for row, top, middle, y in zip(nodes.itertuples(), tops, middles, places, strict=True):
        color = theme.OUTCOME_COLORS[row.outcome]
        _draw_bar(ax, 1 - _BAR, top, row.count, color, f"outcome-{row.outcome}")
        interval = ax.plot([1.008] * 2, [top + row.low * n, top + row.high * n], color=color, linewidth=1.3)
        interval[0].set(gid=f"interval-{row.outcome}", solid_capstyle="butt", clip_on=False)
        if abs(y - middle) > 0.01 * n:
            ax.plot([1.016, 1.034], [middle, y], color=theme.MUTED, linewidth=0.5, clip_on=False)
        name = theme.OUTCOME_NAMES[row.outcome]
        ax.annotate(name, (1.04, y), va="bottom", weight="bold", annotation_clip=False)
        told = f"{100 * row.share:.1f} % [{100 * row.low:.1f}, {100 * row.high:.1f}], n = {row.count}"
        ax.annotate(
            told,
            (1.04, y),
            va="top",
            fontsize=6.5,
            color=theme.MUTED,
            annotation_clip=False,
            gid=f"label-{row.outcome}",
        )


def spread(
    places: Float[np.ndarray, "label"], least: float, low: float, high: float
) -> Float[np.ndarray, "label"]:
    """Places of labels, in order, no nearer than ``least``, each as near its own as that allows.

    The least sum of squared displacements; ends stay between ``low`` and ``high`` where there is room.
    """
    steps = least * np.arange(len(places))
    moved = isotonic_regression(places - steps).x
    room = max(low, high - steps[-1])
    return np.clip(moved, low, room) + steps


def flow_size(trace: Trace) -> tuple[float, float]:
    """Width and height of the figure, in inches."""
    return theme.two_columns(), 1.0 + 0.42 * max(6, len(trace.items.families))


def flow_alt(table: pd.DataFrame) -> str:
    """What a reader who cannot see the figure needs to know."""
    parts = []
    for family, rows in table.groupby("family", sort=False):
        told = [
            f"{theme.OUTCOME_NAMES[r.outcome]} {r.count} ({100 * r.share:.1f} %)"
            for r in rows.itertuples()
            if r.count
        ]
        name = "all families" if family == table["family"].iloc[-1] else family
        parts.append(f"{name}, n {rows['n'].iloc[0]}: {', '.join(told)}")
    return f"Flows from program families to outcomes, all samples counted. {'; '.join(parts)}."
