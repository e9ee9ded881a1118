"""A plausible Trace from random numbers over real generated programs, with every outcome in it; no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from brewlens import tasks
from brewlens.decoding.readout import Readout
from brewlens.lifecycle import lifecycle
from brewlens.results import Trace
from brewlens.study.analysis import analyse
from brewlens.study.summary import summarise
from brewlens.tasks.item import ItemSet

CLASSES = tuple("0123456789")
# How samples of an easy and of a hard family end; every family lies between the two.
_ENDS = ("resolved", "overprocessed", "misresolved", "unresolved", "bypassed", "no_brewing")
_EASY = np.array([0.78, 0.08, 0.04, 0.05, 0.03, 0.02])
_HARD = np.array([0.30, 0.24, 0.12, 0.22, 0.05, 0.07])


def synthetic_trace(
    n_per_family: int = 60,
    families: Sequence[str] = tasks.FAMILIES,
    n_layers: int = 12,
    seed: int = 0,
    *,
    surface: float | Mapping[str, float] = 0.35,
    items: ItemSet | None = None,
) -> Trace:
    """Build a trace whose trajectories rise at random onsets and end in all six outcomes.

    Args:
        n_per_family: Items per family.
        families: The families.
        n_layers: L.
        seed: Of the items and of the numbers.
        surface: Accuracy of the text-only baseline, one for all or per family.
        items: Use these items instead.
    """
    items = items or tasks.generate(tuple(families), n=n_per_family, seed=seed)
    rng = np.random.default_rng(seed)
    n, k, layer = len(items), len(CLASSES), np.arange(n_layers)
    target = np.array([CLASSES.index(a) for a in items.answers])
    wrong = (target + rng.integers(1, k, n)) % k
    hardness = np.array([items.families.index(i.family) / max(1, len(items.families) - 1) for i in items])
    ends = np.array(
        [
            rng.choice(len(_ENDS), p=(1 - h) * _EASY + h * _HARD) if r >= 6 else r
            for r, h in enumerate(hardness)
        ]
    )
    end = np.array(_ENDS)[ends]

    available_from = rng.uniform(0.02, 0.3, n) * n_layers * (0.6 + 0.8 * hardness)
    ready_from = available_from + rng.uniform(0.15, 0.45, n) * n_layers
    overwritten = rng.uniform(0.72, 0.86, n) * n_layers

    def rise(start: np.ndarray, width: float = 0.7) -> np.ndarray:
        return 1 / (1 + np.exp(-(layer[None] - start[:, None]) / width))

    def logits(noise: float, *parts: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        z = rng.normal(0, noise, (n, n_layers, k))
        for column, strength in parts:
            z[np.arange(n), :, column] += strength
        return z

    def only(*names: str) -> np.ndarray:
        return np.isin(end, names)[:, None].astype(float)

    never = only("no_brewing")
    probe = logits(0.8, (target, 6.5 * rise(available_from) * (1 - never) - 9 * never))
    ready = 7.0 * rise(ready_from)
    kept = only("resolved")
    late = rise(overwritten, 0.4)
    right = kept * ready + only("overprocessed") * ready * (1 - 1.3 * late)
    right = right - 6 * only("misresolved", "unresolved", "bypassed", "no_brewing")
    away = 7 * late * only("overprocessed") + 6 * rise(0.6 * overwritten) * only("misresolved", "no_brewing")
    stripped = logits(0.7, (target, right), (wrong, away))
    raw = stripped + rng.normal(0, 0.6, (n, 1, k))
    # The model's answer is the raw read-out of the last layer.
    final = np.where(np.isin(end, ("resolved", "bypassed")), target, wrong)
    raw[np.arange(n), -1, final] = raw[:, -1].max(axis=1) + 1
    lens = logits(0.9, (target, right * rise(ready_from + 0.1 * n_layers)), (wrong, away))
    lens[:, -1] = raw[:, -1]
    by_family = surface if isinstance(surface, Mapping) else dict.fromkeys(items.families, surface)
    hit = rng.uniform(size=n) < np.array([by_family[i.family] for i in items])
    text = logits(0.3, (np.where(hit, target, wrong), np.full((n, n_layers), 5.0)))[:, :1]

    def readout(values: np.ndarray, decoder: str) -> Readout:
        other = None if decoder in ("probe", "surface") else rng.uniform(0, 0.2, values.shape[:2])
        return Readout(values.astype(np.float32), CLASSES, decoder, items.ids, other)

    readouts = {
        name: readout(values, name)
        for name, values in {
            "probe": probe,
            "logit_lens": lens,
            "context_stripped": stripped,
            "context_stripped_raw": raw,
            "surface": text,
        }.items()
    }
    made = Trace(
        items=items,
        folds=np.arange(n) % 5,
        readouts=readouts,
        lifecycle=lifecycle(
            readouts["probe"],
            readouts["context_stripped"],
            families=[i.family for i in items],
            answers=items.answers,
            output=readouts["context_stripped_raw"].predicted[:, -1],
            format_miss=rng.uniform(size=n) < 0.004,
        ),
        model="reference",
    )
    return analyse(made, resamples=99)


def synthetic_summary(trace: Trace) -> dict[str, object]:
    """The content of ``summary.json`` for a trace; the majority baseline is a copy of the text-only one."""
    return summarise(trace, trace.readouts["surface"])


def synthetic_manifest(trace: Trace) -> dict[str, object]:
    """The content of ``manifest.json`` for a trace."""
    return {
        "plan": {
            "families": list(trace.items.families),
            "n": 60,
            "folds": 5,
            "thresholds": {"tail_start": 0.75},
        },
        "model": {
            "name": "reference",
            "revision": "0.1.0",
            "weights_hash": "3f1c9a77d2",
            "tokenizer_hash": "b81e02",
            "dtype": "float32",
            "device": "cpu",
            "n_layers": trace.n_layers,
            "d_model": 128,
        },
        "items": {"source": "generated", "fingerprint": trace.items.fingerprint, "n": len(trace)},
        "versions": {"brewlens": "0.1.0", "transformer-lens": "4.3.0", "torch": "2.13.0", "python": "3.12.3"},
        "seeds": {"items": 0, "folds": 0, "probe": 0},
        "wall_seconds": {
            "items": 0.9,
            "residuals": 21.4,
            "probe": 64.2,
            "context_stripped": 38.0,
            "lifecycle": 0.1,
        },
    }
