"""Tuned lens: the logit lens behind a trained affine map per layer.

For every layer ``l`` below the last, ``h' = h + W[l] h + b[l]`` takes the residual at the output of block
``l`` to where the model's own final norm and unembedding can read it (Belrose et al., arXiv 2303.08112,
section 2). With ``W`` and ``b`` zero it is the logit lens; the last layer is never translated, so there it
is the model's answer.

The maps are trained to give the model's own final distribution, right or wrong, so the lens shows what the
model is on the way to say. It is a trained decoder like a probe: it can read what the model has not yet
read itself, and on the samples that it was trained on it is optimistic. ``lens_training`` trains lenses,
``lens_files`` stores them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from brewlens import html
from brewlens.answers import AnswerSpace
from brewlens.brief import brief
from brewlens.decoding.logit_lens import read_layers
from brewlens.decoding.readout import Readout
from brewlens.residuals import RESID_POST, Residuals

if TYPE_CHECKING:
    import pandas as pd

    from brewlens.model import HookedModel

_ROWS = 4096  # rows of a matrix that are hashed at a time


@dataclass(frozen=True)
class LensTraining:
    """How a lens was trained, and what it is worth on the samples kept back for validation.

    Divergences are means over the validation samples, in nats, one per translated layer. The step was
    chosen on the same samples, so ``kl_tuned`` is a little optimistic: judge a lens on samples of its own.

    Attributes:
        n_train: Samples that gave gradients.
        n_validation: Samples that chose the step.
        steps: Steps that were run.
        batch: Samples per step.
        lr: Step size, in standard deviations of the residual.
        weight_decay: Pull towards the identity.
        seed: Of the choice of validation samples and of the order of the others.
        kl_logit: KL(final || logit lens).
        kl_tuned: KL(final || tuned lens).
        error: Standard error of the mean of their paired difference.
        best_step: Step whose translator was kept; 0 where none beat the identity, which was kept then.
    """

    n_train: int
    n_validation: int
    steps: int
    batch: int
    lr: float
    weight_decay: float
    seed: int
    kl_logit: tuple[float, ...]
    kl_tuned: tuple[float, ...]
    error: tuple[float, ...]
    best_step: tuple[int, ...]

    @property
    def identity_layers(self) -> tuple[int, ...]:
        """Layers (0-based) that fell back to the logit lens."""
        return tuple(layer for layer, step in enumerate(self.best_step) if step == 0)

    def to_frame(self) -> pd.DataFrame:
        """Tidy table: layer, n, kl_logit, kl_tuned, saved with its 95 % interval low to high, best_step."""
        import pandas as pd

        logit, tuned, error = (np.array(v) for v in (self.kl_logit, self.kl_tuned, self.error))
        return pd.DataFrame(
            {
                "layer": np.arange(len(logit)),
                "n": self.n_validation,
                "kl_logit": logit,
                "kl_tuned": tuned,
                "saved": logit - tuned,
                "low": logit - tuned - 1.96 * error,
                "high": logit - tuned + 1.96 * error,
                "best_step": self.best_step,
            }
        )

    __repr__ = brief

    def _repr_html_(self) -> str:
        """Divergence from the final distribution without and with the translators, by layer."""
        lines = {"logit lens": self.kl_logit, "tuned lens": self.kl_tuned}
        top = max(max(values, default=0.0) for values in lines.values())
        rows = [
            {
                "lens": name,
                "n": self.n_validation,
                "mean, nats": float(np.mean(values)),
                "KL by layer": html.sparkline(values, f"{name}: KL in nats", low=0, high=top),
            }
            for name, values in lines.items()
        ]
        told = f"{self.n_train:,} samples, {self.steps:,} steps; judged on the samples that chose the step."
        return html.card("LensTraining", html.table(rows), html.note(told))


@dataclass(frozen=True, eq=False)
class TunedLens:
    """One affine translator per layer below the last.

    Attributes:
        weight: ``[layer, d_model, d_model]`` float32; ``h' = h + weight[l] @ h + bias[l]``.
        bias: ``[layer, d_model]`` float32.
        model: Name of the model that it belongs to.
        unembedding_hash: ``unembedding_hash`` of that model.
        training: How brewlens trained it; None for a lens that comes from elsewhere.
        source: ``brewlens``, or where else it comes from.
    """

    weight: Float[Tensor, "layer d_model d_model"]
    bias: Float[Tensor, "layer d_model"]
    model: str
    unembedding_hash: str
    training: LensTraining | None = None
    source: str = "brewlens"

    def __post_init__(self) -> None:
        layers, width = self.bias.shape if self.bias.ndim == 2 else (0, 0)
        if layers < 1 or self.weight.shape != (layers, width, width):
            raise ValueError(
                "a tuned lens needs weight [layer, d_model, d_model] and bias [layer, d_model], one layer or "
                f"more; found {list(self.weight.shape)} and {list(self.bias.shape)}"
            )
        if not self.weight.dtype == self.bias.dtype == torch.float32:
            raise ValueError(
                f"a tuned lens is float32, found {self.weight.dtype} and {self.bias.dtype}; convert with "
                ".float()"
            )
        for layer, (weight, bias) in enumerate(zip(self.weight, self.bias, strict=True)):
            if not (weight.isfinite().all() and bias.isfinite().all()):
                raise ValueError(
                    f"the translator of layer {layer} holds NaN or infinity; train the lens again with a "
                    "smaller lr, or fetch its files again"
                )

    @classmethod
    def identity(cls, model: HookedModel) -> TunedLens:
        """The lens that changes nothing: the logit lens.

        Raises:
            ValueError: If the model has one layer, and so none to translate.
        """
        layers, width = model.n_layers - 1, model.d_model
        weight, bias = torch.zeros(layers, width, width), torch.zeros(layers, width)
        return cls(weight, bias, model.name, unembedding_hash(model), source="identity")

    @property
    def n_layers(self) -> int:
        """Layers of the model: one more than there are translators."""
        return len(self.bias) + 1

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.bias.shape[1]

    def __repr__(self) -> str:
        return f"TunedLens({self.n_layers - 1} translators x {self.d_model} for {self.model}, {self.source})"

    def _repr_html_(self) -> str:
        """How far each translator is from the identity, and how it was trained."""
        norms = self.weight.flatten(1).norm(dim=1).tolist()
        row = {"distance from the identity by layer": html.sparkline(norms, "Frobenius norm", low=0)}
        trained = [] if self.training is None else [html.Html(self.training._repr_html_())]
        return html.card(repr(self), html.table([row]), *trained)

    def translate(self, h: Float[Tensor, "*rows d_model"], layer: int) -> Float[Tensor, "*rows d_model"]:
        """Residuals at the output of block ``layer`` (0-based), as the final norm is to read them; float32.

        Raises:
            ValueError: If the lens has no such layer, or ``h`` has another width.
        """
        if not 0 <= layer < self.n_layers or h.shape[-1] != self.d_model:
            raise ValueError(
                f"this lens reads layers 0 to {self.n_layers - 1} of width {self.d_model}, asked for layer "
                f"{layer} of a residual of shape {list(h.shape)}"
            )
        h = h.float()
        if layer == self.n_layers - 1:
            return h
        return h + (h @ self.weight[layer].T.to(h.device) + self.bias[layer].to(h.device))

    def to(self, device: torch.device | str) -> TunedLens:
        """The same lens on another device."""
        return replace(self, weight=self.weight.to(device), bias=self.bias.to(device))

    @cached_property
    def key(self) -> str:
        """blake2b over the translators and the unembedding's hash: what a result of this lens depends on."""
        return _hash(self.unembedding_hash, *self.weight, self.bias)

    def check(self, model: HookedModel) -> None:
        """Refuse a model that this lens was not made for.

        Raises:
            ValueError: If the number of layers, the width or the unembedding differ.
        """
        self.check_shape(model)
        if (found := unembedding_hash(model)) != self.unembedding_hash:
            raise ValueError(
                f"asked to read {model.name}, whose unembedding has the hash {found}, by a tuned lens of "
                f"{self.model} for the unembedding {self.unembedding_hash}; train one with train_tuned_lens, "
                "or pass allow_other_model=True if the model is meant to be another one"
            )

    def check_shape(self, model: HookedModel) -> None:
        """Refuse a model of another number of layers or another width.

        Raises:
            ValueError: Gives both.
        """
        if (self.n_layers, self.d_model) != (model.n_layers, model.d_model):
            raise ValueError(
                f"asked to read {model.name}, {model.n_layers} layers x {model.d_model}, by a tuned lens of "
                f"{self.model}, {self.n_layers} layers x {self.d_model}; train one with train_tuned_lens"
            )

    def save(self, folder: str | Path) -> Path:
        """Write the lens to a folder; see :func:`brewlens.decoding.lens_files.save_lens`."""
        from brewlens.decoding.lens_files import save_lens

        return save_lens(self, folder)

    @staticmethod
    def load(folder: str | Path) -> TunedLens:
        """Read a lens of brewlens; see :func:`brewlens.decoding.lens_files.load_lens`."""
        from brewlens.decoding.lens_files import load_lens

        return load_lens(folder)


