"""Models and readouts whose lifecycle is known by construction, to check methods on."""

from brewlens.planted.over_items import simulated_trace
from brewlens.planted.plant import Planted, plant
from brewlens.planted.simulated import NOISE, Simulated, distance, nothing, simulate
from brewlens.planted.truth import KINDS, MIX, Truth, draw_truth

__all__ = [
    "KINDS",
    "MIX",
    "NOISE",
    "Planted",
    "Simulated",
    "Truth",
    "distance",
    "draw_truth",
    "nothing",
    "plant",
    "simulate",
    "simulated_trace",
]
