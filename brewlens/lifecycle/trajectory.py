"""Lifecycle: landmarks and outcomes of every sample, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from brewlens import html
from brewlens.decoding.readout import Readout
from brewlens.lifecycle.landmarks import NEVER, Landmarks, landmarks, tail
from brewlens.lifecycle.outcomes import OUTCOMES, classify


@dataclass(frozen=True)
class Lifecycle:
    """One row per sample.

    Attributes:
        item_ids: Ids.
        families: Family of each item.
        answers: Right answers.
        output: The model's own answer, arg max over the classes.
        output_correct: Whether that is right.
        format_miss: Whether the model's first choice over the full vocabulary is outside the classes.
        landmarks: FPCL, FCC, FJC and brewing.
        tail_class: The class that the readiness decoder's tail favours.
        tail_confidence: Its mean probability over the tail.
        outcome: By the repaired rule.
        outcome_paper: By the paper's rule; there a format miss counts as a wrong output.
        n_layers: L.
        settings: The decoders, thresholds and decision rule behind it.
    """

    item_ids: tuple[str, ...]
    families: tuple[str, ...]
    answers: tuple[str, ...]
    output: tuple[str, ...]
    output_correct: Bool[np.ndarray, "sample"]
    format_miss: Bool[np.ndarray, "sample"]
    landmarks: Landmarks
    tail_class: tuple[str, ...]
    tail_confidence: Float[np.ndarray, "sample"]
    outcome: np.ndarray
    outcome_paper: np.ndarray
    n_layers: int
    settings: Mapping[str, object]

    def __len__(self) -> int:
        return len(self.item_ids)

    def select(self, rows: Sequence[int] | Int[np.ndarray, "row"]) -> Lifecycle:
        """The samples at ``rows``, in that order."""
        rows = np.asarray(rows)

        def pick(values):
            return values[rows] if isinstance(values, np.ndarray) else tuple(values[r] for r in rows)

        fields = {name: getattr(self, name) for name in vars(self)}
        fixed = {name: fields.pop(name) for name in ("landmarks", "n_layers", "settings")}
        marks = Landmarks(**{name: v[rows] for name, v in vars(fixed.pop("landmarks")).items()})
        return Lifecycle(**{name: pick(v) for name, v in fields.items()}, landmarks=marks, **fixed)

    def to_frame(self):
        """Tidy table with the columns of ``samples.parquet``; layers are nullable integers."""
        import pandas as pd

        marks = {
            name: pd.array(np.where(v == NEVER, 0, v), dtype="Int64")
            for name, v in vars(self.landmarks).items()
        }
        frame = pd.DataFrame(
            {
                "id": self.item_ids,
                "family": self.families,
                "answer": self.answers,
                "output": self.output,
                "output_correct": self.output_correct,
                "format_miss": self.format_miss,
                **marks,
                "tail_class": self.tail_class,
                "tail_confidence": self.tail_confidence,
                "outcome": self.outcome,
                "outcome_paper": self.outcome_paper,
            }
        )
        for name, v in vars(self.landmarks).items():
            frame.loc[v == NEVER, name] = pd.NA
        return frame

    def __repr__(self) -> str:
        names, counts = np.unique(self.outcome, return_counts=True)
        shares = ", ".join(f"{n} {c}" for n, c in zip(names, counts, strict=True))
        return f"Lifecycle({len(self)} samples x {self.n_layers} layers: {shares})"

    def _repr_html_(self) -> str:
        """One row per outcome: how many, when they have their landmarks, by median and by layer."""
        rows = []
        for name in OUTCOMES:
            here = self.outcome == name
            row: dict[str, object] = {"outcome": name.replace("_", " "), "n": int(here.sum())}
            row["share"] = f"{here.mean():.1%}" if len(self) else None
            for mark in ("fpcl", "fcc", "fjc"):
                layers = getattr(self.landmarks, mark)[here]
                found = layers[layers != NEVER]
                row[f"{mark.upper()}, median"] = float(np.median(found)) if len(found) else None
            for mark in ("fpcl", "fjc"):
                layers = getattr(self.landmarks, mark)[here]
                hit = layers != NEVER
                come = [(hit & (layers <= k)).mean() for k in range(self.n_layers) if hit.any()]
                title = f"{name}: share with an {mark.upper()} by then"
                row[f"{mark.upper()} by layer"] = html.sparkline(come, title, low=0, high=1)
            rows.append(row)
        differ = int((self.outcome != self.outcome_paper).sum())
        misses = f"{int(self.format_miss.sum()):,} answers are outside the classes"
        told = f"Landmarks are first hits. The paper's rule calls {differ:,} samples otherwise; {misses}."
        title = f"Lifecycle({len(self)} samples x {self.n_layers} layers)"
        return html.card(title, html.table(rows), html.note(told))


def lifecycle(
    available: Readout,
    ready: Readout,
    *,
    families: Sequence[str],
    answers: Sequence[str],
    output: Int[np.ndarray, "sample"],
    format_miss: Bool[np.ndarray, "sample"],
    tail_start: float = 0.75,
    confident: float = 0.5,
) -> Lifecycle:
    """Landmarks and outcomes from two readouts and the model's own answers.

    Args:
        available: Readout of the availability decoder; the probe by default.
        ready: Readout of the readiness decoder; context-stripped decoding by default.
        families: Family of each sample.
        answers: Right answer of each sample.
        output: Class index of the model's own answer.
        format_miss: Whether its arg max over the full vocabulary is not a class.
        tail_start: The tail is ``l >= floor(tail_start * L)``.
        confident: The least tail confidence of a misresolved sample.

    Raises:
        ValueError: If the readouts are not about the same samples and classes in the same order.
    """
    if available.item_ids != ready.item_ids or available.classes != ready.classes:
        raise ValueError(
            f"{available.decoder} and {ready.decoder} differ in their samples or classes, or in their order"
        )
    target = ready.target_index(answers)
    marks = landmarks(available.correct(answers), ready.correct(answers))
    tail_class, tail_confidence = tail(ready.probabilities, tail_start)
    right = output == target

    def label(taxonomy: str, output_correct: Bool[np.ndarray, "sample"]) -> np.ndarray:
        return classify(
            marks.fpcl,
            marks.fjc,
            output_correct,
            tail_class == target,
            tail_confidence,
            taxonomy=taxonomy,
            confident=confident,
        )

    return Lifecycle(
        item_ids=ready.item_ids,
        families=tuple(families),
        answers=tuple(answers),
        output=tuple(ready.classes[k] for k in output),
        output_correct=right,
        format_miss=format_miss,
        landmarks=marks,
        tail_class=tuple(ready.classes[k] for k in tail_class),
        tail_confidence=tail_confidence,
        outcome=label("repaired", right),
        outcome_paper=label("paper", right & ~format_miss),
        n_layers=ready.n_layers,
        settings={
            "availability": available.decoder,
            "readiness": ready.decoder,
            "tail_start": tail_start,
            "confident": confident,
            "decision_rule": "arg max over the answer classes",
        },
    )


def onset_outcomes(
    lifecycle: Lifecycle, available: Int[np.ndarray, "sample"], ready: Int[np.ndarray, "sample"]
) -> np.ndarray:
    """Outcome of each sample by the repaired rule, with onsets in the place of first hits.

    Args:
        lifecycle: Whose outputs, tails and thresholds are used.
        available: Layer from which the answer is available, or ``NEVER``.
        ready: Layer from which it is ready, or ``NEVER``.
    """
    right = np.array(lifecycle.tail_class) == np.array(lifecycle.answers)
    return classify(
        available,
        np.where(available == NEVER, NEVER, ready),
        lifecycle.output_correct,
        right,
        lifecycle.tail_confidence,
        confident=float(lifecycle.settings["confident"]),  # type: ignore[arg-type]
    )
