"""Residuals: the last prompt token's residual stream at the output of every block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from brewlens.model import HookedModel


@dataclass(frozen=True)
class Residuals:
    """Residual stream at the output of block ``l`` (before the final norm), at the last prompt token.

    Attributes:
        values: ``[sample, layer, d_model]``, layers 0-based, ``l = 0 .. L-1``.
        item_ids: One id per sample.
        tokens: The token ids that the model read, one tuple per sample, without padding.
        model: Name of the model that they come from.
    """

    values: Float[Tensor, "sample layer d_model"]
    item_ids: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    model: str

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or len(self.values) != len(self.item_ids):
            raise ValueError(
                f"residuals must be [sample, layer, d_model] with one id per sample; found shape "
                f"{tuple(self.values.shape)} and {len(self.item_ids)} ids"
            )

    @property
    def n_layers(self) -> int:
        return self.values.shape[1]

    def __len__(self) -> int:
        return len(self.item_ids)

    def select(self, rows: Sequence[int]) -> Residuals:
        """The samples at ``rows``, in that order."""
        rows = list(rows)
        return Residuals(
            self.values[rows],
            tuple(self.item_ids[r] for r in rows),
            tuple(self.tokens[r] for r in rows),
            self.model,
        )

    def __repr__(self) -> str:
        samples, layers, width = self.values.shape
        return f"Residuals({samples} samples x {layers} layers x {width}, {self.values.dtype}, {self.model})"


def capture(
    model: HookedModel, prompts: Sequence[str], item_ids: Sequence[str], progress: bool = False
) -> Residuals:
    """Run ``model`` over ``prompts`` and keep the last token's residual at every block output."""
    values, tokens = model.last_residuals(prompts, progress=progress)
    return Residuals(values, tuple(item_ids), tokens, model.name)
