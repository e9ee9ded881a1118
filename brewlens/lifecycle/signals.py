"""Signals without the right answer: what the two decoders' distributions tell by themselves.

Per layer (arXiv 2606.17648; K answer classes, C of the readiness decoder, P of the availability decoder):
``H_C = -sum C ln C``, ``H_P = -sum P ln P``, ``D = H((C + P) / 2) - (H_C + H_P) / 2`` (Jensen-Shannon
divergence), ``A = [arg max C = arg max P]``. Means over the tail, normalised: ``h = H_C / ln K``,
``hp = H_P / ln K``, ``d = D / ln 2``, ``a = A``; the resolution functional is ``rho = (1 - h)(1 - d) a``.

What they do not show: that the answer is right. A confident wrong digit that both decoders read has
``rho`` near 1. How well they tell resolved samples from others is measured in
:mod:`brewlens.lifecycle.detection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from scipy.special import entr, softmax

from brewlens import html
from brewlens.decoding.readout import Readout

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Signals:
    """Label-free quantities of every sample, by layer, and their normalised means over the tail.

    Attributes:
        item_ids: One id per sample.
        entropy_ready: ``H_C``, in nats.
        entropy_available: ``H_P``, in nats.
        confidence: Largest probability of the readiness decoder.
        divergence: ``D``, in nats; at most ln 2.
        agreement: ``A``: whether both decoders favour the same class; the lowest index wins a tie.
        n_classes: K.
        tail_start: The tail is every layer ``l >= floor(tail_start * L)``.
        decoders: Names of the availability and the readiness decoder.
    """

    item_ids: tuple[str, ...]
    entropy_ready: Float[np.ndarray, "sample layer"]
    entropy_available: Float[np.ndarray, "sample layer"]
    confidence: Float[np.ndarray, "sample layer"]
    divergence: Float[np.ndarray, "sample layer"]
    agreement: Bool[np.ndarray, "sample layer"]
    n_classes: int
    tail_start: float
    decoders: tuple[str, str]

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def n_layers(self) -> int:
        """Number of layers, L."""
        return self.divergence.shape[1]

    @property
    def h(self) -> Float[np.ndarray, "sample"]:
        """Mean tail entropy of the readiness decoder, as a share of ln K."""
        return self._tail(self.entropy_ready) / np.log(self.n_classes)

    @property
    def hp(self) -> Float[np.ndarray, "sample"]:
        """Mean tail entropy of the availability decoder, as a share of ln K."""
        return self._tail(self.entropy_available) / np.log(self.n_classes)

    @property
    def d(self) -> Float[np.ndarray, "sample"]:
        """Mean tail divergence, as a share of ln 2."""
        return self._tail(self.divergence) / np.log(2)

    @property
    def a(self) -> Float[np.ndarray, "sample"]:
        """Share of the tail's layers at which the decoders agree."""
        return self._tail(self.agreement)

    @property
    def c(self) -> Float[np.ndarray, "sample"]:
        """Mean tail confidence of the readiness decoder, whichever class it has at each layer."""
        return self._tail(self.confidence)

    @property
    def rho(self) -> Float[np.ndarray, "sample"]:
        """The resolution functional ``(1 - h)(1 - d) a`` of the tail means; between 0 and 1."""
        return (1 - self.h) * (1 - self.d) * self.a

    def _tail(self, values: np.ndarray) -> np.ndarray:
        return values[:, int(np.floor(self.tail_start * self.n_layers)) :].mean(axis=1)

    def to_frame(self) -> pd.DataFrame:
        """One row per sample: id, h, hp, d, a, c, rho."""
        import pandas as pd

        return pd.DataFrame({"id": self.item_ids, **{name: getattr(self, name) for name in TAIL}})

    def layers_frame(self) -> pd.DataFrame:
        """One row per sample and layer: id, layer and the five quantities."""
        import pandas as pd

        n, layers = self.divergence.shape
        return pd.DataFrame(
            {
                "id": np.repeat(np.array(self.item_ids, dtype=object), layers),
                "layer": repeat(np.arange(layers), "layer -> (sample layer)", sample=n),
                **{
                    name: rearrange(getattr(self, name), "sample layer -> (sample layer)")
                    for name in BY_LAYER
                },
            }
        )

    def select(self, rows: Sequence[int] | Int[np.ndarray, "row"]) -> Signals:
        """The samples at ``rows``, in that order."""
        rows = np.asarray(rows, dtype=int)
        parts = {name: getattr(self, name)[rows] for name in BY_LAYER}
        return replace(self, item_ids=tuple(self.item_ids[row] for row in rows), **parts)

    def __repr__(self) -> str:
        return f"Signals({len(self)} samples x {self.n_layers} layers: {' and '.join(self.decoders)})"

    def _repr_html_(self) -> str:
        """Means over the samples: by layer, and what the tail gives."""
        if not len(self):
            return html.card(repr(self))
        rows = []
        for name in BY_LAYER:
            mean = getattr(self, name).mean(axis=0)
            drawn = html.sparkline(mean, f"mean {name}", low=0)
            rows.append({"signal": name, "at layer 0": mean[0], "at the last": mean[-1], "by layer": drawn})
        tail = ", ".join(f"{name} {getattr(self, name).mean():.2f}" for name in TAIL)
        return html.card(repr(self), html.table(rows), html.note(f"Tail means, normalised: {tail}."))


