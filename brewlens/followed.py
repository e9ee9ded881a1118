"""Followed: what a written row has become one block later, read by the logit lens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from brewlens.answer_logits import AnswerLogits
from brewlens.answers import AnswerSpace

if TYPE_CHECKING:
    from brewlens.model import HookedModel

Pick = Callable[[Tensor, Tensor], Tensor]


class Followed:
    """The last token's residual at the output of the block after the one that a row is written in.

    Args:
        model: The model.
        layers: ``[row]`` block (0-based) that each row is written in, or at whose output; behind the last
            block there is none, so its own output is read.
    """

    def __init__(self, model: HookedModel, layers: Int[Tensor, "row"]) -> None:
        self._model = model
        self._layers = (layers + 1).clamp(max=model.n_layers - 1)
        self._states = torch.empty(len(layers), model.d_model, device=model.device, dtype=model.dtype)

    def hooks(self, pick: Pick) -> list[tuple[str, Callable[..., None]]]:
        """Hooks that read; they must be attached behind those that write.

        Args:
            pick: ``pick(x, rows)`` is what a block's output ``x`` holds at the last prompt token of ``rows``,
                ``[row, d_model]``.
        """

        def reader(rows: Int[Tensor, "some"]) -> Callable[..., None]:
            def read(x: Float[Tensor, "row position d_model"], hook: Any) -> None:
                self._states[rows.to(self._states.device)] = pick(x, rows).to(self._states)

            return read

        return [
            (self._model.block_output(layer), reader((self._layers == layer).nonzero().squeeze(1)))
            for layer in self._layers.unique().tolist()
        ]

    def read_out(self, space: AnswerSpace) -> AnswerLogits:
        """Final norm and unembedding of what was read, rows ``[row]``."""
        return self._model.read_out(self._states, space)
