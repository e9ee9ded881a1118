"""Landmarks over the layers: where first hits fall, beside chance and beside the onsets.

A first hit is a minimum over many tries, so that a decoder that guesses has landmarks too, and FPCL <= FJC
whatever the model does. Each distribution therefore stands beside that of the same readouts when a sample's
answer is that of another sample of its configuration and fold: its exact expectation, with the joint hits of
FJC and brewing found anew for every answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from brewlens.decoding.surface_control import OVERALL
from brewlens.figures import theme
from brewlens.figures.accuracy import rows_of
from brewlens.figures.lifecycle import decoders_of
from brewlens.figures.onsets import shares_of_others
from brewlens.figures.panels import COLUMNS, small_multiples
from brewlens.lifecycle.landmarks import NEVER, Landmarks, landmarks
from brewlens.lifecycle.nulls import ALL, PERMUTED, strata
from brewlens.stats import clustered_share

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brewlens.results import Trace

LANDMARKS = ("fpcl", "fcc", "fjc", "brewing")
OBSERVED, CHANCE, ONSET = "observed", "chance", "onset"
NAMES = {
    "fpcl": "FPCL: first hit of the probe",
    "fcc": "FCC: first context-stripped hit",
    "fjc": "FJC: first joint hit",
    "brewing": "brewing: from FPCL to FJC",
}
_SUMMARY = ("excess", "excess_low", "excess_high", "p", "p_adjusted")
_BAR = 0.52
"""Height of the tallest bar of a row, of which 1 is the distance to the next; the rest is for its numbers."""
MANY = 20
"""Layers from which on marks are drawn thinner."""
_Shares = Float[np.ndarray, "sample layer_or_never"]


def landmark_table(trace: Trace, family: str | None = None) -> pd.DataFrame:
    """How first hits and brewing durations are distributed, beside chance and beside onsets.

    Args:
        trace: The trace.
        family: One family, ``overall`` for all samples together, or None for all of these.

    Returns:
        Columns family, landmark (``fpcl``, ``fcc``, ``fjc``; ``brewing``, in layers from FPCL to FJC),
        curve, layer (0-based; missing for never), n, n_shapes, share, low, high (95 % Wilson interval,
        clustered by shape; of ``observed`` alone), mean (of the curve, as share of the depth; never counts as
        1, and for ``brewing`` is left out), excess with excess_low and excess_high, p and p_adjusted
        (observed mean minus that by chance, from the table ``nulls``, adjusted over all of it; missing
        without that table, and for other curves). Curves: ``observed``; ``chance``, the exact expectation
        over the answers of the other samples of the same family, factors and fold; ``onset``, where the
        trace has onsets, the mean posterior: available from (fpcl), ready from (fcc), the later of both
        (fjc), and how much later than available that is (brewing); a sample's two posteriors are taken as
        independent. A sample alone in its cell is left out of all curves. Where there is more than one
        family, the last is ``overall``.

    Raises:
        ValueError: If the family is unknown.
    """
    import pandas as pd

    families = list(trace.items.families)
    names = [family] if family is not None else [*families, *([OVERALL] if len(families) > 1 else [])]
    curves = list(_curves(trace))
    nulls = trace.tables.get("nulls")
    frames = []
    for name in names:
        pooled = name == OVERALL and OVERALL not in families
        rows = rows_of(trace, None if pooled else name)
        paired = np.isfinite(next(v for _, curve, v in curves if curve == CHANCE)[rows, 0])
        rows = rows[paired] if paired.any() else rows
        shapes = trace.shapes[rows]
        for landmark, curve, values in curves:
            frame = pd.DataFrame(_points(values[rows], shapes, curve), columns=["share", "low", "high"])
            place = pd.array([*range(trace.n_layers), pd.NA], dtype="Int64")
            frame.insert(0, "layer", place)
            for at, (column, value) in enumerate(
                {
                    "family": name,
                    "landmark": landmark,
                    "curve": curve,
                    "n": len(rows),
                    "n_shapes": len(np.unique(shapes)),
                }.items()
            ):
                frame.insert(at + (at > 2), column, value)
            frame["mean"] = _mean(values[rows], landmark)
            found = _excess(nulls, ALL if pooled else name, landmark) if curve == OBSERVED else {}
            frames.append(frame.assign(**{column: found.get(column, np.nan) for column in _SUMMARY}))
    return pd.concat(frames, ignore_index=True)


def _curves(trace: Trace) -> Iterator[tuple[str, str, _Shares]]:
    """Every landmark and curve: for each sample a distribution over the layers and never."""
    probe, stripped = decoders_of(trace)
    answer = probe.target_index(trace.lifecycle.answers)
    cells = strata(trace.items, trace.folds)
    chance = landmarks_by_chance(probe.predicted, stripped.predicted, answer, cells, len(probe.classes))
    observed = _one_hot(trace.lifecycle.landmarks, trace.n_layers)
    onsets = _of_onsets(trace) if {"available", "ready"} <= set(trace.onsets) else {}
    for landmark in LANDMARKS:
        yield landmark, OBSERVED, observed[landmark]
        yield landmark, CHANCE, chance[landmark]
        if onsets:
            yield landmark, ONSET, onsets[landmark]


def _one_hot(marks: Landmarks, layers: int) -> dict[str, _Shares]:
    eye = np.eye(layers + 1)
    return {name: eye[np.where(hit == NEVER, layers, hit)] for name, hit in vars(marks).items()}


def landmarks_by_chance(
    available: Int[np.ndarray, "sample layer"],
    ready: Int[np.ndarray, "sample layer"],
    answer: Int[np.ndarray, "sample"],
    cells: Int[np.ndarray, "sample"],
    classes: int,
) -> dict[str, _Shares]:
    """Distribution of each landmark, were a sample's answer that of another one of its cell.

    The exact mean over the other samples of the cell, predictions fixed; NaN for a sample alone in its cell.

    Args:
        available: Class index that the availability decoder says.
        ready: The same of the readiness decoder.
        answer: Class index of the right answer.
        cells: Cell of each sample.
        classes: Number of classes.

    Returns:
        By landmark, ``[sample, L + 1]``; the last entry is never.
    """
    share = shares_of_others(answer, cells, classes)
    layers = available.shape[1]
    found = {name: np.zeros((len(answer), layers + 1)) for name in LANDMARKS}
    for k in np.unique(answer):
        for name, hits in _one_hot(landmarks(available == k, ready == k), layers).items():
            found[name] += share[:, k, None] * hits
    return found


def _of_onsets(trace: Trace) -> dict[str, _Shares]:
    """What posteriors over the two onsets make of each landmark."""
    available, ready = (trace.onsets[role].posterior for role in ("available", "ready"))
    by = [np.cumsum(posterior[:, :-1], axis=1) for posterior in (available, ready)]
    both = np.diff(by[0] * by[1], axis=1, prepend=0)
    layers = both.shape[1]
    gap = np.empty_like(both)
    gap[:, 0] = (available[:, :-1] * by[1]).sum(axis=1)
    for k in range(1, layers):
        gap[:, k] = (available[:, : layers - k] * ready[:, k:-1]).sum(axis=1)
    parts = {"fjc": both, "brewing": gap}
    whole = {name: np.c_[part, np.clip(1 - part.sum(axis=1), 0, 1)] for name, part in parts.items()}
    return {"fpcl": available, "fcc": ready, **whole}


def _points(values: _Shares, shapes: np.ndarray, curve: str) -> list[tuple[float, float, float]]:
    if curve != OBSERVED:
        return [(share, np.nan, np.nan) for share in values.mean(axis=0)]
    found = [clustered_share(hits, shapes) for hits in values.T.astype(bool)]
    return [(s.value, s.low, s.high) for s in found if s is not None]


def _mean(values: _Shares, landmark: str) -> float:
    """Mean as a share of the depth; NaN where nothing is known or nothing has it."""
    layers = values.shape[1] - 1
    share = values.mean(axis=0)
    if landmark != "brewing":
        return float(share @ np.arange(layers + 1) / layers)
    known = share[:-1].sum()
    return float(share[:-1] @ np.arange(layers) / layers / known) if known else np.nan


def _excess(nulls: pd.DataFrame | None, family: str, landmark: str) -> dict[str, float]:
    if nulls is None:
        return {}
    here = (nulls["family"] == family) & (nulls["statistic"] == landmark) & (nulls["null"] == PERMUTED)
    if not here.any():
        return {}
    row = nulls[here].iloc[0]
    return dict(zip(_SUMMARY, row[["excess", "low", "high", "p", "p_adjusted"]].astype(float), strict=True))


def plot_landmarks(
    trace: Trace, *, family: str | None = None, ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Draw where first hits fall; the numbers are those of ``landmark_table``.

    One row per landmark, from the first layer to the last, each with a scale of its own; *never* stands at
    the right, on a scale up to 100 %. Bars are samples, with 95 % intervals; the outline is what chance makes
    of the same readouts, and dots are onsets. Above each row stand its mean and the mean by chance, as shares
    of the depth L, and their difference with its interval and adjusted p.

    Args:
        trace: The trace.
        family: One family, or None for all samples together.
        ax: Where to draw; a new one-column figure by default.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: If the family is unknown.
    """
    table = landmark_table(trace, OVERALL if family is None else family)
    ax = theme.new_axes(theme.one_column(), 4.4) if ax is None else ax
    with theme.context():
        _draw(ax, table, _tops(table))
        if legend:
            theme.legend_below(ax, 28, ncols=3, handlelength=1.4, columnspacing=1.2)
    return ax


