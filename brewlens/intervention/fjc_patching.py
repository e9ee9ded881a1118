"""Patching around the FJC: does the state of the jointly correct layer carry the right answer elsewhere?

The state ``h[FJC + o]`` of a sample's last token is written at the same layer of another prompt, at its last
token, and the output is compared with the sample's right answer (arXiv 2606.17648, section 6):

* ``into_neutral``: into a question without a program. Un-patched, it says the right answer by chance.
* ``into_twin``: into the prompt of the sample's counterfactual twin, the same program with one literal
  changed and another answer. The paper writes into "the original prompt"; a state written where it came from
  changes nothing, so the twin's prompt takes its place.

The FJC is the first layer at which context-stripped decoding and the probe are right. With the prompt that it
was read with, a patch at the FJC succeeds because the layer was chosen for that, and fails more often before
it: the published jump. Here the test prompts are other wordings, each sample gets one of them at random, and
a wording that the landmark was read with is refused. That cures the choice in part only: what is noise of the
state itself is the same behind every wording, so pure noise, too, succeeds at offset 0 more often than beside
it. Look at the offsets behind it, or take ``landmarks="onsets"``, which no single layer decides.

Controls: ``other_landmark``, the sample's own state around the FJC of another sample of the same family and
outcome, so that the depths are the same and only the alignment is gone (where both have the same FJC it is
the treatment); ``shuffled``, another such sample's state of the same layer; ``noise``, a move as far in a
random direction.

A sample with an early FJC has no layer far before it, and one with a late FJC none far behind: each offset is
compared with the no-op of its own samples, not with other offsets.

What it does not show: a landmark needs the right answer, so these are samples whose state works with at least
one wording. That it works elsewhere does not say that the sample's own run uses it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int

from brewlens.decoding.targets import BUNDLED, Target, resolve_all
from brewlens.intervention import effects
from brewlens.intervention.anchors import Anchors, Landmarks, anchors, refuse_reuse
from brewlens.intervention.donors import Donor, shuffled
from brewlens.intervention.edits import noise, replace
from brewlens.intervention.effects import Cell
from brewlens.intervention.grid import Arm, Grid, run_grid
from brewlens.intervention.samples import Samples, draw, gather
from brewlens.intervention.sites import states
from brewlens.lifecycle.landmarks import NEVER

if TYPE_CHECKING:
    import pandas as pd

    from brewlens.answers import AnswerSpace
    from brewlens.model import HookedModel, Prompt
    from brewlens.results import Trace

log = logging.getLogger("brewlens")

OFFSETS = (-8, -4, -2, 0, 2, 4)
WORDINGS = tuple(target for target in BUNDLED if target.kind == "paraphrase")
INTO_NEUTRAL, INTO_TWIN = "into_neutral", "into_twin"
OWN, OTHER_LANDMARK, SHUFFLED, NOISE = "own", "other_landmark", "shuffled", "noise"
OUTCOMES = ("all", "resolved", "overprocessed")


def fjc_patching(
    model: HookedModel,
    trace: Trace,
    *,
    offsets: Sequence[int] = OFFSETS,
    targets: Sequence[Target] = WORDINGS,
    landmarks: Landmarks = "first_hits",
    space: AnswerSpace | None = None,
    n: int | None = 1000,
    least: int = effects.LEAST,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Write states from around the FJC into a neutral prompt and into the counterfactual twin's.

    Args:
        model: The model of the trace.
        trace: With landmarks.
        offsets: Layers relative to the FJC. Those outside the model are missing, not moved inside.
        targets: Wordings of the neutral prompt; one that does not fit the tokenizer is left out with a
            warning.
        landmarks: The paper's first hits, or onsets.
        space: The answer classes; by default the trace's.
        n: Most samples, drawn at random from those with an FJC; None for all.
        least: Fewest samples of a row.
        seed: Of all that is drawn.
        progress: Show progress bars.

    Returns:
        Columns :data:`brewlens.intervention.effects.COLUMNS`: ``edit`` is ``into_neutral`` or ``into_twin``,
        the measure ``right``, ``aligned`` ``fjc``. Empty where no sample has an FJC.

    Raises:
        ValueError: If a wording is one that the landmarks were read with, none fits, an offset is given
            twice, or the trace is of another model.
    """
    if not len(offsets) or len(set(offsets)) < len(offsets):
        raise ValueError(f"give at least one offset, each once; found {list(offsets)}")
    found = anchors(trace, landmarks)
    rows = draw(found.fjc != NEVER, n, seed)
    if not len(rows):
        return effects.effect_table([], trace.shapes, "fjc_patching")
    samples = gather(model, trace, rows, found.outcome, space=space, progress=progress)
    twins = [samples.items.twin(item, "counterfactual") for item in samples.items]
    recipients: dict[str, list[Prompt | None]] = {
        INTO_NEUTRAL: _wordings(model, samples, found, targets, seed),
        INTO_TWIN: [None if twin is None else twin.prompt for twin in twins],
    }
    at = np.broadcast_to(np.array(offsets), (len(rows), len(offsets)))
    cells: list[Cell] = []
    for edit, prompts in recipients.items():
        for grid in _grids(model, samples, edit, prompts, found.fjc[rows], at, seed, progress):
            scores = effects.right(grid, samples.classes)
            cells += samples.cells(grid, scores, at, grid.layers != NEVER, OUTCOMES, "fjc")
    return effects.effect_table(cells, samples.shapes, "fjc_patching", least=least, seed=seed)


