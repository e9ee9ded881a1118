"""The lifecycle of one sample: what the probe and context-stripped decoding say at every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange
from jaxtyping import Float

from brewlens.figures import theme
from brewlens.lifecycle.landmarks import NEVER
from brewlens.lifecycle.outcomes import OUTCOMES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from brewlens.decoding.readout import Readout
    from brewlens.results import Trace

LANDMARKS = ("fpcl", "fcc", "fjc")
_GAP = 5.2  # between the two panels, in classes
_HEIGHT = 0.88  # of probability 1, in layers
_GRAIN = 8  # points on each side of a class


def row_of(trace: Trace, sample: int | str) -> int:
    """Row of a sample, given by row or by id.

    Raises:
        ValueError: If the trace has no such sample.
    """
    ids = trace.lifecycle.item_ids
    if isinstance(sample, str):
        if sample not in ids:
            raise ValueError(
                f"asked for sample {sample!r}; this trace has {len(ids)} samples, first {list(ids[:3])}"
            )
        return ids.index(sample)
    if not 0 <= sample < len(ids):
        raise ValueError(f"asked for row {sample}; this trace has rows 0 to {len(ids) - 1}")
    return int(sample)


def decoders_of(trace: Trace) -> tuple[Readout, Readout]:
    """The readouts of availability and of readiness that the trace's landmarks were made with."""
    settings = trace.lifecycle.settings
    return trace.readouts[str(settings["availability"])], trace.readouts[str(settings["readiness"])]


def lifecycle_table(trace: Trace, sample: int | str) -> pd.DataFrame:
    """Layer-wise distributions of the two decoders behind one sample's landmarks.

    Returns:
        Columns id, family, role (``availability``, ``readiness``), decoder, layer (0-based), class,
        probability, is_answer, is_predicted, is_output, fpcl, fcc, fjc (missing where there is none),
        outcome. One sample, hence no interval.

    Raises:
        ValueError: If the sample is unknown.
    """
    import pandas as pd

    row, life = row_of(trace, sample), trace.lifecycle
    tables = []
    for role, readout in zip(("availability", "readiness"), decoders_of(trace), strict=True):
        layers, classes = readout.n_layers, np.asarray(readout.classes)
        tables.append(
            pd.DataFrame(
                {
                    "id": life.item_ids[row],
                    "family": life.families[row],
                    "role": role,
                    "decoder": readout.decoder,
                    "layer": np.repeat(np.arange(layers), len(classes)),
                    "class": np.tile(classes, layers),
                    "probability": readout.probabilities[row].ravel(),
                    "is_answer": np.tile(classes == life.answers[row], layers),
                    "is_predicted": np.tile(np.arange(len(classes)), layers)
                    == np.repeat(readout.predicted[row], len(classes)),
                    "is_output": np.tile(classes == life.output[row], layers),
                }
            )
        )
    table = pd.concat(tables, ignore_index=True)
    for name in LANDMARKS:
        layer = int(getattr(life.landmarks, name)[row])
        table[name] = pd.array([pd.NA if layer == NEVER else layer] * len(table), dtype="Int64")
    return table.assign(outcome=life.outcome[row])


def examples(trace: Trace) -> dict[str, int]:
    """The most typical sample of every outcome that occurs, as its row.

    Typical is the sample nearest to the middle of its outcome: the least sum of absolute differences to
    the outcome's medians of FPCL/L, FCC/L, FJC/L and tail confidence. A landmark that the sample has and
    most of its outcome lack, or the other way round, counts 1. The first row wins a tie. Nothing is
    chosen by eye.

    Returns:
        Outcome (by the repaired rule, in the order of ``OUTCOMES``) -> row.
    """
    life = trace.lifecycle
    features = [getattr(life.landmarks, name) / trace.n_layers for name in LANDMARKS]
    values = np.stack([*(np.where(f < 0, np.nan, f) for f in features), life.tail_confidence], axis=1)
    chosen = {}
    for outcome in OUTCOMES:
        rows = np.flatnonzero(life.outcome == outcome)
        if len(rows):
            chosen[outcome] = int(rows[distance_to_middle(values[rows]).argmin()])
    return chosen


def distance_to_middle(values: Float[np.ndarray, "sample feature"]) -> Float[np.ndarray, "sample"]:
    """Sum of absolute differences to the medians; a feature that is NaN as most are not counts 1."""
    present = np.isfinite(values)
    common = present.mean(axis=0) >= 0.5
    middle = np.array([np.median(v[p]) if p.any() else 0.0 for v, p in zip(values.T, present.T, strict=True)])
    both = np.abs(np.where(present, values, 0) - middle)
    return np.where(present & common, both, (present != common).astype(float)).sum(axis=1)


