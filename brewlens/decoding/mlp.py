"""Two-layer probe: one hidden layer of rectified units, for many layers and folds at once.

What it reads beyond a linear probe need not be there for the model: a network can compute the answer from
what is only its premises. Read it beside its selectivity (:mod:`brewlens.decoding.selectivity`) and the
linear probe.

Trained by AdamW (Loshchilov & Hutter, arXiv 1711.05101) in mini-batches, on residuals standardised by the
problem's own training rows; the weights kept are those of the epoch with the least cross-entropy on held-out
training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from brewlens.brief import brief
from brewlens.decoding.multinomial import Design


@dataclass(frozen=True)
class MLPOptions:
    """How a two-layer probe is trained.

    Attributes:
        hidden: Hidden units.
        lr: Learning rate of AdamW.
        weight_decay: Its decoupled weight decay.
        batch: Rows of a mini-batch.
        epochs: Most passes over the training rows.
        patience: Epochs without a better validation loss after which a problem stops.
        seed: Of the initial weights and the order of the rows; the global random state is left alone.
    """

    hidden: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.1
    batch: int = 256
    epochs: int = 100
    patience: int = 8
    seed: int = 0


@dataclass(frozen=True, eq=False)
class MLPSolution:
    """Trained problems.

    Attributes:
        v: ``[layer, problem, hidden, d_model + 1]`` weights of the hidden units for :attr:`Design.z`.
        weight: ``[layer, problem, class, hidden]``.
        bias: ``[layer, problem, class]``; minus infinity for a class without training rows.
        logits: ``[layer, problem, class, row]`` of every row.
        epoch: ``[layer, problem]`` whose weights were kept, from 1; 0 for the initial ones.
    """

    v: Float[Tensor, "layer problem hidden column"]
    weight: Float[Tensor, "layer problem class hidden"]
    bias: Float[Tensor, "layer problem class"]
    logits: Float[Tensor, "layer problem class row"]
    epoch: Int[Tensor, "layer problem"]

    __repr__ = brief


def train_mlp(
    design: Design,
    target: Int[Tensor, "problem row"],
    held_out: Bool[Tensor, "problem row"],
    n_classes: int,
    layers: Sequence[int],
    options: MLPOptions,
) -> MLPSolution:
    """Train every (layer, problem).

    Args:
        design: Residuals and training rows.
        target: Class of each row in each problem.
        held_out: Those of the training rows that are not trained on and choose the epoch.
        n_classes: Number of classes. One that a problem's training rows lack is left out of it.
        layers: Number of each layer; with the seed it gives the initial weights, so that these do not depend
            on which layers are trained together.
        options: Sizes and schedule.

    Raises:
        ValueError: If a problem has no row to train on, or none to choose the epoch by.
    """
    fit = design.train & ~held_out
    if not fit.any(1).all() or not (held_out & design.train).any(1).all():
        raise ValueError(
            "a two-layer probe needs rows to train on and held-out training rows; found a fold without"
        )
    onehot = torch.nn.functional.one_hot(target.where(design.train, 0), n_classes).mT.float()
    present = (onehot * fit[:, None]).any(2)
    absent = torch.zeros_like(present, dtype=torch.float32).masked_fill(~present, -torch.inf)[
        None, :, :, None
    ]
    stop = held_out & design.train & present.gather(1, target.where(design.train, 0))
    parameters = [p.requires_grad_() for p in _initial(design, n_classes, layers, options)]
    optimiser = torch.optim.AdamW(parameters, lr=options.lr, weight_decay=options.weight_decay)
    order = torch.Generator().manual_seed(options.seed)

    def forward(z: Tensor) -> Tensor:
        hidden, weight, bias = parameters
        units = (_columns(design, hidden).flatten(1, 2) @ z.mT).unflatten(1, hidden.shape[1:3]).relu()
        return weight @ units + bias[..., None] + absent

    def loss(logits: Tensor, rows: Tensor | slice, weight: Tensor) -> Float[Tensor, "layer problem"]:
        truth = target[:, rows].where(weight, 0)[None, :, None].expand(len(logits), -1, 1, -1)
        surprise = logits.logsumexp(2) - logits.gather(2, truth)[:, :, 0]
        return surprise.where(weight, 0.0).sum(-1) / weight.sum(-1).clamp_min(1)

    best = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        least = loss(forward(design.z), slice(None), stop)
    epoch = torch.zeros(least.shape, dtype=torch.int64, device=least.device)
    for number in range(1, options.epochs + 1):
        for rows in torch.randperm(fit.shape[1], generator=order).to(fit.device).split(options.batch):
            with torch.enable_grad():
                total = loss(forward(design.z[:, rows]), rows, fit[:, rows]).sum()
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
        with torch.no_grad():
            now = loss(forward(design.z), slice(None), stop)
            better = (now < least) & (number - epoch <= options.patience)
            least, epoch = now.where(better, least), torch.where(better, number, epoch)
            for kept, p in zip(best, parameters, strict=True):
                kept.copy_(p.where(better.reshape(*better.shape, *(1,) * (p.ndim - 2)), kept))
        if bool((number - epoch >= options.patience).all()):
            break
    with torch.no_grad():
        for kept, p in zip(best, parameters, strict=True):
            p.copy_(kept)
        hidden, weight, bias = best
        return MLPSolution(_columns(design, hidden), weight, bias + absent[..., 0], forward(design.z), epoch)


def _initial(
    design: Design, n_classes: int, layers: Sequence[int], options: MLPOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden weights after He et al. (arXiv 1502.01852); zero output weights, so equal probabilities."""
    problems, columns = design.ratio.shape[1:]
    drawn = []
    for layer in layers:
        generator = torch.Generator().manual_seed(options.seed + 1_000_003 * (layer + 1))
        drawn.append(torch.randn(problems, options.hidden, columns, generator=generator))
    hidden = torch.stack(drawn).to(design.z.device) * (2 / (columns - 1)) ** 0.5
    hidden[..., -1] = 0
    weight = design.z.new_zeros(*hidden.shape[:2], n_classes, options.hidden)
    return hidden, weight, design.z.new_zeros(weight.shape[:3])


def _columns(design: Design, hidden: Tensor) -> Tensor:
    """Weights for ``z`` of hidden units that read the problem's own standardisation."""
    v = hidden * design.ratio[:, :, None]
    moved = (v * design.shift[:, :, None]).sum(-1, keepdim=True)
    return torch.cat([v[..., :-1], v[..., -1:] - moved], -1)
