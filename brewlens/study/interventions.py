"""Interventions of a run: the experiments by name, each from a trace to tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from brewlens.answers import AnswerSpace
from brewlens.brief import brief
from brewlens.intervention.causal_use import causal_use
from brewlens.intervention.components import attribute, component_table
from brewlens.intervention.effects import COLUMNS
from brewlens.intervention.fjc_patching import fjc_patching
from brewlens.intervention.layer_skipping import layer_skipping
from brewlens.intervention.overtake import overtake_table, overtakes
from brewlens.intervention.reinjection import reinjection
from brewlens.intervention.rescue import rescue
from brewlens.intervention.stretches import NoCases
from brewlens.intervention.transplant import transplant
from brewlens.results import Trace
from brewlens.study import tables
from brewlens.study.keys import Keys, merged
from brewlens.study.store import Store, write_table

if TYPE_CHECKING:
    from brewlens.model import HookedModel


FOLDER = tables.INTERVENTIONS


@dataclass(frozen=True)
class Subject:
    """What an experiment is made on.

    Attributes:
        model: The model.
        trace: Its trace, with residuals, probes and onsets.
        space: The answer classes.
        n: Most samples, per family or outcome as the experiment counts them.
        seed: Of all that is drawn.
        progress: Show progress bars.
    """

    model: HookedModel
    trace: Trace
    space: AnswerSpace
    n: int
    seed: int
    progress: bool

    @property
    def options(self) -> dict[str, Any]:
        return {"space": self.space, "seed": self.seed, "progress": self.progress}

    __repr__ = brief


@dataclass(frozen=True)
class Found:
    """What an experiment gave.

    Attributes:
        effects: Rows for ``effects.parquet``.
        tables: Tables of its own.
        left_out: Why it was not made, if it was not.
    """

    effects: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(COLUMNS)))
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    left_out: str = ""

    __repr__ = brief


def _causal_use(subject: Subject) -> Found:
    landmarks = "onsets" if subject.trace.onsets else "first_hits"
    try:
        found = causal_use(subject.model, subject.trace, n=subject.n, landmarks=landmarks, **subject.options)
    except NoCases as error:
        return Found(left_out=str(error))
    tables = {"causal_verdicts": found.verdicts}
    if found.learned is not None:
        tables["learned_subspace"] = found.learned.to_frame()
    return Found(found.effects, tables)


def _components(subject: Subject) -> Found:
    trace = subject.trace
    if not subject.space.single:
        return Found(left_out="direct logit attribution takes answers of one token each")
    found = attribute(subject.model, trace.items, subject.space, heads=True, progress=subject.progress)
    labels = (trace.lifecycle.families, trace.lifecycle.outcome, trace.shapes)
    return Found(
        tables={
            "components": component_table(found, *labels),
            "overtakes": overtake_table(overtakes(found), *labels),
        }
    )


def _rescue(subject: Subject) -> Found:
    return Found(tables={"rescue": rescue(subject.model, subject.trace, n=subject.n, **subject.options)})


def _effects_of(experiment: Callable[..., pd.DataFrame], times: int) -> Callable[[Subject], Found]:
    """An experiment that gives effects; of ``times`` as many samples, where it counts all together."""

    def make(subject: Subject) -> Found:
        return Found(experiment(subject.model, subject.trace, n=times * subject.n, **subject.options))

    return make


EXPERIMENTS: dict[str, Callable[[Subject], Found]] = {
    "causal_use": _causal_use,
    "fjc_patching": _effects_of(fjc_patching, 5),
    "layer_skipping": _effects_of(layer_skipping, 2),
    "reinjection": _effects_of(reinjection, 2),
    "transplant": _effects_of(transplant, 2),
    "components": _components,
    "rescue": _rescue,
}
"""In the order in which they are made."""


def intervene(
    subject: Subject,
    asked: Sequence[str],
    keys: Keys,
    store: Store,
    stage: Callable[[str, str, Callable[[], list[str]]], None],
) -> list[str]:
    """The experiments asked for, beside those that the run folder has; the effects of all in one table.

    Args:
        subject: What they are made on.
        asked: Names of experiments.
        keys: Keys of the run's stages.
        store: The run folder.
        stage: Makes a stage of it, unless it is there.

    Returns:
        Keys of all experiments that are there.
    """
    key = {name: keys.experiment(name, subject.n) for name in EXPERIMENTS}
    for name in asked:
        stage(f"{FOLDER}/{name}", key[name], lambda name=name: _make(name, subject, store))
    there = [name for name in EXPERIMENTS if store.whole(f"{FOLDER}/{name}", key[name])]
    if not there:
        return []
    files = [f for name in there for f in store.manifest["stages"][f"{FOLDER}/{name}"]["files"]]

    def merge() -> list[str]:
        frames = [pd.read_parquet(store.path(f)) for f in files if f.startswith(f"{FOLDER}/")]
        kept = [frame for frame in frames if len(frame)]
        merged = pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=list(COLUMNS))
        write_table(store.path(tables.EFFECTS_FILE), merged)
        return [tables.EFFECTS_FILE, *(f for f in files if f.startswith("tables/"))]

    made = [key[name] for name in there]
    stage(tables.INTERVENTIONS, merged(made), merge)
    return made


def _make(name: str, subject: Subject, store: Store) -> list[str]:
    found = EXPERIMENTS[name](subject)
    known = store.manifest.get("left_out", {})
    others = {left: why for left, why in known.items() if left != name}
    store.note(left_out={**others, name: found.left_out} if found.left_out else others)
    made = {f"{FOLDER}/{name}.parquet": found.effects}
    made |= {f"tables/{table}.parquet": frame for table, frame in found.tables.items()}
    for file, frame in made.items():
        write_table(store.path(file), frame)
    return list(made)
