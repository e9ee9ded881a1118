"""Calibration of decoders: how often each is right where it is so sure, and by how much it is off by layer.

A decoder's *best layer* is the one where it is right most often, on the samples that are drawn. The last
layer of a lens, which is the model's own answer or nearly so, is no candidate: it stands beside them as
``model``, from raw context-stripped decoding (or the logit lens). Confidence is the largest probability among
the answer classes.

The errors (ECE) are those of :mod:`brewlens.decoding.calibration`. They carry no interval: resampling adds
once more the noise that ``ece_debiased`` takes out. Over-confidence, mean confidence minus accuracy, is a
plain mean over the samples and has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from brewlens.decoding.calibration import calibration
from brewlens.decoding.readout import Readout
from brewlens.decoding.surface_control import OVERALL
from brewlens.figures import theme
from brewlens.figures.accuracy import rows_of
from brewlens.figures.panels import layer_axis
from brewlens.stats import clustered_mean, clustered_share

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brewlens.results import Trace

MODEL = "model"
USUAL = ("probe", "logit_lens", "tuned_lens", "context_stripped", MODEL)
"""Decoders that are drawn unless others are asked for, as far as the trace has them."""
BINS = 10
_COLUMNS = 25
_STRIP = 0.15
"""Height of the histogram below the diagram, in units of accuracy."""


def reliability_table(
    trace: Trace,
    *,
    decoders: Sequence[str] | None = None,
    family: str | None = None,
    layers: Mapping[str, int] | None = None,
    bins: int = BINS,
) -> pd.DataFrame:
    """Confidence against accuracy of each decoder at one layer.

    Args:
        trace: The trace.
        decoders: Names of readouts, or ``model``; None for the usual ones.
        family: One family, or None for all samples together (``overall``).
        layers: Layer (0-based) of some of the decoders; of the others it is the best one.
        bins: Bins of equal mass; fewer where there are fewer samples.

    Returns:
        Columns family, decoder, layer, part, bin, n, n_shapes, confidence, least, most, accuracy, low, high
        (95 % Wilson interval, clustered by shape), ece, ece_debiased, over, over_low, over_high. Part
        ``bins``: equally many samples each, from the least confident, with their mean, least and most
        confidence. Part ``histogram``: how many have a confidence from ``least`` to ``most``, equally wide;
        no accuracy. The last five are of the whole decoder: ECE and its debiased form over ``bins`` bins,
        and mean confidence minus accuracy with its 95 % interval, clustered by shape.

    Raises:
        ValueError: If a family, decoder or layer is unknown, or there are no bins.
    """
    import pandas as pd

    rows, chosen = rows_of(trace, family), _chosen(trace, decoders)
    if unknown := set(layers or {}) - set(chosen):
        raise ValueError(f"layers asked for {sorted(unknown)}; drawn are {', '.join(chosen)}")
    answers = [trace.lifecycle.answers[r] for r in rows]
    shapes = trace.shapes[rows]
    frames = []
    for name, readout in chosen.items():
        readout = readout.select(rows)
        right = readout.correct(answers)
        layer = (layers or {}).get(name, _best(name, right))
        if not 0 <= layer < readout.n_layers:
            raise ValueError(f"asked for layer {layer} of {name}; it has layers 0 to {readout.n_layers - 1}")
        one = replace(readout, logits=readout.logits[:, [layer]], other_mass=None)
        errors = calibration(one, answers, bins=bins).iloc[0]
        confidence = one.probabilities[:, 0].max(axis=1).astype(np.float64)
        over = clustered_mean(confidence - right[:, layer], shapes)
        ends = (over.low, over.high) if np.isfinite(over.se) else (np.nan, np.nan)
        frame = pd.DataFrame([*_binned(confidence, right[:, layer], shapes, bins), *_histogram(confidence)])
        place = trace.n_layers - 1 if name == MODEL else layer if readout.n_layers > 1 else pd.NA
        frames.append(
            frame.assign(
                decoder=name,
                layer=pd.array([place] * len(frame), dtype="Int64"),
                ece=errors["ece"],
                ece_debiased=errors["ece_debiased"],
                over=over.value,
                over_low=ends[0],
                over_high=ends[1],
            )
        )
    table = pd.concat(frames, ignore_index=True).assign(family=OVERALL if family is None else family)
    columns = ["family", "decoder", "layer", "part", "bin", "n", "n_shapes", "confidence", "least", "most"]
    columns += ["accuracy", "low", "high", "ece", "ece_debiased", "over", "over_low", "over_high"]
    return table.reindex(columns=columns).astype({"n_shapes": "Int64"})


def _chosen(trace: Trace, decoders: Sequence[str] | None) -> dict[str, Readout]:
    """Decoder name -> readout; ``model`` is what the model says at its end."""
    readouts = dict(trace.readouts)
    for name in ("context_stripped_raw", "logit_lens"):
        if name in readouts and MODEL not in readouts:
            raw = readouts[name]
            readouts[MODEL] = replace(raw, logits=raw.logits[:, -1:], decoder=MODEL, other_mass=None)
    wanted = [n for n in USUAL if n in readouts] if decoders is None else list(decoders)
    if unknown := [name for name in wanted if name not in readouts]:
        raise ValueError(f"asked for decoders {unknown}; this trace has {', '.join(readouts)}")
    if not wanted:
        raise ValueError(f"asked for no decoder; this trace has {', '.join(readouts)}")
    return {name: readouts[name] for name in wanted}


def _best(name: str, right: Bool[np.ndarray, "sample layer"]) -> int:
    """Layer at which most are right, but for the last one of a lens."""
    share = right.mean(axis=0)
    lens = name.endswith("_lens") or name.startswith("context_stripped")
    return int((share[:-1] if lens and len(share) > 1 else share).argmax())


def _binned(
    confidence: Float[np.ndarray, "sample"],
    right: Bool[np.ndarray, "sample"],
    shapes: np.ndarray,
    bins: int,
) -> list[dict[str, object]]:
    """The bins of ``decoding.calibration``: equal mass, ties in the order of the samples."""
    records: list[dict[str, object]] = []
    order = np.argsort(confidence, kind="stable")
    for number, members in enumerate(np.array_split(order, min(bins, len(order)))):
        s = clustered_share(right[members], shapes[members])
        inside = confidence[members]
        spread = {"confidence": inside.mean(), "least": inside.min(), "most": inside.max()}
        numbers = {"n": s.n, "n_shapes": s.clusters, "accuracy": s.value, "low": s.low, "high": s.high}
        records.append({"part": "bins", "bin": number, **numbers, **spread})
    return records


def _histogram(confidence: Float[np.ndarray, "sample"]) -> list[dict[str, object]]:
    counts, edges = np.histogram(confidence.clip(0, 1), bins=_COLUMNS, range=(0, 1))
    return [
        {"part": "histogram", "bin": k, "n": int(n), "least": edges[k], "most": edges[k + 1]}
        for k, n in enumerate(counts)
    ]


def ece_table(
    trace: Trace,
    *,
    decoders: Sequence[str] | None = None,
    family: str | None = None,
    bins: int = BINS,
) -> pd.DataFrame:
    """Calibration error of each decoder by layer.

    Args:
        trace: The trace.
        decoders: Names of readouts, or ``model``; None for the usual ones.
        family: One family, or None for all samples together (``overall``).
        bins: Bins of equal mass.

    Returns:
        Columns family, decoder, layer (0-based; missing for what has none), n, n_shapes, accuracy,
        confidence (mean), ece, ece_debiased, over, over_low, over_high; see ``reliability_table``.

    Raises:
        ValueError: As ``reliability_table``.
    """
    import pandas as pd

    rows = rows_of(trace, family)
    answers = [trace.lifecycle.answers[r] for r in rows]
    shapes, frames = trace.shapes[rows], []
    for name, readout in _chosen(trace, decoders).items():
        readout = readout.select(rows)
        table = calibration(readout, answers, bins=bins)
        gap = readout.probabilities.max(axis=-1).astype(np.float64) - readout.correct(answers)
        over = [clustered_mean(values, shapes) for values in gap.T]
        place = [trace.n_layers - 1] if name == MODEL else range(readout.n_layers)
        table["layer"] = pd.array(place if len(place) > 1 or name == MODEL else [pd.NA], dtype="Int64")
        table["decoder"] = name
        table["n_shapes"] = len(np.unique(shapes))
        table["over"] = [e.value for e in over]
        table["over_low"] = [e.low if np.isfinite(e.se) else np.nan for e in over]
        table["over_high"] = [e.high if np.isfinite(e.se) else np.nan for e in over]
        frames.append(table)
    columns = ["decoder", "layer", "n", "n_shapes", "accuracy", "confidence", "ece", "ece_debiased"]
    table = pd.concat(frames, ignore_index=True)[[*columns, "over", "over_low", "over_high"]]
    table.insert(0, "family", OVERALL if family is None else family)
    return table


def plot_reliability(
    trace: Trace,
    *,
    decoders: Sequence[str] | None = None,
    family: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw a reliability diagram: each decoder at its best layer; the numbers are ``reliability_table``'s.

    A point is a bin of equally many samples: how sure the decoder is there, and how often it is right, with a
    95 % interval clustered by shape. On the diagonal it is calibrated, below it too sure. The steps below are
    where the samples are. The legend gives the layer, the debiased ECE, and mean confidence minus accuracy.

    Args:
        trace: The trace.
        decoders: Names of readouts, or ``model``; None for the usual ones.
        family: One family, or None for all samples together.
        ax: Where to draw; a new one-column figure by default.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: If the family or a decoder is unknown.
    """
    table = reliability_table(trace, decoders=decoders, family=family)
    ax = theme.new_axes(*reliability_size(table)) if ax is None else ax
    with theme.context():
        _draw(ax, table)
        if legend:
            theme.legend_below(ax, 28, ncols=1, handlelength=2.2)
    return ax


