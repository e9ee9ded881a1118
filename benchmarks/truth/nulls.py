"""Nulls: readouts that know nothing, through the whole analysis; how often does it find something?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from brewlens import tasks
from brewlens.lifecycle.claims import NOT_DISTINGUISHABLE
from brewlens.planted import draw_truth, nothing, simulated_trace
from brewlens.results import Trace
from brewlens.study.analysis import analyse
from brewlens.tasks.item import ItemSet


@dataclass(frozen=True)
class Kind:
    """A way to know nothing.

    Attributes:
        correlation: Of the noise of neighbouring layers (AR(1)).
        difficulty: Standard deviation of the logarithm of a sample's noise factor. By itself it changes no
            arg max of noise; so with it samples differ in their correlation too, evenly from 0 to ``most``.
        most: That largest correlation.
    """

    correlation: float = 0.0
    difficulty: float = 0.0
    most: float = 0.0


KINDS: Mapping[str, Kind] = {
    "independent layers": Kind(),
    "AR(1) layers": Kind(correlation=0.8),
    "random difficulty": Kind(difficulty=0.5, most=0.9),
}
LAYERS = (24, 28)
N = 135  # per family
FOLDS = 5


@lru_cache(maxsize=1)
def programs(n: int = N) -> tuple[ItemSet, np.ndarray]:
    """Loops and their unrolled twins, so that every claim can be tested, and their folds."""
    items = tasks.generate(("loop", "loop_unrolled"), n=n, seed=0)
    return items, tasks.assign_folds(items, FOLDS)


def null_trace(kind: Kind, n_layers: int, seed: int, n: int = N) -> Trace:
    """A trace whose readouts, outputs included, are noise."""
    items, folds = programs(n)
    truth = nothing(draw_truth(len(items), n_layers, difficulty=kind.difficulty, seed=seed))
    correlation: float | np.ndarray = kind.correlation
    if kind.most:
        correlation = np.random.default_rng(seed + 2).uniform(0, kind.most, len(items))
    trace, _ = simulated_trace(*(items, folds, truth), hit=0.8, correlation=correlation, seed=seed + 1)
    return trace


@dataclass(frozen=True)
class NullRun:
    """What one null run says.

    Attributes:
        p: Test -> p-value, over all samples.
        false_claims: Statements whose verdict is not "not distinguishable from null".
        present: Share of samples in which an onset is found, of availability and of readiness.
    """

    p: Mapping[str, float]
    false_claims: tuple[str, ...]
    present: tuple[float, float]


def null_run(kind: str, n_layers: int, seed: int, resamples: int = 999, n: int = N) -> NullRun:
    """One run of the whole analysis on noise."""
    found = analyse(null_trace(KINDS[kind], n_layers, seed, n), resamples=resamples, seed=seed)
    nulls, claims = found.tables["nulls"], found.tables["claims"]
    rows = nulls[nulls["family"] == "all"]
    wrong = claims[claims["verdict"] != NOT_DISTINGUISHABLE]
    return NullRun(
        {
            f"{s} ({null})": float(p)
            for s, null, p in zip(rows["statistic"], rows["null"], rows["p"], strict=True)
        },
        tuple(wrong["statement"] + ": " + wrong["scope"]),
        tuple(float((found.onsets[name].onset >= 0).mean()) for name in ("available", "ready")),
    )
