"""Run: a plan carried out stage by stage in a run folder; what is there and whole is not made again."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brewlens.answer_logits import AnswerLogits
from brewlens.answers import AnswerSpace
from brewlens.capturing import SHARD, read_shards, write_shard
from brewlens.decoding import NearOOD, majority
from brewlens.devices import usable
from brewlens.files import nearest, write_json
from brewlens.pieces import token_table
from brewlens.progress import stage
from brewlens.residuals import RESID_POST, Residuals
from brewlens.results import Trace
from brewlens.study import tables
from brewlens.study.analysis import analyse
from brewlens.study.course import NEAR_OOD, Course, words
from brewlens.study.finished import finished
from brewlens.study.keys import Keys, options_of, shards
from brewlens.study.loading import load_run, read_captured, with_analysis
from brewlens.study.pipeline import Decoded, Inputs, decoders, lifecycles, missed_format
from brewlens.study.plan import Plan
from brewlens.study.planned import classes_of, default_folder, disk_bytes, load_items, load_planned
from brewlens.study.store import RunFolderError, Store, read_manifest, write_table
from brewlens.study.summary import summarise, versions, wall_seconds
from brewlens.study.timing import timings
from brewlens.tasks import ItemSet, assign_folds, near_ood

if TYPE_CHECKING:
    from brewlens.model import HookedModel

log = logging.getLogger("brewlens")

ALREADY = "already there"


@dataclass
class _Run:
    plan: Plan
    model: HookedModel
    store: Store
    facts: Mapping[str, object]
    progress: bool
    course: Course = field(init=False)

    def execute(self) -> Trace:
        store, model, keys = self.store, self.model, self.keys
        items, folds = self._items()
        classes = classes_of(self.plan, items)
        space = model.answer_space(items.prompts, classes, scoring=self.plan.scoring, end=self.plan.end)
        self._check_disk(len(items))
        self.course = Course.of(self.plan, len(items))
        if self.progress and not store.whole("readouts", keys.readouts):
            near = self.plan.per_family_ood * len(items.families)
            self.course.expect(timings(model, items, space, self.plan, few=8), len(items), near)
        store.note(**self.facts)  # from here on the folder is there
        self._stage("items", keys.items, lambda: self._write_items(items, folds))
        items, folds = tables.read_items(store.folder, store.manifest["items"])
        self._stage("tokens", keys.tokens, lambda: self._write_tokens(items))
        residuals, output = self._capture(items, space)
        options = options_of(self.plan)

        def inputs() -> Inputs:
            """Made only where a decoder must run: near-OOD programs take seconds."""
            near = self._near_ood(items, folds)
            return Inputs(model, items, folds, residuals, space, options, near, self.progress)

        self._decode(inputs, items)
        readouts = tables.read_readouts(store.path("readouts.safetensors"), items.ids)
        life = lifecycles(
            items,
            readouts,
            output.predicted,
            missed_format(output.top_id, space),
            tail_start=self.plan.tail_start,
            confident=self.plan.confident,
        )
        trace = Trace(items, folds, readouts, life, model.name, residuals, store.manifest)
        self._stage("analysis", keys.analysis, lambda: self._analyse(trace))
        trace = with_analysis(trace, store.folder, store.manifest)
        if made := self._intervene(trace, space):
            trace = with_analysis(trace, store.folder, store.manifest)
        self._stage("tables", keys.after("tables", made), lambda: self._write_tables(trace))
        self._stage("report", keys.after("report", made), lambda: write_report(store.folder, trace))
        return trace

    @cached_property
    def keys(self) -> Keys:
        return Keys(self.plan, self.model.weights_hash, self.model.tokenizer_hash)

    def _stage(self, name: str, key: str, make: Callable[[], list[str]]) -> None:
        def announced() -> list[str]:
            log.info(self.course.line(name))
            with stage(words(name)):
                return make()

        made = self.store.once(name, key, announced)
        if made:
            self.course.took(name, self.store.manifest["stages"][name]["seconds"])
        log.info("%s: %s", name, self._left_out(name) if made else ALREADY)

    def _left_out(self, name: str) -> str:
        """``done``, or that an experiment could not be made."""
        names = self.store.manifest.get("left_out") or {}
        return "left out" if name.removeprefix(f"{tables.INTERVENTIONS}/") in names else "done"

    def _items(self) -> tuple[ItemSet, np.ndarray]:
        """The items and their folds, from the folder where it has them."""
        if self.store.whole("items", self.keys.items):
            return tables.read_items(self.store.folder, self.store.manifest["items"])
        items = load_items(self.plan)
        return items, assign_folds(items, self.plan.folds, self.plan.seed)

    def _write_items(self, items: ItemSet, folds: np.ndarray) -> list[str]:
        files = tables.write_items(self.store.folder, items, folds)
        self.store.note(items={**items.provenance, "n": len(items), "fingerprint": items.fingerprint})
        return files

    def _write_tokens(self, items: ItemSet) -> list[str]:
        write_table(self.store.path(tables.TOKENS_FILE), token_table(self.model, items))
        return [tables.TOKENS_FILE]

    def _check_disk(self, n: int) -> None:
        need = disk_bytes(n, self.model.n_layers, self.model.d_model, self.plan.dtype)
        log.info("the run folder will take about %.3g GB", need / 1e9)
        there = sum(p.stat().st_size for p in self.store.folder.rglob("*") if p.is_file())
        free = shutil.disk_usage(nearest(self.store.folder)).free
        if need - there > free:
            raise RunFolderError(
                f"{self.store.folder} needs about {need / 1e6:.0f} MB and its disk has {free / 1e6:.0f} MB "
                "free; free some or choose another folder with --out"
            )

    def _capture(self, items: ItemSet, space: AnswerSpace) -> tuple[Residuals, AnswerLogits]:
        names = shards(len(items))
        for number, name in enumerate(names):
            part = items[number * SHARD : (number + 1) * SHARD]

            def make(part: ItemSet = part, name: str = name) -> list[str]:
                write_shard(
                    *(self.store.path(name), self.model, self.model.ids(part.prompts), part.ids),
                    space=space,
                    progress=self.progress,
                )
                return [name]

            self._stage(name, self.keys.residuals(name), make)
        return read_captured([self.store.path(name) for name in names])

    def _near_ood(self, items: ItemSet, folds: np.ndarray) -> NearOOD | None:
        count = self.plan.per_family_ood
        if not count:
            return None
        unanswerable = near_ood(items, count, seed=self.plan.seed)
        name = NEAR_OOD
        path = self.store.path(name)

        def make() -> list[str]:
            write_shard(
                *(path, self.model, self.model.ids(unanswerable.prompts), unanswerable.ids),
                progress=self.progress,
            )
            return [name]

        self._stage(name, self.keys.near_ood(name, count, unanswerable.fingerprint), make)
        read = read_shards([path])[0][RESID_POST]
        return NearOOD.beside(read, unanswerable, items, folds)

    def _decode(self, inputs: Callable[[], Inputs], items: ItemSet) -> None:
        """Each decoder in a file of its own until all are there; then one file, and the parts go."""
        store, keys = self.store, self.keys
        if store.whole("readouts", keys.readouts):
            log.info("readouts: %s", ALREADY)
            return
        given = inputs()
        parts, beside = [], []
        for name, decode in decoders(given.options).items():
            part = f"partial/{name}.safetensors"
            parts.append(part)

            def make(part: str = part, decode: Callable[[Inputs], Decoded] = decode) -> list[str]:
                decoded = decode(given)
                tables.write_readouts(store.path(part), {r.decoder: r for r in decoded.readouts})
                for table, frame in decoded.tables.items():
                    write_table(store.path(f"tables/{table}.parquet"), frame)
                for file, save in decoded.files.items():
                    save(store.path(file))
                return [part, *(f"tables/{table}.parquet" for table in decoded.tables), *decoded.files]

            self._stage(f"decoding/{name}", keys.decoders[name], make)
            beside += [f for f in store.manifest["stages"][f"decoding/{name}"]["files"] if f != part]
        merged = {n: r for p in parts for n, r in tables.read_readouts(store.path(p), items.ids).items()}

        def merge() -> list[str]:
            tables.write_readouts(store.path("readouts.safetensors"), merged)
            return ["readouts.safetensors", *beside]

        self._stage("readouts", keys.readouts, merge)
        shutil.rmtree(store.path("partial"))

    def _analyse(self, trace: Trace) -> list[str]:
        found = analyse(trace, resamples=self.plan.resamples, seed=self.plan.seed)
        tables.write_onsets(self.store.path("onsets.safetensors"), found.onsets)
        for name, frame in found.tables.items():
            write_table(self.store.path(f"tables/{name}.parquet"), frame)
        return ["onsets.safetensors", *(f"tables/{name}.parquet" for name in found.tables)]

    def _intervene(self, trace: Trace, space: AnswerSpace) -> list[str]:
        if not (self.plan.interventions or tables.INTERVENTIONS in self.store.manifest["stages"]):
            return []
        from brewlens.study.interventions import Subject, intervene

        n = int(self.store.manifest["plan"]["intervention_n"])
        subject = Subject(self.model, trace, space, n, self.plan.seed, self.progress)
        return intervene(subject, self.plan.interventions, self.keys, self.store, self._stage)

    def _write_tables(self, trace: Trace) -> list[str]:
        import pandas as pd

        folder, answers = self.store.folder, trace.items.answers
        write_table(folder / "samples.parquet", trace.to_frame())
        layers = pd.concat([r.to_frame(answers) for r in trace.readouts.values()], ignore_index=True)
        layers["layer"] = layers["layer"].astype("Int64").mask(layers["decoder"] == "surface")
        write_table(folder / "layers.parquet", layers)
        classes = next(iter(trace.readouts.values())).classes
        baseline = majority(trace.items, trace.folds, classes)
        write_json(folder / "summary.json", summarise(trace, baseline))
        return ["samples.parquet", "layers.parquet", "summary.json"]


def run(
    plan: Plan,
    out: str | Path | None = None,
    *,
    model: HookedModel | None = None,
    progress: bool = True,
) -> Trace:
    """Carry out a plan; the results stay in a folder.

    Where every stage is there and whole, and the model's files are those that made it, nothing is loaded but
    the results.

    Args:
        plan: What to run.
        out: The run folder; by default one named after the model and the plan's key.
        model: The plan's model, where it is loaded already.
        progress: Show progress bars.

    Returns:
        The trace, as :func:`load_run` would read it from the folder.

    Raises:
        ModelError: If the model cannot be loaded or fails its self-check.
        ItemFileError: If the items file cannot be used.
        RunFolderError: If the folder holds another plan's results or cannot be written, or its disk is too
            small.
        ValueError: If the model cannot say the answers in one token, or items are too few.
    """
    if model is None:
        trace = carry_out(plan, out, partial(load_planned, plan), progress=progress)
    else:
        # It may be another than the plan's source holds, so the manifest does not say what that holds.
        trace = carry_out(plan, out, lambda: (model, None), loaded=True, progress=progress)
    manifest: Mapping[str, Any] = trace.manifest
    for name, why in (manifest.get("left_out") or {}).items():
        log.warning("%s was left out: %s", name, why)
    return trace


def carry_out(
    plan: Plan,
    out: str | Path | None,
    load: Callable[[], tuple[HookedModel, Mapping[str, str] | None]],
    *,
    loaded: bool = False,
    progress: bool = True,
) -> Trace:
    """:func:`run` with a function that gives the model, and without a word on what was left out.

    Args:
        plan: What to run.
        out: The run folder.
        load: Function as :func:`load_planned`; not called where nothing is to be made.
        loaded: The model is there already: it decides whether stages are whole, not its source's files.
        progress: Show progress bars.
    """
    folder = Path(out) if out is not None else default_folder(plan)
    store = Store(folder, plan)
    if not loaded:
        usable(plan.torch_device)
        if stages := finished(plan, store):
            for name in stages:
                log.info("%s: %s", name, ALREADY)
            return load_run(folder)
    store.check_writable()
    if plan.items is not None:
        load_items(plan)  # so that a bad file is refused before the model is loaded
    model, known = load()
    log.info("%r; %s", model, model.check)
    return _Run(plan, model, store, _facts(plan, store, model, known), progress).execute()


def _facts(
    plan: Plan, store: Store, model: HookedModel, known: Mapping[str, str] | None
) -> dict[str, object]:
    """What the manifest says of a run before its first stage."""
    return {
        "plan": _stated(plan, store),
        "model": {
            "name": model.name,
            "revision": model.revision,
            "content": known,
            "weights_hash": model.weights_hash,
            "tokenizer_hash": model.tokenizer_hash,
            "dtype": plan.dtype,
            "device": str(model.device),
            "n_layers": model.n_layers,
            "d_model": model.d_model,
            "n_params": model.n_params,
            "check": str(model.check),
            "refused": model.check.refused,
        },
        "versions": versions(),
        "seeds": {"items": plan.seed, "folds": plan.seed},
    }


def _stated(plan: Plan, store: Store) -> dict[str, object]:
    """The plan, with the experiments that the folder has where it asks for none."""
    asked = plan.stated()
    if plan.interventions:
        return asked
    there = store.manifest["plan"]
    return {**asked, **{name: there.get(name, asked[name]) for name in ("interventions", "intervention_n")}}


def write_report(folder: Path, trace: Trace) -> list[str]:
    """``report.html`` and its figures, from the stored results."""
    from brewlens.report import build

    manifest: dict[str, Any] = dict(trace.manifest) or read_manifest(folder)
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    build(folder, trace, summary, {**manifest, "wall_seconds": wall_seconds(manifest)})
    figures = sorted(str(path.relative_to(folder)) for path in (folder / "figures").iterdir())
    return ["report.html", *figures]
