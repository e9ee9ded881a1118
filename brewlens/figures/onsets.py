"""Onset curves: from which layer on answers are available and ready, over all samples, the never included.

Beside them the first hits of the paper, and what first hits would be without any information: hits of the
answers of other samples, of the same family, factors and fold. A first-hit curve rises whatever the model
does; a decoder that guesses among ten classes has hit nearly every answer once after thirty layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import norm

from brewlens.decoding.surface_control import OVERALL
from brewlens.figures import theme
from brewlens.figures.accuracy import decodable, marked, panel_title, rows_of
from brewlens.figures.lifecycle import decoders_of
from brewlens.figures.panels import layer_axis, small_multiples
from brewlens.lifecycle.curves import onset_curve
from brewlens.lifecycle.landmarks import NEVER
from brewlens.lifecycle.nulls import strata
from brewlens.stats import bounded_mean, clustered_share, detectable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brewlens.results import Trace

ONSETS = {"available": "fpcl", "ready": "fcc"}
"""Each onset, and the paper's first hit of the same decoder."""
STILL_READY = "still_ready"
NULL = "_null"
_Points = tuple[Float[np.ndarray, "layer"], Float[np.ndarray, "layer"], Float[np.ndarray, "layer"]]
_Z = float(norm.ppf(0.975))


def onset_table(trace: Trace, family: str | None = None) -> pd.DataFrame:
    """Share of samples past their onset, by layer.

    Args:
        trace: The trace.
        family: One family, ``overall`` for all samples together, or None for all of these.

    Returns:
        Columns family, curve, layer (0-based), n, n_shapes, share, low, high (95 % interval, clustered by
        shape), detectable (the least difference from another such share that four of five comparisons
        would find, missing where none is large enough), never, decodable. Curves: ``available`` and
        ``ready``, posterior mean of onset <= layer; ``still_ready``, ready and not yet ended, where ends
        were fitted; ``fpcl`` and ``fcc``, share with that first hit at the layer or before it;
        ``fpcl_null`` and ``fcc_null``, its expectation over the answers of other samples of the same
        family, factors and fold. ``never`` is the share without an onset or hit in any layer: the curves
        are right-censored at the last one. The intervals know of the posteriors, and take the onset model
        as it was fitted; an expectation has none. Where there is more than one family, the last is
        ``overall``.

    Raises:
        ValueError: If the family is unknown, or the trace has no onsets.
    """
    import pandas as pd

    if missing := [name for name in ONSETS if name not in trace.onsets]:
        raise ValueError(
            f"needs the onsets {' and '.join(ONSETS)}; found no {' and no '.join(missing)}: trace the items "
            "anew, or run the same command over the run folder again"
        )
    families = list(trace.items.families)
    names = [family] if family is not None else [*families, *([OVERALL] if len(families) > 1 else [])]
    curves, of_family = list(_curves(trace)), np.array(trace.lifecycle.families)
    records = []
    for name in names:
        one = None if name == OVERALL and OVERALL not in families else name
        rows, marked = rows_of(trace, one), decodable(trace, one)
        for curve, values, summary in curves:
            known = rows[np.isfinite(values[rows, 0])]
            shapes = trace.shapes[known]
            counts = (len(known), len(np.unique(shapes)))
            points = list(zip(*summary(values[known], shapes, of_family[known]), strict=True))
            never = np.nan if curve == STILL_READY else 1 - points[-1][0]
            for layer, (share, low, high) in enumerate(points):
                least = detectable(np.sqrt(2) * (high - low) / 2 / _Z) if high >= low else np.nan
                least = least if least <= 1 else np.nan
                records.append((name, curve, layer, *counts, share, low, high, least, never, marked))
    columns = ["family", "curve", "layer", "n", "n_shapes", "share", "low", "high", "detectable", "never"]
    return pd.DataFrame(records, columns=[*columns, "decodable"])


