"""Summary: every number that the report and the printed table state, each with its n and interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from brewlens.decoding.readout import Readout
from brewlens.lifecycle import NEVER, OUTCOMES, RESOLUTION
from brewlens.results import Trace
from brewlens.stats import mean_interval, share
from brewlens.study.checks import checks


def share_of(hits: np.ndarray) -> dict[str, Any] | None:
    """A share of True with its 95 % Wilson interval, as a plain dict; None when there is no sample."""
    found = share(int(np.sum(hits)), len(hits))
    if found is None:
        return None
    values = asdict(found)
    values.pop("level")
    return {**values, "value": found.value}


def summarise(trace: Trace, majority: Readout) -> dict[str, Any]:
    """Plain data for ``summary.json``.

    The shares of outcomes are out of the samples that have an FPCL; ``no_brewing`` and ``format_miss``
    are out of all samples. Layers of landmarks are divided by the number of layers.

    Args:
        trace: The whole run.
        majority: The majority-answer baseline on the same folds.
    """
    classes = next(iter(trace.readouts.values())).classes
    layers = trace.n_layers
    family = np.array([item.family for item in trace.items])
    everything = np.arange(len(trace))
    return {
        "n": len(trace),
        "n_layers": layers,
        "classes": list(classes),
        "families": {
            name: _group(trace, majority, np.flatnonzero(family == name)) for name in trace.items.families
        },
        "overall": _group(trace, majority, everything),
        "configurations": _configurations(trace),
        "last_layer_identity": _identity(trace),
        "checks": checks(trace),
        "first_hit_chance": {"no_fpcl": float((1 - 1 / len(classes)) ** layers)},
        "short": dict(trace.items.provenance.get("short") or {}),  # type: ignore[call-overload]
    }


def _identity(trace: Trace) -> dict[str, Any] | None:
    """How often un-subtracted context-stripped decoding at the last layer is the model's own answer.

    By construction always; less says that residuals and injection do not fit together. None for answers of
    several tokens, whose later tokens the model gives without the program.
    """
    plan: Any = trace.manifest.get("plan") or {}
    if plan.get("scoring") == "sequence":
        return None
    last = trace.readouts["context_stripped_raw"].predicted[:, trace.n_layers - 1]
    own = trace.readouts["context_stripped_raw"].target_index(trace.lifecycle.output)
    return share_of(last == own)


def _group(trace: Trace, majority: Readout, rows: np.ndarray) -> dict[str, Any]:
    part, answers = trace.select(rows), [trace.items[r].answer for r in rows]
    life = part.lifecycle
    brewing = life.outcome != "no_brewing"

    def outcomes(labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        return {name: share_of(labels[brewing] == name) for name in names}

    return {
        "n": len(rows),
        "accuracy": share_of(life.output_correct),
        "format_miss": share_of(life.format_miss),
        "no_brewing": share_of(~brewing),
        "outcomes": outcomes(life.outcome, [name for name in OUTCOMES if name != "no_brewing"]),
        "outcomes_paper": outcomes(life.outcome_paper, RESOLUTION),
        "surface": share_of(part.readouts["surface"].correct(answers)[:, 0]),
        "majority": share_of(majority.select(rows).correct(answers)[:, 0]),
        "probe_best": _best_layer(part.readouts["probe"], answers),
        "context_stripped_best": _best_layer(part.readouts["context_stripped"], answers),
        "landmarks": {
            name: _landmark(values / trace.n_layers, values != NEVER)
            for name, values in vars(life.landmarks).items()
        },
    }


def _best_layer(readout: Readout, answers: Sequence[str]) -> dict[str, Any]:
    """The layer of highest accuracy; chosen and measured on the same samples, so an optimistic number."""
    correct = readout.correct(answers)
    layer = int(correct.mean(axis=0).argmax())
    return {"layer": layer, **(share_of(correct[:, layer]) or {})}


def _landmark(depth: np.ndarray, present: np.ndarray) -> dict[str, Any]:
    values = depth[present]
    if not len(values):
        return {"mean": None, "low": None, "high": None, "median": None, "n": 0}
    low, high = mean_interval(values) or (None, None)
    return {
        "mean": float(values.mean()),
        "low": low,
        "high": high,
        "median": float(np.median(values)),
        "n": len(values),
    }


def _configurations(trace: Trace) -> list[dict[str, Any]]:
    cells: dict[tuple, list[int]] = {}
    for row, item in enumerate(trace.items):
        cells.setdefault((item.family, *item.factors.items()), []).append(row)
    correct = trace.lifecycle.output_correct
    return [
        {"family": family, "factors": dict(factors), "accuracy": share_of(correct[rows])}
        for (family, *factors), rows in cells.items()
    ]


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that the numbers depend on."""
    import platform
    from importlib.metadata import version

    names = ("brewlens", "torch", "transformers", "transformer-lens", "scikit-learn", "scipy", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def wall_seconds(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each stage but the report's own, which so is the same whenever it is written."""
    return {stage: entry["seconds"] for stage, entry in manifest["stages"].items() if stage != "report"}
