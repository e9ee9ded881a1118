"""Training a tuned lens from captured residuals.

Every layer's translator starts at the identity and lowers KL(final || lens) over the whole vocabulary, in
nats: the divergence from the model's own final distribution to the one that the translated residual gives
(Belrose et al., arXiv 2303.08112, section 2). The final distribution is read from the last layer's
residual, so the prompts need not run again. Logits over the vocabulary exist for a few rows at a time and
are never kept.

It is trained in standard deviations: ``h' = h + s * (A z + c)``, with ``z`` the standardised residual and
``s`` the deviations of the last layer's at the layer's own size, by AdamW (weight decay on ``A``, so
towards the identity) with a short warm-up and linear decay. The published recipe is SGD on raw residuals
with 65 million tokens; with some hundred samples a translator of ``d_model ** 2`` numbers overfits, so each
layer keeps the step that is best on samples kept back, and the identity where no step beats it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from brewlens.answers import AnswerSpace
from brewlens.brief import brief
from brewlens.decoding.logit_lens import block_size, check_taps
from brewlens.decoding.out_of_fold import split_folds
from brewlens.decoding.readout import Readout
from brewlens.decoding.tuned_lens import (
    LensTraining,
    TunedLens,
    read_translated,
    unembedding_hash,
)
from brewlens.progress import bar
from brewlens.residuals import RESID_POST, Residuals
from brewlens.tasks.folds import groups
from brewlens.tasks.item import ItemSet

if TYPE_CHECKING:
    from brewlens.model import HookedModel

# Logits over the vocabulary at a time, in elements: more leaves the cache and takes twice as long. Of a large
# vocabulary at least so many rows, since each chunk reads the whole unembedding.
_LOGITS, _ROWS = 2**20, 64
_CHECKS = 20  # times that the validation samples are looked at
_WARM_UP = 0.1  # share of the steps


def train_tuned_lens(
    model: HookedModel,
    residuals: Residuals,
    *,
    rows: Sequence[int] | Int[np.ndarray, "train"] | None = None,
    validation: float | Sequence[int] | Int[np.ndarray, "validation"] = 0.2,
    steps: int = 500,
    batch: int = 64,
    lr: float = 0.05,
    weight_decay: float = 0.3,
    seed: int = 0,
    progress: bool = False,
) -> TunedLens:
    """Train one translator per layer below the last.

    Args:
        model: The model that the residuals come from. Its parameters get no gradients.
        residuals: Block outputs of every layer; a batch at a time is read.
        rows: The samples to learn from. Default: all.
        validation: The samples that choose the step, or the share of ``rows`` that is drawn for it and
            taken out of training. Variants of one program belong on one side: then give the samples.
        steps: Steps of the optimiser.
        batch: Samples per step.
        lr: Step size at its largest, in standard deviations, of a bias and of a row of a weight matrix.
        weight_decay: Pull towards the identity; its inverse is about the largest norm of a row of ``A``.
        seed: Of the validation samples and of the order of the others.
        progress: Show a progress bar.

    Returns:
        The lens, on the CPU, with what it is worth on the validation samples.

    Raises:
        ValueError: If the residuals are not block outputs of every layer of the model, there are too few
            rows, training and validation share one, or a setting is not positive.
    """
    _check_every_layer(residuals, model)
    if min(steps, batch, lr) <= 0 or weight_decay < 0:
        raise ValueError(
            f"steps, batch and lr must be positive and weight_decay not negative, found "
            f"{steps}, {batch}, {lr} and {weight_decay}"
        )
    generator = torch.Generator().manual_seed(seed)
    train, held = _split(len(residuals), rows, validation, generator)
    batch = min(batch, len(train))
    scale = Scale.of(residuals, train).to(model.device)
    depth, width = model.n_layers - 1, model.d_model
    weight = torch.zeros(depth, width, width, device=model.device)
    bias = torch.zeros(depth, width, device=model.device)
    kept = weight.clone(), bias.clone()
    logit = kl_to_final(model, residuals, rows=held)[:, :depth]
    best, best_step = logit.mean(axis=0), np.zeros(depth, dtype=int)
    unembedding = unembedding_hash(model)

    # The d_model entries of a row move together, so each takes a smaller step than a bias.
    optimiser = torch.optim.AdamW(
        [
            {"params": [weight], "lr": lr / width**0.5, "weight_decay": weight_decay * width**0.5},
            {"params": [bias], "lr": lr, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.99),
    )
    warm_up = max(1, round(_WARM_UP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm_up, 1.0) * (1 - step / steps)
    )
    order = _batches(train, batch, generator)
    for step in bar(range(1, steps + 1), shown=progress, work="tuned lens", unit="step"):
        values = residuals.select(next(order).tolist()).values.to(model.device).float()
        weight.grad, bias.grad = kl_gradient(model, values, scale, weight, bias)
        optimiser.step()
        schedule.step()
        if step % max(1, steps // _CHECKS) == 0 or step == steps:
            lens = scale.lens(weight, bias, model.name, unembedding)
            found = kl_to_final(model, residuals, lens, rows=held)[:, :depth].mean(axis=0)
            better = found < best
            best[better], best_step[better] = found[better], step
            for best_parameter, parameter in zip(kept, (weight, bias), strict=True):
                best_parameter[torch.from_numpy(better)] = parameter[torch.from_numpy(better)]

    lens = scale.lens(*kept, model.name, unembedding)
    tuned = kl_to_final(model, residuals, lens, rows=held)[:, :depth]
    training = LensTraining(
        n_train=len(train),
        n_validation=len(held),
        steps=steps,
        batch=batch,
        lr=lr,
        weight_decay=weight_decay,
        seed=seed,
        kl_logit=tuple(logit.mean(axis=0).tolist()),
        kl_tuned=tuple(tuned.mean(axis=0).tolist()),
        error=tuple(((logit - tuned).std(axis=0, ddof=1) / len(held) ** 0.5).tolist()),
        best_step=tuple(best_step.tolist()),
    )
    return replace(lens.to("cpu"), training=training)


def tuned_lens_out_of_fold(
    model: HookedModel,
    residuals: Residuals,
    items: ItemSet,
    folds: Int[np.ndarray, "sample"],
    space: AnswerSpace,
    *,
    validation: float = 0.2,
    by_family: bool = False,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> tuple[Readout, tuple[LensTraining, ...]]:
    """Read every sample by a lens that was trained on the other folds.

    A lens has seen the final answers of the samples that it was trained on, so reading those is optimistic.

    Args:
        model: The model that the residuals come from.
        residuals: Of these items, in this order; block outputs of every layer.
        items: The items.
        folds: Fold of each, from :func:`brewlens.tasks.assign_folds`.
        space: The answer classes.
        validation: Share of the training folds that chooses the step. Items linked by a skeleton or by
            twins are on one side.
        by_family: Train a lens per family. The default is one for all: it learns the model's basis, not a
            task.
        seed: As in :func:`train_tuned_lens`.
        progress: Show a progress bar.
        **options: ``steps``, ``batch``, ``lr`` and ``weight_decay`` of :func:`train_tuned_lens`.

    Returns:
        The readout, and how each fold's lens was trained.

    Raises:
        LeakageError: If a fold and the rest share an item, a skeleton or a twin.
        ValueError: If residuals and items do not match, or a fold leaves too little to train on.
    """
    if residuals.item_ids != items.ids:
        raise ValueError("residuals and items are not the same samples in the same order")
    _check_every_layer(residuals, model)
    linked = groups(items)
    logits = np.empty((len(items), residuals.n_layers, len(space)), dtype=np.float32)
    other = np.empty(logits.shape[:2], dtype=np.float32)
    trainings = []
    splits = list(split_folds(items, folds, by_family=by_family))
    for train, score in bar(splits, shown=progress, work="tuned lens", unit="fold"):
        held = _whole_groups(train, linked[train], validation, seed)
        learnt = np.setdiff1d(train, held)
        lens = train_tuned_lens(model, residuals, rows=learnt, validation=held, seed=seed, **options)
        for rows in np.array_split(score, -(-len(score) // block_size(residuals))):
            part = read_translated(model, residuals.select(rows.tolist()), lens, space)
            logits[rows], other[rows] = part.logits, part.other_mass
        trainings.append(lens.training)
    return Readout(logits, space.classes, "tuned_lens", items.ids, other), tuple(trainings)


@torch.no_grad()
def kl_to_final(
    model: HookedModel,
    residuals: Residuals,
    lens: TunedLens | None = None,
    *,
    rows: Sequence[int] | Int[np.ndarray, "row"] | None = None,
) -> Float[np.ndarray, "row layer"]:
    """KL(final || lens) over the whole vocabulary, in nats, per sample and layer; 0 at the last layer.

    Args:
        model: The model that the residuals come from.
        residuals: Block outputs of every layer, streamed.
        lens: Default: none, which is the logit lens.
        rows: The samples. Default: all, in order.

    Raises:
        ValueError: If the residuals are not block outputs of every layer of the model.
    """
    _check_every_layer(residuals, model)
    lens = None if lens is None else lens.to(model.device)
    chosen = np.arange(len(residuals)) if rows is None else np.asarray(rows)
    out = np.zeros((len(chosen), model.n_layers), dtype=np.float64)
    size = min(_rows_at_once(model), block_size(residuals))
    for start in range(0, len(chosen), size):
        here = slice(start, start + size)
        values = residuals.select(chosen[here].tolist()).values.to(model.device).float()
        final = model.vocabulary_logits(values[:, model.n_layers - 1]).float().log_softmax(-1)
        p = final.exp()
        for layer in range(model.n_layers - 1):
            h = values[:, layer] if lens is None else lens.translate(values[:, layer], layer)
            read = model.vocabulary_logits(h).float().log_softmax(-1)
            out[here, layer] = (p * (final - read)).sum(-1).cpu().numpy()
    return out


def kl_gradient(
    model: HookedModel,
    values: Float[Tensor, "row layer d_model"],
    scale: Scale,
    weight: Float[Tensor, "translator d_model d_model"],
    bias: Float[Tensor, "translator d_model"],
) -> tuple[Float[Tensor, "translator d_model d_model"], Float[Tensor, "translator d_model"]]:
    """Gradients of the mean over rows of KL(final || lens), per layer.

    Args:
        model: Its parameters get none.
        values: Residuals of every layer, on the model's device, float32.
        scale: What ``weight`` and ``bias`` are measured in.
        weight: ``A``.
        bias: ``c``.
    """
    weight_gradient, bias_gradient = torch.zeros_like(weight), torch.zeros_like(bias)
    depth = len(bias)
    for chunk in values.split(_rows_at_once(model)):
        with torch.no_grad():
            final = model.vocabulary_logits(chunk[:, depth]).float().softmax(-1)
        together = max(1, _rows_at_once(model) // len(chunk))
        for first in range(0, depth, together):
            here = slice(first, min(first + together, depth))
            a, c = (p[here].detach().requires_grad_() for p in (weight, bias))
            with torch.enable_grad():
                h = scale.translate(chunk[:, here], here, a, c)
                logits = model.vocabulary_logits(rearrange(h, "row layer width -> (row layer) width")).float()
            # The gradient of KL(p || softmax(z)) with respect to z is softmax(z) - p.
            said = rearrange(logits.detach().softmax(-1), "(row layer) token -> row layer token", row=len(h))
            slope = said.sub_(final.unsqueeze(1)).div_(len(values))
            every = rearrange(slope, "row layer token -> (row layer) token")
            found = torch.autograd.grad(logits, (a, c), every)
            weight_gradient[here] += found[0]
            bias_gradient[here] += found[1]
    return weight_gradient, bias_gradient


@dataclass(frozen=True)
class Scale:
    """Units of a lens in training: ``h' = h + unit * (A z + c)`` with ``z = (h - mean) / deviation``.

    The final norm does not see the size of what it reads, so the unit is of the size of the layer's own
    residuals: then a step turns them as much at the first layer as at the last.

    Attributes:
        mean: ``[translator, d_model]`` of the residuals.
        deviation: ``[translator, d_model]``; 1 where a coordinate does not vary.
        unit: ``[translator, d_model]``, deviations of the last layer's residuals, times the root mean square
            of the layer's residuals over that of the last one's.
    """

    mean: Float[Tensor, "translator d_model"]
    deviation: Float[Tensor, "translator d_model"]
    unit: Float[Tensor, "translator d_model"]

    @classmethod
    def of(cls, residuals: Residuals, rows: Int[np.ndarray, "train"]) -> Scale:
        """Over the training rows, read block by block."""
        depth = residuals.n_layers - 1
        total = torch.zeros(2, residuals.n_layers, residuals.d_model, dtype=torch.float64)
        for some in np.array_split(np.sort(rows), -(-len(rows) // block_size(residuals))):
            values = residuals.select(some.tolist()).values.double()
            total += torch.stack([values.sum(0), values.square().sum(0)])
        mean, square = total / len(rows)
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        # Rounding leaves a little where nothing varies.
        deviation = torch.where(deviation > 1e-7 * square.sqrt(), deviation, 1.0)
        size = square.mean(dim=1, keepdim=True).sqrt()
        unit = deviation[depth] * size[:depth] / size[depth]
        return cls(mean[:depth].float(), deviation[:depth].float(), unit.float())

    def to(self, device: torch.device) -> Scale:
        return Scale(self.mean.to(device), self.deviation.to(device), self.unit.to(device))

    def translate(
        self, h: Float[Tensor, "row some d_model"], layers: slice, weight: Tensor, bias: Tensor
    ) -> Float[Tensor, "row some d_model"]:
        """Residuals of a stretch of layers, translated by that stretch of ``A`` and ``c``."""
        z = (h - self.mean[layers]) / self.deviation[layers]
        turned = einsum(z, weight, "row layer before, layer after before -> row layer after")
        return h + self.unit[layers] * (turned + bias)

    def lens(self, weight: Tensor, bias: Tensor, model: str, unembedding: str) -> TunedLens:
        """The same translators in the residual's own units."""
        w = self.unit[:, :, None] * weight / self.deviation[:, None, :]
        b = self.unit * bias - einsum(w, self.mean, "layer after before, layer before -> layer after")
        return TunedLens(w, b, model, unembedding)

    __repr__ = brief