BY_LAYER = ("entropy_ready", "entropy_available", "confidence", "divergence", "agreement")
TAIL = ("h", "hp", "d", "a", "c", "rho")


def signals(available: Readout, ready: Readout, *, tail_start: float = 0.75) -> Signals:
    """Label-free quantities from the readouts of an availability and a readiness decoder.

    Args:
        available: The probe by default; logits may be minus infinity for a class it lacks.
        ready: Context-stripped decoding by default.
        tail_start: The tail is ``l >= floor(tail_start * L)``.

    Raises:
        ValueError: If the readouts are not about the same samples, layers and classes, in the same order,
            there are fewer than two classes or no layer, or a distribution is not one.
    """
    if (available.item_ids, available.classes, available.n_layers) != (
        ready.item_ids,
        ready.classes,
        ready.n_layers,
    ):
        raise ValueError(
            f"signals compare two decoders sample by sample and layer by layer; {available!r} and {ready!r} "
            "differ in samples, layers or classes, or in their order"
        )
    if len(ready.classes) < 2 or not ready.n_layers or not 0 <= tail_start < 1:
        raise ValueError(
            f"signals need two classes, one layer and a tail that starts in [0, 1); found "
            f"{len(ready.classes)} classes, {ready.n_layers} layers and {tail_start}"
        )
    p, c = _distribution(available), _distribution(ready)
    h_p, h_c = entr(p).sum(axis=-1), entr(c).sum(axis=-1)
    divergence = entr((p + c) / 2).sum(axis=-1) - (h_p + h_c) / 2
    return Signals(
        item_ids=ready.item_ids,
        entropy_ready=h_c,
        entropy_available=h_p,
        confidence=c.max(axis=-1),
        divergence=np.maximum(divergence, 0),  # rounding
        agreement=available.predicted == ready.predicted,
        n_classes=len(ready.classes),
        tail_start=tail_start,
        decoders=(available.decoder, ready.decoder),
    )


def _distribution(readout: Readout) -> Float[np.ndarray, "sample layer class"]:
    logits = np.asarray(readout.logits, dtype=np.float64)
    if not np.isfinite(logits.max(axis=-1)).all():
        raise ValueError(
            f"{readout.decoder}: some logits are NaN or plus infinity, or minus infinity for every class; a "
            "distribution needs one finite logit at least"
        )
    return softmax(logits, axis=-1)
