"""Defaults of a plan: one list for :class:`brewlens.Plan` and for the help of the command line."""

from typing import Literal

MODEL = "reference"
SEED = 0
N_GENERATED = 810
FOLDS = 5
SCORING: Literal["token"] = "token"
END = ""
PROBE: Literal["logistic"] = "logistic"
PROMPTS: Literal["bundled"] = "bundled"
TUNED_LENS = False
TAIL_START = 0.75
CONFIDENT = 0.5
RESAMPLES = 999
INTERVENTION_N = 200
DTYPE: Literal["float32"] = "float32"
DEVICE = "auto"
