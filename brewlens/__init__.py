"""brewlens: trace, layer by layer, how a language model comes to an answer.

Names are loaded when they are first used, so that ``import brewlens`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brewlens import decoding, figures, intervention, lifecycle, paper, planted, stats, tasks, views
    from brewlens.answers import AnswerSpace
    from brewlens.capturing import capture
    from brewlens.decoding.readout import Readout
    from brewlens.lifecycle.trajectory import Lifecycle
    from brewlens.loading import load_model
    from brewlens.model import HookedModel, ModelError
    from brewlens.paper import paper_tables
    from brewlens.residuals import Residuals
    from brewlens.results import Trace
    from brewlens.study import Plan, load_run, load_seeds, make_plan, run, run_seeds, trace
    from brewlens.tasks import Item, ItemSet

__version__ = "0.1.0"

_MODULES = ("decoding", "figures", "intervention", "lifecycle", "paper", "planted", "stats", "tasks", "views")
_NAMES = {
    "AnswerSpace": "answers",
    "HookedModel": "model",
    "Item": "tasks",
    "ItemSet": "tasks",
    "Lifecycle": "lifecycle",
    "ModelError": "model",
    "Plan": "study",
    "Readout": "decoding",
    "Residuals": "residuals",
    "Trace": "results",
    "capture": "capturing",
    "load_model": "loading",
    "load_run": "study",
    "load_seeds": "study",
    "make_plan": "study",
    "paper_tables": "paper",
    "run": "study",
    "run_seeds": "study",
    "trace": "study",
}

__all__ = [
    "AnswerSpace",
    "HookedModel",
    "Item",
    "ItemSet",
    "Lifecycle",
    "ModelError",
    "Plan",
    "Readout",
    "Residuals",
    "Trace",
    "capture",
    "decoding",
    "figures",
    "intervention",
    "lifecycle",
    "load_model",
    "load_run",
    "load_seeds",
    "make_plan",
    "paper",
    "paper_tables",
    "planted",
    "run",
    "run_seeds",
    "stats",
    "tasks",
    "trace",
    "views",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"brewlens.{name}")
    if name in _NAMES:
        value = getattr(import_module(f"brewlens.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'brewlens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
