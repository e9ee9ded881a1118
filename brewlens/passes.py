"""Passes over any number of prompts, batch by batch: what is asked for is kept, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from brewlens import html
from brewlens.answer_logits import AnswerLogits
from brewlens.answers import AnswerSpace
from brewlens.batching import Batch
from brewlens.brief import brief
from brewlens.errors import ModelError
from brewlens.residuals import SHOWN

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

    def _repr_html_(self) -> str:
        """Mean length of the residual by layer, and what the model says."""
        lengths = self.residuals[:SHOWN].float().norm(dim=-1).mean(dim=0).tolist()
        drawn = html.sparkline(lengths, "mean length", low=0)
        row = {f"mean length by layer, of {min(SHOWN, len(self.residuals))} samples": drawn}
        return html.card(repr(self), html.table([row]), html.Html(self.output._repr_html_()))


@dataclass(frozen=True)
class Swept:
    """What one batch of a sweep gave.

    Attributes:
        rows: ``[row]`` which prompts.
        taps: Tap name -> ``[row, layer, width]`` at each prompt's last token, on the CPU; where positions
            were asked for, ``[row, layer, position, width]``.
        output: The model's own answer logits, rows ``[row]``, if an answer space was given.
    """

    rows: Int[Tensor, "row"]
    taps: Mapping[str, Float[Tensor, "row layer *position _"]]
    output: AnswerLogits | None

    __repr__ = brief


def sweep(
    model: HookedModel,
    ids: Sequence[tuple[int, ...]],
    taps: Sequence[str],
    layers: Sequence[int] | None = None,
    space: AnswerSpace | None = None,
    batch_tokens: int | None = None,
    progress: bool = False,
    positions: Sequence[int] | None = None,
) -> Iterator[Swept]:
    """See :meth:`brewlens.model.HookedModel.sweep`; with ``positions``, taps have an axis of them."""
    tapped = range(model.n_layers) if layers is None else layers
    for rows, batch in model.id_batches(ids, batch_tokens, progress):
        buffers = {tap: _Buffer(model, batch, len(tapped), positions) for tap in taps}
        pairs = [
            (model.tap(tap, layer), buffer.reader(at))
            for tap, buffer in buffers.items()
            for at, layer in enumerate(tapped)
        ]
        output = None
        with model.hooks(pairs):
            if space is not None:
                output = model.run(batch, space)
            else:
                model.read_from(batch, lambda x, hook: x[:1, :1])
        yield Swept(rows, {tap: buffer.result(tap) for tap, buffer in buffers.items()}, output)


def collect(
    model: HookedModel,
    ids: Sequence[tuple[int, ...]],
    taps: Sequence[str],
    layers: Sequence[int] | None = None,
    space: AnswerSpace | None = None,
    batch_tokens: int | None = None,
    dtype: torch.dtype = torch.float32,
    progress: bool = False,
    positions: Sequence[int] | None = None,
) -> tuple[dict[str, Float[Tensor, "prompt layer *position _"]], Any]:
    """Taps of every prompt in memory, and the answers if a space is given."""
    values: dict[str, Tensor] = {}
    found, parts = [], []
    for swept in sweep(model, ids, taps, layers, space, batch_tokens, progress, positions):
        for tap, here in swept.taps.items():
            if tap not in values:
                values[tap] = torch.empty(len(ids), *here.shape[1:], dtype=dtype)
            values[tap][swept.rows] = here.to(dtype)
        found.append(swept.rows)
        parts.append(swept.output)
    return values, reordered(parts, found) if space is not None else None


def reordered(parts: Sequence[AnswerLogits | None], found: Sequence[Int[Tensor, "_"]]) -> AnswerLogits:
    """Answers of batches in the order of their rows."""
    there = [part for part in parts if part is not None]
    return AnswerLogits.concatenate(there)[torch.argsort(torch.cat(list(found)))]


class _Buffer:
    """One tap of one batch, filled by a hook per layer; how wide it is, the first of them sees."""

    def __init__(self, model: HookedModel, batch: Batch, depth: int, positions: Sequence[int] | None) -> None:
        self._model = model
        self._batch = batch
        self._depth = depth
        self._positions = positions
        self._values: Tensor | None = None
        self._filled: set[int] = set()

    def reader(self, at: int) -> Callable[..., None]:
        """Keep what a hook point holds as entry ``at`` of the layer axis."""

        def read(x: Float[Tensor, "row position *width"], hook: Any) -> None:
            here = self._batch.gather_at(x, (-1,) if self._positions is None else self._positions)
            here = rearrange(here, "row position ... -> row position (...)")
            if self._positions is None:
                here = here.squeeze(1)
            if self._values is None:
                shape = (len(here), self._depth, *here.shape[1:])
                self._values = torch.empty(shape, device=self._model.device, dtype=self._model.dtype)
            self._values[:, at] = here
            self._filled.add(at)

        return read

    def result(self, tap: str) -> Float[Tensor, "row layer *position width"]:
        """What was kept, on the CPU.

        Raises:
            ModelError: If a layer never passed the hook point.
        """
        if self._values is None or len(self._filled) < self._depth:
            raise ModelError(
                f"{self._model.name} names the tap {tap!r} and does not use it in every layer that was asked "
                "for; ask for other layers, or another tap"
            )
        return self._values.cpu()
