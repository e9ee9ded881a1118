"""Browser: the data of single samples, packed so that the page can show any of them."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from einops import rearrange
from jaxtyping import Int, UInt8

from brewlens.figures import examples, theme
from brewlens.figures.lifecycle import LANDMARKS, decoders_of
from brewlens.lifecycle.landmarks import NEVER
from brewlens.lifecycle.outcomes import OUTCOMES
from brewlens.report.inline import THEMED

if TYPE_CHECKING:
    from brewlens.decoding.readout import Readout
    from brewlens.results import Trace
    from brewlens.tasks.item import Item

BUDGET = 6_000_000
"""Characters that the data of samples may take in the page."""

STEPS = 255
"""A probability is stored as a whole number of this many steps."""


@dataclass(frozen=True)
class Embedded:
    """The samples that a page carries.

    Attributes:
        data: Base64 of gzip of a :func:`packed` record; empty where not one sample fits.
        shown: Samples in it.
        n: Samples of the trace.
    """

    data: str
    shown: int
    n: int


def embedded(trace: Trace, budget: int = BUDGET) -> Embedded:
    """As many samples as fit, thinned evenly within family and outcome where not all do.

    The typical sample of every outcome stays, as long as any does.

    Args:
        trace: The trace.
        budget: Characters that the data may take.
    """
    n = len(trace)
    share = 1.0
    while share * n >= 1:
        rows = thinned(trace, share)
        data = base64.b64encode(gzip.compress(packed(trace, rows), 9, mtime=0)).decode()
        if len(data) <= budget:
            return Embedded(data, len(rows), n)
        # Each try is a little below what the last one promises, so that few are needed.
        share = min(0.97 * share * budget / len(data), 0.9 * share)
    return Embedded("", 0, n)


def thinned(trace: Trace, share: float) -> Int[np.ndarray, "row"]:
    """A share of the rows, spread evenly over every family and outcome, and the typical samples.

    Args:
        trace: The trace.
        share: At most 1, which takes all.
    """
    if share >= 1:
        return np.arange(len(trace))
    chosen = set(examples(trace).values())
    families = np.array(trace.lifecycle.families)
    for family in trace.items.families:
        for outcome in OUTCOMES:
            rows = np.flatnonzero((families == family) & (trace.lifecycle.outcome == outcome))
            count = int(share * len(rows) + 0.5)
            chosen |= set(rows[((np.arange(count) + 0.5) * len(rows) / max(1, count)).astype(int)].tolist())
    return np.array(sorted(chosen))


def packed(trace: Trace, rows: Sequence[int] | Int[np.ndarray, "row"]) -> bytes:
    """Samples as bytes: the length of a JSON text (4 bytes, little endian), that text, and probabilities.

    The text has ``classes``, ``decoders``, ``families``, ``outcomes`` and ``samples``, by column. Behind it
    stand, decoder by decoder, ``[sample, class, layer]`` probabilities in steps of 1/255, one byte each.

    Args:
        trace: The trace.
        rows: Of the samples.
    """
    rows = np.asarray(rows)
    readouts = _ordered(trace)
    available, ready = decoders_of(trace)
    roles = {available.decoder: "available", ready.decoder: "ready"}
    record = {
        "classes": list(available.classes),
        "steps": STEPS,
        "decoders": [
            {
                "name": theme.decoder(r.decoder).name,
                "color": THEMED.get(theme.decoder(r.decoder).color, theme.decoder(r.decoder).color),
                "layers": r.n_layers,
                "role": roles.get(r.decoder, ""),
            }
            for r in readouts
        ],
        "families": list(trace.items.families),
        "outcomes": {name: [theme.OUTCOME_NAMES[name], theme.OUTCOME_COLORS[name]] for name in OUTCOMES},
        "start": _start(trace, rows),
        "samples": _columns(trace, rows.tolist()),
    }
    text = json.dumps(record, separators=(",", ":")).encode()
    by_class = (rearrange(quantised(r, rows), "row layer answer -> row answer layer") for r in readouts)
    blocks = (values.tobytes() for values in by_class)
    return len(text).to_bytes(4, "little") + text + b"".join(blocks)


def quantised(
    readout: Readout, rows: Sequence[int] | Int[np.ndarray, "row"]
) -> UInt8[np.ndarray, "row layer class"]:
    """Probabilities in steps of 1/255, to the nearest; the first of the largest is the prediction.

    Where rounding would make a class in front of the prediction as large as it, one of the two is rounded the
    other way. No number is more than a step off.
    """
    rows = np.asarray(rows)
    exact, predicted = readout.probabilities[rows] * STEPS, readout.predicted[rows][..., None]
    steps = np.rint(exact)
    top, most = (np.take_along_axis(values, predicted, axis=2) for values in (steps, exact))
    tied = (steps == top) & (np.arange(steps.shape[2]) < predicted)
    rises = tied.any(axis=2, keepdims=True) & (most > top)
    steps -= tied & ~rises
    np.put_along_axis(steps, predicted, top + rises, axis=2)
    return steps.astype(np.uint8)


def _ordered(trace: Trace) -> list[Readout]:
    """Availability and readiness first, the text-only baseline last."""
    first = [r.decoder for r in decoders_of(trace)]
    rest = [name for name in trace.readouts if name not in first]
    return [trace.readouts[name] for name in (*first, *sorted(rest, key=lambda name: name == "surface"))]


def _start(trace: Trace, rows: np.ndarray) -> int:
    """Place of the sample that is shown first: the first outcome's typical one, if it is there."""
    found = np.flatnonzero(rows == next(iter(examples(trace).values())))
    return int(found[0]) if len(found) else 0


