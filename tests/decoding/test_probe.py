"""Probes find what is there, find nothing in noise, and never see what they score."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression

from brewlens import tasks
from brewlens.decoding import fold_fit, majority, probe, surface
from brewlens.decoding.fold_fit import FitOptions
from brewlens.decoding.mlp import MLPOptions
from brewlens.decoding.near_ood import NearOOD
from brewlens.decoding.probe import fit_probes
from brewlens.decoding.probes import ABSENT, Probes
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
    readout = probe(residuals(items, noise(items, 28, 64)), items, tasks.assign_folds(items), C=0.1)
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
    """Those of its fold, that is, which share its probe; up to the tolerance of the solver."""
    values = noise(items, 1, 8)
    before = probe(residuals(items, values), items, folds, C=0.1).logits
    values[0, 0] += 100
    after = probe(residuals(items, values), items, folds, C=0.1).logits
    others = np.arange(len(items)) != 0
    same_fold, family = folds == folds[0], np.array([i.family == items[0].family for i in items])
    np.testing.assert_allclose(before[same_fold & others], after[same_fold & others], atol=2e-3)
    assert np.abs(before - after)[~same_fold & family].max() > 0.05
    assert np.abs(before - after)[0].max() > 0.05


def test_leaky_folds_are_refused_with_the_ids(items, folds):
    leaky = folds.copy()
    twins = replace(items[0], id="copy")
    more = ItemSet((*items, twins))
    leaky = np.append(leaky, (leaky[0] + 1) % 5)
    with pytest.raises(LeakageError, match=f"copy|{items[0].id}"):
        probe(residuals(more, noise(more, 1, 4)), more, leaky)
    with pytest.raises(LeakageError):
        surface(more, leaky)


def test_a_missing_class_gets_no_mass(items, folds):
    """Fold 0 holds every 7, so its probes know of none."""
    rows = [k for k, i in enumerate(items) if i.answer != "7" or folds[k] == 0]
    some, values = items.select(rows), noise(items, 2, 8)[rows]
    fit = fit_probes(residuals(some, values), some, folds[rows])
    held_out = folds[rows] == 0
    assert np.isfinite(fit.readout.logits).all()
    np.testing.assert_allclose(fit.readout.logits[held_out, :, 7], ABSENT, rtol=1e-6)
    assert (fit.readout.logits[~held_out, :, 7] > ABSENT + 1).all()
    assert (fit.probes.bias[:, :, 0, 7] == -torch.inf).all()


@pytest.mark.parametrize("kind", ["logistic", "ridge", "mlp"])
def test_probes_are_what_scored_and_survive_a_file(kind, items, folds, tmp_path):
    values = residuals(items, planted_values(items))
    fit = fit_probes(values, items, folds, options=FitOptions(kind, mlp=MLPOptions(hidden=8, epochs=2)))
    path = fit.probes.save(tmp_path / "probes.safetensors")
    assert path.read_bytes() == fit.probes.save(tmp_path / "again.safetensors").read_bytes()
    loaded = Probes.load(path)
    again = loaded.read(values.select(range(100, 200)))
    np.testing.assert_allclose(again.logits, fit.readout.logits[100:200], atol=1e-3, rtol=1e-3)
    assert again.decoder == fit.readout.decoder
    pd.testing.assert_frame_equal(loaded.to_frame(), fit.probes.to_frame())
    assert (loaded.item_folds, loaded.item_groups) == (fit.probes.item_folds, fit.probes.item_groups)
    assert repr(loaded) == repr(fit.probes)
    row = values.values[3, 1]
    one = loaded.logits(row, items[3].family, 1, int(folds[3]))
    assert one.argmax() == fit.readout.predicted[3, 1]


def planted_values(items, layers=2, width=16):
    """The answer in the last layer, noise before."""
    values = noise(items, layers, width)
    values[np.arange(len(items)), layers - 1, [int(a) for a in items.answers]] += 4
    return values


def test_probes_refuse_what_they_were_not_fitted_on(items, folds, tmp_path):
    values = residuals(items, planted_values(items))
    fit = fit_probes(values, items, folds, options=FitOptions(C=0.1))
    stranger = replace(values, item_ids=("new", *values.item_ids[1:]))
    with pytest.raises(ValueError, match="not among those of the fit, first \\['new'\\]"):
        fit.probes.read(stranger)
    with pytest.raises(ValueError, match="read resid_post of test"):
        fit.probes.read(replace(values, model="another"))
    with pytest.raises(ValueError, match="fold 9"):
        fit.probes.logits(values.values[0, 0], "computing", 0, 9)
    with pytest.raises(ValueError, match="width 16"):
        fit.probes.logits(values.values[0, 0, :3], "computing", 0, 0)
    (tmp_path / "broken").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged"):
        Probes.load(tmp_path / "broken")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="asked for probes"):
        Probes.load(tmp_path / "foreign")


def test_layers_solved_apart_or_together_are_the_same(items, folds):
    values = residuals(items, planted_values(items, 3))
    together = fit_probes(values, items, folds)
    apart = fit_probes(values, items, folds, memory=1)
    np.testing.assert_allclose(together.readout.logits, apart.readout.logits, atol=5e-3)
    assert torch.equal(together.probes.C, apart.probes.C)


def test_a_family_may_lack_a_fold(items, folds):
    rows = [k for k, i in enumerate(items) if i.family == "computing" or folds[k] != 2]
    some, values = items.select(rows), noise(items, 1, 8)[rows]
    fit = fit_probes(residuals(some, values), some, folds[rows], options=FitOptions(C=0.1))
    at = fit.probes.groups.index("conditional")
    assert fit.probes.weight[at, :, 2].isnan().all()
    assert fit.probes.weight[at, :, 3].isfinite().all()
    assert fit.probes.converged


def test_what_stops_early_warns(items, folds, monkeypatch):
    monkeypatch.setattr(fold_fit, "solve", partial(fold_fit.solve, max_iter=1))
    with pytest.warns(RuntimeWarning, match="stopped at a gradient"):
        fit = fit_probes(residuals(items, planted_values(items)), items, folds, options=FitOptions(C=1.0))
    assert not fit.probes.converged


def near_ood(n=120, seed=5, families=("computing", "conditional")):
    return ItemSet(
        tuple(
            tasks.Item(f"o{k}", families[k % len(families)], {}, "", "", f"o{k}", "none", f"o{k}", f"o{k}")
            for k in range(n)
        )
    )


def near_residuals(others, values, apart, seed=9):
    """Like the items, digits included, but for one dimension that says that none is the answer."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(len(others), *values.shape[1:]))
    rows[np.arange(len(others)), -1, rng.integers(10, size=len(others))] += 4
    rows[:, -1, 12] += apart
    return residuals(others, rows)