def reliability_size(table: pd.DataFrame) -> tuple[float, float]:
    """Width and height of the figure, in inches."""
    return theme.one_column(), 2.9 + 0.3 * table["decoder"].nunique()


def _draw(ax: Axes, table: pd.DataFrame) -> None:
    ax.plot([0, 1], [0, 1], color=theme.MUTED, linewidth=0.7, linestyle=(0, (1, 1.5)))
    steps = table[table["part"] == "histogram"]
    most = max(int(steps["n"].max()), 1)
    for name, rows in table.groupby("decoder", sort=False):
        look, points = theme.decoder(name), rows[rows["part"] == "bins"]
        x, y, low, high = (points[c].to_numpy() for c in ("confidence", "accuracy", "low", "high"))
        ax.vlines(x, low, high, color=look.color, linewidth=0.8, alpha=0.75)
        ax.plot(
            x,
            y,
            color=look.color,
            linestyle=look.dashes,
            marker=look.marker or "o",
            markersize=4.5 if name == MODEL else 3,
            linewidth=1,
            label=_told(rows.iloc[0], look.name),
            gid=name,
        )
        bars = rows[rows["part"] == "histogram"]
        edges = np.r_[bars["least"].to_numpy(), 1.0]
        heights = bars["n"].to_numpy() / most * _STRIP - _STRIP
        floor = {"baseline": -_STRIP, "color": look.color, "linewidth": 0.8}
        ax.stairs(heights - 0.03, edges, gid=f"histogram-{name}", **{**floor, "baseline": -_STRIP - 0.03})
    ax.axhline(0, color=theme.MUTED, linewidth=0.5)
    ax.text(
        *(0.005, -0.03, f"samples (top: {most})"),
        **{"fontsize": 5.8, "va": "top", "color": theme.MUTED, "gid": "samples"},
    )
    row = table.iloc[0]
    total = table[(table["part"] == "bins") & (table["decoder"] == row["decoder"])]["n"].sum()
    ax.set_title(f"{row['family']}  (n = {total})")
    ticks = np.linspace(0, 1, 5)
    ax.set_xticks(ticks, [f"{100 * t:.0f} %" for t in ticks])
    ax.set_yticks(ticks, [f"{100 * t:.0f} %" for t in ticks])
    ax.set(xlabel="confidence", xlim=(0, 1.015), ylim=(-_STRIP - 0.04, 1.02))
    ax.set_ylabel("share right", y=0.58)
    ax.grid(color=theme.GRID, linewidth=0.5)
    ax.set_axisbelow(True)


