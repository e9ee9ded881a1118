"""Selectivity is high where the answer is, and nothing where only the configuration is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from brewlens import tasks
from brewlens.decoding import probe
from brewlens.decoding.fold_fit import FitOptions
from brewlens.decoding.selectivity import selectivity, shuffled
from brewlens.residuals import Residuals
from brewlens.tasks import ItemSet


@pytest.fixture(scope="module")
def items():
    return tasks.generate(("computing", "conditional"), n=270)


@pytest.fixture(scope="module")
def folds(items):
    return tasks.assign_folds(items, 5)


def residuals(items, values):
    values = torch.as_tensor(values, dtype=torch.float32)
    return Residuals.of(values, items.ids, ((1,),) * len(items), "test")


def test_an_answer_is_selective_and_noise_is_not(items, folds):
    values = np.random.default_rng(0).normal(size=(len(items), 2, 16))
    values[np.arange(len(items)), 1, [int(a) for a in items.answers]] += 5
    found = selectivity(residuals(items, values), items, folds, options=FitOptions(C=0.1), shuffles=4)
    table = found.to_frame()
    assert abs(table["selectivity"][0]) < 0.06
    assert table["selectivity"][1] > 0.8
    assert (table["control"] < 0.2).all()
    assert (table["control_min"] <= table["control"]).all() and (
        table["control"] <= table["control_max"]
    ).all()
    assert (table["control_sd"] > 0).all()
    assert (table["shuffles"] == 4).all() and (table["n"] == len(items)).all()
    alone = probe(residuals(items, values), items, folds, C=0.1).correct(items.answers)
    assert np.mean(alone == found.correct) > 0.995


def test_what_the_configuration_gives_away_is_not_selective(items, folds):
    """Residuals that hold the configuration only: both are right as often, and well above chance."""
    answer = {"computing": "3", "conditional": "8"}
    rng = np.random.default_rng(1)
    biased = ItemSet(
        tuple(
            replace(
                item, factors={"c": k % 3}, answer=str(k % 3) if rng.random() < 0.7 else answer[item.family]
            )
            for k, item in enumerate(items)
        ),
        items.partners,
    )
    values = rng.normal(size=(len(items), 1, 6))
    values[np.arange(len(items)), 0, np.arange(len(items)) % 3] += 5
    table = selectivity(residuals(biased, values), biased, folds, options=FitOptions(C=0.1)).to_frame()
    assert table["accuracy"][0] > 0.6
    assert abs(table["selectivity"][0]) < 0.05


def test_shuffles_keep_every_configuration(items):
    target = torch.tensor([int(a) for a in items.answers])
    first, second = shuffled(items, target, 2, 0)
    cell = np.array([f"{i.family} {sorted(i.factors.items())}" for i in items])
    for name in np.unique(cell):
        rows = torch.tensor(np.flatnonzero(cell == name))
        assert first[rows].sort().values.tolist() == target[rows].sort().values.tolist()
    assert not torch.equal(first, second)
    assert (first == target).float().mean() < 0.5
    assert torch.equal(first, shuffled(items, target, 1, 0)[0])


def test_no_shuffle_is_refused(items, folds):
    values = np.zeros((len(items), 1, 2))
    with pytest.raises(ValueError, match="at least one shuffle"):
        selectivity(residuals(items, values), items, folds, shuffles=0)
