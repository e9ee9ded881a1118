"""Transplant: what the MLP of one layer adds in a loop program, put into its exact unrolled twin, and back.

A loop program and its unrolled twin compute the same with the same names and literals, and end in the same
question. Where a model answers one of them rightly and the other not, and late MLPs are what makes the
difference, then the MLP output of the one carries the answer, right or wrong, into the other. At every
layer the MLP output at the last token of the donor's run is written in the place of the recipient's own;
recipients are the programs of either family, so ``family`` is the direction: ``loop_unrolled`` are unrolled
programs with the MLP output of their loop twin.

Three sets of pairs, in the column ``edit``:

* ``into_twin``: all.
* ``into_wrong``: only the donor is answered rightly. Does the transplant repair the recipient?
* ``into_right``: only the recipient is. Does it spoil it?

Controls: ``other_layer``, the donor's MLP output of another layer at random; ``other_pair``, that of the
same layer in another program of the donor's family at random; ``noise``, a move as far in a random
direction. Pairs of the last two sets were chosen by what the model says, so any disturbance moves them
towards the middle: an effect is what goes beyond the controls.

Measures: ``right``; ``unchanged``; ``follows``, for pairs whose donor is answered wrongly and otherwise
than the recipient: the output is the donor's wrong answer, beyond chance.

What it does not show: one layer at one token is exchanged. An overwriting that is spread over several
layers, or that attention brings in from other tokens, can be missed; and an MLP output carries what its
input made of it, so that the answer may have been decided before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace as changed
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import repeat
from jaxtyping import Bool, Float, Int

from brewlens.intervention import effects
from brewlens.intervention.donors import Donor, shuffled
from brewlens.intervention.edits import noise, replace
from brewlens.intervention.effects import Cell
from brewlens.intervention.grid import Arm, Grid, run_grid
from brewlens.intervention.samples import ALL, Samples, draw, gather, layers_from_end
from brewlens.intervention.sites import Site, states

if TYPE_CHECKING:
    import pandas as pd

    from brewlens.answers import AnswerSpace
    from brewlens.model import HookedModel
    from brewlens.results import Trace
    from brewlens.tasks.item import Item, ItemSet

SITE = Site("mlp_out")
KINDS = ("unrolled", "loop")
"""Kinds of twins that compute the same, one with a loop and one without."""
INTO_TWIN, INTO_WRONG, INTO_RIGHT = "into_twin", "into_wrong", "into_right"
TWIN, OTHER_LAYER, OTHER_PAIR, NOISE = "twin", "other_layer", "other_pair", "noise"
OUTCOMES = (ALL, "resolved", "overprocessed")


def transplant(
    model: HookedModel,
    trace: Trace,
    *,
    layers: Sequence[int] | None = None,
    space: AnswerSpace | None = None,
    n: int | None = 1000,
    least: int = effects.LEAST,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Exchange the MLP outputs of programs and their loop or unrolled twins, layer by layer.

    Args:
        model: The model of the trace.
        trace: With items that have such twins, among its items or beside them.
        layers: Blocks that are written (0-based; negative ones count from the end); all by default.
        space: The answer classes; by default the trace's.
        n: Most recipients, drawn at random; None for all.
        least: Fewest samples of a row.
        seed: Of all that is drawn.
        progress: Show progress bars.

    Returns:
        Columns :data:`brewlens.intervention.effects.COLUMNS`, ``aligned`` by layer. Empty where no item has
        such a twin.

    Raises:
        ValueError: If the model has no such layer, or the trace is of another model.
        ModelError: If the model has no MLP output that can be written.
    """
    written = layers_from_end(range(model.n_layers) if layers is None else layers, model.n_layers)
    there = np.array([twin_of(trace.items, item) is not None for item in trace.items])
    rows = draw(there, n, seed)
    if not len(rows):
        return effects.effect_table([], trace.shapes, "transplant")
    samples = gather(model, trace, rows, trace.lifecycle.outcome, space=space, progress=progress)
    twins = [twin for item in samples.items if (twin := twin_of(trace.items, item)) is not None]
    prompts = [twin.prompt for twin in twins]
    # In one call: most twins are recipients too, and each distinct prompt is run once.
    both = states(model, [*samples.items.prompts, *prompts], SITE, progress=progress)
    own, theirs = both[: len(rows)], both[len(rows) :]
    said = model.base_logits(prompts, samples.space, progress=progress).predicted
    donor = Donor(TWIN, theirs, torch.arange(len(rows)), said)
    slots = torch.from_numpy(written)
    grid = run_grid(
        model,
        samples.items.prompts,
        own,
        arms(donor, samples.families, slots, seed),
        samples.space,
        layers=slots,
        site=SITE,
        progress=progress,
    )
    cells = list(_cells(samples, grid, said.numpy()))
    return effects.effect_table(cells, samples.shapes, "transplant", least=least, seed=seed)


