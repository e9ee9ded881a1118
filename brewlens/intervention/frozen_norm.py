"""Frozen norm: a layer norm or RMS norm as the affine map that it is once its scale is held fixed.

``norm(x) = (x - mean) / scale * weight + bias``, without the mean for an RMS norm. With the scale that ``x``
itself gave, this is affine, and what it makes of a sum is the sum of what it makes of each part. That a part
also lengthens ``x``, so that every other counts for less, does not show.

The norm is asked, its parameters are not read: architectures store them in different ways (Gemma's weight is
an offset from 1, some norms have none). A norm of another kind shows in a sum that does not add up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from brewlens.brief import brief

Norm = Callable[[Float[Tensor, "row width"]], Float[Tensor, "row width"]]


@dataclass(frozen=True, eq=False)
class FrozenNorm:
    """What a norm does to directions; float32, on the CPU.

    Attributes:
        weight: ``[width]`` up to a constant, which :meth:`inverse_scale` makes up for.
        bias: ``[width]`` what the norm makes of nothing.
        centred: Whether it takes off the mean.
    """

    weight: Float[Tensor, "width"]
    bias: Float[Tensor, "width"]
    centred: bool

    @classmethod
    @torch.no_grad()
    def of(cls, norm: Norm, width: int) -> FrozenNorm:
        """Ask a norm of vectors of an even width."""
        signs = torch.ones(width)
        signs[1::2] = -1  # mean 0, so that both kinds of norm keep them, and mean square 1
        nothing, plain, raised = norm(torch.stack([0 * signs, signs, signs + 1])).float().cpu()
        shift = (raised - plain).abs().max()
        return cls((plain - nothing) * signs, nothing, bool(shift < 0.1 * (plain - nothing).abs().max()))

    def before(self, direction: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """The direction ``g`` with ``g @ x * inverse_scale(x) = direction @ (norm(x) - bias)``."""
        return self._centre(direction * self.weight)

    def inverse_scale(
        self, x: Float[Tensor, "row width"], normed: Float[Tensor, "row width"]
    ) -> Float[Tensor, "row"]:
        """The factor that takes ``x``, centred and weighted, to what the norm made of it (least squares)."""
        shape = self._centre(x) * self.weight
        return ((normed - self.bias) * shape).sum(-1) / shape.square().sum(-1)

    def _centre(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        return x - x.mean(-1, keepdim=True) if self.centred else x

    __repr__ = brief
