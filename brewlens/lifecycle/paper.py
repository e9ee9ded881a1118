"""The published recipe, from stored arrays.

arXiv 2606.17648, as published. Readiness is read behind one constant target prompt; ten classes, the
digits; landmarks are first hits. No FPCL is ``no_brewing``. An FJC and a right output is ``resolved``, an FJC
and a wrong one ``overprocessed``. Without an FJC a sample is ``misresolved`` where some digit has a mean
probability of 1/2 or more over the tail ``l >= floor(3 L / 4)``, else ``unresolved``. Shares are out of the
samples that have an FPCL; FPCL/L, FJC/L and (FJC - FPCL)/L are means over the samples that have the landmark.
Two decision rules are mixed: decoders choose among the digits, the output from the full vocabulary, so that a
format miss is a wrong output.

The probes are those that the caller stored: out of fold, where the published ones were trained on most of the
items that they were evaluated on.

What the recipe does not show: that a first hit is more than chance (with 28 layers 95 % of samples have an
FPCL in pure noise), nor that FPCL comes before FJC, which holds by construction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from brewlens import html
from brewlens.answers import DIGITS
from brewlens.decoding.readout import Readout
from brewlens.lifecycle.landmarks import NEVER, Landmarks
from brewlens.lifecycle.outcomes import RESOLUTION
from brewlens.lifecycle.signals import Signals, signals
from brewlens.lifecycle.trajectory import lifecycle

if TYPE_CHECKING:
    import pandas as pd

TAIL_START = 0.75
CONFIDENT = 0.5
DEPTHS = ("fpcl", "fcc", "fjc", "brewing")
LABEL_FREE = ("h", "hp", "d", "a", "rho")


@dataclass(frozen=True, eq=False)
class PaperLifecycle:
    """Every sample by the published recipe.

    Attributes:
        item_ids: Ids.
        families: Family of each sample.
        landmarks: First hits, ``NEVER`` where there is none.
        output_correct: Whether the model's first choice over the full vocabulary is the right digit.
        tail_confidence: Largest mean probability of a digit over the tail of the readiness decoder.
        outcome: ``no_brewing`` or one of ``RESOLUTION``.
        signals: Label-free quantities of the same two readouts.
        n_layers: L.
        settings: The decoders, thresholds and decision rules behind it.
    """

    item_ids: tuple[str, ...]
    families: tuple[str, ...]
    landmarks: Landmarks
    output_correct: Bool[np.ndarray, "sample"]
    tail_confidence: Float[np.ndarray, "sample"]
    outcome: np.ndarray
    signals: Signals
    n_layers: int
    settings: Mapping[str, object]

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def brewing(self) -> Bool[np.ndarray, "sample"]:
        """Whether a sample has an FPCL: the denominator of the four shares."""
        return self.landmarks.fpcl != NEVER

    def shares(self) -> dict[str, float]:
        """Share of each resolution outcome among the samples that have an FPCL; NaN where none has."""
        kept = self.outcome[self.brewing]
        return {name: float((kept == name).mean()) if len(kept) else np.nan for name in RESOLUTION}

    def depths(self) -> dict[str, float]:
        """Mean landmark over L, over the samples that have the landmark; NaN where none has."""
        marks = {name: getattr(self.landmarks, name) for name in DEPTHS}
        hits = {name: values[values != NEVER] / self.n_layers for name, values in marks.items()}
        return {name: float(values.mean()) if len(values) else np.nan for name, values in hits.items()}

    def to_frame(self) -> pd.DataFrame:
        """One row per sample; layers are nullable integers, label-free quantities last."""
        import pandas as pd

        frame = pd.DataFrame(
            {"id": self.item_ids, "family": self.families, "output_correct": self.output_correct}
        )
        for name in DEPTHS:
            values = getattr(self.landmarks, name)
            frame[name] = pd.Series(values, dtype="Int64").mask(values == NEVER)
        frame["tail_confidence"], frame["outcome"] = self.tail_confidence, self.outcome
        for name in LABEL_FREE:
            frame[name] = getattr(self.signals, name)
        return frame

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {100 * value:.1f} %" for name, value in self.shares().items())
        return f"PaperLifecycle({int(self.brewing.sum())} of {len(self)} samples with an FPCL: {shares})"

    def _repr_html_(self) -> str:
        """Shares of the outcomes and mean depths, as the paper tables them."""
        counts = {name: int((self.outcome[self.brewing] == name).sum()) for name in RESOLUTION}
        row: dict[str, object] = {"n": int(self.brewing.sum()), "outcomes": html.outcome_bar(counts)}
        row |= {name: f"{share:.1%}" for name, share in self.shares().items()}
        row |= {f"{name.upper()}/L": depth for name, depth in self.depths().items()}
        title = f"PaperLifecycle({int(self.brewing.sum())} of {len(self)} samples with an FPCL)"
        return html.card(title, html.table([row]), html.outcome_key(RESOLUTION))


def paper_lifecycle(
    available: Readout,
    ready: Readout,
    *,
    families: Sequence[str],
    answers: Sequence[str],
    output: Int[np.ndarray, "sample"],
    format_miss: Bool[np.ndarray, "sample"],
) -> PaperLifecycle:
    """Score stored readouts by the published recipe.

    Args:
        available: Readout of the probe.
        ready: Readout of context-stripped decoding behind the constant target prompt
            (:data:`brewlens.decoding.targets.CONSTANT`), prior subtracted.
        families: Family of each sample.
        answers: Right answer of each sample.
        output: Index of the model's own answer among ``ready.classes``.
        format_miss: Whether its first choice over the full vocabulary is none of the classes.

    Raises:
        ValueError: If a digit is not among the classes, or the inputs are not about the same samples,
            layers and classes in the same order.
    """
    if not len(ready) == len(families) == len(answers) == len(output) == len(format_miss):
        raise ValueError(
            f"one family, answer, output and format miss per sample: found {len(families)}, {len(answers)}, "
            f"{len(output)} and {len(format_miss)} for {len(ready)} samples"
        )
    if (available.classes, available.n_layers) != (ready.classes, ready.n_layers):
        raise ValueError(f"{available!r} and {ready!r} differ in their layers or classes, or in their order")
    said = np.array([DIGITS.index(c) if c in DIGITS else NEVER for c in ready.classes])[
        np.asarray(output, dtype=int)
    ]
    # An output outside the digits is a wrong one, whichever digit stands for it.
    missed = np.asarray(format_miss, dtype=bool) | (said == NEVER)
    probe, stripped = _digits(available), _digits(ready)
    life = lifecycle(
        probe,
        stripped,
        families=families,
        answers=answers,
        output=np.where(said == NEVER, 0, said),
        format_miss=missed,
        tail_start=TAIL_START,
        confident=CONFIDENT,
    )
    return PaperLifecycle(
        item_ids=life.item_ids,
        families=life.families,
        landmarks=life.landmarks,
        output_correct=life.output_correct & ~missed,
        tail_confidence=life.tail_confidence,
        outcome=life.outcome_paper,
        signals=signals(probe, stripped, tail_start=TAIL_START),
        n_layers=life.n_layers,
        settings={
            **life.settings,
            "taxonomy": "paper",
            "decision_rule": "decoders: arg max over the digits; output: arg max over the full vocabulary",
        },
    )


def _digits(readout: Readout) -> Readout:
    """The same readout over the ten digits, in double precision: means near a threshold must not round."""
    if lacking := [digit for digit in DIGITS if digit not in readout.classes]:
        raise ValueError(
            f"the published recipe has the ten digits as classes; {readout.decoder} lacks {lacking} and has "
            f"{list(readout.classes)}. Run items that digits answer"
        )
    columns = [readout.classes.index(digit) for digit in DIGITS]
    logits = np.ascontiguousarray(readout.logits[..., columns], dtype=np.float64)
    return replace(readout, logits=logits, classes=DIGITS, other_mass=None)
