"""Typical lifecycles side by side, outcome by outcome: nothing is chosen by eye."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange
from jaxtyping import Float

from brewlens.figures import theme
from brewlens.figures.lifecycle import LANDMARKS, distance_to_middle
from brewlens.lifecycle.landmarks import NEVER, Landmarks, landmarks
from brewlens.lifecycle.outcomes import OUTCOMES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import PathPatch

    from brewlens.decoding.readout import Readout
    from brewlens.results import Trace

ROLES = ("availability", "readiness")
_GAP = 1.2  # between the two strips, in classes
_HEIGHT = 0.86  # of probability 1, in layers
_PAGE = 8.8  # the greatest height, in inches
_SEEN = 0.02  # the least probability of a wrong answer that is drawn


def roles_of(trace: Trace, availability: str | None = None, readiness: str | None = None) -> tuple:
    """The readouts of availability and of readiness; without names, those of the trace's landmarks.

    Raises:
        ValueError: If a readout is unknown, or reads no layers.
    """
    settings, found = trace.lifecycle.settings, []
    for role, name in zip(ROLES, (availability, readiness), strict=True):
        name = str(settings[role]) if name is None else name
        layered = [n for n, readout in trace.readouts.items() if readout.n_layers == trace.n_layers]
        if name not in layered:
            raise ValueError(f"asked for {role} by {name!r}; this trace reads layers by {', '.join(layered)}")
        found.append(trace.readouts[name])
    return tuple(found)


def typical(trace: Trace, outcome: str, k: int = 6) -> list[int]:
    """The rows of the most typical samples of an outcome, the most typical first.

    Nearest to the middle of its outcome, as :func:`brewlens.figures.lifecycle.examples` has it, whose sample
    is the first of these. The first rows win ties; fewer than ``k`` where there are fewer.

    Raises:
        ValueError: If no sample ends so.
    """
    rows, distance = _ranked(trace, outcome)
    return rows[np.argsort(distance, kind="stable")[:k]].tolist()


def _ranked(trace: Trace, outcome: str) -> tuple[np.ndarray, Float[np.ndarray, "sample"]]:
    life = trace.lifecycle
    rows = np.flatnonzero(life.outcome == outcome)
    if not len(rows):
        raise ValueError(
            f"asked for outcome {outcome!r}; this trace has "
            f"{', '.join(o for o in OUTCOMES if (life.outcome == o).any())}"
        )
    features = [getattr(life.landmarks, name)[rows] / trace.n_layers for name in LANDMARKS]
    values = np.stack([*(np.where(f < 0, np.nan, f) for f in features), life.tail_confidence[rows]], axis=1)
    return rows, distance_to_middle(values)


def ridges_table(
    trace: Trace,
    outcome: str | Sequence[str] | None = None,
    *,
    k: int = 6,
    availability: str | None = None,
    readiness: str | None = None,
) -> pd.DataFrame:
    """Layer-wise distributions of typical samples.

    Args:
        trace: The trace.
        outcome: One or several, by the repaired rule; None for all that occur.
        k: Samples of each.
        availability: Readout of the left strip; that of the trace's landmarks by default.
        readiness: Readout of the right strip; likewise.

    Returns:
        Columns outcome, n (samples of the outcome), rank (0 for the most typical), id, family, answer,
        output, role (``availability``, ``readiness``), decoder, layer (0-based), class, probability,
        is_answer, fpcl, fcc, fjc of these two decoders (missing where there is none). Single samples, hence
        no interval.

    Raises:
        ValueError: If no sample ends so, or a readout is unknown or reads no layers.
    """
    import pandas as pd

    life, readouts = trace.lifecycle, roles_of(trace, availability, readiness)
    asked = [outcome] if isinstance(outcome, str) else outcome
    if asked is None:
        asked = [o for o in OUTCOMES if (life.outcome == o).any()]
    tables = []
    for name in asked:
        rows = typical(trace, name, k)
        marks = _landmarks(trace, readouts, rows)
        for rank, row in enumerate(rows):
            common = {
                "outcome": name,
                "n": int((life.outcome == name).sum()),
                "rank": rank,
                "id": life.item_ids[row],
                "family": life.families[row],
                "answer": life.answers[row],
                "output": life.output[row],
            }
            layers = {
                mark: pd.NA if (at := int(getattr(marks, mark)[rank])) == NEVER else at for mark in LANDMARKS
            }
            for role, readout in zip(ROLES, readouts, strict=True):
                classes = np.asarray(readout.classes)
                told = {
                    "role": role,
                    "decoder": readout.decoder,
                    "layer": np.repeat(np.arange(readout.n_layers), len(classes)),
                    "class": np.tile(classes, readout.n_layers),
                    "probability": readout.probabilities[row].ravel(),
                    "is_answer": np.tile(classes == life.answers[row], readout.n_layers),
                }
                tables.append(pd.DataFrame(common | told).assign(**layers))
    return pd.concat(tables, ignore_index=True).astype(dict.fromkeys(LANDMARKS, "Int64"))


def _landmarks(trace: Trace, readouts: tuple[Readout, Readout], rows: list[int]) -> Landmarks:
    answers = [trace.lifecycle.answers[row] for row in rows]
    return landmarks(*(readout.select(rows).correct(answers) for readout in readouts))


def plot_ridges(
    trace: Trace,
    *,
    outcome: str,
    k: int = 6,
    availability: str | None = None,
    readiness: str | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw the most typical samples of one outcome: the probe and context-stripped decoding, strip by strip.

    Each row of a strip is a layer, each bar in it an answer class, as high as its probability (of wrong
    answers, from .02 on). The right answer's bars are coloured, fully where the decoder is right, and its
    column is shaded. Lines mark FPCL (left strip), FCC (right strip) and FJC (both). Below stands the right
    answer, above the right strip the model's own answer.

    Args:
        trace: The trace.
        outcome: By the repaired rule.
        k: Number of samples.
        availability: Readout of the left strip; that of the trace's landmarks by default.
        readiness: Readout of the right strip; likewise.
        figure: Where to draw, empty and with constrained layout; a new two-column figure by default.

    Raises:
        ValueError: If no sample ends so, or a readout is unknown or reads no layers.
    """
    table = ridges_table(trace, outcome, k=k, availability=availability, readiness=readiness)
    return _plot(table, figure)


