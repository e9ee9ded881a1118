"""Where the answer stands in the residual stream: the span of a probe's weights, and placebos for it.

:func:`probe_subspace` is the least subspace that a linear probe reads the answers from: two states that agree
in it have the same differences of answer scores, and so the same log-probabilities among the answers. Whether
the model reads it too is what exchanging it tests (:func:`brewlens.intervention.edits.swap_subspace`).

Every sample is edited in the subspace of the probe that did not see it, nor its twins.
:func:`random_subspace` gives a placebo of equal rank that lies at right angles to a given subspace,
:func:`subspace_means` the states to erase towards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from brewlens.decoding.probes import OTHER
from brewlens.intervention.edits import Subspace

if TYPE_CHECKING:
    from brewlens.decoding.probes import Probes

_RANK_TOL = 1e-5  # singular values below this share of the largest are rounding of float32 weights
_FILL_SEED = 0


def probe_subspace(probes: Probes, item_ids: Sequence[str]) -> Subspace:
    """What the probe of each sample's own fold, which did not see it, reads the answers from.

    The span of the answer classes' weight rows, their mean taken off; the class ``other`` is left out, and so
    is a class that the training fold lacks. With ten answers its rank is nine. All bases have the largest
    rank that one of them needs; a basis that needs less (its fold lacks a class, or all weights of a layer
    are zero) is filled up by random directions that the probe does not read.

    Args:
        probes: Linear ones, of every block.
        item_ids: The samples, among those of the fit.

    Returns:
        Groups are the pairs (family, fold) that occur.

    Raises:
        ValueError: If the probes are not linear or not of every block, an item is not among those of the fit,
            or no probe tells two answers apart.
    """
    if probes.hidden is not None:
        raise ValueError(
            f"a probe subspace is the span of a linear probe's weights, found kind {probes.kind!r}; fit "
            "'logistic' or 'ridge' probes"
        )
    if probes.layers != tuple(range(len(probes.layers))):
        raise ValueError(
            f"a subspace has a basis for every block from 0, found probes of layers {list(probes.layers)}; "
            "fit them on the residuals of all layers"
        )
    if unknown := [i for i in item_ids if i not in probes.item_folds]:
        raise ValueError(
            f"{len(unknown)} of {len(item_ids)} items are not among those that the probes were fitted on, "
            f"first {unknown[:3]}, so no probe is known not to have seen their like; fit probes on them"
        )
    places = [(probes.item_groups[i], probes.item_folds[i]) for i in item_ids]
    number = {place: at for at, place in enumerate(sorted(set(places)))}
    found = [
        _answer_directions(probes, probes.groups.index(group), probes.folds.index(fold))
        for group, fold in number
    ]
    directions, there = (torch.stack(part) for part in zip(*found, strict=True))
    rank = int(there.sum(-1).max()) if there.any() else 0
    if rank == 0:
        raise ValueError("no probe tells any two answers apart: all answer weights are equal")
    bases = _filled(directions[..., :rank], there[..., :rank])
    return Subspace("probe", bases.float(), torch.tensor([number[place] for place in places]))


def _answer_directions(
    probes: Probes, group: int, fold: int
) -> tuple[Float[Tensor, "layer width answer"], Bool[Tensor, "layer answer"]]:
    """Left singular vectors of the centred answer weights, strongest first, and which of them are there."""
    n_answers = len(probes.classes) - (probes.classes[-1] == OTHER)
    weight = probes.weight[group, :, fold, :n_answers].double()
    known = (probes.bias[group, :, fold, :n_answers] > -torch.inf).unsqueeze(-1)
    mean = (weight * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1)
    left, strength, _ = torch.linalg.svd(((weight - mean) * known).mT, full_matrices=False)
    return left, strength > _RANK_TOL * strength[:, :1].clamp_min(torch.finfo(torch.float32).tiny)


def _filled(
    directions: Float[Tensor, "*basis width rank"], there: Bool[Tensor, "*basis rank"]
) -> Float[Tensor, "*basis width rank"]:
    """Bases in which the columns that are not there are random, at right angles to those that are."""
    if there.all():
        return directions
    kept = directions * there.unsqueeze(-2)
    drawn = _perpendicular(kept, torch.Generator().manual_seed(_FILL_SEED))
    return torch.where(there.unsqueeze(-2), kept, drawn)


def _perpendicular(
    bases: Float[Tensor, "*basis width rank"], generator: torch.Generator
) -> Float[Tensor, "*basis width rank"]:
    """Random orthonormal columns at right angles to those of each basis, as many as it has."""
    drawn = torch.randn(bases.shape, generator=generator, dtype=torch.float64)
    exact = bases.double()
    for _ in range(2):  # once more takes off what rounding left
        drawn = torch.linalg.qr(drawn - exact @ (exact.mT @ drawn))[0]
    return drawn


def random_subspace(like: Subspace, seed: int = 0) -> Subspace:
    """A random subspace at right angles to a given one, of equal rank, for every group and layer.

    Args:
        like: The subspace whose placebo it is.
        seed: Of the draw.

    Raises:
        ValueError: If the width does not hold both.
    """
    width = like.bases.shape[2]
    if 2 * like.rank > width:
        raise ValueError(
            f"a random subspace of rank {like.rank} at right angles to subspace {like.name!r} of that rank "
            f"needs a width of {2 * like.rank} at least, found {width}; take a subspace of lower rank"
        )
    drawn = _perpendicular(like.bases, torch.Generator().manual_seed(seed))
    return Subspace("random", drawn.to(like.bases), like.groups)


def subspace_means(
    subspace: Subspace,
    residuals: Float[Tensor, "sample layer width"],
    families: Sequence[str],
    folds: Int[np.ndarray, "sample"],
) -> Float[Tensor, "group layer width"]:
    """The mean state of each group's families over the folds that the group has no sample in.

    For the subspace of out-of-fold probes that is the mean of a family's samples outside the fold. For a
    subspace learned on halves, give one name as the family of all, and the halves as folds.

    Args:
        subspace: Whose groups.
        residuals: States of all samples in every layer.
        families: Of each sample.
        folds: Of each sample.

    Returns:
        float32; for a group without samples, which no edit looks up, zero.

    Raises:
        ValueError: If the numbers of samples differ, or a group leaves no sample to take the mean of.
    """
    lengths = {len(subspace.groups), len(residuals), len(families), len(folds)}
    if len(lengths) > 1:
        raise ValueError(
            f"subspace, residuals, families and folds are of the same samples; found "
            f"{len(subspace.groups)}, {len(residuals)}, {len(families)} and {len(folds)}"
        )
    family, groups, folds = np.asarray(families), subspace.groups.numpy(), np.asarray(folds)
    means = torch.zeros(len(subspace.bases), *residuals.shape[1:])
    for group in np.unique(groups):
        own = groups == group
        others = np.isin(family, family[own]) & ~np.isin(folds, folds[own])
        if not others.any():
            raise ValueError(
                f"group {group} of subspace {subspace.name!r} has samples of {sorted(set(family[own]))} in "
                f"folds {sorted(set(folds[own].tolist()))}, and these have none in another fold; give the "
                "folds (or halves) that the subspace was fitted by"
            )
        means[group] = residuals[torch.from_numpy(np.flatnonzero(others))].double().mean(0).float()
    return means
