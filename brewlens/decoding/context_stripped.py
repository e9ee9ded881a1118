"""Context-stripped decoding: can the model's own later layers use this residual without the program?

Run a target prompt that holds only the question; at its last token overwrite the output of block ``l``
by the residual of the source run; let blocks ``l+1 .. L-1`` run and read the logits. Subtracting the
logits of the un-patched target prompt takes away what the question alone suggests (arXiv 2606.17648,
section 3): ``C[l] = softmax(z_patched - z_base)`` over the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from brewlens.answers import AnswerSpace
from brewlens.decoding.readout import Readout
from brewlens.residuals import Residuals
from brewlens.tasks.item import ItemSet

if TYPE_CHECKING:
    from brewlens.model import HookedModel

CONSTANT_SUFFIX = '# The value of x is "'


def own_suffixes(items: ItemSet) -> tuple[str, ...]:
    """The question of each item, as target prompts; the constant one for items that name none."""
    return tuple(item.suffix or CONSTANT_SUFFIX for item in items)


def context_stripped(
    model: HookedModel,
    residuals: Residuals,
    targets: Sequence[str],
    space: AnswerSpace,
    *,
    progress: bool = False,
) -> tuple[Readout, Readout]:
    """Context-stripped decoding of every sample at every layer.

    At the last layer the raw version is the model's own answer restricted to the classes.

    Args:
        model: The model that the residuals come from.
        residuals: ``[sample, layer, d_model]``.
        targets: One target prompt per sample, for example :func:`own_suffixes`.
        space: The answer classes.
        progress: Show a progress bar.

    Returns:
        The readout with the prior subtracted (``context_stripped``), and without
        (``context_stripped_raw``). ``other_mass`` of both is that of the patched run, un-subtracted.
    """
    patched = model.inject(residuals.values, targets, space, progress=progress)
    prior = model.base_logits(targets, space).logits.unsqueeze(1)
    other = patched.other_mass.numpy()
    subtracted, raw = (patched.logits - prior).numpy(), patched.logits.numpy()
    ids = residuals.item_ids
    return (
        Readout(subtracted, space.classes, "context_stripped", ids, other),
        Readout(raw, space.classes, "context_stripped_raw", ids, other),
    )
