"""Passes over any number of prompts, batch by batch: what is asked for is kept, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from brewlens.answer_logits import AnswerLogits
from brewlens.answers import AnswerSpace
from brewlens.batching import Batch

if TYPE_CHECKING:
    from brewlens.model import HookedModel


@dataclass(frozen=True)
class ForwardPass:
    """One pass over prompts.

    Attributes:
        residuals: ``[sample, layer, d_model]`` at block outputs, last prompt token, on the CPU.
        tokens: The token ids that the model read, one tuple per sample, without padding.
        output: The model's own answer logits, rows ``[sample]``.
    """

    residuals: Float[Tensor, "sample layer d_model"]
    tokens: tuple[tuple[int, ...], ...]
    output: AnswerLogits

    def __repr__(self) -> str:
        samples, layers, width = self.residuals.shape
        return f"ForwardPass({samples} samples x {layers} layers x {width})"


@dataclass(frozen=True)
class Swept:
    """What one batch of a sweep gave.

    Attributes:
        rows: ``[row]`` which prompts.
        taps: Tap name -> ``[row, layer, d_model]`` at each prompt's last token, on the CPU.
        output: The model's own answer logits, rows ``[row]``, if an answer space was given.
    """

    rows: Int[Tensor, "row"]
    taps: Mapping[str, Float[Tensor, "row layer d_model"]]
    output: AnswerLogits | None


def sweep(
    model: HookedModel,
    ids: Sequence[tuple[int, ...]],
    taps: Sequence[str],
    layers: Sequence[int] | None,
    space: AnswerSpace | None,
    batch_tokens: int | None,
    progress: bool,
) -> Iterator[Swept]:
    """See :meth:`brewlens.model.HookedModel.sweep`."""
    tapped = range(model.n_layers) if layers is None else layers
    for rows, batch in model.id_batches(ids, batch_tokens, progress):
        shape = (len(batch), len(tapped), model.d_model)
        buffers = {tap: torch.empty(shape, device=model.device, dtype=model.dtype) for tap in taps}
        pairs = [
            (model.tap(tap, layer), _reader(batch, buffer[:, at]))
            for tap, buffer in buffers.items()
            for at, layer in enumerate(tapped)
        ]
        output = None
        with model.hooks(pairs):
            if space is not None:
                output = model.run(batch, space)
            else:
                model.read_from(batch, lambda x, hook: x[:1, :1])
        yield Swept(rows, {tap: buffer.cpu() for tap, buffer in buffers.items()}, output)


def collect(
    model: HookedModel,
    ids: Sequence[tuple[int, ...]],
    taps: Sequence[str],
    layers: Sequence[int] | None,
    space: AnswerSpace | None,
    batch_tokens: int | None,
    dtype: torch.dtype,
    progress: bool,
) -> tuple[dict[str, Float[Tensor, "prompt layer d_model"]], Any]:
    """Taps of every prompt in memory, and the answers if a space is given."""
    depth = model.n_layers if layers is None else len(layers)
    values = {tap: torch.empty(len(ids), depth, model.d_model, dtype=dtype) for tap in taps}
    found, parts = [], []
    for swept in sweep(model, ids, taps, layers, space, batch_tokens, progress):
        for tap, here in swept.taps.items():
            values[tap][swept.rows] = here.to(dtype)
        found.append(swept.rows)
        parts.append(swept.output)
    return values, reordered(parts, found) if space is not None else None


def reordered(parts: Sequence[AnswerLogits | None], found: Sequence[Int[Tensor, "row"]]) -> AnswerLogits:
    """Answers of batches in the order of their rows."""
    there = [part for part in parts if part is not None]
    return AnswerLogits.concatenate(there)[torch.argsort(torch.cat(list(found)))]


def _reader(batch: Batch, into: Float[Tensor, "row d_model"]) -> Callable[..., None]:
    def read(x: Tensor, hook: Any) -> None:
        into.copy_(batch.gather(x))

    return read
