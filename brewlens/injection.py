"""Two ways to put residuals into target prompts; the self-check decides which one a model gets.

*Growing*: the target's prefix runs once, and its keys and values are kept. Then its last token runs as a
batch of one; the output of block ``l`` is joined by the rows to be injected there, so a row only passes
the blocks behind its own layer, and only one token of it. Rotary embeddings, masks and windows come from
the model's own forward and broadcast over the rows. Row 0 stays the target prompt itself.

*Padded*: every row runs its whole target prompt. Slower, and right for any causal model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from brewlens.answer_logits import AnswerLogits
from brewlens.answers import AnswerSpace
from brewlens.batching import Batch

if TYPE_CHECKING:
    from brewlens.model import HookedModel

Found = Iterator[tuple[Int[Tensor, "row"], AnswerLogits]]


class PrefixCache(DynamicCache):
    """Keys and values of one prefix, shown to any number of rows and never written to."""

    def __init__(self, filled: DynamicCache) -> None:
        super().__init__()
        self.layers = filled.layers

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        layer: Any = self.layers[layer_idx]
        rows = len(key_states)
        return (
            torch.cat([layer.keys.expand(rows, -1, -1, -1), key_states], dim=-2),
            torch.cat([layer.values.expand(rows, -1, -1, -1), value_states], dim=-2),
        )


def growing(
    model: HookedModel,
    values: Float[Tensor, "row d_model"],
    targets: Sequence[tuple[int, ...]],
    layers: Int[Tensor, "row"],
    space: AnswerSpace,
    batch_tokens: int,
) -> Found:
    """Inject every row, one distinct target after the other.

    Args:
        model: The model.
        values: What is written.
        targets: Token ids of each row's target prompt.
        layers: Block (0-based) at whose output each row is written.
        space: The answer classes.
        batch_tokens: Bounds the number of rows times the length of the target.

    Yields:
        Row numbers, and what the model says there.
    """
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, ids in enumerate(targets):
        rows_of.setdefault(ids, []).append(row)
    for ids, same in rows_of.items():
        prefix, last = ids[:-1], model.batch([ids[len(ids) - 1 :]])
        cache = PrefixCache(model.prefix_cache(model.batch([prefix]))) if prefix else None
        size = max(1, min(model.max_rows, batch_tokens // len(ids)))
        for rows in torch.tensor(same).split(size):
            rows = rows[torch.argsort(layers[rows], stable=True)]
            pairs = [
                (model.block_output(layer), _joiner(values[rows[layers[rows] == layer]]))
                for layer in layers[rows].unique().tolist()
            ]
            with model.hooks(pairs):
                logits = model.last_logits(last, lambda x, hook: x[1:], past_key_values=cache)
            yield rows, AnswerLogits.of(logits, space)


def padded(
    model: HookedModel,
    values: Float[Tensor, "row d_model"],
    targets: Sequence[tuple[int, ...]],
    layers: Int[Tensor, "row"],
    space: AnswerSpace,
    batch_tokens: int,
) -> Found:
    """Inject every row into a target prompt of its own; arguments and results as in :func:`growing`."""
    for rows, batch in model.id_batches(targets, batch_tokens):
        pairs = []
        for layer in layers[rows].unique().tolist():
            here = (layers[rows] == layer).nonzero().squeeze(1)
            pairs.append((model.block_output(layer), _writer(batch, values[rows[here]], here)))
        # Not yielded inside the block: while a generator waits there, its hooks stay attached.
        with model.hooks(pairs):
            output = model.run(batch, space)
        yield rows, output


def _joiner(values: Float[Tensor, "row d_model"]) -> Callable[..., Tensor]:
    def join(x: Tensor, hook: Any) -> Tensor:
        return torch.cat([x, values.to(x).unsqueeze(1)])

    return join


def _writer(
    batch: Batch, values: Float[Tensor, "some d_model"], rows: Int[Tensor, "some"]
) -> Callable[..., Tensor]:
    def write(x: Tensor, hook: Any) -> Tensor:
        return batch.replace(x, values, rows)

    return write
