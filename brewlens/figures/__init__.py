"""Figures from a stored trace, never from a model: ``plot_x(trace, *, ax=None)`` draws and returns its axes.

Nothing is shown, nothing is written (``save`` and ``write`` do that), and matplotlib's parameters stay as
they are. Every figure has a function that gives the exact numbers it draws, as a tidy table.
"""

from brewlens.figures.accuracy import accuracy_table, plot_accuracy, plot_accuracy_grid
from brewlens.figures.causal_use import causal_use_table, plot_causal_use, plot_causal_use_grid
from brewlens.figures.components import contribution_table, plot_contributions, plot_contributions_grid
from brewlens.figures.configurations import (
    configuration_table,
    plot_configurations,
    plot_configurations_grid,
)
from brewlens.figures.difficulty import difficulty_table, plot_difficulty, plot_difficulty_grid
from brewlens.figures.export import save
from brewlens.figures.flow import flow_table, plot_flow
from brewlens.figures.forest import plot_verdicts, verdict_table
from brewlens.figures.landmarks import landmark_table, plot_landmarks, plot_landmarks_grid
from brewlens.figures.lifecycle import examples, lifecycle_table, plot_lifecycle
from brewlens.figures.loop_pairs import loop_pairs_table, plot_loop_pairs
from brewlens.figures.model_pairs import pairs_table, plot_pairs
from brewlens.figures.models import models_table, plot_model_depths
from brewlens.figures.models_by_size import plot_outcomes_by_size
from brewlens.figures.onsets import onset_table, plot_onsets, plot_onsets_grid
from brewlens.figures.outcomes import outcome_table, plot_outcomes
from brewlens.figures.plate import Plate
from brewlens.figures.plates import plates, write
from brewlens.figures.reliability import (
    ece_table,
    plot_ece,
    plot_reliability,
    plot_reliability_grid,
    reliability_table,
)
from brewlens.figures.ridges import plot_ridges, plot_ridges_grid, ridges_table, typical
from brewlens.figures.signals import (
    auroc_table,
    plot_auroc,
    plot_signals,
    plot_signals_grid,
    signal_table,
)
from brewlens.figures.surface_control import (
    plot_surface_control,
    plot_surface_control_grid,
    surface_control_table,
)
from brewlens.figures.theme import Venue, style, venues
from brewlens.figures.trajectories import plot_trajectories, plot_trajectories_grid, trajectory_table

__all__ = [
    "Plate",
    "Venue",
    "accuracy_table",
    "auroc_table",
    "causal_use_table",
    "configuration_table",
    "contribution_table",
    "difficulty_table",
    "ece_table",
    "examples",
    "flow_table",
    "landmark_table",
    "lifecycle_table",
    "loop_pairs_table",
    "models_table",
    "onset_table",
    "outcome_table",
    "pairs_table",
    "plates",
    "plot_accuracy",
    "plot_accuracy_grid",
    "plot_auroc",
    "plot_causal_use",
    "plot_causal_use_grid",
    "plot_configurations",
    "plot_configurations_grid",
    "plot_contributions",
    "plot_contributions_grid",
    "plot_difficulty",
    "plot_difficulty_grid",
    "plot_ece",
    "plot_flow",
    "plot_landmarks",
    "plot_landmarks_grid",
    "plot_lifecycle",
    "plot_loop_pairs",
    "plot_model_depths",
    "plot_onsets",
    "plot_onsets_grid",
    "plot_outcomes",
    "plot_outcomes_by_size",
    "plot_pairs",
    "plot_reliability",
    "plot_reliability_grid",
    "plot_ridges",
    "plot_ridges_grid",
    "plot_signals",
    "plot_signals_grid",
    "plot_surface_control",
    "plot_surface_control_grid",
    "plot_trajectories",
    "plot_trajectories_grid",
    "plot_verdicts",
    "reliability_table",
    "ridges_table",
    "save",
    "signal_table",
    "style",
    "surface_control_table",
    "trajectory_table",
    "typical",
    "venues",
    "verdict_table",
    "write",
]
