"""Two ways to write states into target prompts; the self-check decides which one a model gets.

*Growing* (:mod:`brewlens.growing`): the targets' prefixes run once, and a row passes only the blocks that
its edit can change. *Padded* (here): every row runs its whole target prompt. Slower, and right for any causal
model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from brewlens import budget
from brewlens.answer_logits import AnswerLogits
from brewlens.batching import Batch
from brewlens.followed import Followed
from brewlens.growing import Found, growing
from brewlens.passes import reordered
from brewlens.progress import bar
from brewlens.rows import Rows

if TYPE_CHECKING:
    from brewlens.model import HookedModel


def run(
    model: HookedModel, rows: Rows, *, grows: bool, memory: int | None = None, progress: bool = False
) -> tuple[AnswerLogits, ...]:
    """Run every row.

    Args:
        model: The model.
        rows: What is written where.
        grows: Which way.
        memory: Bytes that one forward may take; by default what :mod:`brewlens.budget` says.
        progress: Show a progress bar.

    Returns:
        The answers, rows ``[row]``; if asked for, also those of the logit lens behind the next block.
    """
    if memory is None:
        memory = budget.ROWS[budget.kind(model)]
    found, parts = [], []
    with bar(total=len(rows), shown=progress, unit="row", work="writing states") as done:
        for chunk, outputs in (growing if grows else padded)(model, rows, memory):
            found.append(chunk)
            parts.append(outputs)
            done.update(len(chunk))
    return tuple(reordered(answers, found) for answers in zip(*parts, strict=True))


@torch.no_grad()
def padded(model: HookedModel, rows: Rows, memory: int) -> Found:
    """Write every row into a target prompt of its own; arguments and results as in :func:`growing`."""
    targets = [rows.prompts[t] for t in rows.target.tolist()]
    for chunk, batch in model.id_batches(targets, max(1, memory // budget.row_bytes(model, 0, 1))):
        pairs: list[tuple[str, Callable[..., Any]]] = []
        for layer in rows.layers[chunk].unique().tolist():
            here = (rows.layers[chunk] == layer).nonzero().squeeze(1)
            for k, position in enumerate(rows.positions):
                write = _writer(batch, rows.values[chunk[here], k], here, position)
                pairs.append((model.tap(rows.tap, layer), write))
        followed = Followed(model, rows.layers[chunk]) if rows.followed else None
        if followed is not None:
            pairs += followed.hooks(lambda x, here, batch=batch: batch.gather(x)[here.to(x.device)])
        # Not yielded inside the block: while a generator waits there, its hooks stay attached.
        with model.hooks(pairs):
            output = model.run(batch, rows.space)
        read = () if followed is None else (followed.read_out(rows.space),)
        yield chunk, (output, *read)


def _writer(
    batch: Batch, values: Float[Tensor, "some width"], rows: Int[Tensor, "some"], position: int
) -> Callable[..., Tensor]:
    def write(x: Tensor, hook: Any) -> Tensor:
        return batch.replace(x, values, rows, position)

    return write
