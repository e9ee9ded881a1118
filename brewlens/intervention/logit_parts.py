"""Logit parts: the logits of answers, split into what each component of a model adds to them.

See :mod:`brewlens.intervention.components` for the formula. Sums are checked against the model's own
logits; a model in which they do not add up is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from brewlens.answer_logits import AnswerLogits
from brewlens.brief import brief
from brewlens.errors import ModelError
from brewlens.intervention.frozen_norm import FrozenNorm, Norm
from brewlens.residuals import RESID_POST
from brewlens.selfcheck import TOLERANCE

if TYPE_CHECKING:
    from brewlens.answers import AnswerSpace
    from brewlens.model import HookedModel

TAPS = ("resid_pre", "attn_out", "mlp_out", RESID_POST)
POST_NORM = "ln1_post"
"""A norm between attention and the residual stream, where an architecture has one."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Of one batch, in logits.

    Attributes:
        wrong: ``[row]`` index of the strongest class beside the right one.
        values: ``[row, component, class]``: bias, embedding, attention 0, MLP 0, attention 1, ...
        heads: ``[row, layer, head]`` right minus wrong class, or None.
        error: Largest error of a sum, relative to the largest sum of magnitudes.
    """

    wrong: Int[Tensor, "row"]
    values: Float[Tensor, "row component class"]
    heads: Float[Tensor, "row layer head"] | None
    error: float

    __repr__ = brief


class LogitSplitter:
    """Splits the logits of one model.

    Args:
        model: The model.
        space: The answer classes, each one token.

    Raises:
        ModelError: If attention and MLP outputs are not all that a block adds.
    """

    def __init__(self, model: HookedModel, space: AnswerSpace) -> None:
        if not model.check.taps:
            raise ModelError(
                f"{model.name}: attribution needs blocks that add an attention and an MLP output to the "
                "residual stream and nothing else; here these do not add up, or are not there"
            )
        self._model = model
        network: Any = model.bridge.original_model
        bias = getattr(network.get_output_embeddings(), "bias", None)
        ids = torch.tensor(space.token_ids, device=model.device)
        self._columns = model.unembedding.detach()[ids].float().cpu()
        self._bias = torch.zeros(len(ids)) if bias is None else bias.detach()[ids].float().cpu()
        self._norm = FrozenNorm.of(model.normed, model.d_model)
        self._before = self._norm.before(self._columns)

    @torch.no_grad()
    def split(
        self,
        taps: Mapping[str, Float[Tensor, "row layer _"]],
        output: AnswerLogits,
        right: Int[Tensor, "row"],
    ) -> Parts:
        """Split the logits of one batch.

        Args:
            taps: ``TAPS`` at the last token; with ``z`` among them, heads too.
            output: What the model says.
            right: Index of the right class.

        Raises:
            ModelError: If the parts do not add up to what the model says.
        """
        final = taps[RESID_POST][:, -1].float()
        normed = self._model.normed(final).float().cpu()
        logits = normed @ self._columns.T + self._bias
        self._agree("the logits of the last residual", self._capped(logits) - output.logits, output.logits)
        scale = self._norm.inverse_scale(final, normed)
        bias = self._columns @ self._norm.bias + self._bias
        embed = taps["resid_pre"][:, :1].float() @ self._before.T
        added = [taps[name].float() @ self._before.T for name in ("attn_out", "mlp_out")]
        by_block = rearrange(added, "component row layer answer -> row (layer component) answer")
        parts = torch.cat([embed, by_block], 1) * scale[:, None, None]
        values = torch.cat([bias.expand(len(final), 1, -1), parts], 1)
        wrong = output.logits.scatter(1, right.unsqueeze(1), -torch.inf).argmax(1)
        row = torch.arange(len(right))
        lead = values[row, :, right] - values[row, :, wrong]
        error = self._adds_up("contributions", lead, logits[row, right] - logits[row, wrong])
        heads = None
        if "z" in taps:
            before = (self._before[right] - self._before[wrong]) * scale.unsqueeze(1)
            heads, rest = self._heads(taps["z"], taps["attn_out"], before)
            every = torch.cat([heads, rest.unsqueeze(-1)], -1)
            every = rearrange(every, "row layer head -> (row layer) head")
            attention = rearrange(lead[:, 2::2], "row layer -> (row layer)")
            error = max(error, self._adds_up("heads", every, attention))
        return Parts(wrong, values, heads, error)

    def _heads(
        self,
        z: Float[Tensor, "row layer heads_width"],
        attn_out: Float[Tensor, "row layer d_model"],
        before: Float[Tensor, "row d_model"],
    ) -> tuple[Float[Tensor, "row layer head"], Float[Tensor, "row layer"]]:
        """What each head adds along a direction, and what the biases behind the heads add."""
        found, rest = [], []
        for layer, block in enumerate(self._model.bridge.blocks):
            weight = block.attn.W_O.float()
            bias = None if block.attn.b_O is None else block.attn.b_O.float()
            heads = rearrange(z[:, layer].to(weight), "row (head width) -> row head width", head=len(weight))
            direction, constant = before, torch.zeros(len(z))
            if POST_NORM in block.submodules:
                norm = _by_rows(getattr(block, POST_NORM), block.attn.W_O)
                frozen = FrozenNorm.of(norm, self._model.d_model)
                given = einsum(heads, weight, "row head width, head width d_model -> row d_model")
                given = (given if bias is None else given + bias).cpu()
                constant = before @ frozen.bias
                scale = frozen.inverse_scale(given, attn_out[:, layer].float())
                direction = frozen.before(before) * scale.unsqueeze(1)
            direction = direction.to(weight)
            along = einsum(weight, direction, "head width d_model, row d_model -> row head width")
            found.append((along * heads).sum(-1).cpu())
            rest.append(constant if bias is None else constant + (direction @ bias).cpu())
        return torch.stack(found, 1), torch.stack(rest, 1)

    def _capped(self, logits: Float[Tensor, "row class"]) -> Float[Tensor, "row class"]:
        return self._model.bridge.adapter.apply_output_logits_transform(logits)

    def _adds_up(self, what: str, parts: Float[Tensor, "row part"], whole: Float[Tensor, "row"]) -> float:
        # Rounding is relative to the summands, which may cancel.
        return self._agree(what, parts.sum(1) - whole, parts.abs().sum(1))

    def _agree(self, what: str, off: Tensor, scale: Tensor) -> float:
        error = float(off.abs().max() / scale.abs().max().clamp_min(torch.finfo(torch.float32).tiny))
        tolerance = TOLERANCE.get(self._model.dtype, 5e-5)
        # Not "error > tolerance": a NaN must fail too.
        if not error <= tolerance:
            raise ModelError(
                f"{self._model.name}: asked for {what} that are the model's own to {tolerance:.0e}, found a "
                f"relative error of {error:.2g}; something acts on them that attribution does not know of, "
                "or the precision is low: try dtype float32, without hooks of your own"
            )
        return error


def _by_rows(norm: Any, like: Tensor) -> Norm:
    # The row axis stands where the norm expects the position axis.
    return lambda rows: norm(rows.to(like).unsqueeze(0)).squeeze(0)
