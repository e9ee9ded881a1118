"""Anchors: the layer of each sample that an experiment is placed by, and what it was read with.

A landmark is chosen because a readout is right there. What is then tested with the very same readout is right
there again, by choice alone; so an experiment asks with which target prompts the landmark was read, and tests
with others (:func:`refuse_reuse`).

Landmarks are found with the right answer in hand: a label-free rule has no such layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Int

from brewlens.brief import brief
from brewlens.decoding.targets import BUNDLED, CONSTANT, OWN, Target, own_suffixes
from brewlens.lifecycle.landmarks import NEVER
from brewlens.lifecycle.landmarks import landmarks as first_hits
from brewlens.lifecycle.trajectory import onset_outcomes
from brewlens.tasks.item import ItemSet

if TYPE_CHECKING:
    from brewlens.model import Prompt
    from brewlens.results import Trace

Landmarks = Literal["first_hits", "onsets"]
"""The paper's first hits, or posterior medians of the onsets."""

# The target prompts behind each readiness decoder; others (lenses) have none.
_READ_WITH: dict[str, tuple[Target, ...]] = {
    "context_stripped": (OWN,),
    "context_stripped_constant": (CONSTANT,),
    "context_stripped_pooled": BUNDLED,
}


@dataclass(frozen=True, eq=False)
class Anchors:
    """Where each sample's experiment is placed.

    Attributes:
        fpcl: ``[sample]`` layer from which the answer is available, or ``NEVER``.
        fjc: Layer at which it is available and ready, or ``NEVER``.
        outcome: Outcome by the repaired rule on these landmarks.
        read_with: Target prompts that readiness was read with.
    """

    fpcl: Int[np.ndarray, "sample"]
    fjc: Int[np.ndarray, "sample"]
    outcome: np.ndarray
    read_with: tuple[Target, ...]

    def __len__(self) -> int:
        return len(self.fpcl)

    def select(self, rows: Int[np.ndarray, "row"]) -> Anchors:
        """The samples at ``rows``, in that order."""
        return Anchors(self.fpcl[rows], self.fjc[rows], self.outcome[rows], self.read_with)

    __repr__ = brief


def anchors(trace: Trace, landmarks: Landmarks = "first_hits") -> Anchors:
    """The landmarks of a trace.

    Args:
        trace: The trace.
        landmarks: ``first_hits``: FPCL and FJC of the paper. ``onsets``: the layer from which the answer is
            available, and the first at which it is ready too (``NEVER`` where it is ready no longer by then).

    Raises:
        ValueError: If there are no such landmarks.
    """
    life = trace.lifecycle
    if landmarks == "first_hits":
        read_with = _READ_WITH.get(str(life.settings["readiness"]), ())
        return Anchors(life.landmarks.fpcl, life.landmarks.fjc, life.outcome, read_with)
    if landmarks != "onsets":
        raise ValueError(f"landmarks are 'first_hits' or 'onsets', found {landmarks!r}")
    if not trace.onsets:
        raise ValueError(
            "asked for onsets, and the trace has none; give it some with brewlens.study.analysis.analyse, or "
            "use landmarks='first_hits'"
        )
    available, ready = trace.onsets["available"].onset, trace.onsets["ready"].onset
    end = trace.onsets["ready"].end
    both = np.maximum(available, ready)
    joint = (available != NEVER) & (ready != NEVER) & ((end == NEVER) | (both < end))
    outcome = onset_outcomes(life, available, ready)
    return Anchors(available, np.where(joint, both, NEVER), outcome, _READ_WITH["context_stripped"])


def for_other_answers(trace: Trace, answers: Sequence[str]) -> Anchors:
    """First hits as they would be if other answers were the right ones; the outcome stays what it is.

    Args:
        trace: The trace.
        answers: One per sample.
    """
    life = trace.lifecycle
    probe, ready = (trace.readouts[str(life.settings[role])] for role in ("availability", "readiness"))
    marks = first_hits(probe.correct(answers), ready.correct(answers))
    return Anchors(marks.fpcl, marks.fjc, life.outcome, ())


def refuse_reuse(found: Anchors, items: ItemSet, prompts: Sequence[Prompt]) -> None:
    """Refuse to test a landmark with the target prompt that it was read with.

    Args:
        found: The landmarks.
        items: The samples.
        prompts: ``[sample]`` the target prompts of the test.

    Raises:
        ValueError: Names the prompt and how many samples it is shared by.
    """
    own = own_suffixes(items)
    for target in found.read_with:
        if target.kind == "contextless":  # one token is like another: nothing else can be attended to
            shared = [prompt for prompt in prompts if not isinstance(prompt, str) and len(prompt) == 1]
        else:
            read = own if target.text is None else (target.text,) * len(items)
            shared = [prompt for prompt, before in zip(prompts, read, strict=True) if prompt == before]
        if shared:
            raise ValueError(
                f"asked to test landmarks with {shared[0]!r}, with which those of {len(shared)} of "
                f"{len(items)} samples were read (target {target.name!r}): they were chosen because the "
                "answer is right there. Test with another wording, for example "
                "brewlens.decoding.targets.Target('mine', 'paraphrase', '# In the end x is \"')"
            )
