"""Run: a plan carried out stage by stage in a run folder; what is there and whole is not made again."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brewlens.answer_logits import AnswerLogits
from brewlens.answers import DIGITS, AnswerSpace
from brewlens.capturing import SHARD, read_shards, write_shard
from brewlens.decoding import NearOOD, majority
from brewlens.files import write_json
from brewlens.pieces import token_table
from brewlens.residuals import RESID_POST, Residuals
from brewlens.results import Trace
from brewlens.study import tables
from brewlens.study.analysis import analyse
from brewlens.study.loading import read_captured, with_analysis
from brewlens.study.pipeline import (
    Decoded,
    Inputs,
    Options,
    decoders,
    lifecycles,
    missed_format,
)
from brewlens.study.plan import N_GENERATED, Plan, PlanError
from brewlens.study.store import (
    RunFolderError,
    Store,
    key_of,
    read_manifest,
    write_table,
)
from brewlens.study.summary import summarise, versions, wall_seconds
from brewlens.tasks import ItemSet, assign_folds, generate, near_ood, read_items

if TYPE_CHECKING:
    from brewlens.model import HookedModel

log = logging.getLogger("brewlens")

MOST_CLASSES = 200  # of an items file; more are values to be computed, not a set to choose from


def default_folder(plan: Plan) -> Path:
    """``runs/<model>-<key of the plan>``: another plan, another folder."""
    return Path("runs") / f"{Path(plan.model).name}-{plan.key[:8]}"


def load_items(plan: Plan) -> ItemSet:
    """The items of a plan, generated or read from its file (the first ``n`` of it).

    Raises:
        ItemFileError: If the file cannot be used.
    """
    if plan.items is None:
        return generate(plan.families, n=plan.per_family or N_GENERATED, seed=plan.seed)
    named = DIGITS if plan.classes is None else None if plan.classes == "items" else plan.classes
    return read_items(plan.items, named)[: plan.n]


def classes_of(plan: Plan, items: ItemSet) -> tuple[str, ...]:
    """The answer classes of a plan: the digits, those that it names, or those that its items have.

    Raises:
        PlanError: If the items have too many or too few answers to be classes.
    """
    if plan.classes is None:
        return DIGITS
    if plan.classes != "items":
        return plan.classes
    found = tuple(sorted(set(items.answers)))
    if not 2 <= len(found) <= MOST_CLASSES:
        raise PlanError(
            f"{plan.items} has {len(found)} different answers, first {found[:5]}; as classes there must "
            f"be 2 to {MOST_CLASSES}"
        )
    return found


@dataclass
class _Run:
    plan: Plan
    model: HookedModel
    store: Store
    progress: bool

    def execute(self) -> Trace:
        store, model = self.store, self.model
        items_key = key_of("items", self.plan.key, versions()["brewlens"])
        self._stage("items", items_key, self._write_items)
        items, folds = tables.read_items(store.folder, store.manifest["items"])
        self._check_disk(len(items))
        classes = classes_of(self.plan, items)
        space = model.answer_space(items.prompts, classes, scoring=self.plan.scoring, end=self.plan.end)
        self._stage(
            "tokens",
            key_of("tokens", items_key, model.tokenizer_hash),
            lambda: self._write_tokens(items),
        )
        residuals, output = self._capture(items, space, items_key)
        options = options_of(self.plan)

        def inputs() -> Inputs:
            """Made only where a decoder must run: near-OOD programs take seconds."""
            near = self._near_ood(items, folds, items_key)
            return Inputs(model, items, folds, residuals, space, options, near, self.progress)

        decode_key = self._decode(inputs, decoders(options), items, key_of(items_key, self._model_key))
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
        self._stage("analysis", key_of("analysis", decode_key), lambda: self._analyse(trace))
        trace = with_analysis(trace, store.folder, store.manifest)
        if made := self._intervene(trace, space, decode_key):
            trace = with_analysis(trace, store.folder, store.manifest)
        self._stage("tables", key_of("tables", decode_key, made), lambda: self._write_tables(trace))
        self._stage("report", key_of("report", decode_key, made), lambda: write_report(store.folder, trace))
        return trace

    @property
    def _model_key(self) -> str:
        return key_of(self.model.weights_hash, self.model.tokenizer_hash, self.plan.dtype)

    def _stage(self, name: str, key: str, make: Callable[[], list[str]]) -> None:
        made = self.store.once(name, key, make)
        log.info("%s: %s", name, "done" if made else "already there")

    def _write_items(self) -> list[str]:
        items = load_items(self.plan)
        folds = assign_folds(items, self.plan.folds, self.plan.seed)
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
        free = shutil.disk_usage(self.store.folder).free
        if need - there > free:
            raise RunFolderError(
                f"{self.store.folder} needs about {need / 1e6:.0f} MB and its disk has {free / 1e6:.0f} MB "
                "free; free some or choose another folder with --out"
            )

    def _capture(self, items: ItemSet, space: AnswerSpace, items_key: str) -> tuple[Residuals, AnswerLogits]:
        paths = []
        for start in range(0, len(items), SHARD):
            part = items[start : start + SHARD]
            name = f"residuals/{start // SHARD:05d}.safetensors"
            paths.append(self.store.path(name))

            def make(part: ItemSet = part, path: Path = paths[-1], name: str = name) -> list[str]:
                write_shard(
                    *(path, self.model, self.model.ids(part.prompts), part.ids),
                    space=space,
                    progress=self.progress,
                )
                return [name]

            self._stage(name, key_of(name, items_key, self._model_key, SHARD), make)
        return read_captured(paths)

    def _near_ood(self, items: ItemSet, folds: np.ndarray, items_key: str) -> NearOOD | None:
        count = self.plan.per_family_ood
        if not count:
            return None
        unanswerable = near_ood(items, count, seed=self.plan.seed)
        name = "residuals/near_ood.safetensors"
        path = self.store.path(name)

        def make() -> list[str]:
            write_shard(
                *(path, self.model, self.model.ids(unanswerable.prompts), unanswerable.ids),
                progress=self.progress,
            )
            return [name]

        self._stage(name, key_of(name, items_key, self._model_key, count, unanswerable.fingerprint), make)
        read = read_shards([path])[0][RESID_POST]
        return NearOOD.beside(read, unanswerable, items, folds)

    def _decode(
        self,
        inputs: Callable[[], Inputs],
        asked: Mapping[str, Callable[[Inputs], Decoded]],
        items: ItemSet,
        base_key: str,
    ) -> str:
        """Each decoder in a file of its own until all are there; then one file, and the parts go."""
        store = self.store
        keys = {name: key_of(name, base_key) for name in asked}
        key = key_of("readouts", keys)
        if store.whole("readouts", key):
            log.info("readouts: already there")
            return key
        given = inputs()
        parts, beside = [], []
        for name, decode in asked.items():
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

            self._stage(f"decoding/{name}", keys[name], make)
            beside += [f for f in store.manifest["stages"][f"decoding/{name}"]["files"] if f != part]
        merged = {n: r for p in parts for n, r in tables.read_readouts(store.path(p), items.ids).items()}

        def merge() -> list[str]:
            tables.write_readouts(store.path("readouts.safetensors"), merged)
            return ["readouts.safetensors", *beside]

        self._stage("readouts", key, merge)
        shutil.rmtree(store.path("partial"))
        return key

    def _analyse(self, trace: Trace) -> list[str]:
        found = analyse(trace, resamples=self.plan.resamples, seed=self.plan.seed)
        tables.write_onsets(self.store.path("onsets.safetensors"), found.onsets)
        for name, frame in found.tables.items():
            write_table(self.store.path(f"tables/{name}.parquet"), frame)
        return ["onsets.safetensors", *(f"tables/{name}.parquet" for name in found.tables)]

    def _intervene(self, trace: Trace, space: AnswerSpace, decode_key: str) -> list[str]:
        if not (self.plan.interventions or tables.INTERVENTIONS in self.store.manifest["stages"]):
            return []
        from brewlens.study.interventions import Subject, intervene

        n = int(self.store.manifest["plan"]["intervention_n"])
        subject = Subject(self.model, trace, space, n, self.plan.seed, self.progress)
        return intervene(subject, self.plan.interventions, decode_key, self.store, self._stage)

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
        RunFolderError: If the folder holds another plan's results, or its disk is too small.
        ValueError: If the model cannot say the answers in one token, or items are too few.
    """
    folder = Path(out) if out is not None else default_folder(plan)
    store = Store(folder, plan)
    if plan.items is not None:
        load_items(plan)  # so that a bad file is refused before the model is loaded
    model = model or load_planned(plan)
    log.info("%r; %s", model, model.check)
    store.note(
        plan=_stated(plan, store),
        model={
            "name": model.name,
            "revision": model.revision,
            "weights_hash": model.weights_hash,
            "tokenizer_hash": model.tokenizer_hash,
            "dtype": plan.dtype,
            "device": str(model.device),
            "n_layers": model.n_layers,
            "d_model": model.d_model,
            "n_params": model.n_params,
            "check": str(model.check),
        },
        versions=versions(),
        seeds={"items": plan.seed, "folds": plan.seed},
    )
    return _Run(plan, model, store, progress).execute()


