"""How a sample ends: resolved, overprocessed, misresolved, unresolved, and what is left out of the four."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from brewlens.lifecycle.landmarks import NEVER

RESOLUTION = ("resolved", "overprocessed", "misresolved", "unresolved")
OUTCOMES = (*RESOLUTION, "bypassed", "no_brewing")
TAXONOMIES = ("repaired", "paper")


def classify(
    fpcl: Int[np.ndarray, "sample"],
    fjc: Int[np.ndarray, "sample"],
    output_correct: Bool[np.ndarray, "sample"],
    tail_correct: Bool[np.ndarray, "sample"],
    tail_confidence: Float[np.ndarray, "sample"],
    *,
    taxonomy: str = "repaired",
    confident: float = 0.5,
) -> np.ndarray:
    """The outcome of each sample, by name.

    Both rules, in this order: no FPCL is ``no_brewing``; an FJC and a right output is ``resolved``; an
    FJC and a wrong output is ``overprocessed``. Without an FJC the paper's rule (section 3) says
    ``misresolved`` where the tail is confident and ``unresolved`` elsewhere. The repaired rule first
    sets a right output apart as ``bypassed``, and asks of ``misresolved`` that the tail's favourite
    class be wrong: a confident right tail is no misresolution.

    Args:
        fpcl: First probe-correct layer, or NEVER.
        fjc: First jointly correct layer, or NEVER.
        output_correct: Whether the model's own answer is right.
        tail_correct: Whether the tail's favourite class is right.
        tail_confidence: Its mean probability over the tail.
        taxonomy: ``repaired`` or ``paper``.
        confident: The least tail confidence of a misresolved sample.

    Raises:
        ValueError: If the taxonomy is unknown.
    """
    if taxonomy not in TAXONOMIES:
        raise ValueError(f"unknown taxonomy {taxonomy!r}; choose one of {', '.join(TAXONOMIES)}")
    joint = fjc != NEVER
    misresolved = tail_confidence >= confident
    conditions = [fpcl == NEVER, joint & output_correct, joint & ~output_correct]
    names = ["no_brewing", "resolved", "overprocessed"]
    if taxonomy == "repaired":
        conditions.append(output_correct)
        names.append("bypassed")
        misresolved = misresolved & ~tail_correct
    return np.select([*conditions, misresolved], [*names, "misresolved"], default="unresolved")
