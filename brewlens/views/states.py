"""What one sample puts into the explorer: the numbers of its traces, its lines, labels and program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from brewlens.brief import brief
from brewlens.figures import theme
from brewlens.figures.lifecycle import LANDMARKS, decoders_of
from brewlens.lifecycle.landmarks import NEVER

if TYPE_CHECKING:
    from brewlens.decoding.readout import Readout
    from brewlens.results import Trace

DOMAINS = ((0.0, 0.225), (0.31, 0.535), (0.57, 0.675))
"""Where the three panels stand, as shares of the width."""
_PROGRAM = 0.695  # where it begins
_CODE = "ui-monospace, 'DejaVu Sans Mono', Menlo, monospace"
_COLUMNS, _LINES = 42, 40  # of program text


@dataclass(frozen=True)
class State:
    """One sample.

    Attributes:
        label: Its name in the list of samples.
        title: Outcome, right answer, output.
        classes: All answer classes.
        traces: What changes in each trace of the figure, in their order: x, y, z, symbol, hovertemplate.
        shapes: Landmark lines and the frames of the right answer.
        annotations: Landmark labels, the program, and the notes below.
    """

    label: str
    title: str
    classes: tuple[str, ...]
    traces: tuple[dict[str, Any], ...]
    shapes: list[dict[str, Any]]
    annotations: list[dict[str, Any]]

    __repr__ = brief


def state(trace: Trace, row: int, names: Sequence[str], said: str) -> State:
    """What the sample at ``row`` shows with the decoders ``names``; ``said`` stands below every sample."""
    life = trace.lifecycle
    answer, output = life.answers[row], life.output[row]
    outcome, family, name = life.outcome[row], safe(life.families[row]), safe(life.item_ids[row])
    readouts = [trace.readouts[n] for n in names]
    classes = tuple(dict.fromkeys(c for readout in readouts for c in readout.classes))
    told = f"right answer {safe(answer)}, model's answer {safe(output)}"
    panel = [part for readout in readouts for part in _panel(readout, row, answer, told)]
    lines = [_line(readout, row, answer) for readout in readouts]
    shown = (
        f"<b><span style='color:{theme.OUTCOME_COLORS[outcome]}'>■</span> {theme.OUTCOME_NAMES[outcome]}</b>"
    )
    return State(
        label=f"{theme.OUTCOME_NAMES[outcome]} · {family} · {name}",
        title=f"{shown}: {told} <span style='color:{theme.MUTED}'>· {family}, sample {name}</span>",
        classes=classes,
        traces=(*panel, *panel, _output(trace, row), *lines),
        shapes=_shapes(trace, row, classes.index(answer)),
        annotations=[*_landmarks(trace, row), _program(trace, row), _below(trace, row, said)],
    )


def safe(text: object) -> str:
    """As plotly's texts take it, which know a little HTML and ``%{...}``."""
    return escape(str(text), quote=False).replace("%{", "%&#123;")


def _panel(readout: Readout, row: int, answer: str, told: str) -> list[dict[str, Any]]:
    """The heat map of a decoder, and the dots on it."""
    name, layers = safe(theme.decoder(readout.decoder).name), list(range(readout.n_layers))
    grid = readout.probabilities[row].astype(float).round(4)
    first = [readout.classes[k] for k in readout.predicted[row]]
    hover = f"layer %{{y}}, class %{{x}}<br>p = %{{z:.4f}}<br>{told}<extra>{name}</extra>"
    symbols = ["circle" if said == answer else "circle-open" for said in first]
    return [
        {"x": list(readout.classes), "y": layers, "z": grid.tolist(), "hovertemplate": hover},
        {"x": first, "y": layers, "symbol": symbols},
    ]


def _output(trace: Trace, row: int) -> dict[str, Any]:
    life = trace.lifecycle
    right = "right" if life.output_correct[row] else "wrong"
    miss = "; its first choice over the vocabulary is no class" if life.format_miss[row] else ""
    return {
        "x": [life.output[row]],
        "y": [trace.n_layers],
        "symbol": ["star" if life.output_correct[row] else "x"],
        "hovertemplate": f"the model's own answer: %{{x}}, {right}{miss}<extra></extra>",
    }


def _line(readout: Readout, row: int, answer: str) -> dict[str, Any]:
    name = safe(theme.decoder(readout.decoder).name)
    p = readout.probabilities[row][:, readout.classes.index(answer)].astype(float).round(4)
    hover = f"layer %{{y}}: p({safe(answer)}) = %{{x:.4f}}<extra>{name}</extra>"
    return {"x": p.tolist(), "y": list(range(readout.n_layers)), "hovertemplate": hover}