def plot_lifecycle(trace: Trace, sample: int | str, *, ax: Axes | None = None) -> Axes:
    """Draw one sample: a ridge over the answer classes per layer, probe left, context-stripped right.

    A ridge has one peak per class, as high as its probability; the scale stands at the right. The right
    answer's column is shaded and its peak coloured: fully where the decoder is right, that is where no
    other peak is higher. Lines and labels mark FPCL, FCC and FJC; the bar between them spans brewing, from
    FPCL to FJC. The bracket at the right is the tail window that tells misresolved from unresolved. Above
    the last layer stands the model's own answer.

    Args:
        trace: The trace.
        sample: Row or id.
        ax: Where to draw; a new two-column figure by default.

    Raises:
        ValueError: If the sample is unknown.
    """
    row = row_of(trace, sample)
    table = lifecycle_table(trace, row)
    if ax is None:
        ax = theme.new_axes(*lifecycle_size(trace))
    classes = list(dict.fromkeys(table["class"]))
    answer = classes.index(trace.lifecycle.answers[row])
    right = len(classes) + _GAP - 1
    with theme.context():
        for start, (_, panel) in zip((0.0, right), table.groupby("role", sort=False), strict=True):
            _draw_panel(ax, panel, classes, answer, start)
        _draw_landmarks(ax, trace, row, len(classes), right)
        _draw_output(ax, trace, row, classes, right)
        _draw_tail(ax, trace, row, right + len(classes))
        _label_axes(ax, trace, row, classes, right)
    return ax


def ridge(probability: Float[np.ndarray, "class"]) -> tuple[np.ndarray, np.ndarray]:
    """Outline of one ridge: a peak of height p at each class that falls to 0 half-way to the next.

    Nothing is smoothed across classes: the answers are names, and between two of them there is nothing.

    Returns:
        x in classes and height in probability.
    """
    t = np.linspace(-0.5, 0.5, 2 * _GRAIN + 1)
    x = np.arange(len(probability))[:, None] + t
    return x.ravel(), (probability[:, None] * np.cos(np.pi * t) ** 2).ravel()


def _draw_panel(ax: Axes, panel: pd.DataFrame, classes: list[str], answer: int, start: float) -> None:
    decoder = panel["decoder"].iloc[0]
    color = theme.decoder(decoder).color
    layers = int(panel["layer"].max()) + 1
    ax.fill_between(
        [start + answer - 0.5, start + answer + 0.5],
        -0.12,
        layers,
        color=color,
        alpha=0.09,
        linewidth=0,
        zorder=0,
    )
    grid = panel["probability"].to_numpy()
    grid = rearrange(grid, "(layer answer) -> layer answer", layer=layers)
    for layer, probability in enumerate(grid):
        x, height = ridge(probability)
        y = layer + _HEIGHT * height
        here = np.abs(x - answer) <= 0.5
        ax.fill_between(x + start, layer, y, color=theme.FILL, linewidth=0, zorder=2)
        alpha = 1.0 if probability.argmax() == answer else 0.4
        ax.fill_between((x + start)[here], layer, y[here], color=color, alpha=alpha, linewidth=0, zorder=2.1)
        line = ax.plot(x + start, y, color=theme.MUTED, linewidth=0.5, zorder=2.2)[0]
        line.set_gid(f"{decoder}-{layer}")


def _draw_landmarks(ax: Axes, trace: Trace, row: int, classes: int, right: float) -> None:
    """Lines along the marked rows, one label per marked layer between the panels, and the brewing bar."""
    available, ready = (theme.decoder(r.decoder).color for r in decoders_of(trace))
    marks = {name: int(getattr(trace.lifecycle.landmarks, name)[row]) for name in LANDMARKS}
    left, end, middle = -0.6, right + classes - 0.4, classes - 1 + _GAP / 2
    spans = {
        "fpcl": (left, middle, available, 1.2),
        "fcc": (middle, end, ready, 1.2),
        "fjc": (left, end, theme.INK, 1.2),
    }
    for name in ("fjc", "fpcl", "fcc"):
        if marks[name] == NEVER:
            continue
        x0, x1, color, width = spans[name]
        dashes = (0, (4, 2)) if name == "fjc" else "-"
        line = ax.plot([x0, x1], [marks[name]] * 2, color=color, linewidth=width, linestyle=dashes, zorder=3)[
            0
        ]
        line.set_gid(name)
    if marks["fjc"] != NEVER and marks["fjc"] > marks["fpcl"]:
        bar = ax.plot([middle] * 2, [marks["fpcl"], marks["fjc"]], color=theme.INK, linewidth=2.6, zorder=3)[
            0
        ]
        bar.set(gid="brewing", alpha=0.45, solid_capstyle="butt")
        ax.text(
            middle + 0.25,
            (marks["fpcl"] + marks["fjc"]) / 2,
            f"brewing\n{marks['fjc'] - marks['fpcl']} layers".replace("\n1 layers", "\n1 layer"),
            va="center",
            fontsize=6.2,
            color=theme.MUTED,
        )
    for layer in sorted({m for m in marks.values() if m != NEVER}):
        names = [name.upper() for name in LANDMARKS if marks[name] == layer]
        box = {
            "boxstyle": "round,pad=0.25",
            "facecolor": theme.PAPER,
            "edgecolor": theme.MUTED,
            "linewidth": 0.6,
        }
        ax.text(
            middle,
            layer,
            " = ".join(names),
            ha="center",
            va="center",
            fontsize=6.5,
            weight="bold",
            bbox=box,
            zorder=5,
        )
    if missing := [name.upper() for name in LANDMARKS if marks[name] == NEVER]:
        # In the widest stretch of the middle that no label takes.
        taken = np.array([-0.5, *sorted(m for m in marks.values() if m != NEVER), trace.n_layers - 0.5])
        widest = int(np.diff(taken).argmax())
        y = taken[widest : widest + 2].mean()
        text = "\n".join(f"no {name}" for name in missing)
        ax.text(middle, y, text, ha="center", va="center", fontsize=6.5, color=theme.MUTED)