@pytest.mark.parametrize("apart", [8, 0])
def test_near_ood_items_are_a_class_of_their_own(items, folds, apart):
    """Told apart where a dimension tells, and nowhere else; and the items are still read."""
    values, others = planted_values(items), near_ood()
    other = NearOOD(near_residuals(others, values, apart), others, np.arange(len(others)) % 5)
    fit = fit_probes(residuals(items, values), items, folds, other=other)
    table = fit.recognised()
    gain = table["recognised"] - table["false_alarms"]
    assert abs(gain[0]) < 0.15
    assert gain[1] > 0.9 if apart else abs(gain[1]) < 0.15
    assert (table["n"] == len(others)).all() and (table["n_items"] == len(items)).all()
    assert (table["low"] <= table["recognised"]).all() and (table["recognised"] <= table["high"]).all()
    assert fit.probes.classes[-1] == "other"
    assert fit.readout.classes == tuple("0123456789")
    assert fit.readout.correct(items.answers)[:, -1].mean() > 0.9
    if apart:
        assert fit.readout.other_mass[:, -1].mean() < 0.1 < 0.8 < fit.near_ood.other_mass[:, -1].mean()
    np.testing.assert_allclose(np.exp(fit.readout.logits).sum(axis=2), 1, atol=1e-4)


def test_near_ood_items_take_the_fold_of_their_kin(items, folds):
    others = near_ood(40)
    kin = replace(others[7], skeleton=items[3].skeleton)
    others = ItemSet((*others[:7], kin, *others[8:]))
    read = near_residuals(others, planted_values(items), 0)
    beside = NearOOD.beside(read, others, items, folds)
    assert beside.folds[7] == folds[3]
    for family in others.families:
        rows = [k for k, i in enumerate(others) if i.family == family and k != 7]
        counts = np.bincount(beside.folds[rows], minlength=5)
        assert counts.max() - counts.min() <= 1
    fit = fit_probes(
        residuals(items, planted_values(items)), items, folds, other=beside, options=FitOptions(C=0.1)
    )
    assert len(fit.near_ood) == 40


def test_near_ood_items_may_not_leak_either(items, folds):
    values, others = planted_values(items), near_ood()
    split = np.arange(len(others)) % 5
    read = near_residuals(others, values, 0)
    fit = partial(fit_probes, residuals(items, values), items, folds)
    copy = replace(others[0], skeleton=items[0].skeleton, family=items[0].family)
    leaky = ItemSet((copy, *others[1:]))
    split[0] = (folds[0] + 1) % 5
    with pytest.raises(LeakageError, match="o0"):
        fit(other=NearOOD(read, leaky, split))
    digit = ItemSet((replace(others[0], answer="3"), *others[1:]))
    with pytest.raises(ValueError, match="have an answer among the classes"):
        fit(other=NearOOD(read, digit, split))
    with pytest.raises(ValueError, match="have no near-OOD items"):
        some = others.family("computing")
        fit(other=NearOOD(near_residuals(some, values, 0), some, np.arange(len(some)) % 5))
    with pytest.raises(ValueError, match="same samples"):
        fit(other=NearOOD(read, others, split[1:]))
    with pytest.raises(ValueError, match="no near-OOD items were trained on"):
        fit(options=FitOptions(C=0.1)).recognised()


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
