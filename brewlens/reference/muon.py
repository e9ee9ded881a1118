"""Muon over weights that are stacked by layer: every layer's matrix in one batched product.

The rule is that of ``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"`` (a test holds the two
together), which takes one matrix at a time and would spend a fifth of the step on it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)


class StackedMuon(torch.optim.Optimizer):
    """Momentum, orthogonalised by five Newton-Schulz steps, with decoupled weight decay.

    Args:
        params: Weights ``[layer, out, in]``.
        lr: Learning rate, on AdamW's scale.
        momentum: Decay of the momentum (Nesterov).
        weight_decay: Decoupled weight decay, in units of ``lr``.

    Raises:
        ValueError: If a weight has another number of dimensions than three.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 3e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.05,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim != 3:
                    raise ValueError(f"expected weights [layer, out, in], found {tuple(weight.shape)}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step along the orthogonalised momentum."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                buffer = state["momentum_buffer"].lerp_(weight.grad, 1 - momentum)
                update = orthogonalise(weight.grad.lerp(buffer, momentum))
                weight.mul_(1 - lr * group["weight_decay"])
                weight.add_(update, alpha=-lr * 0.2 * max(weight.shape[1:]) ** 0.5)


def orthogonalise(matrices: Tensor, steps: int = 5, eps: float = 1e-7) -> Tensor:
    """Every matrix of ``[layer, out, in]`` with its singular values driven to about one, bfloat16."""
    a, b, c = _QUINTIC
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
