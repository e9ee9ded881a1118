"""The whole line: a plan, carried out in a run folder."""

from brewlens.study.loading import load_run
from brewlens.study.pipeline import trace
from brewlens.study.plan import Plan, PlanError, make_plan
from brewlens.study.planned import default_folder
from brewlens.study.run import run
from brewlens.study.seeds import load_seeds, run_seeds
from brewlens.study.store import RunFolderError

__all__ = [
    "Plan",
    "PlanError",
    "RunFolderError",
    "default_folder",
    "load_run",
    "load_seeds",
    "make_plan",
    "run",
    "run_seeds",
    "trace",
]