def twin_of(items: ItemSet, item: Item) -> Item | None:
    """The loop or unrolled twin of an item, if it is known."""
    for kind in KINDS:
        if (twin := items.twin(item, kind)) is not None:
            return twin
    return None


def arms(
    donor: Donor, families: Sequence[str] | np.ndarray, slots: Int[torch.Tensor, "slot"], seed: int
) -> tuple[Arm, ...]:
    """The transplant and its placebos.

    Args:
        donor: The twin of each sample, in the order of the samples.
        families: Family of each sample; another pair is drawn in it.
        slots: Blocks that are written.
        seed: Of the draws.
    """
    put, n, depth = replace(), len(donor.rows), donor.values.shape[1]
    found = [Arm(INTO_TWIN, TWIN, put, donor), Arm(INTO_TWIN, NOISE, noise(put, seed), donor, control=True)]
    pair = shuffled(donor.values, donor.classes, families, seed)
    found.append(Arm(INTO_TWIN, OTHER_PAIR, put, pair, control=True))
    if depth > 1:
        step = np.random.default_rng(seed).integers(1, depth, (n, len(slots)))
        elsewhere = (slots + torch.from_numpy(step)) % depth
        found.append(Arm(INTO_TWIN, OTHER_LAYER, put, changed(donor, source=elsewhere), control=True))
    return tuple(found)


def _cells(samples: Samples, grid: Grid, said: Int[np.ndarray, "sample"]) -> Iterator[Cell]:
    own, answer = grid.predicted[0, :, 0], samples.classes
    every = np.ones(len(samples), dtype=bool)
    wrong = (said != answer) & (said != own)
    right, unchanged = effects.right(grid, answer), effects.unchanged(grid)
    follows = effects.follows(grid, said, answer, _expected(said, answer, wrong, len(samples.space)))
    for edit, scores, pairs, outcomes in (
        (INTO_TWIN, right, every, OUTCOMES),
        (INTO_TWIN, unchanged, every, OUTCOMES),
        (INTO_TWIN, follows, wrong, OUTCOMES),
        (INTO_WRONG, right, (said == answer) & (own != answer), (ALL,)),
        (INTO_WRONG, unchanged, (said == answer) & (own != answer), (ALL,)),
        (INTO_RIGHT, right, (said != answer) & (own == answer), (ALL,)),
    ):
        eligible: Bool[np.ndarray, "sample slot"]
        eligible = repeat(pairs, "sample -> sample slot", slot=grid.layers.shape[1])
        for cell in samples.cells(grid, scores, grid.layers, eligible, outcomes, "layer"):
            yield changed(cell, labels={**cell.labels, "edit": edit})


def _expected(
    said: Int[np.ndarray, "sample"],
    answer: Int[np.ndarray, "sample"],
    wrong: Bool[np.ndarray, "sample"],
    classes: int,
) -> Float[np.ndarray, "sample class"]:
    """How likely each class is to be donated: its share among the wrong answers of other pairs' donors.

    Of pairs with the same right answer, as errors are often near it.
    """
    # One more, spread over all classes, so that none is impossible.
    counts = np.full((classes, classes), 1 / classes)
    np.add.at(counts, (answer[wrong], said[wrong]), 1)
    found = counts[answer]
    found[wrong, said[wrong]] -= 1
    return found / found.sum(axis=1, keepdims=True)
