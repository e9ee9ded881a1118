"""Summary: every number that the report and the printed table state, each with its n and interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brewlens.decoding import best_layer
from brewlens.decoding.readout import Readout
from brewlens.lifecycle import NEVER, OUTCOMES, RESOLUTION
from brewlens.results import Trace
from brewlens.stats import clustered_mean, clustered_share, detectable, detectable_shares
from brewlens.study.checks import checks, plain_rows
from brewlens.tasks import few_shapes


def share_of(hits: np.ndarray, shapes: np.ndarray | None = None) -> dict[str, Any] | None:
    """A share of True with its 95 % Wilson interval, as a plain dict; None when there is no sample.

    Args:
        hits: Whether each sample has the property.
        shapes: The shape of each, over which the interval is clustered; without it samples are independent.

    Returns:
        count, n, value, low, high, shapes (their number), and detectable: the least difference from another
        such share that four of five comparisons would find; None where none is large enough.
    """
    found = clustered_share(hits, shapes)
    if found is None:
        return None
    least = detectable_shares(found.effective, found.value)
    return {
        "count": found.count,
        "n": found.n,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "shapes": found.clusters,
        "detectable": None if np.isnan(least) else least,
    }


def summarise(trace: Trace, majority: Readout) -> dict[str, Any]:
    """Plain data for ``summary.json``.

    The shares of outcomes are out of the samples that have an FPCL; ``no_brewing`` and ``format_miss``
    are out of all samples. Layers of landmarks are divided by the number of layers. Intervals are
    clustered by shape. A decoder's best layer is chosen for each fold on the other folds.

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
        **{name: plain_rows(trace.tables[name]) for name in _TABLES if name in trace.tables},
        "first_hit_chance": {"no_fpcl": float((1 - 1 / len(classes)) ** layers)},
        "few_shapes": few_shapes(trace.items),
        "short": dict(trace.items.provenance.get("short") or {}),  # type: ignore[call-overload]
    }


_TABLES = ("claims", "nulls", "onsets", "surface_control", "paper", "causal_verdicts", "rescue")


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
    return share_of(last == own, trace.shapes)


def _group(trace: Trace, majority: Readout, rows: np.ndarray) -> dict[str, Any]:
    part, answers = trace.select(rows), [trace.items[r].answer for r in rows]
    life, shapes = part.lifecycle, part.shapes
    brewing = life.outcome != "no_brewing"

    def outcomes(labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        return {name: share_of(labels[brewing] == name, shapes[brewing]) for name in names}

    def best(decoder: str) -> dict[str, Any]:
        layer, hits = best_layer(part.readouts[decoder].correct(answers), part.folds)
        return {"layer": layer, **(share_of(hits, shapes) or {})}

    return {
        "n": len(rows),
        "accuracy": share_of(life.output_correct, shapes),
        "format_miss": share_of(life.format_miss, shapes),
        "no_brewing": share_of(~brewing, shapes),
        "outcomes": outcomes(life.outcome, [name for name in OUTCOMES if name != "no_brewing"]),
        "outcomes_paper": outcomes(life.outcome_paper, RESOLUTION),
        "surface": share_of(part.readouts["surface"].correct(answers)[:, 0], shapes),
        "majority": share_of(majority.select(rows).correct(answers)[:, 0], shapes),
        "probe_best": best("probe"),
        "context_stripped_best": best("context_stripped"),
        "landmarks": {
            name: _landmark(values / trace.n_layers, values != NEVER, shapes)
            for name, values in vars(life.landmarks).items()
        },
    }


def _landmark(depth: np.ndarray, present: np.ndarray, shapes: np.ndarray) -> dict[str, Any]:
    found = clustered_mean(depth[present], shapes[present])
    if found is None:
        return {**dict.fromkeys(("mean", "low", "high", "median", "detectable")), "n": 0}
    known = np.isfinite(found.se)
    return {
        "mean": found.value,
        "low": found.low if known else None,
        "high": found.high if known else None,
        "median": float(np.median(depth[present])),
        "detectable": detectable(2**0.5 * found.se, found.df) if known else None,
        "n": found.n,
    }


def _configurations(trace: Trace) -> list[dict[str, Any]]:
    cells: dict[tuple, list[int]] = {}
    for row, item in enumerate(trace.items):
        cells.setdefault((item.family, *item.factors.items()), []).append(row)
    correct, shapes = trace.lifecycle.output_correct, trace.shapes
    return [
        {"family": family, "factors": dict(factors), "accuracy": share_of(correct[rows], shapes[rows])}
        for (family, *factors), rows in cells.items()
    ]


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that the numbers depend on."""
    import platform
    from importlib.metadata import version

    from brewlens import __version__

    names = ("torch", "transformers", "transformer-lens", "scikit-learn", "scipy", "numpy")
    libraries = {name: version(name) for name in names}
    return {"python": platform.python_version(), "brewlens": __version__, **libraries}


def wall_seconds(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each stage but the report's own, which so is the same whenever it is written."""
    return {stage: entry["seconds"] for stage, entry in manifest["stages"].items() if stage != "report"}
