"""Plans are strict, and their key is that of their results."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

import brewlens as bl
from brewlens.study import PlanError, load_run, make_plan
from brewlens.study.planned import disk_bytes, load_items
from brewlens.tasks import FAMILIES


def test_defaults_are_the_main_job():
    plan = make_plan()
    assert (plan.model, plan.families, plan.per_family, plan.folds) == ("reference", FAMILIES, 810, 5)


def test_options_go_over_the_study_file(tmp_path):
    study = tmp_path / "study.toml"
    study.write_text('n = 100\nfamilies = ["loop"]\nprobe_c = 1.0\n')
    plan = make_plan(study, n=50, seed=None)
    assert (plan.n, plan.families, plan.probe_c, plan.seed) == (50, ("loop",), 1.0, 0)


def test_the_key_changes_with_the_results_only(tmp_path):
    plan = make_plan()
    assert make_plan(n=810).key == plan.key
    assert make_plan(device="cuda").key == plan.key
    keys = {
        make_plan(**o).key
        for o in ({"n": 5}, {"seed": 1}, {"model": "x"}, {"families": ["loop"]}, {"folds": 4})
    }
    assert len(keys | {plan.key}) == 6
    items = tmp_path / "a.jsonl"
    items.write_text("1")
    one = make_plan(items=str(items)).key
    items.write_text("2")
    assert make_plan(items=str(items)).key != one


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n = 0", "n: .*greater than or equal to 1, found 0"),
        ('n = "many"', "n: .*valid integer, found 'many'"),
        ("itmes = 3", "itmes: no such option; the options are model, families"),
        ('families = ["lop"]', "unknown family 'lop'; the families are value_tracking"),
        ("families = []", "at least one"),
        ('families = "loop"', "must be a list"),
        ("confident = 2.0", "confident"),
        ('dtype = "fp8"', "dtype"),
        ("n = = 3", "is not TOML"),
    ],
)
def test_refused(tmp_path, text, message):
    study = tmp_path / "study.toml"
    study.write_text(text)
    with pytest.raises(PlanError, match=message):
        make_plan(study)


def test_missing_files(tmp_path):
    with pytest.raises(PlanError, match="No such file"):
        make_plan(tmp_path / "none.toml")
    with pytest.raises(PlanError, match="No such file"):
        _ = make_plan(items=str(tmp_path / "none.jsonl")).key


def test_a_file_of_items_is_read_whole_unless_n_says_otherwise(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"prompt": "x{k}", "answer": "1"}}\n' for k in range(900)))
    assert len(load_items(make_plan(items=str(path)))) == 900
    assert len(load_items(make_plan(items=str(path), n=7))) == 7
    with pytest.raises(PlanError, match="families or items, not both"):
        make_plan(items=str(path), families=["loop"])


def test_choices_that_do_not_go_together():
    for options, reason in (
        ({"folds": 2}, "three folds"),
        ({"classes": ["a", "b"]}, "with an items file"),
        ({"items": "x.jsonl", "near_ood": 5}, "leave near_ood out"),
        ({"end": '"'}, "scoring = 'sequence'"),
        ({"classes": ["a", "a"], "items": "x.jsonl"}, "two different answers"),
        ({"scoring": "letters"}, "'token', 'first' or 'sequence'"),
    ):
        with pytest.raises(PlanError, match=reason):
            make_plan(**options)
    assert make_plan(folds=2, probe_c=0.1).folds == 2
    assert make_plan().per_family_ood == 81 and make_plan(n=90).per_family_ood == 0
    assert make_plan(n=90, near_ood=30).stated()["near_ood"] == 30


def test_float16_is_a_type_like_the_others(tiny_folders, tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("brewlens.study.run"), "write_report", lambda folder, trace: [])
    options = dict(model=str(tiny_folders["qwen2"]), families=["computing"], n=54, prompts="own")
    plan = make_plan(**options, dtype="float16")
    assert disk_bytes(1000, 4, 32, "float16") == disk_bytes(1000, 4, 32, "bfloat16")
    assert disk_bytes(1000, 4, 32, "float16") < disk_bytes(1000, 4, 32, "float32")
    trace = bl.run(plan, tmp_path / "r", progress=False)
    assert trace.residuals.dtype == torch.float16
    assert load_run(tmp_path / "r").residuals.dtype == torch.float16
    assert trace.manifest["model"]["dtype"] == "float16"
    with pytest.raises(PlanError, match="'float32', 'bfloat16' or 'float16'"):
        make_plan(dtype="float64")
