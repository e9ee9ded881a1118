"""Rows: what an injection writes where, one row per run of a target prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from brewlens.answers import AnswerSpace
from brewlens.brief import brief
from brewlens.residuals import RESID_POST

if TYPE_CHECKING:
    from brewlens.model import HookedModel

Z = "z"
TAPS = (RESID_POST, "attn_out", "mlp_out", Z)


@dataclass(frozen=True)
class Rows:
    """What is written where.

    Attributes:
        values: ``[row, position, width]`` what is written.
        prompts: Token ids of the distinct target prompts.
        target: ``[row]`` which of them each row runs.
        layers: ``[row]`` block (0-based) that each row is written in, or at whose output.
        positions: Where, counted from the target's end: -1 is its last token.
        tap: What is overwritten, one of :data:`TAPS`.
        space: The answer classes that are read at the target's last token.
        followed: Whether the logit lens is read at the next block's output, too.
    """

    values: Float[Tensor, "row position width"]
    prompts: Sequence[tuple[int, ...]]
    target: Int[Tensor, "row"]
    layers: Int[Tensor, "row"]
    positions: tuple[int, ...]
    tap: str
    space: AnswerSpace
    followed: bool = False

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def depth(self) -> int:
        """Number of target tokens from the first written one on."""
        return -min(self.positions)

    @classmethod
    def of(
        cls,
        model: HookedModel,
        values: Float[Tensor, "sample layer *position width"],
        targets: Sequence[tuple[int, ...]],
        space: AnswerSpace,
        *,
        layers: Sequence[int] | Int[Tensor, "*sample layer"] | None = None,
        positions: Sequence[int] = (-1,),
        tap: str = RESID_POST,
        followed: bool = False,
    ) -> Rows:
        """Sample by sample, in each the layer axis; arguments as in :meth:`HookedModel.inject`.

        Raises:
            ValueError: If they do not fit together.
        """
        if tap not in TAPS:
            raise ValueError(f"values are written at one of {list(TAPS)}, found tap {tap!r}")
        if followed and not space.single:
            raise ValueError(
                "the logit lens reads one position, found classes of several tokens; call inject, or derive "
                "the answer space with scoring='first'"
            )
        where = torch.as_tensor(range(model.n_layers) if layers is None else layers)
        samples, depth, shortest = len(targets), where.shape[-1], min(map(len, targets))
        # How wide the heads are together is the model's to say, when it is written to.
        width = values.shape[-1] if tap == Z else model.d_model
        several = () if values.ndim == 3 and len(positions) == 1 else (len(positions),)
        expected = (samples, depth, *several, width)
        if tuple(values.shape) != expected or 0 in expected or where.shape[:-1] not in ((), (samples,)):
            raise ValueError(
                f"inject needs values {list(expected)} for {samples} targets, layers "
                f"{list(where.shape)} and positions {list(positions)}, found {list(values.shape)}"
            )
        if where.min() < 0 or where.max() >= model.n_layers:
            raise ValueError(f"layers run from 0 to {model.n_layers - 1}, found {where.unique().tolist()}")
        check_positions(positions, shortest)
        number = {ids: k for k, ids in enumerate(dict.fromkeys(targets))}
        apart = values if several else values.unsqueeze(2)
        return cls(
            rearrange(apart, "sample layer position width -> (sample layer) position width"),
            tuple(number),
            repeat(torch.tensor([number[ids] for ids in targets]), "sample -> (sample layer)", layer=depth),
            rearrange(where.expand(samples, depth), "sample layer -> (sample layer)"),
            tuple(positions),
            tap,
            space,
            followed,
        )

    __repr__ = brief


def check_positions(positions: Sequence[int], shortest: int) -> None:
    """Refuse positions that a prompt of ``shortest`` tokens does not have.

    Raises:
        ValueError: If one is outside, or there twice.
    """
    if (
        not positions
        or not all(-shortest <= at < 0 for at in positions)
        or len(set(positions)) != len(positions)
    ):
        raise ValueError(
            f"positions count from the prompt's end, -1 to {-shortest} here, each once; found "
            f"{list(positions)}"
        )