def plot_ridges_grid(
    trace: Trace,
    *,
    k: int = 4,
    availability: str | None = None,
    readiness: str | None = None,
    table: pd.DataFrame | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Typical samples of every outcome that occurs, one row per outcome; see ``plot_ridges``.

    Args:
        trace: The trace.
        k: Samples of each outcome.
        availability: Readout of the left strips; that of the trace's landmarks by default.
        readiness: Readout of the right strips; likewise.
        table: Its ``ridges_table``, if it is there already.
        figure: Where to draw, empty and with constrained layout; a new two-column figure by default.

    Raises:
        ValueError: If a readout is unknown or reads no layers.
    """
    if table is None:
        table = ridges_table(trace, k=k, availability=availability, readiness=readiness)
    return _plot(table, figure)


def _plot(table: pd.DataFrame, figure: Figure | None) -> Figure:
    outcomes = list(dict.fromkeys(table["outcome"]))
    columns = int(table["rank"].max()) + 1
    if figure is None:
        import matplotlib.pyplot as plt

        with theme.context():
            figure = plt.figure(figsize=ridges_size(table), layout="constrained")
    with theme.context():
        panels = figure.subplots(len(outcomes), columns, sharey=True, squeeze=False)
        for line, outcome in zip(panels, outcomes, strict=True):
            rows = table[table["outcome"] == outcome]
            for ax in line[rows["rank"].max() + 1 :]:
                ax.set_axis_off()
            for ax, (_, sample) in zip(line, rows.groupby("rank"), strict=False):
                _draw_sample(ax, sample)
            name = f"{theme.OUTCOME_NAMES[outcome]}\nn = {rows['n'].iloc[0]}"
            line[0].set_ylabel(name, color=theme.OUTCOME_COLORS[outcome], weight="bold")
        figure.supylabel("layer", fontsize=7)
        _legend(figure, table)
    return figure


def _draw_sample(ax: Axes, sample: pd.DataFrame) -> None:
    first = sample.iloc[0]
    classes, layers = list(dict.fromkeys(sample["class"])), int(sample["layer"].max()) + 1
    answer, output, right = (
        classes.index(first["answer"]),
        classes.index(first["output"]),
        len(classes) + _GAP,
    )
    spans = {
        "fpcl": (0.0, len(classes)),
        "fcc": (right, right + len(classes)),
        "fjc": (0.0, right + len(classes)),
    }
    for (role, strip), start, mark in zip(
        sample.groupby("role", sort=False), (0.0, right), ("fpcl", "fcc"), strict=True
    ):
        color = theme.decoder(strip["decoder"].iloc[0]).color
        shade = {"color": color, "alpha": 0.1, "linewidth": 0, "zorder": 0}
        ax.fill_between([start + answer, start + answer + 1], 0, layers, **shade)
        grid = strip["probability"].to_numpy()
        grid = rearrange(grid, "(layer answer) -> layer answer", layer=layers)
        _draw_strip(ax, grid, start, answer, color, role)
        _draw_mark(ax, first[mark], spans[mark], mark, color=color, linewidth=1.1)
    _draw_mark(ax, first["fjc"], spans["fjc"], "fjc", color=theme.INK, linewidth=0.9, linestyle=(0, (3, 1.5)))
    good = first["answer"] == first["output"]
    look = theme.OUTCOME_COLORS["resolved" if good else "misresolved"]
    marker = {"marker": "o" if good else "X", "markersize": 4 if good else 4.6, "color": look}
    ax.plot(right + output + 0.5, layers + 0.045 * layers, clip_on=False, gid="output", **marker)
    ax.set_xticks([answer + 0.5, right + answer + 0.5], [first["answer"]] * 2, weight="bold")
    said = "" if good else f", says {first['output']}"
    ax.set_title(f"{first['family']}{said}", fontsize=6.2, weight="normal", pad=5, color=theme.MUTED)
    ax.set_yticks(range(0, layers, _every(layers)))
    ax.set(xlim=(-0.6, right + len(classes) + 1.0), ylim=(-0.1, layers * 1.05))
    ax.tick_params(length=0, pad=2)
    ax.tick_params(axis="y", labelsize=6)
    ax.spines[:].set_visible(False)


def _every(layers: int) -> int:
    """Layers between two that are named."""
    return max(1, -(-layers // 6))


def _draw_strip(
    ax: Axes, grid: Float[np.ndarray, "layer class"], start: float, answer: int, color: str, role: str
) -> None:
    """A bar per layer and class; all bars of a kind are one path, or files of many samples get large."""
    ground = np.arange(0, len(grid), _every(len(grid)))
    ends = [start, start + grid.shape[1], np.nan] * len(ground)
    ax.plot(ends, np.repeat(ground, 3), color=theme.GRID, linewidth=0.4, zorder=1)
    right = np.arange(grid.shape[1]) == answer
    sure = grid.argmax(axis=1)[:, None] == answer
    kinds = {
        f"{role}-wrong": (~right & (grid >= _SEEN), theme.FILL, 1.0),
        f"{role}-right": (right & sure, color, 1.0),
        f"{role}-unsure": (right & ~sure, color, 0.45),
    }
    for gid, (where, face, alpha) in kinds.items():
        if where.any():
            ax.add_patch(_bars(grid, where, start, facecolor=face, alpha=alpha, gid=gid))


def _bars(
    grid: Float[np.ndarray, "layer class"], where: np.ndarray, start: float, **look: object
) -> PathPatch:
    """Bars of these layers and classes, as high as their probabilities, layer by layer."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    layer, column = np.nonzero(where)
    left, top = start + column, layer + _HEIGHT * grid[where]
    corners = [(left, layer), (left, top), (left + 1, top), (left + 1, layer)]
    boxes = np.stack([np.column_stack(corner) for corner in corners], axis=1)
    return PathPatch(Path.make_compound_path_from_polys(boxes), linewidth=0, zorder=2, **look)


def _draw_mark(ax: Axes, layer: object, span: tuple[float, float], gid: str, **look: object) -> None:
    import pandas as pd

    if not pd.isna(layer):
        ax.plot(span, [layer, layer], gid=gid, zorder=3, solid_capstyle="butt", **look)


def _legend(figure: Figure, table: pd.DataFrame) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    looks = [theme.decoder(table.loc[table["role"] == role, "decoder"].iloc[0]) for role in ROLES]
    good, bad = theme.OUTCOME_COLORS["resolved"], theme.OUTCOME_COLORS["misresolved"]
    handles = [
        Patch(color=looks[0].color, label=f"left: {looks[0].name}"),
        Patch(color=looks[1].color, label=f"right: {looks[1].name}"),
        Patch(color=theme.FILL, label="wrong answers"),
        Line2D([], [], color=looks[0].color, linewidth=1.1, label="FPCL"),
        Line2D([], [], color=looks[1].color, linewidth=1.1, label="FCC"),
        Line2D([], [], color=theme.INK, linewidth=0.9, linestyle=(0, (3, 1.5)), label="FJC"),
        Line2D([], [], color=good, marker="o", linestyle="none", markersize=4, label="model right"),
        Line2D([], [], color=bad, marker="X", linestyle="none", markersize=4.6, label="model wrong"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=1.8, columnspacing=1.4)


def ridges_size(table: pd.DataFrame) -> tuple[float, float]:
    """Width and height of the figure, in inches: a row per outcome, higher with more layers, up to a page."""
    layers, outcomes = int(table["layer"].max()) + 1, table["outcome"].nunique()
    row = 0.4 + min(1.9, max(0.7, 0.07 * layers))
    return theme.two_columns(), min(_PAGE, 0.55 + row * outcomes)


def ridges_alt(table: pd.DataFrame) -> str:
    """What a reader who cannot see the figure needs to know."""
    import pandas as pd

    parts = []
    for outcome, rows in table.groupby("outcome", sort=False):
        told = []
        for _, sample in rows.groupby("rank"):
            row = sample.iloc[0]
            marks = ", ".join(f"{m.upper()} {row[m]}" for m in LANDMARKS if not pd.isna(row[m]))
            told.append(
                f"{row['id']}: answer {row['answer']}, said {row['output']}, {marks or 'no landmark'}"
            )
        parts.append(f"{theme.OUTCOME_NAMES[outcome]}: {'; '.join(told)}")
    return f"Distributions over the answer classes by layer, of the most typical samples. {'. '.join(parts)}."
