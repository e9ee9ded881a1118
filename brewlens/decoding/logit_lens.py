"""Logit lens: the final norm and the unembedding, applied to the residual of every layer.

It asks whether the answer already stands in the output basis; an answer that later layers must still
rotate there is invisible to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from brewlens.answers import AnswerSpace
from brewlens.decoding.readout import Readout
from brewlens.residuals import Residuals

if TYPE_CHECKING:
    from brewlens.model import HookedModel


def logit_lens(model: HookedModel, residuals: Residuals, space: AnswerSpace) -> Readout:
    """Read every residual by the model's own final norm and unembedding, restricted to the classes."""
    answer = model.read_out(residuals.values, space)
    return Readout(
        answer.logits.numpy(), space.classes, "logit_lens", residuals.item_ids, answer.other_mass.numpy()
    )
