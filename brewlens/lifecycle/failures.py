"""Failures beside noise: does the right answer play a part in them that any other digit would not?

A sample that the model answers wrongly is overprocessed, misresolved, unresolved or has no brewing, by
what the decoders say of its right answer. Chance puts other digits into these parts too. So every such
sample gets a control: another answer of its cell that the model did not say either. Were nothing known
about the right answer, it and the control could change places. Onsets are fitted for both alike, on the
wrongly answered samples alone: those that the model answers rightly must not lend theirs to the rest.

The parts of a digit add up to one, ``no_brewing`` among them, so that each of the three may exceed its null.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from brewlens.decoding.readout import Readout
from brewlens.lifecycle.landmarks import NEVER
from brewlens.lifecycle.onsets import fit_onsets
from brewlens.lifecycle.outcomes import RESOLUTION, classify
from brewlens.lifecycle.trajectory import Lifecycle
from brewlens.stats import Estimate, paired_difference
from brewlens.stats.robust import Labels

FAILURES = tuple(name for name in RESOLUTION if name != "resolved")
LEAST = 20
"""Wrongly answered samples below which nothing is fitted to them."""


def failure_excess(
    available: Readout,
    ready: Readout,
    lifecycle: Lifecycle,
    cells: Int[np.ndarray, "sample"],
    clusters: Labels | None = None,
    *,
    seed: int = 0,
) -> dict[str, Estimate | None]:
    """Share of wrongly answered samples in each failure, by onsets, minus that of their controls.

    Args:
        available: Readout of the availability decoder.
        ready: Readout of the readiness decoder.
        lifecycle: Of these two.
        cells: From :func:`brewlens.lifecycle.nulls.strata`: where answers are exchangeable if nothing is
            known.
        clusters: Shape of each sample.
        seed: Of the draw of controls.

    Returns:
        By failure, the paired difference of shares over the wrongly answered samples that have a control;
        None where they are fewer than ``LEAST``.
    """
    rows, controls = draw_controls(lifecycle, cells, seed)
    if len(rows) < LEAST:
        return dict.fromkeys(FAILURES)
    readouts, life = [readout.select(rows) for readout in (available, ready)], lifecycle.select(rows)
    own, other = (_parts(readouts[0], readouts[1], life, a) for a in (life.answers, controls))
    labels = None if clusters is None else np.asarray(clusters)[rows]
    return {name: paired_difference(own == name, other == name, labels) for name in FAILURES}


def draw_controls(
    lifecycle: Lifecycle, cells: Int[np.ndarray, "sample"], seed: int
) -> tuple[Int[np.ndarray, "row"], tuple[str, ...]]:
    """Wrongly answered samples, and for each the answer of another sample of its cell, not said by the model.

    Samples without such another are left out.
    """
    rng = np.random.default_rng(seed)
    answers, output = np.array(lifecycle.answers), np.array(lifecycle.output)
    rows, controls = [], []
    for cell in np.unique(cells):
        members = np.flatnonzero(cells == cell)
        for row in members[~lifecycle.output_correct[members]]:
            others = answers[members[(members != row) & (answers[members] != output[row])]]
            if len(others):
                rows.append(row)
                controls.append(str(rng.choice(others)))
    order = np.argsort(rows, kind="stable")
    return np.array(rows, dtype=int)[order], tuple(controls[k] for k in order)


def _parts(available: Readout, ready: Readout, lifecycle: Lifecycle, answers: Sequence[str]) -> np.ndarray:
    """What each sample would be if ``answers`` were the right ones; none of them is what the model said."""
    onset = fit_onsets(available, answers).onset
    joint = np.where(onset == NEVER, NEVER, fit_onsets(ready, answers, ends=True).onset)
    tail = np.array(lifecycle.tail_class) == np.array(answers)
    return classify(
        onset,
        joint,
        np.zeros(len(onset), dtype=bool),
        tail,
        lifecycle.tail_confidence,
        confident=float(lifecycle.settings["confident"]),  # type: ignore[arg-type]
    )