def _curves(trace: Trace) -> Iterator[tuple[str, np.ndarray, Callable[..., _Points]]]:
    """Every curve: its name, its values by sample, and what makes shares with intervals of them."""
    layers = np.arange(trace.n_layers)
    cells = strata(trace.items, trace.folds)
    for (name, first_hit), readout in zip(ONSETS.items(), decoders_of(trace), strict=True):
        onsets = trace.onsets[name]
        yield name, onsets.posterior, _of_posteriors
        if onsets.until is not None:
            yield f"still_{name}", np.clip(onsets.by_layer, 0, 1), _of_probabilities
        hit = getattr(trace.lifecycle.landmarks, first_hit)[:, None]
        yield first_hit, (hit != NEVER) & (hit <= layers), _of_hits
        answer = readout.target_index(trace.lifecycle.answers)
        chance = first_hits_by_chance(readout.predicted, answer, cells, len(readout.classes))
        yield first_hit + NULL, chance, _of_expectations


def _of_posteriors(
    posterior: Float[np.ndarray, "sample layer_or_never"], shapes: np.ndarray, families: np.ndarray
) -> _Points:
    found = onset_curve(posterior, shapes, groups=families)  # which onsets are fitted by
    return found.share, found.low, found.high


def _of_probabilities(values: Float[np.ndarray, "sample layer"], shapes: np.ndarray, _: object) -> _Points:
    found = [bounded_mean(v, 0, 1, shapes) for v in values.T]
    ends = np.array([(e.low, e.high) for e in found]).clip(0, 1)
    return values.mean(axis=0), *ends.T


def _of_hits(hits: Bool[np.ndarray, "sample layer"], shapes: np.ndarray, _: object) -> _Points:
    found = [clustered_share(h, shapes) for h in hits.T]
    return hits.mean(axis=0), *np.array([(e.low, e.high) for e in found]).T


def _of_expectations(values: Float[np.ndarray, "sample layer"], shapes: np.ndarray, _: object) -> _Points:
    nothing = np.full(values.shape[1], np.nan)
    return values.mean(axis=0) if len(values) else nothing, nothing, nothing


def shares_of_others(
    answer: Int[np.ndarray, "sample"], cells: Int[np.ndarray, "sample"], classes: int
) -> Float[np.ndarray, "sample class"]:
    """Share of each answer among the other samples of a sample's cell; NaN for one that is alone there."""
    own = np.eye(classes)[answer]
    cell = np.unique(cells, return_inverse=True)[1]
    counts = np.zeros((cell.max() + 1, classes))
    np.add.at(counts, cell, own)
    others = counts[cell] - own
    size = others.sum(axis=1, keepdims=True)
    return np.divide(others, size, out=np.full_like(others, np.nan), where=size > 0)


def first_hits_by_chance(
    predicted: Int[np.ndarray, "sample layer"],
    answer: Int[np.ndarray, "sample"],
    cells: Int[np.ndarray, "sample"],
    classes: int,
) -> Float[np.ndarray, "sample layer"]:
    """Probability of a first hit by each layer, were a sample's answer that of another one of its cell.

    The exact mean over the other samples of the cell, predictions fixed; NaN for a sample alone in its cell.

    Args:
        predicted: Class index that the decoder says.
        answer: Class index of the right answer.
        cells: Cell of each sample.
        classes: Number of classes.
    """
    share = shares_of_others(answer, cells, classes)
    chance = np.zeros(predicted.shape)
    for k in range(classes):
        chance += share[:, k, None] * np.logical_or.accumulate(predicted == k, axis=1)
    return chance


