"""Logit lens: the final norm and the unembedding, applied to the residual of every layer.

It asks whether the answer already stands in the output basis; an answer that later layers must still
rotate there is invisible to it. A tuned lens translates the residual first: see
:mod:`brewlens.decoding.tuned_lens`.

Residuals are read block by block of samples, so the memory above the results does not grow with their
number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from brewlens.answers import AnswerSpace
from brewlens.decoding.readout import Readout
from brewlens.decoding.sequences import read_sequences
from brewlens.residuals import Residuals

if TYPE_CHECKING:
    from brewlens.model import HookedModel

STREAM = ("resid_pre", "resid_mid", "resid_post")
_BLOCK = 2**24  # residual entries that are read at a time: 64 MiB in float32


def logit_lens(model: HookedModel, residuals: Residuals, space: AnswerSpace) -> Readout:
    """Read every residual by the model's own final norm and unembedding, restricted to the classes.

    Args:
        model: The model that the residuals come from.
        residuals: The residual stream at any layers, streamed.
        space: The answer classes. Where they have several tokens, the prompts are run again with the
            beginnings of the answers behind them (see :mod:`brewlens.decoding.sequences`).

    Raises:
        ValueError: If the residuals are not the residual stream of a model of this shape.
    """
    return read_layers(model, residuals, space, "logit_lens", STREAM)


def read_layers(
    model: HookedModel,
    residuals: Residuals,
    space: AnswerSpace,
    decoder: str,
    taps: tuple[str, ...],
    translate: Callable[[Float[Tensor, "row d_model"], int], Float[Tensor, "row d_model"]] | None = None,
) -> Readout:
    """Read every residual by the model's final norm and unembedding, translated or as it is.

    Args:
        model: The model that the residuals come from.
        residuals: Of any layers, streamed.
        space: The answer classes.
        decoder: What the readout is called.
        taps: The taps whose residuals may be read.
        translate: Maps residuals and their layer (0-based) to what the final norm reads.
    """
    check_taps(model, residuals, decoder, taps)
    if not space.single:
        return read_sequences(model, residuals, space, decoder, translate)
    logits = np.empty((len(residuals), residuals.n_layers, len(space)), dtype=np.float32)
    other = np.empty(logits.shape[:2], dtype=np.float32)
    for rows, values in residuals.blocks(block_size(residuals)):
        for at, layer in enumerate(residuals.layers):
            h = values[:, at].to(model.device)
            answer = model.read_out(h if translate is None else translate(h, layer), space)
            logits[rows, at], other[rows, at] = answer.logits.numpy(), answer.other_mass.numpy()
    return Readout(logits, space.classes, decoder, residuals.item_ids, other)


def check_taps(model: HookedModel, residuals: Residuals, decoder: str, taps: tuple[str, ...]) -> None:
    """Refuse residuals of another tap, or of a model of another shape.

    Raises:
        ValueError: Says what they are.
    """
    fits = residuals.d_model == model.d_model and max(residuals.layers) < model.n_layers
    if residuals.tap not in taps or not fits:
        raise ValueError(
            f"{decoder} of {model.name} reads {' or '.join(taps)} of {model.n_layers} layers x "
            f"{model.d_model}, found {residuals!r} of layers {list(residuals.layers)}; capture them from "
            "this model"
        )


def block_size(residuals: Residuals) -> int:
    """Samples to read at a time, so that a block stays within 64 MiB of float32."""
    return max(1, _BLOCK // (residuals.n_layers * residuals.d_model))
