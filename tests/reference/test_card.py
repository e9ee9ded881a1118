"""The card states the run's own files and a measurement, and nothing about where it was made."""

import json
from itertools import islice

import pytest

import brewlens.reference
from brewlens import tasks
from brewlens.loading import load_model
from brewlens.model import ModelError
from brewlens.reference.card import write_card
from brewlens.reference.config import TrainConfig
from brewlens.reference.data import training_programs
from brewlens.reference.evaluate import evaluate
from brewlens.reference.train import train
from brewlens.tasks import ItemSet


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("somewhere-private") / "run"
    config = TrainConfig(
        steps=3, layers=2, width=32, heads=2, kv_heads=1, mlp_width=48, batch=8, chunk=64,
        tokenizer_programs=400, vocab_size=600, eval_items=0,
    )  # fmt: skip
    train(config, out, progress=False, background=False)
    return out


@pytest.fixture(scope="module")
def items():
    return tasks.generate(("computing", "loop"), n=54, seed=11)


def test_card_says_what_was_measured(finished, items):
    facts = write_card(
        finished, items, baseline={"computing": 0.123, "loop": 0.456}, card_command="measure me"
    )
    model = finished / "model"
    card = (model / "README.md").read_text()
    assert json.loads((model / "training.json").read_text()) == json.loads(json.dumps(facts))
    frame = evaluate(model, items)
    for row in facts["evaluation"]["families"]:
        right = frame.loc[frame["family"] == row["family"], "correct_digit"]
        assert (row["n"], row["accuracy"]) == (54, pytest.approx(right.mean()))
        assert row["low"] <= row["accuracy"] <= row["high"]
        assert f"| {row['family']} | 54 | {row['accuracy']:.3f} |" in card
    assert len(facts["evaluation"]["configurations"]) == 54
    assert "| 0.123 |" in card and "| 0.456 |" in card and "measure me" in card
    assert facts["steps"] == 3 and facts["programs"] == 24 and "3 steps, 24 programs" in card
    assert facts["architecture"]["parameters"] == sum(
        weight.numel() for weight in _weights(model / "model.safetensors")
    )
    assert str(finished) not in card + json.dumps(facts)
    assert "TrainConfig(steps=3" in card


def _weights(path):
    from safetensors.torch import load_file

    return load_file(path).values()


def test_command_of_a_default_recipe(finished, items, tmp_path):
    from brewlens.reference.card import _command

    (tmp_path / "config.json").write_text(json.dumps(TrainConfig(minutes=90.0, seed=3).to_dict()))
    assert _command(tmp_path) == "brewlens reference train --out DIR --minutes 90 --seed 3"


def test_training_programs_are_no_evaluation(finished):
    seen = ItemSet(tuple(islice(training_programs(0, "all"), 20)))
    with pytest.raises(ValueError, match="20 items belong to the training universe"):
        write_card(finished, seen)


def test_unfinished_run_has_no_card(tmp_path, items):
    with pytest.raises(ValueError, match="holds no finished run"):
        write_card(tmp_path, items)


def test_path_of_the_bundled_model(tmp_path, monkeypatch):
    monkeypatch.setattr(brewlens.reference, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="no reference model in"):
        brewlens.reference.path()
    with pytest.raises(ModelError, match="reinstall brewlens, or train it"):
        load_model("reference")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").touch()
    assert brewlens.reference.path() == tmp_path / "model"
