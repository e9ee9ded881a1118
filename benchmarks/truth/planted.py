"""Planted models: real transformers of known lifecycle through the whole instrument; what does it say of
them?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from brewlens.lifecycle import NEVER
from brewlens.planted import NOISE, Truth, draw_truth, plant
from brewlens.results import Trace, onset_outcomes
from brewlens.study.pipeline import trace as trace_model

N = 480
LAYERS = (12, 16)
ONSETS = ("available_from", "ready_from", "ready_until")
FIRST_HITS = {"available_from": "fpcl", "ready_from": "fcc"}


@dataclass(frozen=True)
class Spec:
    """One planted model.

    Attributes:
        noise: ``low``, ``medium`` or ``high``.
        n_layers: L.
        available, ready, lost: Layers, or ``spread`` over the samples.
        seed: Of the truth and the weights.
    """

    noise: str
    n_layers: int
    available: int | Literal["spread"]
    ready: int | Literal["spread"]
    lost: int | Literal["spread"]
    seed: int


def specs(runs: int) -> list[Spec]:
    """As many models, noise in turns; every other one has its onsets spread over the samples."""
    found = []
    for k in range(runs):
        rng = np.random.default_rng(k)
        noise, layers = tuple(NOISE)[k % len(NOISE)], LAYERS[k // len(NOISE) % len(LAYERS)]
        if k // (len(NOISE) * len(LAYERS)) % 2:
            found.append(Spec(noise, layers, "spread", "spread", "spread", k))
            continue
        ready = int(rng.integers(2, int(0.7 * layers) + 1))
        available = int(rng.integers(0, ready))
        lost = int(rng.integers(min(ready + 2, layers - 2), layers - 1))
        found.append(Spec(noise, layers, available, ready, lost, k))
    return found


def planted_run(spec: Spec, n: int = N) -> pd.DataFrame:
    """Trace one planted model; one row per sample and landmark: truth, onset, first hit."""
    truth = draw_truth(
        n, spec.n_layers, available=spec.available, ready=spec.ready, lost=spec.lost, seed=spec.seed
    )
    planted = plant(truth, hit=NOISE[spec.noise], seed=spec.seed)
    traced = trace_model(planted.model, planted.items, resamples=99, progress=False)
    return compare(spec, truth, traced)


def compare(spec: Spec, truth: Truth, traced: Trace) -> pd.DataFrame:
    """What was found beside what is so."""
    available, ready = traced.onsets["available"], traced.onsets["ready"]
    found = {"available_from": available.onset, "ready_from": ready.onset, "ready_until": ready.end}
    outcome = onset_outcomes(traced.lifecycle, available.onset, ready.onset)
    rows = []
    for name in ONSETS:
        marks = FIRST_HITS.get(name)
        rows.append(
            pd.DataFrame(
                {
                    "noise": spec.noise,
                    "n_layers": spec.n_layers,
                    "spread": spec.available == "spread",
                    "run": spec.seed,
                    "landmark": name,
                    "kind": truth.kind,
                    "truth": getattr(truth, name),
                    "onset": found[name],
                    "first_hit": NEVER - 1 if marks is None else getattr(traced.lifecycle.landmarks, marks),
                    "outcome_right": outcome == truth.outcome,
                    "outcome_first_hit_right": traced.lifecycle.outcome == truth.outcome,
                    "outcome_paper_right": traced.lifecycle.outcome_paper == truth.outcome,
                }
            )
        )
    return pd.concat(rows, ignore_index=True)
