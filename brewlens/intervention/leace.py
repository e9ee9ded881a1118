"""Erase every linear trace of the answer: LEACE, least-squares concept erasure.

Erasing a probe's subspace leaves what another probe could read. LEACE (Belrose et al. 2023, arXiv 2306.03819)
is the least change, in the mean square, after which no linear probe does better than one that reads nothing,
on the states that it was fitted on; on others, such as the sample's own fold, traces may remain. It takes the
class means out along directions that follow the covariance, so it is no orthogonal projection and no
:class:`brewlens.intervention.edits.Subspace`.

Needs the package concept-erasure: ``pip install 'brewlens[leace]'``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from brewlens.intervention.edits import Edit, States, Where

if TYPE_CHECKING:
    from concept_erasure import LeaceEraser

_SVD_TOL = 1e-6  # of whitened covariances, in float64; the package's .01 leaves weak traces of the answer


def erase_leace(
    residuals: Float[Tensor, "sample layer width"],
    classes: Int[Tensor, "sample"],
    families: Sequence[str],
    folds: Int[np.ndarray, "sample"],
) -> Edit:
    """Erase the answer, by what the family's samples of the other folds show of it.

    The donor is not looked at. An eraser is fitted when an edit first needs it: for each family, fold and
    layer that is written.

    Args:
        residuals: States of all samples in every layer.
        classes: Answer class of each sample.
        families: Of each sample.
        folds: Of each sample.

    Raises:
        ValueError: If the numbers of samples differ, or a family has samples in one fold only.
        ModuleNotFoundError: If concept-erasure is not installed.
    """
    try:
        import concept_erasure  # noqa: F401  (asked for now, not when the first state is written)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "erasure by LEACE needs the package concept-erasure; pip install 'brewlens[leace]'"
        ) from error
    if len({len(residuals), len(classes), len(families), len(folds)}) > 1:
        raise ValueError(
            f"residuals, classes, families and folds are of the same samples; found {len(residuals)}, "
            f"{len(classes)}, {len(families)} and {len(folds)}"
        )
    family, folds = np.asarray(families), np.asarray(folds)
    named = sorted(set(zip(family.tolist(), folds.tolist(), strict=True)))
    number = {place: at for at, place in enumerate(named)}
    groups = torch.tensor([number[place] for place in zip(family.tolist(), folds.tolist(), strict=True)])
    fitted_on = []
    for name, fold in named:
        others = np.flatnonzero((family == name) & (folds != fold))
        if not len(others):
            raise ValueError(f"family {name!r} has samples in fold {fold} only; give it two folds at least")
        fitted_on.append(torch.from_numpy(others))
    erasers: dict[tuple[int, int], LeaceEraser] = {}

    def eraser(group: int, layer: int) -> LeaceEraser:
        if (group, layer) not in erasers:
            rows = fitted_on[group]
            erasers[group, layer] = _fit(residuals[rows, layer], classes[rows])
        return erasers[group, layer]

    def apply(own: States, donor: States, where: Where) -> States:
        out = own.clone()
        group = groups[where.samples].unsqueeze(1).expand_as(where.layers)
        pairs = rearrange([group, where.layers], "of sample slot -> (sample slot) of")
        for one, layer in pairs.unique(dim=0).tolist():
            here = (group == one) & (where.layers == layer)
            out[here] = eraser(one, layer)(own[here])
        return out

    return Edit("erase_leace", apply)


def _fit(x: Float[Tensor, "sample width"], classes: Int[Tensor, "sample"]) -> LeaceEraser:
    from concept_erasure import LeaceEraser, LeaceFitter

    answers = torch.nn.functional.one_hot(classes).double()
    exact = LeaceFitter.fit(x.double(), answers, svd_tol=_SVD_TOL).eraser
    bias = None if exact.bias is None else exact.bias.to(x)
    return LeaceEraser(exact.proj_left.to(x), exact.proj_right.to(x), bias)