def _columns(trace: Trace, rows: Sequence[int]) -> dict[str, list[Any]]:
    life, items = trace.lifecycle, [trace.items[r] for r in rows]
    twins = [trace.items.twin(item, "counterfactual") for item in items]
    ends = _ends(trace)
    frame = trace.to_frame()
    layers = [*LANDMARKS, "brewing", "available_from", "ready_from", "ready_until"]
    columns: dict[str, list[Any]] = {
        "id": [item.id for item in items],
        "family": [trace.items.families.index(item.family) for item in items],
        "factors": [", ".join(f"{name} {level}" for name, level in item.factors.items()) for item in items],
        "answer": [item.answer for item in items],
        "output": [life.output[r] for r in rows],
        "missed": [int(life.format_miss[r]) for r in rows],
        "tail": [[life.tail_class[r], round(float(life.tail_confidence[r]), 3)] for r in rows],
        "program": [_program(item, twin, ends) for item, twin in zip(items, twins, strict=True)],
        "twin": [_program(twin, item, ends) for item, twin in zip(items, twins, strict=True)],
        "twin_answer": [None if twin is None else twin.answer for twin in twins],
    }
    for name in ("outcome", "outcome_paper", "outcome_onset"):
        if name in frame:
            columns[name] = [list(OUTCOMES).index(value) for value in frame[name].to_numpy()[list(rows)]]
    for name in layers:
        if name in frame:
            values = frame[name].fillna(NEVER).to_numpy(dtype=int)[list(rows)]
            columns[name] = [None if value == NEVER else int(value) for value in values]
    for name in ("p_available", "p_ready"):
        if name in frame:
            columns[name] = [round(float(value), 3) for value in frame[name].to_numpy()[list(rows)]]
    return columns


def _ends(trace: Trace) -> dict[str, list[int]]:
    """Id -> number of characters of each token; empty for a run that did not store them."""
    table = trace.tables.get("tokens")
    if table is None:
        return {}
    return {
        item_id: np.diff(np.asarray(ends, dtype=int), prepend=0).tolist()
        for item_id, ends in zip(table["id"], table["ends"], strict=True)
    }


def _program(item: Item | None, other: Item | None, ends: dict[str, list[int]]) -> list[Any] | None:
    """Text, token lengths in characters, and where it differs from the other program."""
    if item is None:
        return None
    span = None if other is None else changed(item.prompt, other.prompt)
    return [item.prompt, ends.get(item.id), span]


def changed(text: str, other: str) -> tuple[int, int]:
    """The stretch of ``text`` that makes it another than ``other``, grown to whole words and numbers.

    Returns:
        First and one-past-last character; equal where the other only has more.
    """
    most = min(len(text), len(other))
    start = next((k for k in range(most) if text[k] != other[k]), most)
    tail = next((k for k in range(most - start) if text[-1 - k] != other[-1 - k]), most - start)
    end, beyond = len(text) - tail, len(other) - tail
    if end == start == beyond:
        return start, end
    first = _is_word(text[start : start + 1]) or _is_word(other[start : start + 1])
    last = _is_word(text[end - 1 : end]) or _is_word(other[beyond - 1 : beyond])
    while first and _is_word(text[start - 1 : start]):
        start -= 1
    while last and _is_word(text[end : end + 1]):
        end += 1
    return start, end


def _is_word(character: str) -> bool:
    return character.isalnum() or character in ("_", ".")
