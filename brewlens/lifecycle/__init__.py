"""From readouts to first hits, onsets, outcomes, nulls and claims; pure functions on arrays, no model."""

from brewlens.lifecycle.claims import claims
from brewlens.lifecycle.comparison import side_by_side
from brewlens.lifecycle.curves import OnsetCurve, onset_curve, restricted_difference
from brewlens.lifecycle.detection import Detection, detect_resolved, final_confidence
from brewlens.lifecycle.landmarks import NEVER, Landmarks, first_hit, landmarks, tail
from brewlens.lifecycle.nulls import landmark_nulls, strata
from brewlens.lifecycle.onsets import Onsets, fit_onsets
from brewlens.lifecycle.outcomes import OUTCOMES, RESOLUTION, classify
from brewlens.lifecycle.paper import PaperLifecycle, paper_lifecycle
from brewlens.lifecycle.signals import Signals, signals
from brewlens.lifecycle.trajectory import Lifecycle, lifecycle, onset_outcomes

__all__ = [
    "NEVER",
    "OUTCOMES",
    "RESOLUTION",
    "Detection",
    "Landmarks",
    "Lifecycle",
    "OnsetCurve",
    "Onsets",
    "PaperLifecycle",
    "Signals",
    "claims",
    "classify",
    "detect_resolved",
    "final_confidence",
    "first_hit",
    "fit_onsets",
    "landmark_nulls",
    "landmarks",
    "lifecycle",
    "onset_curve",
    "onset_outcomes",
    "paper_lifecycle",
    "restricted_difference",
    "side_by_side",
    "signals",
    "strata",
    "tail",
]