def _check_every_layer(residuals: Residuals, model: HookedModel) -> None:
    check_taps(model, residuals, "tuned_lens", (RESID_POST,))
    if residuals.layers != tuple(range(model.n_layers)):
        raise ValueError(
            f"a tuned lens is trained on every layer of {model.name}, 0 to {model.n_layers - 1}, and the "
            f"last is its target; found residuals of layers {list(residuals.layers)}"
        )


def _split(
    samples: int,
    rows: Sequence[int] | np.ndarray | None,
    validation: float | Sequence[int] | np.ndarray,
    generator: torch.Generator,
) -> tuple[Int[np.ndarray, "train"], Int[np.ndarray, "validation"]]:
    train = np.arange(samples) if rows is None else np.asarray(rows)
    if isinstance(validation, int | float):
        order = torch.randperm(len(train), generator=generator).numpy()
        count = round(validation * len(train))
        train, held = train[order[count:]], train[order[:count]]
    else:
        held = np.asarray(validation)
        train = np.setdiff1d(train, held) if rows is None else train
    if shared := np.intersect1d(train, held).tolist():
        raise ValueError(
            f"training and validation share {len(shared)} samples, rows {shared[:5]}; take them out of one"
        )
    if len(train) < 2 or len(held) < 2:
        raise ValueError(
            f"a tuned lens needs two samples or more to learn from and two to validate on, found "
            f"{len(train)} and {len(held)} of {samples}; give more samples or another validation share"
        )
    return train, held


def _whole_groups(
    rows: Int[np.ndarray, "train"], group: Int[np.ndarray, "train"], share: float, seed: int
) -> Int[np.ndarray, "validation"]:
    """Rows of whole groups, drawn at random until they are the share asked for."""
    names = np.random.default_rng(seed).permutation(np.unique(group))
    sizes = np.bincount(group)[names].cumsum()
    taken = names[: int(np.searchsorted(sizes, share * len(rows))) + 1]
    return rows[np.isin(group, taken)]


def _batches(
    rows: Int[np.ndarray, "train"], size: int, generator: torch.Generator
) -> Iterator[Int[Tensor, "batch"]]:
    """Batches of one size for ever; every epoch in an order of its own."""
    while True:
        order = torch.from_numpy(rows)[torch.randperm(len(rows), generator=generator)]
        yield from order.split(size)[: len(rows) // size]


def _rows_at_once(model: HookedModel) -> int:
    return max(_ROWS, _LOGITS // model.d_vocab)
