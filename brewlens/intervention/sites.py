"""Sites: where in a forward pass something is read or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from brewlens.residuals import RESID_POST
from brewlens.rows import TAPS, Z

if TYPE_CHECKING:
    from brewlens.model import HookedModel, Prompt


@dataclass(frozen=True)
class Site:
    """A tap of a block, at some tokens of the prompt.

    Attributes:
        tap: ``resid_post``, the residual stream at the block's output; ``attn_out`` or ``mlp_out``, what
            attention or MLP adds to it; ``z``, what each head has before the output projection.
        positions: Counted from the prompt's end: -1 is its last token.
        heads: With ``z``, the heads that are edited; the others keep what they have. None for all.

    Raises:
        ValueError: If the tap is unknown, a position is not counted from the end or named twice, or heads
            are named of another tap than ``z``.
    """

    tap: str = RESID_POST
    positions: tuple[int, ...] = (-1,)
    heads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.tap not in TAPS:
            raise ValueError(f"asked for tap {self.tap!r}; there are {', '.join(TAPS)}")
        if not self.positions or max(self.positions) >= 0 or len(set(self.positions)) < len(self.positions):
            raise ValueError(
                f"positions count from the prompt's end, -1 is its last token, each once; found "
                f"{list(self.positions)}"
            )
        if self.heads is not None and (self.tap != Z or not self.heads):
            raise ValueError(f"heads are those of tap 'z', at least one; found {self.heads} of {self.tap!r}")

    def columns(self, model: HookedModel) -> Int[Tensor, "column"] | None:
        """Which columns of a state an edit sees; None for all.

        Raises:
            ValueError: If the model has no such head.
        """
        if self.heads is None:
            return None
        config, n_heads = model.bridge.original_model.config, int(model.bridge.cfg.n_heads)
        # Where queries and values differ in width (MLA), d_head is that of neither.
        width = int(getattr(config, "v_head_dim", None) or model.bridge.cfg.d_head)
        if unknown := [head for head in self.heads if not 0 <= head < n_heads]:
            raise ValueError(f"{model.name} has heads 0 to {n_heads - 1}, asked for {unknown}")
        return torch.cat([torch.arange(head * width, (head + 1) * width) for head in self.heads])


LAST = Site()
"""The residual stream at the last token."""


def states(
    model: HookedModel, prompts: Sequence[Prompt], site: Site = LAST, *, progress: bool = False
) -> Float[Tensor, "sample layer position width"]:
    """What a model has at a site, in every layer, of every prompt; each distinct prompt is run once.

    Args:
        model: The model.
        prompts: Texts or token ids.
        site: Where.
        progress: Show a progress bar.

    Raises:
        ModelError: If the model has no such tap.
    """
    ids = model.ids(prompts)
    row = {tokens: number for number, tokens in enumerate(dict.fromkeys(ids))}
    found = model.states(list(row), tap=site.tap, positions=site.positions, progress=progress)
    return found if len(row) == len(ids) else found[[row[tokens] for tokens in ids]]