def _wordings(
    model: HookedModel, samples: Samples, found: Anchors, targets: Sequence[Target], seed: int
) -> list[Prompt | None]:
    """One wording for each sample, at random."""
    usable, left_out = resolve_all(targets, model, samples.items, samples.space, unusable="leave_out")
    for name, reason in left_out.items():
        log.warning("target prompt %s is left out: %s", name, reason)
    chosen = np.random.default_rng(seed).integers(len(usable), size=len(samples))
    every = list(usable.values())
    for prompts in every:
        refuse_reuse(found, samples.items, prompts)
    return [every[k][row] for row, k in enumerate(chosen.tolist())]


def _grids(
    model: HookedModel,
    samples: Samples,
    edit: str,
    prompts: Sequence[Prompt | None],
    fjc: Int[np.ndarray, "sample"],
    at: Int[np.ndarray, "sample slot"],
    seed: int,
    progress: bool,
) -> Iterator[Grid]:
    """The patches around each sample's own landmark with their placebos, and around another one's.

    A sample without a recipient keeps its own prompt, in which nothing is written.
    """
    there = np.array([prompt is not None for prompt in prompts])
    if not there.any():
        return
    recipients = [item.prompt if p is None else p for item, p in zip(samples.items, prompts, strict=True)]
    before = states(model, recipients, progress=progress)
    patch, own = replace(), Donor(OWN, samples.own, torch.arange(len(samples)), samples.targets)
    stranger = shuffled(samples.own, samples.targets, samples.strata, seed)
    aligned = (
        Arm(edit, OWN, patch, own),
        Arm(edit, SHUFFLED, patch, stranger, control=True),
        Arm(edit, NOISE, noise(patch, seed), own, control=True),
    )
    # Drawn apart from the shuffled donors: theirs is another question.
    other = shuffled(samples.own, samples.targets, samples.strata, seed + 1).rows.numpy()
    theirs = np.where(other == NEVER, NEVER, fjc[np.maximum(other, 0)])
    for landmark, arms in (
        (fjc, aligned),
        (theirs, (Arm(edit, OTHER_LANDMARK, patch, own, control=True),)),
    ):
        layers = landmark[:, None] + at
        inside = (there & (landmark != NEVER))[:, None] & (layers >= 0) & (layers < model.n_layers)
        slots = torch.from_numpy(np.where(inside, layers, NEVER))
        yield run_grid(model, recipients, before, arms, samples.space, layers=slots, progress=progress)
