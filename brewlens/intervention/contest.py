"""Contest: the best of many policies on each half of the samples, and what it promises there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from brewlens.brief import brief
from brewlens.intervention.policies import Applied, Policy
from brewlens.intervention.samples import ALL

REPAIRED, NET_ACCURACY = "repaired", "net_accuracy"


@dataclass(frozen=True, eq=False)
class Choice:
    """What the two halves chose for the other one.

    Attributes:
        outcome: Of the failures, or ``all``.
        oracle: Whether it was chosen among oracles.
        by: What was maximised: ``repaired`` or ``net_accuracy``.
        policies: Of half 0 and 1; None for no edit.
        promised: What each half saw of its own choice; 0 for no edit.
        sizes: Samples that this rests on.
        candidates: How many were compared.
    """

    outcome: str
    oracle: bool
    by: str
    policies: tuple[Policy | None, ...]
    promised: tuple[float, ...]
    sizes: tuple[int, ...]
    candidates: int

    @property
    def chosen_on(self) -> float:
        """What the choosing halves promised, weighted by their samples; NaN where there were none."""
        return float(np.average(self.promised, weights=self.sizes)) if sum(self.sizes) else math.nan

    __repr__ = brief


@dataclass(frozen=True, eq=False)
class Contest:
    """Candidates compared on some samples.

    Attributes:
        policies: The candidates.
        tried: What they do.
        outcome: ``[sample]``.
        half: ``[sample]``.
        weights: Share of each outcome among all samples, of which those compared need not be a fair draw.
    """

    policies: Sequence[Policy]
    tried: Applied
    outcome: np.ndarray
    half: Int[np.ndarray, "sample"]
    weights: dict[str, float]

    def choose(self, outcome: str, oracle: bool) -> Choice:
        """The best candidate of each half, for failures of one outcome or for all samples."""
        among = np.flatnonzero([policy.oracle == oracle for policy in self.policies])
        best: list[Policy | None] = []
        promised, sizes = [], []
        for half in (0, 1):
            rows = self.half == half
            net = self._net(rows)[among]
            failures = rows & (self.outcome == outcome) & ~self.tried.before
            size = int(rows.sum()) if outcome == ALL else int(failures.sum())
            repaired = self.tried.after[np.ix_(among, failures)].sum(axis=1) / max(1, size)
            score: np.ndarray = net if outcome == ALL else repaired
            winner = max(range(len(among)), key=lambda k: (score[k], net[k]))
            better = score[winner] > 0
            best.append(self.policies[among[winner]] if better else None)
            promised.append(float(score[winner]) if better else 0.0)
            sizes.append(size)
        by = NET_ACCURACY if outcome == ALL else REPAIRED
        return Choice(outcome, oracle, by, tuple(best), tuple(promised), tuple(sizes), len(among))

    def _net(self, rows: Bool[np.ndarray, "sample"]) -> Float[np.ndarray, "policy"]:
        """Net accuracy of each candidate over everyone, from these rows."""
        gain = self.tried.after.astype(float) - self.tried.before
        found, total = np.zeros(len(gain)), 0.0
        for name, weight in self.weights.items():
            if (here := rows & (self.outcome == name)).any():
                found += weight * gain[:, here].mean(axis=1)
                total += weight
        return found / total if total else found

    __repr__ = brief
