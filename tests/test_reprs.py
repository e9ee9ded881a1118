"""Every result in one line and in a small table, never as numbers of a tensor."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import brewlens
from brewlens import answers, decoding, intervention, lifecycle, planted, tasks
from brewlens.brief import brief
from brewlens.decoding.near_ood import NearOOD
from brewlens.decoding.tuned_lens import LensTraining
from brewlens.intervention import Arm, Site, Subspace, Where, no_op, run_grid, states
from brewlens.intervention.causal_use import CausalUse
from brewlens.intervention.donors import counterfactual
from brewlens.residuals import Residuals
from brewlens.study.seeds import Seeds
from tests.synthetic import synthetic_trace
from tests.synthetic_effects import synthetic_effects
from tests.test_html import tags

ROOT = Path(brewlens.__file__).parent
ROOMS = ("decoding", "intervention", "lifecycle", "planted", "study", "tasks")
ARRAYS = ("ndarray", "Tensor", "DataFrame")


def dataclasses_of(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list):
            types = [ast.unparse(n.annotation) for n in node.body if isinstance(n, ast.AnnAssign)]
            functions = {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
            names = {t.id for n in node.body if isinstance(n, ast.Assign) for t in n.targets}
            yield node.name, " ".join(types), "__repr__" in functions | names


def long_by_default():
    """Public dataclasses that hold arrays, directly or in a field -> whether they say themselves shortly."""
    found = {
        (path, name): (types, own)
        for path in sorted(ROOT.rglob("*.py"))
        for name, types, own in dataclasses_of(path)
    }
    heavy, words = {}, set(ARRAYS)
    while True:
        pattern = re.compile(rf"\b({'|'.join(sorted(words))})\b")
        now = {key: own for key, (types, own) in found.items() if pattern.search(types)}
        if len(now) == len(heavy):
            return {key: own for key, own in heavy.items() if not key[1].startswith("_")}
        heavy, words = now, words | {name for _, name in now}


def test_whoever_holds_arrays_says_itself_shortly():
    held = long_by_default()
    assert len(held) > 60  # the search finds them
    silent = [f"{path.relative_to(ROOT)}: {name}" for (path, name), own in held.items() if not own]
    assert not silent, f"give these `__repr__ = brief`, or one of their own: {silent}"


@pytest.fixture(scope="module")
def shown(tiny_model):
    """One of every exported class that holds arrays."""
    trace = synthetic_trace(30, ("computing",), n_layers=4)
    items, probe, ready = trace.items, trace.readouts["probe"], trace.readouts["context_stripped"]
    life, few = trace.lifecycle, trace.items.select(range(6))
    output = ready.target_index(life.output)
    model, space = tiny_model, tiny_model.answer_space(few.prompts)
    passed = model.forward(few.prompts, space)
    residuals = Residuals.of(passed.residuals, few.ids, passed.tokens, model.name)
    site = Site()
    own = states(model, few.prompts, site)
    donor = counterfactual(model, few, space, site)
    arm = Arm("whole", "counterfactual", intervention.replace(), donor)
    grid = run_grid(model, few.prompts, own, [Arm("no_op", "no_op", no_op()), arm], space)
    attribution = intervention.attribute(model, few, space)
    tables = synthetic_effects(trace)
    cases = SimpleNamespace(samples=range(5))
    signals = lifecycle.signals(probe, ready)
    confidence = lifecycle.final_confidence(trace.readouts["context_stripped_raw"])
    resolved = life.outcome == "resolved"
    rng = np.random.default_rng(0)
    shuffled = decoding.Selectivity(rng.random((9, 4)) < 0.5, rng.random((3, 4)), (0, 1, 2, 3))
    subspace = Subspace("random", torch.eye(32)[:, :3].expand(2, 4, 32, 3), torch.zeros(6, dtype=torch.long))
    options = decoding.FitOptions(C=1.0)
    spaced = torch.randn(len(items), 4, 8)
    randomly = Residuals.of(spaced, items.ids, ((1,),) * len(items), "random")
    fit = decoding.fit_probes(randomly, items, np.arange(len(items)) % 2, options=options)
    held = pd.DataFrame(
        {"group": [0, 0, 1], "layer": [1, 2, 1], "n": [9, 9, 8], "follows": 0.4, "low": 0.2, "high": 0.6}
    )
    learned = intervention.Learned(subspace, (1, 2), (0,) * 5, np.zeros((2, 2, 3)), held)
    values = pd.DataFrame({"family": "loop", "quantity": "resolved", "seed": [0, 1], "value": [0.4, 0.5]})
    row = {
        "family": "loop",
        "quantity": "resolved",
        "seeds": 2,
        "mean": 0.45,
        "sd": 0.07,
        "low": 0,
        "high": 1,
    }
    lens = decoding.TunedLens.identity(model)
    training = LensTraining(9, 3, 5, 2, 0.1, 0.0, 0, (0.5, 0.4), (0.3, 0.2), (0.1, 0.1), (5, 0))
    truth = planted.draw_truth(12, n_layers=6)
    made = planted.plant(truth)
    several = decoding.readiness(model, residuals, few, space)
    things = [
        *(trace, life, life.landmarks, probe, trace.onsets["ready"], items, items[0], residuals),
        *(passed, passed.output, space, model, grid, arm, donor, site, attribution, subspace),
        *(intervention.overtakes(attribution), signals, truth, made, made.simulated, lens, training),
        *(fit, fit.probes, several, several.audit_bias(), shuffled, learned, decoding.OWN),
        lifecycle.onset_curve(trace.onsets["available"].posterior, trace.shapes),
        lifecycle.detect_resolved(signals, confidence, resolved, trace.shapes),
        CausalUse(cases, grid, tables["effects"], tables["causal_verdicts"]),
        Seeds((0, 1), "folds", values, pd.DataFrame([row]), pd.DataFrame(), 1.0, {}),
        NearOOD(residuals, few, np.zeros(6, dtype=int)),
        Where(torch.arange(6), torch.zeros(6, 4, dtype=torch.long)),
        lifecycle.paper_lifecycle(
            *(probe, ready),
            families=life.families,
            answers=life.answers,
            output=output,
            format_miss=life.format_miss,
        ),
        answers.AnswerSpace(tuple(map(str, range(5000))), tuple((k,) for k in range(5000))),
        tasks.ItemSet((items[0],)),
    ]
    return [thing for thing in things if thing is not None]


@pytest.mark.unchecked("stand-ins")
def test_one_line_and_no_numbers_of_tensors(shown):
    for thing in shown:
        said = repr(thing)
        assert len(said) < 500 and "\n" not in said, said
        assert not re.search(r"array\(|tensor\(|dtype=", said), said


@pytest.mark.unchecked("stand-ins")
def test_small_tables_with_nothing_from_elsewhere(shown):
    drawn = [thing for thing in shown if hasattr(thing, "_repr_html_")]
    assert len(drawn) >= 30
    for thing in drawn:
        text = thing._repr_html_()
        assert len(text) < 25_000, type(thing)
        assert not {"script", "img", "link", "iframe", "style"} & set(tags(text)), type(thing)
        assert "http" not in text and "<table" in text, type(thing)
        assert text == thing._repr_html_()


@pytest.mark.unchecked("stand-ins")
def test_every_exported_class_that_holds_arrays_is_here(shown):
    held = {name for _, name in long_by_default()}
    exported = {
        name
        for room in ROOMS
        for name in import_module(f"brewlens.{room}").__all__
        if isinstance(getattr(import_module(f"brewlens.{room}"), name), type) and name in held
    }
    exported |= {name for name in brewlens.__all__ if name in held}
    missing = exported - {type(thing).__name__ for thing in shown} - {"Edit"}  # a function, not a state
    assert not missing, f"put one of each into the fixture: {missing}"


@pytest.mark.unchecked("stand-ins")
def test_exported_results_have_a_table(shown):
    plain = {"Arm", "Donor", "NearOOD", "Simulated", "Site", "Subspace", "Target", "Where"}  # parts of a call
    without = {type(thing).__name__ for thing in shown if not hasattr(thing, "_repr_html_")}
    assert without <= plain, without - plain


@pytest.mark.unchecked("stand-ins")
def test_brief_is_brief_whatever_is_in_it():
    wide = {f"name {k}": torch.zeros(9) for k in range(99)}
    found = decoding.probe.__class__  # any class will do as a value
    record = type("Record", (), {})()
    thing = planted.Simulated(record, wide, tuple("x" * 1000 for _ in range(3)), np.zeros((7, 2)))
    said = brief(thing)
    assert len(said) <= 400 and "7 x 2 float64" in said and "99 entries" in said and found
