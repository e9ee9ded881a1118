"""Interventions of a run: made once, added later, left out with a reason, and shown."""

from __future__ import annotations

import json
import logging
from functools import partial
from importlib import import_module

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

import brewlens as bl
from brewlens.cli import app
from brewlens.intervention.effects import COLUMNS
from brewlens.intervention.pairs import NoPairs
from brewlens.study import PlanError, load_run, make_plan, run
from brewlens.study import interventions as stage
from brewlens.study.plan import INTERVENTIONS
from brewlens.study.show import summary_tables

FAMILIES = ("computing", "loop")


@pytest.fixture(scope="module")
def model():
    return bl.load_model("reference")


def plan_of(**options):
    return make_plan(families=FAMILIES, n=108, near_ood=0, prompts="own", intervention_n=30, **options)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """A run with some experiments, to which the others were added."""
    found = tmp_path_factory.mktemp("runs") / "r"
    with pytest.MonkeyPatch.context() as patch:  # made anew below
        patch.setattr(import_module("brewlens.study.run"), "write_report", lambda folder, trace: [])
        run(plan_of(interventions=["layer_skipping", "components"]), found, model=model, progress=False)
    first = {p.name: p.stat().st_mtime_ns for p in (found / "interventions").iterdir()}
    # The module; the package exports the function under the same name.
    module = import_module("brewlens.intervention.causal_use")
    with pytest.MonkeyPatch.context() as patch:  # how well subspaces are learned is tested elsewhere
        patch.setattr(module, "learned_subspace", partial(module.learned_subspace, pairs=60, judged=40))
        run(plan_of(interventions="all"), found, model=model, progress=False)
    again = {p.name: p.stat().st_mtime_ns for p in (found / "interventions").iterdir()}
    assert {name: again[name] for name in first} == first
    return found


def test_the_plan_knows_every_experiment():
    assert tuple(stage.EXPERIMENTS) == INTERVENTIONS
    assert plan_of(interventions="all").interventions == INTERVENTIONS
    assert plan_of(interventions=["rescue", "causal_use"]).interventions == ("causal_use", "rescue")
    with pytest.raises(PlanError, match="no experiment 'causal'; there are all, causal_use"):
        plan_of(interventions=["causal"])
    assert plan_of().key == plan_of(interventions="all").key  # the same folder takes them


def test_the_tables_are_whole(folder):
    effects = pd.read_parquet(folder / "effects.parquet")
    assert tuple(effects.columns) == COLUMNS
    assert set(effects["experiment"]) >= {"causal_use", "fjc_patching", "layer_skipping", "transplant"}
    assert (effects["n"] >= 10).all()
    assert effects.loc[effects["control"], "p_adjusted"].isna().all()
    shown = effects["measure"] != "logit_difference"
    assert effects["net"][shown].between(-1.2, 1.2).all()
    for name in ("causal_verdicts", "learned_subspace", "components", "overtakes", "rescue"):
        assert len(pd.read_parquet(folder / "tables" / f"{name}.parquet"))


def test_reading_back_gives_the_tables(folder):
    trace = load_run(folder)
    assert {"effects", "causal_verdicts", "components", "overtakes", "rescue"} <= set(trace.tables)
    assert trace.probes is not None
    summary = json.loads((folder / "summary.json").read_text())
    assert len(summary["causal_verdicts"]) == len(trace.tables["causal_verdicts"])
    page = (folder / "report.html").read_text()
    assert "causal" in page.lower()


def test_a_second_run_makes_nothing_anew(folder, model, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    for name in stage.EXPERIMENTS:
        monkeypatch.setitem(stage.EXPERIMENTS, name, None)
    run(plan_of(interventions="all"), folder, model=model, progress=False)
    run(plan_of(), folder, model=model, progress=False)  # not asked for again, and there all the same
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before


def test_what_is_printed(folder):
    console = Console(record=True, width=120)
    summary_tables(folder, console)
    text = console.export_text()
    assert "Is the brewed answer used before it is ready?" in text
    assert "whole state" in text
    assert "Rescue: chosen on one half" in text
    assert "nan" not in text.lower().replace("resonan", "")


def test_items_without_twins_leave_causal_use_out_and_say_so(model, tmp_path, caplog):
    items = bl.tasks.generate("computing", n=40, seed=1)
    bl.tasks.sources.write_items(tmp_path / "mine.jsonl", items)
    plan = make_plan(
        items=str(tmp_path / "mine.jsonl"), prompts="own", interventions=["causal_use"], intervention_n=20
    )
    with caplog.at_level(logging.INFO, logger="brewlens"):
        trace = run(plan, tmp_path / "r", model=model, progress=False)
    told = [record.message for record in caplog.records]
    assert "interventions/causal_use: left out" in told and "interventions/causal_use: done" not in told
    assert told[-1].startswith("causal_use was left out: ") and caplog.records[-1].levelname == "WARNING"
    assert "0 a twin" in caplog.text
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert "causal_use" in manifest["left_out"]
    assert not len(trace.tables["effects"])
    assert (tmp_path / "r" / "report.html").exists()
    console = Console(record=True, width=120)
    summary_tables(tmp_path / "r", console)
    lines = console.export_text().splitlines()
    at = next(number for number, line in enumerate(lines) if "warning: causal_use was left out: " in line)
    assert lines[-1].startswith("report: ") and "Right answers" not in "".join(lines[at:])
    assert any("warning: computing: there are only 40 samples" in line for line in lines)


def test_a_mistyped_experiment_is_one_line():
    result = CliRunner().invoke(app, ["run", "--interventions", "causaluse"])
    assert result.exit_code == 1
    assert "no experiment 'causaluse'" in result.output
    assert "Traceback" not in result.output


def test_a_model_that_is_seldom_right_has_no_learned_subspace_and_says_so(folder, model, monkeypatch, caplog):
    module = import_module("brewlens.intervention.causal_use")

    def refuse(*args, **options):
        raise NoPairs("half 0 has 1 of 40 samples answered rightly")

    monkeypatch.setattr(module, "learned_subspace", refuse)
    with caplog.at_level(logging.WARNING, logger="brewlens"):
        found = module.causal_use(model, load_run(folder), n=12, progress=False)
    assert "no subspace was learned: half 0 has 1 of 40" in caplog.text
    assert found.learned is None
    assert {arm.edit for arm in found.grid.arms} == {"no_op", "whole", "probe_subspace", "erase"}
