"""Analysis: what is made of a trace's readouts without the model: onsets, nulls, curves, claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from brewlens.decoding.readout import Readout
from brewlens.decoding.surface_control import OVERALL, surface_control
from brewlens.lifecycle.claims import claims
from brewlens.lifecycle.comparison import side_by_side
from brewlens.lifecycle.curves import OnsetCurve, onset_curve, restricted_difference, scaled
from brewlens.lifecycle.failures import failure_excess
from brewlens.lifecycle.nulls import landmark_nulls, strata
from brewlens.lifecycle.onsets import LEAST_CLASSES, Onsets, fit_onsets
from brewlens.lifecycle.paper import paper_lifecycle
from brewlens.lifecycle.signals import signals
from brewlens.results import Trace
from brewlens.stats import Estimate, detectable
from brewlens.tasks.folds import groups
from brewlens.tasks.item import ItemSet

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 999
CONSTANT_PROMPT = "context_stripped_constant"
ROLES = ("available", "ready")


def fit_lifecycle_onsets(items: ItemSet, readouts: Mapping[str, Readout]) -> dict[str, Onsets]:
    """From which layer on the answer is available and ready, family by family.

    Empty with two classes only: an onset is told from how the wrong answers behave beside each other.

    Args:
        items: The items.
        readouts: ``probe`` and ``context_stripped``.
    """
    if len(readouts["probe"].classes) < LEAST_CLASSES:
        return {}
    family = np.array([item.family for item in items])
    return {
        "available": fit_onsets(readouts["probe"], items.answers, groups=family),
        "ready": fit_onsets(readouts["context_stripped"], items.answers, groups=family, ends=True),
    }


def analyse(trace: Trace, *, resamples: int = RESAMPLES, seed: int = 0) -> Trace:
    """The trace with its onsets and the tables that its readouts give.

    Tables: ``nulls`` (landmarks beside permuted answers and shifted depth), ``claims``, ``onsets``
    (population numbers per family), ``onset_curves``, ``onset_fits``, ``surface_control``, ``signals``
    (label-free, per sample), and ``paper`` where there is a readout with the constant target prompt of the
    published recipe.

    Args:
        trace: A trace with ``probe``, ``context_stripped`` and ``surface``.
        resamples: Permutations behind every null.
        seed: Of these.
    """
    items, life, readouts = trace.items, trace.lifecycle, trace.readouts
    probe, stripped = readouts["probe"], readouts["context_stripped"]
    onsets = fit_lifecycle_onsets(items, readouts)
    trace = replace(trace, onsets=onsets)
    cells = strata(items, trace.folds)
    failures = failure_excess(probe, stripped, life, cells, trace.shapes, seed=seed) if onsets else {}
    nulls = landmark_nulls(
        *(probe, stripped, life, cells, trace.shapes),
        linked=groups(items),
        resamples=resamples,
        seed=seed,
    )
    tail_start = float(life.settings["tail_start"])  # type: ignore[arg-type]
    label_free = signals(probe, stripped, tail_start=tail_start)
    tables = {
        "claims": claims(items, life, onsets, nulls, failures),
        "nulls": nulls,
        "surface_control": surface_control(probe, readouts["surface"], items, trace.folds),
        "signals": label_free.to_frame(),
    }
    if onsets:
        curves = _curves(trace)
        tables |= {
            "onsets": _onset_table(trace, curves),
            "onset_curves": _curve_table(curves),
            "onset_fits": _fit_table(onsets),
        }
    if CONSTANT_PROMPT in readouts:
        recipe = paper_lifecycle(
            probe,
            readouts[CONSTANT_PROMPT],
            families=life.families,
            answers=life.answers,
            output=stripped.target_index(life.output),
            format_miss=life.format_miss,
        )
        tables["paper"] = side_by_side(recipe, life, label_free, onsets=onsets, clusters=trace.shapes)
    return replace(trace, tables={**trace.tables, **tables})


def _fit_table(onsets: Mapping[str, Onsets]) -> pd.DataFrame:
    """What was fitted for each family and onset: rates, and the evidence that there are onsets."""
    import pandas as pd

    names = ("n", "present", "gain", "least_gain", "hit", "ended", "iterations", "converged")
    return pd.DataFrame(
        {
            "family": family,
            "onset": role,
            **{name: getattr(fit, name) for name in names},
            "guess": float(fit.guess.mean()),
        }
        for role, found in onsets.items()
        for family, fit in found.fits.items()
    )


def _groups(trace: Trace) -> dict[str, np.ndarray]:
    """Rows of each family, and of all samples where there are several families."""
    family = np.array(trace.lifecycle.families)
    found = {name: np.flatnonzero(family == name) for name in trace.items.families}
    return {**found, OVERALL: np.arange(len(trace))} if len(found) > 1 else found


def _curves(trace: Trace) -> dict[tuple[str, str], OnsetCurve]:
    """Curve of each family (or ``overall``) and role; onsets are fitted by family."""
    family = np.array(trace.lifecycle.families)
    return {
        (name, role): onset_curve(trace.onsets[role].posterior[rows], trace.shapes[rows], groups=family[rows])
        for name, rows in _groups(trace).items()
        for role in ROLES
    }


def _curve_table(curves: Mapping[tuple[str, str], OnsetCurve]) -> pd.DataFrame:
    """One row per family, role and layer."""
    import pandas as pd

    frames = [curve.to_frame().assign(family=name, onset=role) for (name, role), curve in curves.items()]
    table = pd.concat(frames, ignore_index=True)
    return table.reindex(columns=["family", "onset", "layer", "share", "low", "high", "n", "n_clusters"])


def _onset_table(trace: Trace, curves: Mapping[tuple[str, str], OnsetCurve]) -> pd.DataFrame:
    """Per family: the share of samples that ever have each onset, its restricted mean, and their difference.

    Means are shares of the depth; a sample without the onset counts as 1.
    """
    import pandas as pd

    records, family = [], np.array(trace.lifecycle.families)

    def add(name: str, quantity: str, value: float, low: float, high: float, of: Estimate) -> None:
        known = np.isfinite(of.se)
        records.append(
            {
                "family": name,
                "quantity": quantity,
                "value": value,
                "low": low if known else np.nan,
                "high": high if known else np.nan,
                "n": of.n,
                "n_shapes": of.clusters,
                "detectable": detectable(np.sqrt(2) * (high - low) / 3.92, of.df) if known else np.nan,
            }
        )

    for name, rows in _groups(trace).items():
        for role in ROLES:
            curve = curves[name, role]
            mean = curve.relative
            add(name, f"{role}_share", curve.share[-1], curve.low[-1], curve.high[-1], mean)
            add(name, f"{role}_from", mean.value, mean.low, mean.high, mean)
        later, earlier = (trace.onsets[role].posterior[rows] for role in ("ready", "available"))
        gap = restricted_difference(later, earlier, trace.shapes[rows], groups=family[rows])
        gap = scaled(gap, 1 / trace.n_layers)
        add(name, "ready_minus_available", gap.value, gap.low, gap.high, gap)
    return pd.DataFrame(records)