def unembedding_hash(model: HookedModel) -> str:
    """blake2b over the shape and the values of the unembedding matrix, taken as float32.

    A checkpoint in bfloat16 has the same hash when it is loaded in float32.
    """
    return _hash("unembedding", model.unembedding)


def tuned_lens(
    model: HookedModel,
    residuals: Residuals,
    lens: TunedLens,
    space: AnswerSpace,
    *,
    allow_other_model: bool = False,
) -> Readout:
    """Read every residual by the model's final norm and unembedding, behind the lens' translators.

    On samples that the lens was trained on this is optimistic: see
    :func:`brewlens.decoding.lens_training.tuned_lens_out_of_fold`.

    Args:
        model: The model that the residuals come from.
        residuals: Block outputs of any layers, streamed.
        lens: From :func:`~brewlens.decoding.lens_training.train_tuned_lens`, :meth:`TunedLens.load` or
            :func:`~brewlens.decoding.lens_files.load_published`.
        space: The answer classes.
        allow_other_model: Use the lens though the model's unembedding is not the one that it was made for,
            as for a fine-tuned model.

    Raises:
        ValueError: If lens, model and residuals do not belong together.
    """
    if allow_other_model:
        lens.check_shape(model)
    else:
        lens.check(model)
    return read_translated(model, residuals, lens, space)


def read_translated(model: HookedModel, residuals: Residuals, lens: TunedLens, space: AnswerSpace) -> Readout:
    """As :func:`tuned_lens`, for a lens that is known to fit the model."""
    return read_layers(model, residuals, space, "tuned_lens", (RESID_POST,), lens.to(model.device).translate)


def _hash(salt: str, *matrices: Float[Tensor, "_ _"]) -> str:
    digest = hashlib.blake2b(f"{salt}\n".encode(), digest_size=16)
    for matrix in matrices:
        digest.update(f"{tuple(matrix.shape)}\n".encode())
        for rows in matrix.detach().split(_ROWS):
            digest.update(rows.float().cpu().contiguous().numpy().data)
    return digest.hexdigest()
