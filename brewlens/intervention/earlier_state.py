"""A sample's own earlier state, written again at a later layer of the same prompt, beside its placebos.

What layer skipping, re-injection and rescue policies have in common. Each way of writing comes with three
placebos: the sample's own state of a random other layer before the one written, the state that another sample
of the same family and outcome has at *its* landmark, and a move as far in a random direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace as replaced
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int

from brewlens.intervention import effects
from brewlens.intervention.donors import Donor, earlier, shuffled
from brewlens.intervention.edits import Edit, blend, noise, norm_match, replace
from brewlens.intervention.effects import Cell
from brewlens.intervention.grid import Arm, run_grid
from brewlens.intervention.samples import Samples
from brewlens.lifecycle.landmarks import NEVER

if TYPE_CHECKING:
    import pandas as pd

    from brewlens.model import HookedModel

MODES: tuple[Edit, ...] = (replace(), norm_match(), blend(0.3), blend(0.5))
"""How the paper writes an earlier state: as it is, as long as the recipient's, or mixed with that."""
OWN, OTHER_LAYER, SHUFFLED, NOISE = "own_earlier", "own_other_layer", "shuffled", "noise"


def earlier_state_effects(
    model: HookedModel,
    samples: Samples,
    source: Int[np.ndarray, "sample"],
    places: Mapping[str, Int[np.ndarray, "sample _"]],
    edits: Sequence[Edit],
    outcomes: Sequence[str],
    experiment: str,
    *,
    least: int,
    seed: int,
    progress: bool,
) -> pd.DataFrame:
    """Whether outputs are right once the state of a landmark is written at later layers.

    Args:
        model: The model.
        samples: The samples.
        source: Layer of the landmark, or ``NEVER``.
        places: ``layer``: layers that are written; and by a landmark's name, layers counted from ``source``.
            Those not behind the source, or behind the last block, are missing.
        edits: How the state is written.
        outcomes: That get rows.
        experiment: For the table.
        least: Fewest samples of a row.
        seed: Of the placebos.
        progress: Show a progress bar.

    Returns:
        Columns :data:`brewlens.intervention.effects.COLUMNS`.
    """
    at = np.concatenate(list(places.values()), axis=1)
    aligned = np.repeat(list(places), [place.shape[1] for place in places.values()])
    layers = np.where(aligned == "layer", at, source[:, None] + at)
    there = (source[:, None] != NEVER) & (source[:, None] < layers) & (layers < model.n_layers)
    layers = np.where(there, layers, NEVER)
    grid = run_grid(
        model,
        samples.items.prompts,
        samples.own,
        earlier_state_arms(samples, source, layers, edits, seed),
        samples.space,
        layers=torch.from_numpy(layers),
        progress=progress,
    )
    scores = effects.right(grid, samples.classes)
    cells: list[Cell] = []
    for name in places:
        cells += samples.cells(grid, scores, at, there & (aligned == name), outcomes, name)
    return effects.effect_table(cells, samples.shapes, experiment, least=least, seed=seed)


def earlier_state_arms(
    samples: Samples,
    source: Int[np.ndarray, "sample"],
    written: Int[np.ndarray, "sample slot"],
    edits: Sequence[Edit] = MODES,
    seed: int = 0,
) -> tuple[Arm, ...]:
    """Each edit with the sample's own state at ``source``, and with its three placebos.

    Args:
        samples: The samples.
        source: Layer that is read, or ``NEVER``.
        written: Layer that is written, or ``NEVER``.
        edits: How it is written.
        seed: Of the placebos.
    """
    own = own_earlier(samples, np.broadcast_to(source[:, None], written.shape))
    other = replaced(own_earlier(samples, other_layers(source, written, seed)), name=OTHER_LAYER)
    stranger = shuffled(samples.own, samples.targets, samples.strata, seed)
    theirs = source[stranger.rows.clamp_min(0).numpy()]
    stranger = replaced(
        stranger, source=torch.from_numpy(np.broadcast_to(theirs[:, None], written.shape).copy())
    )
    found = []
    for edit in edits:
        found += [
            Arm(edit.name, OWN, edit, own),
            Arm(edit.name, OTHER_LAYER, edit, other, control=True),
            Arm(edit.name, SHUFFLED, edit, stranger, control=True),
            Arm(edit.name, NOISE, noise(edit, seed), own, control=True),
        ]
    return tuple(found)


def own_earlier(samples: Samples, source: Int[np.ndarray, "sample slot"]) -> Donor:
    """Each sample's own state, read at ``source``."""
    return earlier(samples.own, samples.targets, torch.from_numpy(np.array(source)))


def other_layers(
    source: Int[np.ndarray, "sample"], written: Int[np.ndarray, "sample slot"], seed: int = 0
) -> Int[np.ndarray, "sample slot"]:
    """For every slot a layer before the written one that is not the source; ``NEVER`` where there is none.

    Drawn evenly. A later layer would bring what the sample has not computed yet at the one written.
    """
    inside = (source[:, None] != NEVER) & (source[:, None] < written)
    choices = written - inside
    drawn = np.floor(np.random.default_rng(seed).random(written.shape) * np.maximum(choices, 1)).astype(int)
    drawn += inside & (drawn >= source[:, None])
    return np.where((written != NEVER) & (choices > 0), drawn, NEVER)
