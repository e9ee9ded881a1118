"""Residuals: the residual stream at a prompt's last token, in memory or memory-mapped from shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from brewlens import html

RESID_POST = "resid_post"
SHOWN = 64  # samples that a notebook looks at


@dataclass(frozen=True)
class Residuals:
    """Activations at one tap of every layer, at the last prompt token.

    By default the tap is the residual stream at the output of block ``l``, before the final norm.

    Attributes:
        parts: ``[sample, layer, d_model]`` each, on the CPU; joined along the samples they are all of them.
            Parts that were opened from shards are memory-mapped: only what is looked at is read.
        item_ids: One id per sample.
        tokens: The token ids that the model read, one tuple per sample, without padding.
        model: Name of the model that they come from.
        layers: The blocks (0-based) of the layer axis.
        tap: ``resid_post``, ``resid_pre``, ``resid_mid``, ``attn_out`` or ``mlp_out``.
    """

    parts: tuple[Float[Tensor, "_ layer d_model"], ...]
    item_ids: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    model: str
    layers: tuple[int, ...]
    tap: str = RESID_POST

    def __post_init__(self) -> None:
        shapes = {tuple(part.shape[1:]) for part in self.parts}
        rows = sum(len(part) for part in self.parts)
        if len(shapes) != 1 or len(next(iter(shapes))) != 2 or rows != len(self.item_ids):
            raise ValueError(
                f"residuals must be [sample, layer, d_model] with one id per sample; found shapes "
                f"{[tuple(part.shape) for part in self.parts]} and {len(self.item_ids)} ids"
            )
        if self.parts[0].shape[1] != len(self.layers):
            raise ValueError(f"found {self.parts[0].shape[1]} layers, named {self.layers}")

    @classmethod
    def of(
        cls,
        values: Float[Tensor, "sample layer d_model"],
        item_ids: Sequence[str],
        tokens: Sequence[tuple[int, ...]],
        model: str,
        layers: Sequence[int] | None = None,
        tap: str = RESID_POST,
    ) -> Residuals:
        """From one tensor; without ``layers``, its layer axis is ``0 .. L-1``."""
        named = tuple(range(values.shape[1]) if layers is None else layers)
        return cls((values,), tuple(item_ids), tuple(tokens), model, named, tap)

    @property
    def n_layers(self) -> int:
        """Entries of the layer axis."""
        return len(self.layers)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.parts[0].shape[2]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return self.parts[0].dtype

    @property
    def values(self) -> Float[Tensor, "sample layer d_model"]:
        """All of them as one tensor. Of several parts this is a copy in memory."""
        return self.parts[0] if len(self.parts) == 1 else torch.cat(self.parts)

    def __len__(self) -> int:
        return len(self.item_ids)

    def layer(self, index: int) -> Float[Tensor, "sample d_model"]:
        """Every sample at one entry of the layer axis, float32, in memory."""
        out = torch.empty(len(self), self.d_model)
        start = 0
        for part in self.parts:
            out[start : start + len(part)] = part[:, index]
            start += len(part)
        return out

    def blocks(self, size: int = 1024) -> Iterator[tuple[slice, Float[Tensor, "row layer d_model"]]]:
        """Stretches of at most ``size`` samples in order: which ones, and their values."""
        start = 0
        for part in self.parts:
            for block in part.split(size):
                yield slice(start, start + len(block)), block
                start += len(block)

    def select(self, rows: Sequence[int]) -> Residuals:
        """The samples at ``rows``, in that order, in memory."""
        rows = list(rows)
        ends = torch.tensor([len(part) for part in self.parts]).cumsum(0)
        out = torch.empty(len(rows), self.n_layers, self.d_model, dtype=self.dtype)
        for at, row in enumerate(rows):
            part = int(torch.searchsorted(ends, row, right=True))
            out[at] = self.parts[part][row - int(ends[part])]  # negative: counted from the part's end
        return Residuals(
            (out,),
            tuple(self.item_ids[r] for r in rows),
            tuple(self.tokens[r] for r in rows),
            self.model,
            self.layers,
            self.tap,
        )

    def __repr__(self) -> str:
        where = "" if len(self.parts) == 1 else f" in {len(self.parts)} parts"
        return (
            f"Residuals({len(self)} samples x {self.n_layers} layers x {self.d_model}, "
            f"{str(self.dtype).removeprefix('torch.')}, {self.tap} of {self.model}{where})"
        )

    def _repr_html_(self) -> str:
        """Mean length of the residual by layer, over a few samples, so that little is read from disk."""
        every = max(1, len(self) // SHOWN)
        few = self.select(range(0, len(self), every)[:SHOWN])
        lengths = few.values.float().norm(dim=-1)
        drawn = html.sparkline(lengths.mean(dim=0).tolist(), "mean length", low=0, labels=self.layers)
        ids = [len(tokens) for tokens in self.tokens]
        row: dict[str, object] = {
            "samples": len(self),
            "tokens": f"{min(ids)} to {max(ids)}" if ids else None,
        }
        row |= {"MiB": len(self) * self.n_layers * self.d_model * self.parts[0].element_size() / 2**20}
        row |= {f"mean length by layer, of {len(few)} samples": drawn}
        return html.card(repr(self), html.table([row]))
