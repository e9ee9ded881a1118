"""Probes find what is there, find nothing in noise, and never see what they score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from brewlens import tasks
from brewlens.decoding import majority, probe, surface
from brewlens.decoding.probe import fit_logits
from brewlens.lifecycle import NEVER, first_hit
from brewlens.residuals import Residuals
from brewlens.tasks import ItemSet, LeakageError


@pytest.fixture(scope="module")
def items():
    return tasks.generate(("computing", "conditional"), n=270)


@pytest.fixture(scope="module")
def folds(items):
    return tasks.assign_folds(items, 5)


def residuals(items, values):
    return Residuals.of(torch.as_tensor(values, dtype=torch.float32), items.ids, ((1,),) * len(items), "test")


def noise(items, layers, width, seed=0):
    return np.random.default_rng(seed).normal(size=(len(items), layers, width))


def test_noise_of_the_published_size_is_at_chance():
    """Science: contaminated probes read 20 % of pure noise; ours must read 10 %."""
    items = tasks.generate("function_call", n=810)
    readout = probe(residuals(items, noise(items, 28, 64)), items, tasks.assign_folds(items))
    correct = readout.correct(items.answers)
    assert abs(correct.mean() - 0.10) <= 0.02
    expected = 0.9**28
    error = np.sqrt(expected * (1 - expected) / len(items))
    assert abs((first_hit(correct) == NEVER).mean() - expected) <= 4 * error


def test_a_planted_answer_is_found_at_its_layer_and_not_before(items, folds):
    values = noise(items, 4, 24)
    digit = np.array([int(a) for a in items.answers])
    values[np.arange(len(items)), 2, digit] += 6
    accuracy = probe(residuals(items, values), items, folds).correct(items.answers).mean(axis=0)
    assert accuracy[2] > 0.95
    assert (accuracy[[0, 1, 3]] < 0.2).all()


def test_families_have_probes_of_their_own(items, folds):
    """A code that differs between the families is read by family, and not by one probe for both."""
    values = np.zeros((len(items), 1, 10))
    digit = np.array([int(a) for a in items.answers])
    family = np.array([i.family == "conditional" for i in items])
    values[np.arange(len(items)), 0, np.where(family, 9 - digit, digit)] = 5
    values += noise(items, 1, 10) * 0.1
    apart = probe(residuals(items, values), items, folds).correct(items.answers).mean()
    together = probe(residuals(items, values), items, folds, by_family=False).correct(items.answers).mean()
    assert apart > 0.95
    assert together < 0.7


def test_each_sample_is_scored_by_a_probe_that_never_saw_it(items, folds):
    """The same probes, fitted by hand fold by fold."""
    values = noise(items, 2, 8)
    found = probe(residuals(items, values), items, folds, C=0.3)
    target = np.array([int(a) for a in items.answers])
    family = np.array([i.family for i in items])
    for name in items.families:
        for k in range(5):
            train, score = (family == name) & (folds != k), (family == name) & (folds == k)
            x = values[:, 1].astype(np.float32)
            mean, deviation = x[train].mean(0), x[train].std(0)
            naive = LogisticRegression(C=0.3, max_iter=1000)
            naive.fit((x[train] - mean) / deviation, target[train])
            logits = np.full((score.sum(), 10), np.log(1e-6))
            logits[:, naive.classes_] = naive.predict_log_proba((x[score] - mean) / deviation)
            np.testing.assert_allclose(found.logits[score, 1], logits, atol=2e-2)


def test_changing_a_scored_sample_changes_no_other(items, folds):
    values = noise(items, 1, 8)
    before = probe(residuals(items, values), items, folds).logits
    values[0, 0] += 100
    after = probe(residuals(items, values), items, folds).logits
    same_fold = (folds == folds[0]) & (np.arange(len(items)) != 0)
    np.testing.assert_array_equal(before[same_fold], after[same_fold])
    assert not np.array_equal(before[0], after[0])


def test_leaky_folds_are_refused_with_the_ids(items, folds):
    leaky = folds.copy()
    twins = replace(items[0], id="copy")
    more = ItemSet((*items, twins))
    leaky = np.append(leaky, (leaky[0] + 1) % 5)
    with pytest.raises(LeakageError, match=f"copy|{items[0].id}"):
        probe(residuals(more, noise(more, 1, 4)), more, leaky)
    with pytest.raises(LeakageError):
        surface(more, leaky)


def test_a_missing_class_gets_no_mass():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(3, size=60)
    logits = fit_logits(x, y, x, 10)
    assert np.isfinite(logits).all()
    assert (logits[:, 3:] <= np.log(1e-6) + 1e-5).all()
    with pytest.raises(ValueError, match="at least two answers"):
        fit_logits(x, np.zeros(60, int), x, 10)


def test_useless_inputs(items, folds):
    with pytest.raises(ValueError, match="same samples"):
        probe(residuals(items[:50], noise(items[:50], 1, 4)), items, folds)
    with pytest.raises(ValueError, match="one fold per item"):
        probe(residuals(items, noise(items, 1, 4)), items, folds[:-1])
    with pytest.raises(ValueError, match="nothing to train on"):
        probe(residuals(items, noise(items, 1, 4)), items, np.zeros(len(items), int))


def test_surface_reads_text_that_gives_the_answer_away_and_nothing_else():
    given, asked = [], []
    rng = np.random.default_rng(1)
    for k in range(200):
        digit = str(rng.integers(10))
        base = dict(family="f", factors={}, code="", suffix="", answer=digit, shape="s")
        given.append(tasks.Item(id=f"a{k}", prompt=f"x = {digit} # {k}", skeleton=f"a{k}", **base))
        asked.append(tasks.Item(id=f"b{k}", prompt=f"x = {rng.integers(10)} # {k}", skeleton=f"b{k}", **base))
    for items, low, high in ((given, 0.9, 1.0), (asked, 0.0, 0.2)):
        items = ItemSet(tuple(items))
        accuracy = surface(items, np.arange(200) % 5).correct(items.answers).mean()
        assert low <= accuracy <= high


def test_majority_is_per_configuration():
    items = [
        tasks.Item(f"{c}{k}", "f", {"c": c}, "", "", f"{c}{k}", c, f"{c}{k}", "s")
        for c in "37"
        for k in range(10)
    ]
    items = ItemSet(tuple(items))
    assert majority(items, np.arange(20) % 5).correct(items.answers).all()