def plot_onsets(
    trace: Trace, *, family: str | None = None, ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Draw the onset curves with 95 % bands clustered by shape; the numbers are those of ``onset_table``.

    Solid lines are onsets, dashed ones the paper's first hits, and grey ones first hits of the
    answers of other samples, which carry no information. Right of the last layer stands the share of
    samples that never get there.

    Args:
        trace: The trace.
        family: One family, or None for all samples together.
        ax: Where to draw; a new one-column figure by default.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: If the family is unknown, or the trace has no onsets.
    """
    table = onset_table(trace, OVERALL if family is None else family)
    ax = theme.new_axes(theme.one_column(), 3.1) if ax is None else ax
    with theme.context():
        _draw(ax, table)
        if legend:
            theme.legend_below(ax, 28, ncols=3, handlelength=2.2, columnspacing=1.2)
    return ax


_COLORS = {
    **dict.fromkeys(("available", "fpcl"), theme.DECODERS["probe"].color),
    **dict.fromkeys(("ready", "fcc", STILL_READY), theme.DECODERS["context_stripped"].color),
}
_LINES = {
    "available": {"linestyle": "-", "marker": "o", "label": "available"},
    "ready": {"linestyle": "-", "marker": "s", "label": "ready"},
    "fpcl": {"linestyle": (0, (4, 2)), "linewidth": 1.0, "label": "first hit (FPCL)"},
    "fcc": {"linestyle": (0, (4, 2)), "linewidth": 1.0, "label": "first hit (FCC)"},
    "fpcl_null": {"linestyle": (0, (1, 1.5)), "linewidth": 1.0, "label": "FPCL by chance"},
    "fcc_null": {"linestyle": (0, (4, 1.2, 1, 1.2)), "linewidth": 1.0, "label": "FCC by chance"},
    STILL_READY: {"linestyle": (0, (1, 1)), "linewidth": 1.1, "label": "still ready"},
}


def _draw(ax: Axes, table: pd.DataFrame) -> None:
    grey, last = theme.decoder("chance").color, int(table["layer"].max())
    present = set(table["curve"])
    for curve in (c for c in _LINES if c in present):
        rows = table[table["curve"] == curve]
        layer, share = rows["layer"].to_numpy(int), rows["share"].to_numpy()
        color = _COLORS.get(curve, grey)
        if curve in ONSETS:
            low, high = rows["low"].to_numpy(), rows["high"].to_numpy()
            ax.fill_between(layer, low, high, color=color, alpha=0.18, linewidth=0)
        every = max(1, len(layer) // 12)
        ax.plot(layer, share, color=color, markersize=2.8, markevery=every, gid=curve, **_LINES[curve])
    _name_the_never(ax, table, last)
    ax.set_title(panel_title(table))
    ax.set(xlabel="layer", ylabel="share of samples", ylim=(0, 1.02), xlim=(-0.3, last + 0.42 * max(last, 4)))
    ax.set_yticks(np.linspace(0, 1, 6), [f"{100 * t:.0f} %" for t in np.linspace(0, 1, 6)])
    layer_axis(ax, last + 1)


def _name_the_never(ax: Axes, table: pd.DataFrame, last: int) -> None:
    ends = table[(table["layer"] == last) & table["curve"].isin(list(ONSETS))].sort_values("share")
    heights = ends["share"].to_numpy().copy()
    least = 0.09
    if len(heights) == 2 and heights[1] - heights[0] < least:
        heights = np.clip(heights.mean(), least / 2, 1 - least / 2) + np.array([-least, least]) / 2
    for height, row in zip(heights, ends.itertuples(), strict=True):
        ax.text(
            last + 0.035 * max(last, 4),
            height,
            f"never {100 * row.never:.0f} %",
            color=_COLORS[row.curve],
            fontsize=6.5,
            va="center",
            gid=f"never-{row.curve}",
        )


def plot_onsets_grid(
    trace: Trace, *, table: pd.DataFrame | None = None, figure: Figure | None = None
) -> Figure:
    """Small multiples of ``plot_onsets``: one panel per family, one legend.

    Args:
        trace: The trace.
        table: Its ``onset_table``, if it is there already.
        figure: Where to draw, empty and with constrained layout; a new two-column figure by default.

    Raises:
        ValueError: If the trace has no onsets.
    """
    numbers = onset_table(trace) if table is None else table
    return small_multiples(
        trace.items.families,
        lambda ax, family: _draw(ax, numbers[numbers["family"] == family]),
        figure=figure,
        legend_columns=4,
    )


def onset_alt(table: pd.DataFrame) -> str:
    """What the figure says, for a reader who cannot see it."""
    parts = []
    for _, rows in table[table["curve"].isin(list(ONSETS))].groupby("family", sort=False):
        told = []
        for curve, points in rows.groupby("curve", sort=False):
            half = points[points["share"] >= 0.5]["layer"]
            at = f"by layer {half.iloc[0]}" if len(half) else "by no layer"
            told.append(f"half {curve} {at}, never {100 * points['never'].iloc[0]:.0f} %")
        parts.append(f"{marked(rows)}: {'; '.join(told)}")
    return (
        "Share of samples whose answer is available, and ready, from a layer on, beside first hits and first "
        f"hits by chance. {'. '.join(parts)}."
    )