def _shapes(trace: Trace, row: int, answer: int) -> list[dict[str, Any]]:
    top = trace.n_layers - 0.5
    frame = {"type": "rect", "x0": answer - 0.5, "x1": answer + 0.5, "y0": -0.5, "y1": top}
    shapes = [{**frame, "xref": x, "line": {"color": theme.INK, "width": 1.2}} for x in ("x", "x2")]
    available, ready = (theme.decoder(readout.decoder).color for readout in decoders_of(trace))
    spans = {
        "fpcl": (("x domain",), (0, 1.1), {"color": available, "width": 2}),
        "fcc": (("x2 domain",), (-0.1, 1), {"color": ready, "width": 2}),
        "fjc": (
            ("x domain", "x2 domain", "x3 domain"),
            (0, 1),
            {"color": theme.INK, "width": 2, "dash": "dash"},
        ),
    }
    for name, (axes, (start, end), line) in spans.items():
        layer = int(getattr(trace.lifecycle.landmarks, name)[row])
        if layer != NEVER:
            at = {
                "type": "line",
                "x0": start,
                "x1": end,
                "y0": layer,
                "y1": layer,
                "line": line,
                "name": name,
            }
            shapes += [{**at, "xref": x} for x in axes]
    return shapes


def _landmarks(trace: Trace, row: int) -> list[dict[str, Any]]:
    """Names of the landmarks between the two heat maps; those that the sample lacks, on top."""
    marks = {name.upper(): int(getattr(trace.lifecycle.landmarks, name)[row]) for name in LANDMARKS}
    middle = (DOMAINS[0][1] + DOMAINS[1][0]) / 2
    box = {"bgcolor": theme.PAPER, "bordercolor": theme.MUTED, "borderwidth": 1, "borderpad": 2}
    look = {"xref": "paper", "x": middle, "xanchor": "center", "showarrow": False}
    font = {"size": 10, "color": theme.INK}
    labels = [
        {
            **look,
            **box,
            "y": layer,
            "text": "=".join(n for n, at in marks.items() if at == layer),
            "font": font,
        }
        for layer in sorted({at for at in marks.values() if at != NEVER})
    ]
    if missing := [f"no {name}" for name, at in marks.items() if at == NEVER]:
        where = {"y": trace.n_layers + 0.45, "yanchor": "top", "font": {**font, "color": theme.MUTED}}
        labels.append({**look, **where, "text": "<br>".join(missing)})
    return labels


def _program(trace: Trace, row: int) -> dict[str, Any]:
    lines = [part for line in trace.items[row].prompt.split("\n") for part in _wrapped(line)]
    if len(lines) > _LINES:
        lines = [*lines[:_LINES], f"… {len(lines) - _LINES} more lines"]
    place = {"xref": "paper", "yref": "paper", "x": _PROGRAM, "y": 1, "xanchor": "left", "yanchor": "top"}
    font = {"family": _CODE, "size": 11, "color": theme.INK}
    text = "<br>".join(safe(line) for line in lines)
    return {**place, "text": text, "align": "left", "showarrow": False, "font": font}


def _wrapped(line: str) -> list[str]:
    if len(line) <= _COLUMNS:
        return [line]
    indent = line[: len(line) - len(line.lstrip())][: _COLUMNS // 2]
    return wrap(line, _COLUMNS, drop_whitespace=False, subsequent_indent=f"{indent}  ↪ ")


def _below(trace: Trace, row: int, said: str) -> dict[str, Any]:
    """The sample's onsets and how to read the picture."""
    how = "White is 0, full colour 1; dots: most probable class, filled if right; frame: right answer"
    lines = [f"{safe(said)}.", f"{how}."]
    if trace.onsets:
        parts = []
        for name in ("available", "ready"):
            onsets = trace.onsets[name]
            at, p = int(onsets.onset[row]), float(onsets.present[row])
            parts.append(f"{name} from layer {at}" if at != NEVER else f"never {name}")
            parts[-1] += f" (p of an onset {p:.2f})"
        end = int(trace.onsets["ready"].end[row])
        ends = f", ready no longer from layer {end}" if end != NEVER else ""
        lines.insert(0, f"Onsets: {', '.join(parts)}{ends}. The lines are first hits.")
    place = {
        "xref": "paper",
        "yref": "paper",
        "x": 0,
        "y": 0,
        "xanchor": "left",
        "yanchor": "top",
        "yshift": -48,
    }
    font = {"size": 11.5, "color": theme.MUTED}
    return {**place, "text": "<br>".join(lines), "align": "left", "showarrow": False, "font": font}