def _stated(plan: Plan, store: Store) -> dict[str, object]:
    """The plan, with the experiments that the folder has where it asks for none."""
    asked = plan.stated()
    if plan.interventions:
        return asked
    there = store.manifest["plan"]
    return {**asked, **{name: there.get(name, asked[name]) for name in ("interventions", "intervention_n")}}


def load_planned(plan: Plan) -> HookedModel:
    """The model of a plan.

    Raises:
        ModelError: If it cannot be loaded or fails its self-check.
    """
    from brewlens.loading import load_model

    return load_model(plan.model, device=plan.torch_device, dtype=plan.dtype)


def options_of(plan: Plan) -> Options:
    """How a plan wants residuals decoded."""
    return Options(plan.probe, plan.probe_c, plan.prompts, plan.tuned_lens, plan.seed, plan.compat)


def disk_bytes(n: int, layers: int, width: int, dtype: str) -> int:
    """About what a run folder will take: residuals, readouts, tables, figures and report."""
    residuals = n * layers * width * (2 if dtype == "bfloat16" else 4) * 6 // 5  # with near-OOD programs
    readouts = n * layers * (6 * 10 * 4 + 5 * 4)
    return residuals + 2 * readouts + n * 4000 + 25_000_000


def write_report(folder: Path, trace: Trace) -> list[str]:
    """``report.html`` and its figures, from the stored results."""
    from brewlens.report import build

    manifest: dict[str, Any] = dict(trace.manifest) or read_manifest(folder)
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    build(folder, trace, summary, {**manifest, "wall_seconds": wall_seconds(manifest)})
    figures = sorted(str(path.relative_to(folder)) for path in (folder / "figures").iterdir())
    return ["report.html", *figures]
