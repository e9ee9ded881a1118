"""The line from residuals to a trace: the decoders by name, and what is made of their readouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int
from torch import Tensor

from brewlens.answers import DIGITS, AnswerSpace
from brewlens.decoding import context_stripped, logit_lens, own_suffixes, probe, surface
from brewlens.decoding.readout import Readout
from brewlens.lifecycle import Lifecycle, lifecycle
from brewlens.residuals import Residuals
from brewlens.results import Trace
from brewlens.tasks import ItemSet, assign_folds

if TYPE_CHECKING:
    from brewlens.model import HookedModel


@dataclass(frozen=True)
class Inputs:
    """What a decoder may look at."""

    model: HookedModel
    items: ItemSet
    folds: Int[np.ndarray, "sample"]
    residuals: Residuals
    space: AnswerSpace
    probe_c: float
    progress: bool


def _probe(inputs: Inputs) -> tuple[Readout, ...]:
    return (
        probe(
            inputs.residuals,
            inputs.items,
            inputs.folds,
            inputs.space.classes,
            C=inputs.probe_c,
            progress=inputs.progress,
        ),
    )


def _logit_lens(inputs: Inputs) -> tuple[Readout, ...]:
    return (logit_lens(inputs.model, inputs.residuals, inputs.space),)


def _context_stripped(inputs: Inputs) -> tuple[Readout, ...]:
    targets = own_suffixes(inputs.items)
    return context_stripped(inputs.model, inputs.residuals, targets, inputs.space, progress=inputs.progress)


def _surface(inputs: Inputs) -> tuple[Readout, ...]:
    return (surface(inputs.items, inputs.folds, inputs.space.classes),)


DECODERS: dict[str, Callable[[Inputs], tuple[Readout, ...]]] = {
    "surface": _surface,
    "logit_lens": _logit_lens,
    "context_stripped": _context_stripped,
    "probe": _probe,
}


def lifecycles(
    items: ItemSet,
    readouts: Mapping[str, Readout],
    output: Int[Tensor, "sample"] | np.ndarray,
    format_miss: np.ndarray,
    *,
    tail_start: float = 0.75,
    confident: float = 0.5,
) -> Lifecycle:
    """Landmarks and outcomes, with the probe for availability and context-stripped decoding for readiness."""
    return lifecycle(
        readouts["probe"],
        readouts["context_stripped"],
        families=[item.family for item in items],
        answers=items.answers,
        output=np.asarray(output),
        format_miss=format_miss,
        tail_start=tail_start,
        confident=confident,
    )


def missed_format(top_id: Tensor, space: AnswerSpace) -> np.ndarray:
    """Whether the first choice over the full vocabulary is not the token of a class."""
    return ~np.isin(top_id.numpy(), space.token_ids)


def trace(
    model: HookedModel,
    items: ItemSet,
    *,
    folds: int = 5,
    seed: int = 0,
    probe_c: float = 0.1,
    tail_start: float = 0.75,
    confident: float = 0.5,
    progress: bool = True,
) -> Trace:
    """Run a model over items and trace every sample's lifecycle, in memory.

    Args:
        model: The model.
        items: The items, generated or read from a file.
        folds: Folds of the probe and the surface baseline.
        seed: Seed of the folds.
        probe_c: Inverse strength of the probe's L2 penalty.
        tail_start: The tail is every layer ``l >= floor(tail_start * L)``.
        confident: The least tail confidence of a misresolved sample.
        progress: Show progress bars.

    Raises:
        ValueError: If the model cannot say the answer classes in one token each, or items are too few.
    """
    space = model.answer_space(items.prompts, DIGITS)
    fold = assign_folds(items, folds, seed)
    passed = model.forward(items.prompts, space, progress=progress)
    residuals = Residuals.of(passed.residuals, items.ids, passed.tokens, model.name)
    inputs = Inputs(model, items, fold, residuals, space, probe_c, progress)
    readouts = {r.decoder: r for decode in DECODERS.values() for r in decode(inputs)}
    life = lifecycles(
        items,
        readouts,
        passed.output.predicted,
        missed_format(passed.output.top_id, space),
        tail_start=tail_start,
        confident=confident,
    )
    return Trace(items, fold, readouts, life, model.name, residuals)