def _tops(table: pd.DataFrame) -> dict[str, float]:
    """Largest share of each row at a layer, so that panels have one scale."""
    heights = table["share"].where(table["curve"] != OBSERVED, table["high"]).where(table["layer"].notna())
    tops = heights.groupby(table["landmark"]).max()
    return {name: max(float(tops[name]), 0.05) for name in LANDMARKS}


def _draw(ax: Axes, table: pd.DataFrame, tops: Mapping[str, float]) -> None:
    layers = int(table["layer"].max()) + 1
    places = np.r_[np.arange(layers), layers + max(1, round(0.1 * layers))]
    ticks, labels = [], []
    for row, landmark in enumerate(LANDMARKS):
        base = float(len(LANDMARKS) - 1 - row)
        curves = dict(tuple(table[table["landmark"] == landmark].groupby("curve")))
        # Never has a scale of its own, or by chance it would dwarf the layers.
        unit = np.full(len(places), _BAR / tops[landmark])
        unit[-1] = _BAR
        _draw_row(ax, curves, landmark, places, base, unit)
        _draw_text(ax, curves, landmark, base, float(places[-1]))
        mark = next(t for t in (1, 0.5, 0.25, 0.2, 0.1, 0.05, 0.02) if t <= tops[landmark])
        ticks += [base, base + mark * unit[0]]
        labels += ["0", f"{100 * mark:.0f} %"]
    ax.set_yticks(ticks, labels)
    step = max(1, -(-layers // 6))
    shown = [layer for layer in range(0, layers, step) if layer + step / 2 <= layers]
    ax.set_xticks([*shown, places[-1]], [*map(str, shown), "never"])
    row = table.iloc[0]
    ax.set_title(f"{row['family']}  (n = {row['n']})")
    ax.set(xlabel="layer (brewing: number of layers)", ylabel="share of samples")
    ax.set(xlim=(-0.9, places[-1] + max(0.9, 0.035 * layers)), ylim=(-0.02, len(LANDMARKS)))
    ax.spines["left"].set_visible(False)
    ax.plot([], [], "s", color=theme.MUTED, alpha=0.5, markersize=6, label="observed, 95 % interval")
    ax.plot([], [], color=theme.decoder("chance").color, linewidth=1.2, label="by chance")
    if (table["curve"] == ONSET).any():
        ax.plot([], [], "o", color=theme.MUTED, markersize=2.6, label="onset")


def _draw_row(
    ax: Axes,
    curves: Mapping[str, pd.DataFrame],
    landmark: str,
    places: np.ndarray,
    base: float,
    unit: np.ndarray,
) -> None:
    color, chance = theme.LANDMARK_COLORS[landmark], theme.decoder("chance").color
    many = len(places) > MANY
    share, low, high = (curves[OBSERVED][c].to_numpy() for c in ("share", "low", "high"))
    widths = np.full(len(places), 1.0)
    widths[-1] = max(1.0, 0.05 * len(places))
    ax.bar(
        *(places, share * unit, 0.8 * widths),
        **{"bottom": base, "color": color, "alpha": 0.5, "linewidth": 0, "gid": landmark},
    )
    thin = {"linewidth": 0.4, "alpha": 0.7} if many else {"linewidth": 0.7}
    ax.vlines(places, base + low * unit, base + high * unit, color=color, **thin)
    expected = base + curves[CHANCE]["share"].to_numpy() * unit
    last = places[-1] + np.array([-0.5, 0.5]) * widths[-1]
    ax.stairs([base + _BAR], last, baseline=base, color=theme.GRID, linewidth=0.6, zorder=0.5)
    edges = np.r_[places[:-1] - 0.5, places[-2] + 0.5]
    look = {"baseline": base, "color": chance, "linewidth": 0.8 if many else 1.1}
    ax.stairs(expected[:-1], edges, gid=f"chance-{landmark}", **look)
    ax.stairs(expected[-1:], last, gid=f"chance-{landmark}-never", **look)
    if ONSET in curves:
        onset = base + curves[ONSET]["share"].to_numpy() * unit
        dots = {"marker": "o", "linestyle": "", "markersize": 1.5 if many else 2.2, "color": color}
        ax.plot(places, onset, gid=f"onset-{landmark}", **dots)
    ax.plot([-0.5, last[-1]], [base, base], color=theme.MUTED, linewidth=0.5)


def _draw_text(
    ax: Axes, curves: Mapping[str, pd.DataFrame], landmark: str, base: float, never: float
) -> None:
    small = {"va": "top", "fontsize": 5.6, "color": theme.MUTED}
    ax.text(-0.5, base + 0.96, NAMES[landmark], va="top", fontsize=6.4, fontweight="bold")
    ax.text(
        -0.5, base + 0.93, f"\n{_told(curves).replace(': ', chr(10))}", gid=f"summary-{landmark}", **small
    )
    share = curves[OBSERVED]["share"].iloc[-1]
    ax.text(
        *(never, base + _BAR + 0.02, f"{100 * share:.0f} %"),
        **{
            **small,
            "va": "bottom",
            "ha": "center",
            "color": theme.LANDMARK_COLORS[landmark],
            "gid": f"never-{landmark}",
        },
    )


def _told(curves: Mapping[str, pd.DataFrame]) -> str:
    """Means of a row, and their difference, in shares of the depth L."""
    seen, chance = curves[OBSERVED].iloc[0], curves[CHANCE]["mean"].iloc[0]
    if not np.isfinite(seen["mean"]):
        return "no sample has it"
    told = f"mean {_number(seen['mean'])} L, by chance {_number(chance)}"
    if not np.isfinite(seen["excess"]):
        return told
    told += f": excess {_number(seen['excess'], sign=True)}"
    if np.isfinite([seen["excess_low"], seen["excess_high"]]).all():
        told += f" [{_number(seen['excess_low'], sign=True)}, {_number(seen['excess_high'], sign=True)}]"
    return told + f", p {_p(seen['p_adjusted'])}"


def _number(value: float, sign: bool = False) -> str:
    """Two decimals without the leading zero, as tables of shares have them."""
    if not np.isfinite(value):
        return "?"
    text = f"{value:+.2f}" if sign else f"{value:.2f}"
    return text.replace("0.", ".", 1).replace("-", "−") if abs(value) < 0.995 else text.replace("-", "−")


def _p(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1) if value >= 0.0005 else "< .001"


def plot_landmarks_grid(
    trace: Trace, *, table: pd.DataFrame | None = None, figure: Figure | None = None
) -> Figure:
    """Small multiples of ``plot_landmarks``: one panel per family, one scale per landmark, one legend.

    Args:
        trace: The trace.
        table: Its ``landmark_table``, if it is there already.
        figure: Where to draw, empty and with constrained layout; a new two-column figure by default.
    """
    numbers = landmark_table(trace) if table is None else table
    families = list(trace.items.families)
    if figure is None:
        import matplotlib.pyplot as plt

        with theme.context():
            figure = plt.figure(figsize=landmarks_size(trace), layout="constrained")
    tops = _tops(numbers[numbers["family"].isin(families)])
    return small_multiples(
        families,
        lambda ax, family: _draw(ax, numbers[numbers["family"] == family], tops),
        figure=figure,
        legend_columns=3,
    )


def landmarks_size(trace: Trace) -> tuple[float, float]:
    """Width and height of the small multiples, in inches."""
    families = len(trace.items.families)
    width = theme.two_columns() if families > 1 else 1.3 * theme.one_column()
    return width, 0.6 + 3.3 * -(-families // COLUMNS)


def landmark_alt(table: pd.DataFrame) -> str:
    """What the figure says, for a reader who cannot see it."""
    parts = []
    for family, rows in table.groupby("family", sort=False):
        told = []
        for landmark in LANDMARKS:
            curves = dict(tuple(rows[rows["landmark"] == landmark].groupby("curve")))
            never = curves[OBSERVED]["share"].iloc[-1]
            name = landmark if landmark == "brewing" else landmark.upper()
            told.append(f"{name} {_told(curves)}, never {100 * never:.0f} %")
        parts.append(f"{family}: {'; '.join(told)}")
    return (
        "Distribution of first hits and brewing durations over the layers, beside chance; means as shares of "
        f"the depth. {'. '.join(parts)}."
    )
