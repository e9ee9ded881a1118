"""Decoders: each gives a distribution over the answer classes, per sample and layer."""

from brewlens.decoding.bias import BiasAudit, answer_shares, audit_bias, audit_context_stripped
from brewlens.decoding.calibration import calibration, class_calibration, reliability
from brewlens.decoding.context_stripped import context_stripped, prior_logits
from brewlens.decoding.fold_fit import FitOptions
from brewlens.decoding.lens_files import load_published
from brewlens.decoding.lens_training import train_tuned_lens, tuned_lens_out_of_fold
from brewlens.decoding.logit_lens import logit_lens
from brewlens.decoding.probe import NearOOD, ProbeFit, fit_probes, probe
from brewlens.decoding.probes import Probes
from brewlens.decoding.readiness import Readiness, readiness
from brewlens.decoding.readout import Readout
from brewlens.decoding.selectivity import Selectivity, selectivity
from brewlens.decoding.surface import majority, surface
from brewlens.decoding.surface_control import best_layer, surface_control
from brewlens.decoding.targets import BUNDLED, CONSTANT, OWN, Target, own_suffixes, resolve
from brewlens.decoding.tuned_lens import TunedLens, tuned_lens

__all__ = [
    "BUNDLED",
    "CONSTANT",
    "OWN",
    "BiasAudit",
    "FitOptions",
    "NearOOD",
    "ProbeFit",
    "Probes",
    "Readiness",
    "Readout",
    "Selectivity",
    "Target",
    "TunedLens",
    "answer_shares",
    "audit_bias",
    "audit_context_stripped",
    "best_layer",
    "calibration",
    "class_calibration",
    "context_stripped",
    "fit_probes",
    "load_published",
    "logit_lens",
    "majority",
    "own_suffixes",
    "prior_logits",
    "probe",
    "readiness",
    "reliability",
    "resolve",
    "selectivity",
    "surface",
    "surface_control",
    "train_tuned_lens",
    "tuned_lens",
    "tuned_lens_out_of_fold",
]
