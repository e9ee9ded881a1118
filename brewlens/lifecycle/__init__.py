"""From readouts to landmarks and outcomes; pure functions on arrays, no model."""

from brewlens.lifecycle.landmarks import NEVER, Landmarks, first_hit, landmarks, tail
from brewlens.lifecycle.outcomes import OUTCOMES, RESOLUTION, classify
from brewlens.lifecycle.trajectory import Lifecycle, lifecycle

__all__ = [
    "NEVER",
    "OUTCOMES",
    "RESOLUTION",
    "Landmarks",
    "Lifecycle",
    "classify",
    "first_hit",
    "landmarks",
    "lifecycle",
    "tail",
]
