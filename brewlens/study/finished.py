"""Finished runs: what a folder holds is told from hashes of files, without loading the model."""

from __future__ import annotations

from collections.abc import Callable

from brewlens.model_source import content
from brewlens.study import tables
from brewlens.study.keys import Keys, merged, shards
from brewlens.study.plan import INTERVENTIONS, Plan
from brewlens.study.store import Store
from brewlens.study.summary import versions


def finished(plan: Plan, store: Store) -> list[str] | None:
    """All stages of a plan, where each is whole in the folder; None where one must be made.

    Also None where the model's files, or a library that reads them, are not those of the manifest: then only
    loading the model tells whether its weights and tokenizer are the same.
    """
    model = store.manifest.get("model") or {}
    known, n = model.get("content"), (store.manifest.get("items") or {}).get("n")
    if not known or not n or store.manifest.get("versions") != versions():
        return None
    keys = Keys(plan, model["weights_hash"], model["tokenizer_hash"])
    # First what costs nothing; then the bytes of the model's files, and of the run's.
    stages = _stages(plan, store, keys, n, store.recorded)
    if not all(store.recorded(stage, key) for stage, key in stages.items()):
        return None
    if content(plan.model) != known:
        return None
    stages = _stages(plan, store, keys, n, store.whole)
    return list(stages) if all(store.whole(stage, key) for stage, key in stages.items()) else None


def _stages(
    plan: Plan, store: Store, keys: Keys, n: int, there: Callable[[str, str], bool]
) -> dict[str, str]:
    """Stage -> key, in the order in which a run comes to them."""
    stages = {"items": keys.items, "tokens": keys.tokens}
    stages |= {name: keys.residuals(name) for name in shards(n)}
    stages |= {"readouts": keys.readouts, "analysis": keys.analysis}
    few = plan.intervention_n if plan.interventions else int(store.manifest["plan"]["intervention_n"])
    every = {name: keys.experiment(name, few) for name in INTERVENTIONS}
    stages |= {f"{tables.INTERVENTIONS}/{name}": every[name] for name in plan.interventions}
    made: list[str] = []
    if plan.interventions or tables.INTERVENTIONS in store.manifest["stages"]:
        made = [key for name, key in every.items() if there(f"{tables.INTERVENTIONS}/{name}", key)]
    if made:
        stages[tables.INTERVENTIONS] = merged(made)
    return stages | {name: keys.after(name, made) for name in ("tables", "report")}
