"""A planted truth laid over real items, so that whatever works on a trace can be tried on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from brewlens.answers import DIGITS
from brewlens.decoding.readout import Readout
from brewlens.lifecycle.trajectory import lifecycle
from brewlens.planted.simulated import simulate
from brewlens.planted.truth import Truth
from brewlens.results import Trace
from brewlens.tasks.item import ItemSet


def simulated_trace(
    items: ItemSet,
    folds: Int[np.ndarray, "sample"],
    truth: Truth,
    *,
    hit: float = 0.95,
    correlation: float | Float[np.ndarray, "sample"] = 0.0,
    seed: int = 0,
) -> tuple[Trace, Truth]:
    """A trace of simulated readouts over given items; the text-only baseline knows nothing.

    Args:
        items: The items, answered by digits.
        folds: Fold of each.
        truth: What is planted in each; its answers are replaced by those of the items.
        hit: See :func:`brewlens.planted.simulate`.
        correlation: See there.
        seed: Of the noise.

    Returns:
        The trace, and the truth about it.

    Raises:
        ValueError: If there is not one item per planted sample.
    """
    if len(items) != len(truth):
        raise ValueError(f"asked for one item per planted sample, found {len(items)} and {len(truth)}")
    answer = np.array([DIGITS.index(a) for a in items.answers])
    truth = replace(truth, answer=answer, wrong=(answer + truth.wrong - truth.answer) % 10)
    made = simulate(truth, hit=hit, correlation=correlation, seed=seed)
    readouts = {name: replace(readout, item_ids=items.ids) for name, readout in made.readouts.items()}
    text = np.random.default_rng(seed).standard_normal((len(items), 1, len(DIGITS)))
    readouts["surface"] = Readout(text.astype(np.float32), DIGITS, "surface", items.ids)
    life = lifecycle(
        readouts["probe"],
        readouts["context_stripped"],
        families=[item.family for item in items],
        answers=items.answers,
        output=made.output,
        format_miss=np.zeros(len(items), dtype=bool),
    )
    return Trace(items, folds, readouts, life, "simulated"), truth
