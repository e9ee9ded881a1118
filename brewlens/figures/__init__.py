"""Figures from a stored trace, never from a model: ``plot_x(trace, *, ax=None)`` draws and returns its axes.

Nothing is shown, nothing is written (``save`` and ``write`` do that), and matplotlib's parameters stay as
they are. Every figure has a function that gives the exact numbers it draws, as a tidy table.
"""

from brewlens.figures.accuracy import accuracy_table, plot_accuracy, plot_accuracy_grid
from brewlens.figures.causal_use import causal_use_table, plot_causal_use, plot_causal_use_grid
from brewlens.figures.components import contribution_table, plot_contributions, plot_contributions_grid
from brewlens.figures.export import save
from brewlens.figures.forest import plot_verdicts, verdict_table
from brewlens.figures.lifecycle import examples, lifecycle_table, plot_lifecycle
from brewlens.figures.onsets import onset_table, plot_onsets, plot_onsets_grid
from brewlens.figures.outcomes import outcome_table, plot_outcomes
from brewlens.figures.plates import Plate, plates, write
from brewlens.figures.surface_control import (
    plot_surface_control,
    plot_surface_control_grid,
    surface_control_table,
)
from brewlens.figures.theme import Venue, style, venues

__all__ = [
    "Plate",
    "Venue",
    "accuracy_table",
    "causal_use_table",
    "contribution_table",
    "examples",
    "lifecycle_table",
    "onset_table",
    "outcome_table",
    "plates",
    "plot_accuracy",
    "plot_accuracy_grid",
    "plot_causal_use",
    "plot_causal_use_grid",
    "plot_contributions",
    "plot_contributions_grid",
    "plot_lifecycle",
    "plot_onsets",
    "plot_onsets_grid",
    "plot_outcomes",
    "plot_surface_control",
    "plot_surface_control_grid",
    "plot_verdicts",
    "save",
    "style",
    "surface_control_table",
    "venues",
    "verdict_table",
    "write",
]
