"""The figures of a run, each drawn when it is asked for; and the folder they go to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from brewlens.figures import theme
from brewlens.figures.accuracy import accuracy_alt, accuracy_table, plot_accuracy_grid
from brewlens.figures.causal_plates import causal_makers
from brewlens.figures.configurations import (
    configuration_table,
    configurations_alt,
    configurations_size,
    crossable,
    plot_configurations_grid,
)
from brewlens.figures.difficulty import (
    difficulty_alt,
    difficulty_size,
    difficulty_table,
    plot_difficulty_grid,
)
from brewlens.figures.export import save
from brewlens.figures.flow import flow_alt, flow_size, flow_table, plot_flow
from brewlens.figures.landmarks import (
    landmark_alt,
    landmark_table,
    landmarks_size,
    plot_landmarks_grid,
)
from brewlens.figures.lifecycle import (
    examples,
    lifecycle_alt,
    lifecycle_size,
    lifecycle_table,
    plot_lifecycle,
)
from brewlens.figures.loop_pairs import (
    has_twin_pairs,
    loop_pairs_alt,
    loop_pairs_size,
    loop_pairs_table,
    plot_loop_pairs,
)
from brewlens.figures.onsets import ONSETS, onset_alt, onset_table, plot_onsets_grid
from brewlens.figures.outcomes import outcome_alt, outcome_table, outcomes_size, plot_outcomes
from brewlens.figures.panels import grid_size
from brewlens.figures.plate import Makers, Plate, one, several
from brewlens.figures.reliability import (
    plot_reliability_grid,
    reliability_alt,
    reliability_size,
    reliability_table,
)
from brewlens.figures.ridges import plot_ridges_grid, ridges_alt, ridges_size, ridges_table
from brewlens.figures.signals import auroc_alt, auroc_table, plot_signals_grid, signal_table, signals_size
from brewlens.figures.surface_control import (
    plot_surface_control_grid,
    surface_control_alt,
    surface_control_table,
)
from brewlens.figures.trajectories import (
    plot_trajectories_grid,
    trajectories_alt,
    trajectories_size,
    trajectory_table,
)

if TYPE_CHECKING:
    from brewlens.results import Trace

DIFFICULTY = ("right", "resolved")


def plates(trace: Trace) -> Iterator[Plate]:
    """The figures of a run, one after the other; see :func:`makers`."""
    return (make() for make in makers(trace).values())


def makers(trace: Trace) -> Makers:
    """What draws each figure of a run, by its name; nothing is drawn yet.

    Outcome shares by both rules, the flow from families into outcomes, configurations, difficulty, loops
    beside their unrolled twins; by layer, accuracy, the probe minus the text-only baseline, onsets,
    landmarks beside chance, trajectories; calibration and label-free signals; where interventions were run,
    verdicts, effects along the depth and contributions of the layers; typical samples of every outcome, and
    one lifecycle of each.
    """
    found: Makers = {
        "outcomes": partial(_outcomes, trace, "outcomes", "repaired"),
        "outcomes_paper": partial(_outcomes, trace, "outcomes_paper", "paper"),
        "flow": partial(_flow, trace),
    }
    if crossable(trace):
        found["configurations"] = partial(_configurations, trace)
    if any(item.factors for item in trace.items):
        found["difficulty"] = partial(_difficulty, trace)
    if has_twin_pairs(trace):
        found["loop_pairs"] = partial(_loop_pairs, trace)
    found["accuracy"] = partial(_accuracy, trace)
    if {"probe", "surface"} <= set(trace.readouts):
        found["surface_control"] = partial(_surface_control, trace)
    if set(ONSETS) <= set(trace.onsets):
        found["onsets"] = partial(_onsets, trace)
    found |= {
        "landmarks": partial(_landmarks, trace),
        "trajectories": partial(_trajectories, trace),
        "reliability": partial(_reliability, trace),
    }
    if "signals" in trace.tables:
        found["signals"] = partial(_signals, trace)
    found |= causal_makers(trace)
    found["ridges"] = partial(_ridges, trace)
    for outcome, row in examples(trace).items():
        found[f"lifecycle_{outcome}"] = partial(_lifecycle, trace, outcome, row)
    return found


def write(trace: Trace, folder: str | Path) -> list[Path]:
    """Write every figure of a run to ``folder`` as PDF, SVG, PNG and CSV; returns the paths."""
    return [
        path for plate in plates(trace) for path in save(plate.figure, Path(folder) / plate.name, plate.data)
    ]


def _outcomes(trace: Trace, name: str, taxonomy: str) -> Plate:
    table = outcome_table(trace, taxonomy)
    return one(
        *(name, table, lambda ax: plot_outcomes(trace, taxonomy=taxonomy, ax=ax)),
        *(outcomes_size(trace), outcome_alt(table)),
    )


def _flow(trace: Trace) -> Plate:
    table = flow_table(trace)
    return one("flow", table, lambda ax: plot_flow(trace, ax=ax), flow_size(trace), flow_alt(table))


def _configurations(trace: Trace) -> Plate:
    table = configuration_table(trace)
    return several(
        *("configurations", table, lambda f: plot_configurations_grid(trace, table=table, figure=f)),
        *(configurations_size(table), configurations_alt(table)),
    )


def _difficulty(trace: Trace) -> Plate:
    table = difficulty_table(trace, quantity=DIFFICULTY)
    return several(
        *("difficulty", table),
        lambda f: plot_difficulty_grid(trace, quantity=DIFFICULTY, table=table, figure=f),
        *(difficulty_size(table["family"].nunique()), difficulty_alt(table)),
    )


def _loop_pairs(trace: Trace) -> Plate:
    table = loop_pairs_table(trace)
    return one(
        *("loop_pairs", table, lambda ax: plot_loop_pairs(trace, ax=ax)),
        *(loop_pairs_size(), loop_pairs_alt(table)),
    )


def _accuracy(trace: Trace) -> Plate:
    import pandas as pd

    families = trace.items.families
    table = pd.concat([accuracy_table(trace, family) for family in families], ignore_index=True)
    return several(
        *("accuracy", table, lambda f: plot_accuracy_grid(trace, figure=f)),
        *(grid_size(len(families)), accuracy_alt(table)),
    )


def _surface_control(trace: Trace) -> Plate:
    table = surface_control_table(trace)
    return several(
        *("surface_control", table, lambda f: plot_surface_control_grid(trace, table=table, figure=f)),
        *(grid_size(len(trace.items.families)), surface_control_alt(table)),
    )


def _onsets(trace: Trace) -> Plate:
    table = onset_table(trace)
    return several(
        *("onsets", table, lambda f: plot_onsets_grid(trace, table=table, figure=f)),
        *(grid_size(len(trace.items.families)), onset_alt(table)),
    )


def _landmarks(trace: Trace) -> Plate:
    table = landmark_table(trace)
    return several(
        *("landmarks", table, lambda f: plot_landmarks_grid(trace, table=table, figure=f)),
        *(landmarks_size(trace), landmark_alt(table)),
    )


def _trajectories(trace: Trace) -> Plate:
    table = trajectory_table(trace)
    return several(
        *("trajectories", table, lambda f: plot_trajectories_grid(trace, table=table, figure=f)),
        *(trajectories_size(), trajectories_alt(table)),
    )


def _reliability(trace: Trace) -> Plate:
    table = reliability_table(trace)
    size = (theme.two_columns(), reliability_size(table)[1])
    return several(
        "reliability", table, lambda f: plot_reliability_grid(trace, figure=f), size, reliability_alt(table)
    )


def _signals(trace: Trace) -> Plate:
    return several(
        *("signals", signal_table(trace), lambda f: plot_signals_grid(trace, figure=f)),
        *(signals_size(), auroc_alt(auroc_table(trace))),
    )


def _ridges(trace: Trace) -> Plate:
    table = ridges_table(trace, k=4)
    return several(
        *("ridges", table, lambda f: plot_ridges_grid(trace, table=table, figure=f)),
        *(ridges_size(table), ridges_alt(table)),
    )


def _lifecycle(trace: Trace, outcome: str, row: int) -> Plate:
    return one(
        *(f"lifecycle_{outcome}", lifecycle_table(trace, row)),
        lambda ax: plot_lifecycle(trace, row, ax=ax),
        *(lifecycle_size(trace), lifecycle_alt(trace, row), row),
    )
