"""Exchanges: the arms of causal use, every edit with its counterfactual donor and its controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace as replaced
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from brewlens.intervention.donors import Donor, same_answer, shuffled
from brewlens.intervention.edits import (
    Edit,
    Subspace,
    as_far_as,
    erase_subspace,
    noise,
    replace,
    swap_subspace,
)
from brewlens.intervention.grid import Arm
from brewlens.intervention.subspaces import random_subspace

if TYPE_CHECKING:
    from brewlens.intervention.stretches import Cases

WHOLE, PROBE, LEARNED, ERASE = "whole", "probe_subspace", "learned_subspace", "erase"
COUNTERFACTUAL, SAME, SHUFFLED = "counterfactual", "same_answer", "shuffled"
NOISE, RANDOM, MEAN, RESAMPLED = "noise", "random_subspace", "mean", "resampled"


def exchanges(
    cases: Cases,
    subspaces: Mapping[str, Subspace],
    means: Float[Tensor, "group layer width"] | None,
    seed: int = 0,
) -> list[Arm]:
    """The arms: four edits with four controls each, beside the no-op that every grid has.

    A donor with the same answer is one in which it is available, at the layers where it is.

    Args:
        cases: The samples and their twins.
        subspaces: ``probe_subspace`` and ``learned_subspace`` of these samples, as far as there are.
        means: What the probe's subspace is erased towards; None leaves erasure out.
        seed: Of donors, random subspaces and noise.
    """
    samples = cases.samples
    same = _where_available(cases, same_answer(samples.own, samples.targets, samples.families, seed))
    other = shuffled(samples.own, samples.targets, samples.families, seed)
    apart = {name: random_subspace(subspace, seed) for name, subspace in subspaces.items()}
    edits = {WHOLE: replace(), **{name: swap_subspace(found) for name, found in subspaces.items()}}
    arms = []
    for name, edit in edits.items():
        # Of the whole state, which has no complement, any of the random subspaces.
        outside = apart.get(name, next(iter(apart.values()), None))
        arms += _exchange(name, edit, outside, cases.donor, same, other, seed)
    if means is not None and PROBE in subspaces:
        arms += _erasure(subspaces[PROBE], apart[PROBE], means, same, other, seed)
    return arms


def _where_available(cases: Cases, donor: Donor) -> Donor:
    """The donor, where its answer is available; elsewhere its state is one of another kind."""
    return replaced(donor, where=torch.from_numpy(cases.available)[donor.rows.clamp_min(0)])


def _exchange(
    name: str, edit: Edit, outside: Subspace | None, donor: Donor, same: Donor, other: Donor, seed: int
) -> list[Arm]:
    arms = [
        Arm(name, COUNTERFACTUAL, edit, donor),
        Arm(name, SAME, edit, same, control=True),
        Arm(name, SHUFFLED, edit, other, control=True),
        Arm(name, NOISE, noise(edit, seed), donor, control=True),
    ]
    if outside is not None:
        arms.append(Arm(name, RANDOM, as_far_as(edit, swap_subspace(outside)), donor, control=True))
    return arms


def _erasure(
    subspace: Subspace,
    outside: Subspace,
    means: Float[Tensor, "group layer width"],
    same: Donor,
    other: Donor,
    seed: int,
) -> list[Arm]:
    erase, resample = erase_subspace(subspace, means), swap_subspace(subspace)
    return [
        Arm(ERASE, MEAN, erase),
        Arm(ERASE, RESAMPLED, resample, other),
        Arm(ERASE, SAME, resample, same, control=True),
        Arm(ERASE, NOISE, noise(erase, seed), control=True),
        Arm(ERASE, RANDOM, as_far_as(erase, erase_subspace(outside, means)), control=True),
    ]
