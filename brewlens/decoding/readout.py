"""Readout: what every decoder returns, so that any decoder may stand for availability or readiness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from scipy.special import softmax

from brewlens import html


@dataclass(frozen=True)
class Readout:
    """A decoder's distribution over the answer classes, per sample and layer.

    Attributes:
        logits: ``[sample, layer, class]`` float32; softmax over the last axis gives the distribution.
        classes: The answers, in the order of the class axis.
        decoder: ``probe``, ``logit_lens``, ``tuned_lens``, ``context_stripped``, ``surface``, ...
        item_ids: One id per sample.
        other_mass: ``[sample, layer]`` probability outside the classes under the full vocabulary, or
            None for a decoder that knows only the classes.
    """

    logits: Float[np.ndarray, "sample layer class"]
    classes: tuple[str, ...]
    decoder: str
    item_ids: tuple[str, ...]
    other_mass: Float[np.ndarray, "sample layer"] | None = None

    def __post_init__(self) -> None:
        if self.logits.ndim != 3 or self.logits.shape[2] != len(self.classes):
            raise ValueError(
                f"{self.decoder}: logits must be [sample, layer, class] with {len(self.classes)} classes, "
                f"found {self.logits.shape}"
            )
        if len(self.logits) != len(self.item_ids):
            raise ValueError(f"{self.decoder}: {len(self.logits)} rows but {len(self.item_ids)} item ids")

    @property
    def n_layers(self) -> int:
        """Entries of the layer axis; 1 for a decoder that reads no model."""
        return self.logits.shape[1]

    def __len__(self) -> int:
        return len(self.logits)

    @cached_property
    def probabilities(self) -> Float[np.ndarray, "sample layer class"]:
        """Softmax of the logits over the classes."""
        return softmax(self.logits, axis=-1)

    @cached_property
    def predicted(self) -> Int[np.ndarray, "sample layer"]:
        """Class index of the largest logit; the lowest index wins a tie."""
        return self.logits.argmax(axis=-1)

    @cached_property
    def entropy(self) -> Float[np.ndarray, "sample layer"]:
        """Shannon entropy over the classes, in nats."""
        p = self.probabilities
        return -(p * np.log(np.maximum(p, np.finfo(p.dtype).tiny))).sum(axis=-1)

    def target_index(self, answers: Sequence[str]) -> Int[np.ndarray, "sample"]:
        """Class index of each answer.

        Raises:
            ValueError: If an answer is not a class or the lengths differ.
        """
        if len(answers) != len(self):
            raise ValueError(f"{self.decoder}: {len(self)} samples but {len(answers)} answers")
        where = {c: k for k, c in enumerate(self.classes)}
        if unknown := sorted({a for a in answers if a not in where}):
            raise ValueError(f"answers {unknown[:5]} are not among the classes {list(self.classes)}")
        return np.array([where[a] for a in answers], dtype=np.int64)

    def correct(self, answers: Sequence[str]) -> Bool[np.ndarray, "sample layer"]:
        """Whether the arg max over the classes is the right answer."""
        return self.predicted == self.target_index(answers)[:, None]

    def p_answer(self, answers: Sequence[str]) -> Float[np.ndarray, "sample layer"]:
        """Probability of the right answer."""
        target = self.target_index(answers)
        return np.take_along_axis(self.probabilities, target[:, None, None], axis=2)[..., 0]

    def select(self, rows: Sequence[int] | Int[np.ndarray, "row"]) -> Readout:
        """The samples at ``rows``, in that order."""
        rows = np.asarray(rows)
        return Readout(
            self.logits[rows],
            self.classes,
            self.decoder,
            tuple(self.item_ids[r] for r in rows),
            None if self.other_mass is None else self.other_mass[rows],
        )

    def to_frame(self, answers: Sequence[str]):
        """Tidy table: id, layer, decoder, predicted, correct, p_answer, entropy, other_mass."""
        import pandas as pd

        n, layers, _ = self.logits.shape
        other = np.full((n, layers), np.nan, np.float32) if self.other_mass is None else self.other_mass
        in_rows = partial(rearrange, pattern="sample layer -> (sample layer)")
        return pd.DataFrame(
            {
                "id": repeat(np.array(self.item_ids), "sample -> (sample layer)", layer=layers),
                "layer": repeat(np.arange(layers), "layer -> (sample layer)", sample=n),
                "decoder": self.decoder,
                "predicted": np.asarray(self.classes)[in_rows(self.predicted)],
                "correct": in_rows(self.correct(answers)),
                "p_answer": in_rows(self.p_answer(answers)),
                "entropy": in_rows(self.entropy),
                "other_mass": in_rows(other),
            }
        )

    def __repr__(self) -> str:
        n, layers, k = self.logits.shape
        return f"Readout({self.decoder}: {n} samples x {layers} layers x {k} classes)"

    def _repr_html_(self) -> str:
        """How sure the decoder is, by layer; whether it is right takes answers: ``correct(answers)``."""
        p = self.probabilities
        measures = {
            "largest probability": p.max(axis=-1),
            "entropy / ln K": self.entropy / np.log(p.shape[2]),
        }
        if self.other_mass is not None:
            measures["mass outside the classes"] = self.other_mass
        rows = []
        for name, values in measures.items():
            mean = values.mean(axis=0) if len(self) else np.full(self.n_layers, np.nan)
            drawn = html.sparkline(mean, f"mean {name}", low=0, high=1)
            rows.append({"mean of": name, "at layer 0": mean[0], "at the last": mean[-1], "by layer": drawn})
        return html.card(repr(self), html.table(rows), html.note("Lines run from 0 to 1."))
