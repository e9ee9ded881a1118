"""Lenses for answers of several tokens.

The lens at a layer says how probable each token of an answer is given the ones before it: so the prompt is
run again with the beginnings of the answers behind it, and the lens reads the same layer at every step. At
the last layer this is the model's own log-probability of the answer. Nothing of a run is kept but the scores;
each distinct beginning costs one pass over the prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from brewlens.answers import AnswerSpace
from brewlens.batching import Batch
from brewlens.decoding.readout import Readout
from brewlens.residuals import Residuals

if TYPE_CHECKING:
    from brewlens.model import HookedModel

Translate = Callable[[Float[Tensor, "row d_model"], int], Float[Tensor, "row d_model"]]


@torch.no_grad()
def read_sequences(
    model: HookedModel,
    residuals: Residuals,
    space: AnswerSpace,
    decoder: str,
    translate: Translate | None = None,
) -> Readout:
    """Log-probability of every answer under a lens at every layer.

    Args:
        model: The model that the residuals come from.
        residuals: Say which prompts (by the token ids that were read) and which layers.
        space: The answer classes.
        decoder: What the readout is called.
        translate: Maps residuals and their layer (0-based) to what the final norm reads.
    """
    logits = np.empty((len(residuals), residuals.n_layers, len(space)), dtype=np.float32)
    other = np.empty(logits.shape[:2], dtype=np.float32)
    for rows, batch in model.id_batches(residuals.tokens):
        scores = [model.scores(space) for _ in residuals.layers]
        for path in space.continuations:
            steps = 1 + len(path)
            states = _states(model, batch.followed_by(path), residuals, steps)
            for at, layer in enumerate(residuals.layers):
                h = rearrange(states[at], "row step width -> (row step) width")
                read = model.normed(h if translate is None else translate(h, layer))
                scores[at].add(path, rearrange(read, "(row step) width -> row step width", step=steps))
        for at, score in enumerate(scores):
            answer = score.result()
            logits[rows, at], other[rows, at] = answer.logits.numpy(), answer.other_mass.numpy()
    return Readout(logits, space.classes, decoder, residuals.item_ids, other)


def _states(
    model: HookedModel, batch: Batch, residuals: Residuals, steps: int
) -> Float[Tensor, "layer row step d_model"]:
    """The tap at each prompt's last token and the tokens behind it, in one forward."""
    shape = (residuals.n_layers, len(batch), steps, model.d_model)
    states = torch.empty(shape, device=model.device, dtype=model.dtype)

    def keeper(at: int) -> Callable[..., None]:
        def keep(x: Tensor, hook: Any) -> None:
            states[at].copy_(batch.gather_from(x, steps))

        return keep

    pairs = [(model.tap(residuals.tap, layer), keeper(at)) for at, layer in enumerate(residuals.layers)]
    with model.hooks(pairs):
        model.read_from(batch, lambda x, hook: x[:1, :1])
    return states
