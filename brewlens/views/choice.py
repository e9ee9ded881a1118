"""Which samples a view offers: those that are asked for, and the most typical ones of every outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from brewlens.figures.lifecycle import examples, row_of
from brewlens.lifecycle.outcomes import OUTCOMES

if TYPE_CHECKING:
    from brewlens.results import Trace

Sample = int | str
MOST = 60
"""Most samples of one explorer; each adds its numbers to the page."""


def chosen_rows(
    trace: Trace,
    sample: Sample | Sequence[Sample] | None,
    family: str | None,
    per_outcome: int,
) -> tuple[list[int], str]:
    """Rows of the samples asked for, then of typical ones by outcome, and a sentence on what they are.

    Typical is as in :func:`brewlens.figures.examples`; the next one is the most typical of those left.

    Raises:
        ValueError: If a sample or the family is unknown, there would be none, or more than ``MOST``.
    """
    asked = [] if sample is None else [sample] if isinstance(sample, int | str | np.integer) else list(sample)
    rows = [row_of(trace, s if isinstance(s, str) else int(s)) for s in asked]
    families = np.array(trace.lifecycle.families)
    if family is not None and family not in trace.items.families:
        raise ValueError(f"asked for family {family!r}; this trace has {', '.join(trace.items.families)}")
    if per_outcome < 0:
        raise ValueError(f"per_outcome is 0 or more, found {per_outcome}")
    pool = np.flatnonzero(families == family) if family is not None else np.arange(len(trace))
    typical = _typical(trace, pool, per_outcome)
    order = list(dict.fromkeys([*rows, *typical]))
    if not order:
        raise ValueError("asked for no sample and none per outcome; give sample= or per_outcome=1")
    if len(order) > MOST:
        raise ValueError(
            f"asked for {len(order)} samples, more than {MOST} of one page; ask for fewer, or lower "
            "per_outcome"
        )
    parts = [f"{len(set(rows))} asked for"] if rows else []
    if typical:
        where = f"{len(pool):,} samples" + (f" of {family}" if family is not None else "")
        parts.append(f"of {where} the {per_outcome} most typical of each outcome")
    return order, f"{len(order)} to choose from: {'; '.join(parts)}"


def _typical(trace: Trace, pool: np.ndarray, per_outcome: int) -> list[int]:
    found: dict[str, list[int]] = {name: [] for name in OUTCOMES}
    left = pool
    for _ in range(per_outcome):
        if not len(left):
            break
        for outcome, row in examples(trace.select(left)).items():
            found[outcome].append(int(left[row]))
        left = left[~np.isin(left, [row for rows in found.values() for row in rows])]
    return [row for rows in found.values() for row in rows]
