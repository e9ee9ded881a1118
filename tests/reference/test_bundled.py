"""The model that ships: it is what its card says, and its lifecycle is there to be seen."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest

import brewlens as bl
from brewlens import reference
from brewlens.lifecycle import NEVER, RESOLUTION


@pytest.fixture(scope="module")
def facts():
    return json.loads((reference.path() / "training.json").read_text())


@pytest.fixture(scope="module")
def model():
    return bl.load_model("reference", device="cpu")


@pytest.fixture(scope="module")
def trace(model):
    items = bl.tasks.generate(("value_tracking", "computing"), n=135, seed=11)
    return bl.trace(model, items, progress=False)


def test_it_fits_and_is_the_one_of_the_card(facts):
    import hashlib

    weights = (reference.path() / "model.safetensors").read_bytes()
    assert len(weights) <= 16_000_000
    assert hashlib.sha256(weights).hexdigest() == facts["architecture"]["sha256"]
    card = (reference.path() / "README.md").read_text()
    for row in facts["evaluation"]["families"]:
        assert f"| {row['family']} | {row['n']} | {row['accuracy']:.3f} |" in card


def test_accuracy_on_other_held_out_programs_is_that_of_the_card(facts, trace):
    """Two-sided, per family, at a level at which one run in a thousand fails by chance."""
    for row in facts["evaluation"]["families"]:
        here = [family == row["family"] for family in trace.lifecycle.families]
        if any(here):
            right = int(trace.lifecycle.output_correct[here].sum())
            assert binomtest(right, sum(here), row["accuracy"]).pvalue > 5e-4, row["family"]


def test_each_digit_is_one_token(model):
    space = model.answer_space(['# The value of ret is "'])
    assert [model.decode([token]) for token in space.token_ids] == list("0123456789")


def test_the_last_layer_is_the_models_own_answer_for_every_item(trace):
    raw = trace.readouts["context_stripped_raw"].predicted[:, -1]
    assert (np.array(raw).astype(str) == np.array(trace.lifecycle.output)).all()


def test_its_lifecycle_can_be_seen(trace):
    life = trace.lifecycle
    tracking = np.array([family == "value_tracking" for family in life.families])
    assert (life.outcome[tracking] == "resolved").mean() > 0.7
    assert set(RESOLUTION[:2]) <= set(life.outcome)
    probe = trace.readouts["probe"].correct(life.answers)[tracking].mean(axis=0)
    assert probe[-1] > probe[0] + 0.1
    assert (life.landmarks.fpcl != NEVER).mean() > 0.7
