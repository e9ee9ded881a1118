"""Context-stripped decoding: can the model's own later layers use this residual without the program?

Run a target prompt that holds only the question; at its last token overwrite the output of block ``l``
by the residual of the source run; let blocks ``l+1 .. L-1`` run and read the logits. Subtracting the
logits of the un-patched target prompt takes away what the question alone suggests (arXiv 2606.17648,
section 3): ``C[l] = softmax(z_patched - z_base)`` over the classes.

The prior belongs to a run that has seen the question alone. Its share in the patched run falls from all of it
at the first layers to none of it at the last one, where the target prompt has no influence left: there the
raw version is the model's own answer, and subtracting a prior that is not flat bends it the other way.

Residuals are read block by block of samples, so the memory above the results does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from brewlens.answer_logits import AnswerLogits
from brewlens.answers import AnswerSpace
from brewlens.decoding.readout import Readout
from brewlens.decoding.targets import CONSTANT_SUFFIX, own_suffixes
from brewlens.progress import bar
from brewlens.residuals import RESID_POST, Residuals

if TYPE_CHECKING:
    from brewlens.model import HookedModel, Prompt

__all__ = ["CONSTANT_SUFFIX", "context_stripped", "own_suffixes", "patched_blocks", "prior_logits"]


def context_stripped(
    model: HookedModel,
    residuals: Residuals,
    targets: Sequence[Prompt],
    space: AnswerSpace,
    *,
    progress: bool = False,
) -> tuple[Readout, Readout]:
    """Context-stripped decoding of every sample at every layer, with one target prompt each.

    At the last layer the raw version is the model's own answer restricted to the classes.

    Args:
        model: The model that the residuals come from.
        residuals: ``[sample, layer, d_model]``, streamed.
        targets: One target prompt per sample, as text or token ids, for example :func:`own_suffixes`.
        space: The answer classes.
        progress: Show a progress bar.

    Returns:
        The readout with the prior subtracted (``context_stripped``), and without
        (``context_stripped_raw``). ``other_mass`` of both is that of the patched run, un-subtracted.

    Raises:
        ValueError: If there is not one target per sample, or the residuals are not block outputs.
    """
    raw = np.empty((len(residuals), residuals.n_layers, len(space)), dtype=np.float32)
    other = np.empty(raw.shape[:2], dtype=np.float32)
    for _, rows, patched in patched_blocks(model, residuals, [targets], space, progress=progress):
        raw[rows], other[rows] = patched.logits.numpy(), patched.other_mass.numpy()
    prior = model.base_logits(targets, space).logits.numpy()
    ids = residuals.item_ids
    return (
        Readout(raw - prior[:, None], space.classes, "context_stripped", ids, other),
        Readout(raw, space.classes, "context_stripped_raw", ids, other),
    )


def prior_logits(subtracted: Readout, raw: Readout) -> Float[np.ndarray, "sample class"]:
    """The prior that :func:`context_stripped` subtracted: logits of the un-patched target prompts.

    Raises:
        ValueError: If the two differ by more than one distribution per sample.
    """
    difference = raw.logits - subtracted.logits
    spread = np.ptp(difference, axis=1).max(initial=0)
    if not spread <= 1e-3 * max(1.0, float(np.abs(raw.logits).max(initial=0))):
        raise ValueError(
            f"{raw.decoder} minus {subtracted.decoder} must be one prior for all layers of a sample, found "
            f"differences of {spread:.2g} between layers; give both results of one context_stripped call"
        )
    return difference[:, 0]


def patched_blocks(
    model: HookedModel,
    residuals: Residuals,
    prompts: Sequence[Sequence[Prompt]],
    space: AnswerSpace,
    *,
    progress: bool = False,
) -> Iterator[tuple[int, slice, AnswerLogits]]:
    """What the model says, block by block of samples, with each of several target prompts.

    Every block of residuals is read once for all prompts.

    Args:
        model: The model that the residuals come from.
        residuals: ``[sample, layer, d_model]``, streamed.
        prompts: Several times one target prompt per sample.
        space: The answer classes.
        progress: Show a progress bar.

    Yields:
        The number of the prompt, which samples, and the answer logits ``[sample, layer]``.

    Raises:
        ValueError: If there is not one target per sample, or the residuals are not block outputs.
    """
    for targets in prompts:
        if len(targets) != len(residuals):
            raise ValueError(
                f"one target prompt per sample: found {len(targets)} for {len(residuals)} samples"
            )
    if residuals.tap != RESID_POST:
        raise ValueError(
            f"context-stripped decoding overwrites block outputs ({RESID_POST}), found residuals of "
            f"{residuals.tap!r}; capture {RESID_POST}"
        )
    samples = len(residuals) * len(prompts)
    with bar(total=samples, shown=progress, unit="sample", work="context-stripped decoding") as done:
        for rows, values in residuals.blocks():
            for number, targets in enumerate(prompts):
                yield number, rows, model.inject(values, targets[rows], space, layers=residuals.layers)
                done.update(len(values))