def _draw_output(ax: Axes, trace: Trace, row: int, classes: list[str], right: float) -> None:
    y, x = trace.n_layers + 0.45 * _header(trace), right + classes.index(trace.lifecycle.output[row])
    good = bool(trace.lifecycle.output_correct[row])
    color = theme.OUTCOME_COLORS["resolved" if good else "misresolved"]
    ax.plot([right - 0.5, right + len(classes) - 0.5], [y, y], color=theme.GRID, linewidth=0.8, zorder=1)
    ax.plot(x, y, marker="o" if good else "X", markersize=6, color=color, zorder=4, gid="output")
    ax.text(right - 0.8, y, "model's answer", ha="right", va="center", fontsize=6.5, color=theme.MUTED)


def _draw_tail(ax: Axes, trace: Trace, row: int, x: float) -> None:
    life = trace.lifecycle
    first, last = int(np.floor(float(life.settings["tail_start"]) * trace.n_layers)), trace.n_layers
    ax.plot(
        [x - 0.25, x, x, x - 0.25], [first, first, last - 0.1, last - 0.1], color=theme.MUTED, linewidth=0.7
    )
    text = f"tail {life.tail_class[row]}: {life.tail_confidence[row]:.2f}"
    ax.text(x + 0.3, (first + last) / 2, text, rotation=90, va="center", fontsize=6.2, color=theme.MUTED)
    ax.plot([x, x], [0, _HEIGHT], color=theme.INK, linewidth=1.2, solid_capstyle="butt")
    ax.text(x + 0.3, _HEIGHT / 2, "p = 1", va="center", fontsize=6.2, color=theme.MUTED)


def _label_axes(ax: Axes, trace: Trace, row: int, classes: list[str], right: float) -> None:
    life, layers = trace.lifecycle, trace.n_layers
    k = len(classes)
    for start, readout, word in zip((0.0, right), decoders_of(trace), ("available", "ready"), strict=True):
        look = theme.decoder(readout.decoder)
        ax.text(
            start - 0.5,
            layers + 1.15 * _header(trace),
            f"{word}: {look.name}",
            color=look.color,
            weight="bold",
            va="center",
            fontsize=7.5,
        )
    ax.set_xticks([*range(k), *(right + c for c in range(k))], classes * 2)
    for number, label in enumerate(ax.get_xticklabels()):
        if classes[number % k] == life.answers[row]:
            label.set_weight("bold")
        else:
            label.set_color(theme.MUTED)
    step = 1 if layers <= 16 else 2 if layers <= 32 else 4
    ax.set_yticks(range(0, layers, step))
    ax.tick_params(length=0)
    ax.set(
        xlim=(-1, right + k + 1.8),
        ylim=(-0.25, layers + 1.75 * _header(trace)),
        ylabel="layer",
        xlabel="answer class",
    )
    ax.spines[:].set_visible(False)
    paper = (
        "" if life.outcome[row] == life.outcome_paper[row] else f" (paper's rule: {life.outcome_paper[row]})"
    )
    ax.set_title(
        f"{theme.OUTCOME_NAMES[life.outcome[row]]}{paper}: right answer {life.answers[row]}, "
        f"model's answer {life.output[row]}",
        pad=15,
    )
    ax.text(
        0,
        1,
        f"{life.families[row]}, sample {life.item_ids[row]}",
        transform=ax.transAxes,
        va="bottom",
        color=theme.MUTED,
    )


def _header(trace: Trace) -> float:
    """Height of a line of the header, in layers: rows get lower as the model gets deeper, letters do not."""
    return max(1.0, trace.n_layers / 18)


def lifecycle_size(trace: Trace) -> tuple[float, float]:
    """Width and height of the figure, in inches: more layers, more height."""
    return theme.two_columns(), min(8.5, max(2.8, 1.3 + 0.225 * trace.n_layers))


def lifecycle_alt(trace: Trace, row: int) -> str:
    """What the figure says, for a reader who cannot see it."""
    life = trace.lifecycle
    marks = ", ".join(
        f"{name.upper()} at layer {layer}" if layer >= 0 else f"no {name.upper()}"
        for name, layer in ((n, int(getattr(life.landmarks, n)[row])) for n in ("fpcl", "fcc", "fjc"))
    )
    return (
        f"Distribution over the answer classes at every layer, for sample {life.item_ids[row]}. {marks}. "
        f"Right answer {life.answers[row]}, model's answer {life.output[row]}, outcome "
        f"{theme.OUTCOME_NAMES[life.outcome[row]]}."
    )