def _told(row: pd.Series, name: str) -> str:
    placed = isinstance(row["layer"], Integral) and row["decoder"] != MODEL
    layer = f", layer {row['layer']}" if placed else ""
    return f"{name}{layer}: ECE {100 * row['ece_debiased']:.1f} %,\nover-confident by {_over(row)}"


def _over(row: pd.Series) -> str:
    ends = ", ".join(f"{100 * row[end]:+.1f}" for end in ("over_low", "over_high"))
    within = "" if row["over_low"] != row["over_low"] else f" [{ends}]"
    return f"{100 * row['over']:+.1f}{within}".replace("-", "−")


def plot_ece(
    trace: Trace,
    *,
    decoders: Sequence[str] | None = None,
    family: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw the debiased ECE of each decoder by layer; the numbers are those of ``ece_table``.

    Args:
        trace: The trace.
        decoders: Names of readouts, or ``model``; None for the usual ones.
        family: One family, or None for all samples together.
        ax: Where to draw; a new one-column figure by default.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: If the family or a decoder is unknown.
    """
    table = ece_table(trace, decoders=decoders, family=family)
    ax = theme.new_axes(theme.one_column(), 2.6) if ax is None else ax
    with theme.context():
        _draw_layers(ax, table, trace.n_layers)
        if legend:
            theme.legend_below(ax, 28, ncols=2, handlelength=2.6)
    return ax


def _draw_layers(ax: Axes, table: pd.DataFrame, n_layers: int) -> None:
    for name, rows in table.groupby("decoder", sort=False):
        look = theme.decoder(name)
        error = rows["ece_debiased"].to_numpy()
        drawn = {"color": look.color, "label": look.name, "gid": f"ece-{name}"}
        if rows["layer"].isna().any():
            ax.axhline(error[0], linestyle=look.dashes, linewidth=1.1, **drawn)
            continue
        alone = len(rows) == 1
        ax.plot(
            rows["layer"].to_numpy(int),
            error,
            linestyle="" if alone else look.dashes,
            marker=look.marker or ("o" if alone else ""),
            markersize=6 if alone else 2.8,
            markevery=max(1, len(rows) // 12),
            **drawn,
        )
    row = table.iloc[0]
    ax.set_title(f"{row['family']}  (n = {row['n']})")
    ax.set(xlabel="layer", ylabel="ECE, debiased", xlim=(-0.3, n_layers - 0.6))
    top = max(0.05, table["ece_debiased"].max())
    ax.set_ylim(-0.025 * top, 1.08 * top)
    ax.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.3g} %")
    layer_axis(ax, n_layers)


def plot_reliability_grid(
    trace: Trace,
    *,
    decoders: Sequence[str] | None = None,
    family: str | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Both side by side: the reliability diagram at the best layers, and the debiased ECE by layer.

    Args:
        trace: The trace.
        decoders: Names of readouts, or ``model``; None for the usual ones.
        family: One family, or None for all samples together.
        figure: Where to draw, empty and with constrained layout; a new two-column figure by default.

    Raises:
        ValueError: If the family or a decoder is unknown.
    """
    table = reliability_table(trace, decoders=decoders, family=family)
    by_layer = ece_table(trace, decoders=decoders, family=family)
    if figure is None:
        import matplotlib.pyplot as plt

        with theme.context():
            size = (theme.two_columns(), reliability_size(table)[1])
            figure = plt.figure(figsize=size, layout="constrained")
    with theme.context():
        left, right = figure.subplots(1, 2)
        _draw(left, table)
        _draw_layers(right, by_layer, trace.n_layers)
        right.set_title("Calibration error by layer")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, handlelength=2.2)
    return figure


def reliability_alt(table: pd.DataFrame) -> str:
    """What the diagram says, for a reader who cannot see it."""
    parts = [
        _told(rows.iloc[0], theme.decoder(name).name).replace("\n", " ")
        for name, rows in table.groupby("decoder", sort=False)
    ]
    return (
        "Reliability diagram: confidence against the share right, each decoder at its best layer; ECE is "
        f"debiased, over-confidence in percentage points. {'; '.join(parts)}."
    )
