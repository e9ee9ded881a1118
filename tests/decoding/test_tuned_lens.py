"""The lenses find an affine map that is there, none that is not, and never do worse than the logit lens."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from lenses import PROMPT, by_hand, divergence, made, noise, planted, random_lens

from brewlens import load_model, tasks
from brewlens.decoding import lens_training
from brewlens.decoding.lens_training import (
    Scale,
    kl_gradient,
    kl_to_final,
    train_tuned_lens,
    tuned_lens_out_of_fold,
)
from brewlens.decoding.logit_lens import logit_lens
from brewlens.decoding.tuned_lens import TunedLens, tuned_lens
from brewlens.residuals import Residuals
from brewlens.tasks import LeakageError

TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def space(tiny_model):
    return tiny_model.answer_space([PROMPT])


@pytest.fixture(scope="module")
def items():
    return tasks.generate(("computing", "conditional"), n=54)


# Reading


def test_each_layer_is_read_behind_its_own_translator(any_model):
    """Against the final norm, the unembedding and the soft cap written out by hand, sample by sample."""
    model, lens = any_model, random_lens(any_model)
    space = model.answer_space([PROMPT])
    values = 3 * noise(model, 5)
    readout = tuned_lens(model, made(model, values), lens, space)
    plain = logit_lens(model, made(model, values), space)
    assert (readout.decoder, plain.decoder) == ("tuned_lens", "logit_lens")
    for row in range(5):
        for layer in range(model.n_layers):
            h = values[row, layer]
            with torch.no_grad():
                expected = by_hand(model, h[None])[0]
                if layer < model.n_layers - 1:
                    translated = h + lens.weight[layer] @ h + lens.bias[layer]
                    assert torch.allclose(lens.translate(h, layer), translated, atol=1e-5)
                    behind = by_hand(model, translated[None])[0]
                else:
                    behind = expected
            for found, logits in ((readout, behind), (plain, expected)):
                ids = list(space.token_ids)
                np.testing.assert_allclose(
                    found.logits[row, layer], logits[ids], atol=TOLERANCE, rtol=TOLERANCE
                )
                other = 1 - logits.softmax(-1)[ids].sum()
                assert abs(found.other_mass[row, layer] - other) < TOLERANCE


def test_the_identity_lens_is_the_logit_lens_exactly(any_model):
    space, residuals = any_model.answer_space([PROMPT]), made(any_model, noise(any_model, 7))
    plain = logit_lens(any_model, residuals, space)
    tuned = tuned_lens(any_model, residuals, TunedLens.identity(any_model), space)
    np.testing.assert_array_equal(tuned.logits, plain.logits)
    np.testing.assert_array_equal(tuned.other_mass, plain.other_mass)
    np.testing.assert_array_equal(
        kl_to_final(any_model, residuals, TunedLens.identity(any_model)), kl_to_final(any_model, residuals)
    )


def test_streaming_equals_reading_at_once(tiny_model, space, monkeypatch):
    values = noise(tiny_model, 11)
    whole, lens = made(tiny_model, values), random_lens(tiny_model)
    parts = Residuals(tuple(values.split([4, 1, 6])), whole.item_ids, whole.tokens, whole.model, whole.layers)
    found = [f(tiny_model, whole) for f in (lambda m, r: logit_lens(m, r, space), kl_to_final)]
    found.append(tuned_lens(tiny_model, whole, lens, space))
    gradient = kl_gradient(tiny_model, values, *in_training(tiny_model, values))
    # By its full name the module; as an attribute of the package it is the function.
    reading = importlib.import_module("brewlens.decoding.logit_lens")
    monkeypatch.setattr(reading, "_BLOCK", 3 * tiny_model.n_layers * tiny_model.d_model)
    monkeypatch.setattr(lens_training, "_LOGITS", 2 * tiny_model.d_vocab)
    monkeypatch.setattr(lens_training, "_ROWS", 2)
    np.testing.assert_allclose(logit_lens(tiny_model, parts, space).logits, found[0].logits, atol=TOLERANCE)
    np.testing.assert_allclose(kl_to_final(tiny_model, parts), found[1], atol=TOLERANCE)
    np.testing.assert_allclose(
        tuned_lens(tiny_model, parts, lens, space).logits, found[2].logits, atol=TOLERANCE
    )
    for small, large in zip(
        kl_gradient(tiny_model, values, *in_training(tiny_model, values)), gradient, strict=True
    ):
        assert torch.allclose(small, large, atol=1e-6)
    a, b = Scale.of(whole, np.arange(11)), Scale.of(parts, np.arange(11))
    assert torch.allclose(a.mean, b.mean) and torch.allclose(a.deviation, b.deviation)


def test_some_layers_alone_are_read_by_their_own_translators(tiny_model, space):
    values, lens = noise(tiny_model, 3), random_lens(tiny_model)
    some = Residuals.of(values[:, [2, 3]], ("a", "b", "c"), ((1,),) * 3, tiny_model.name, layers=(2, 3))
    every = tuned_lens(tiny_model, made(tiny_model, values), lens, space)
    np.testing.assert_array_equal(tuned_lens(tiny_model, some, lens, space).logits, every.logits[:, 2:])


# Training


def in_training(model, values, seed=3):
    """Units and random translators in them."""
    generator = torch.Generator().manual_seed(seed)
    depth, width = model.n_layers - 1, model.d_model
    scale = Scale.of(made(model, values), np.arange(len(values)))
    weight = 0.1 * torch.randn(depth, width, width, generator=generator)
    return scale, weight, torch.randn(depth, width, generator=generator)


def test_divergence_and_gradient_equal_the_naive_ones(any_model):
    """One sample and layer at a time, by autograd through the divergence itself."""
    model = any_model
    values = noise(model, 6) * torch.tensor([0.5, 1.0, 2.0, 4.0])[:, None] + 0.3
    scale, weight, bias = in_training(model, values)
    lens = scale.lens(weight, bias, model.name, "")
    found = kl_to_final(model, made(model, values), lens)
    gradients = kl_gradient(model, values, scale, weight, bias)
    a, c = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    last, total = values[:, model.n_layers - 1], torch.zeros(())
    for row in range(6):
        final = by_hand(model, values[row, model.n_layers - 1][None]).detach()
        for layer in range(model.n_layers - 1):
            h = values[row, layer]
            z = (h - values[:, layer].mean(0)) / values[:, layer].std(0, correction=0)
            unit = last.std(0, correction=0) * values[:, layer].square().mean().sqrt()
            unit = unit / last.square().mean().sqrt()
            read = by_hand(model, (h + unit * (a[layer] @ z + c[layer]))[None])
            kl = divergence(final, read)[0]
            assert abs(found[row, layer] - kl.item()) < 1e-3 * max(1.0, kl.item())
            total = total + kl / 6
    assert (found[:, model.n_layers - 1] == 0).all()
    for naive, fast in zip(torch.autograd.grad(total, (a, c)), gradients, strict=True):
        assert torch.allclose(naive, fast, atol=1e-4 * float(naive.abs().max()))


@pytest.fixture(scope="module")
def trained(tiny_model):
    """A lens trained on planted residuals, and fresh ones of the same maps."""
    values = planted(tiny_model, 900)
    return train_tuned_lens(
        tiny_model, made(tiny_model, values[:600]), steps=400, batch=128, weight_decay=0.0
    ), made(tiny_model, values[600:])


def test_a_planted_affine_map_is_undone(tiny_model, trained):
    lens, fresh = trained
    before, after = kl_to_final(tiny_model, fresh).mean(0), kl_to_final(tiny_model, fresh, lens).mean(0)
    assert (before[:3] > 1.0).all()
    assert (after[:3] < 0.02).all()
    assert lens.training.identity_layers == ()
    np.testing.assert_allclose(lens.training.kl_tuned, after[:3], atol=0.02)


def test_the_default_pull_to_the_identity_leaves_most_of_a_planted_map(tiny_model):
    values = planted(tiny_model, 600)
    lens = train_tuned_lens(tiny_model, made(tiny_model, values))
    assert (np.array(lens.training.kl_tuned) < 0.25 * np.array(lens.training.kl_logit)).all()


def test_noise_gives_no_more_than_the_best_constant(tiny_model):
    """Whatever a lens makes of residuals that know nothing, a fixed guess comes as near to the final one."""
    values = noise(tiny_model, 1000)
    lens = train_tuned_lens(tiny_model, made(tiny_model, values[:500]), steps=150)
    fresh = made(tiny_model, values[500:])
    found = kl_to_final(tiny_model, fresh, lens)[:, :3]
    with torch.no_grad():
        final = by_hand(tiny_model, values[500:, tiny_model.n_layers - 1])
    # The mean distribution is the constant nearest to all of them.
    constant = divergence(final, final.softmax(-1).mean(0).log().expand_as(final)).numpy()[:, None]
    error = (found - constant).std(0) / len(found) ** 0.5
    assert ((found - constant).mean(0) > -3 * error).all()
    assert (found.mean(0) < kl_to_final(tiny_model, fresh)[:, :3].mean(0)).all()  # it learnt the constant


def test_where_no_step_helps_the_logit_lens_stays(tiny_model, space):
    values = planted(tiny_model, 120)
    values[:, 1] = values[:, tiny_model.n_layers - 1]  # the logit lens is perfect there
    residuals = made(tiny_model, values)
    lens = train_tuned_lens(tiny_model, residuals, steps=20)
    assert lens.training.identity_layers == (1,)
    assert lens.training.best_step[1] == 0 and not lens.weight[1].any() and not lens.bias[1].any()
    assert lens.weight[0].any() and lens.weight[2].any()
    np.testing.assert_array_equal(
        tuned_lens(tiny_model, residuals, lens, space).logits[:, 1],
        logit_lens(tiny_model, residuals, space).logits[:, 1],
    )


@pytest.mark.parametrize("lr", [0.03, 30.0])
def test_never_worse_than_the_logit_lens_on_its_validation_samples(tiny_model, lr):
    residuals = made(tiny_model, noise(tiny_model, 80))
    held = list(range(60, 80))
    lens = train_tuned_lens(tiny_model, residuals, validation=held, steps=30, lr=lr)
    before, after = (kl_to_final(tiny_model, residuals, x, rows=held).mean(0)[:3] for x in (None, lens))
    assert (after <= before).all()
    np.testing.assert_allclose(lens.training.kl_logit, before)
    np.testing.assert_allclose(lens.training.kl_tuned, after)
    assert (lens.training.n_train, lens.training.n_validation) == (60, 20)


def test_training_leaves_the_model_and_the_global_state_alone(tiny_model):
    parameters = dict(tiny_model.bridge.original_model.named_parameters())
    before = {name: (p.requires_grad, p.detach().clone()) for name, p in parameters.items()}
    assert any(wanted for wanted, _ in before.values())  # else "no gradients" would be nothing
    state = torch.get_rng_state()
    with torch.no_grad():
        train_tuned_lens(tiny_model, made(tiny_model, noise(tiny_model, 40)), steps=3, batch=8)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    for name, parameter in parameters.items():
        wanted, value = before[name]
        assert parameter.grad is None and parameter.requires_grad == wanted and torch.equal(parameter, value)


def test_the_seed_decides(tiny_model):
    residuals = made(tiny_model, planted(tiny_model, 60))
    one, same, other = (train_tuned_lens(tiny_model, residuals, steps=5, batch=16, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.weight, same.weight) and one.key == same.key
    assert not torch.equal(one.weight, other.weight) and one.key != other.key


def test_a_coordinate_that_never_varies_is_no_trouble(tiny_model):
    values = planted(tiny_model, 80)
    values[:, :, 5] = 700.0
    lens = train_tuned_lens(tiny_model, made(tiny_model, values), steps=30)
    assert (np.array(lens.training.kl_tuned) < np.array(lens.training.kl_logit)).all()


def test_the_table_of_a_training(trained):
    frame = trained[0].training.to_frame()
    assert list(frame["layer"]) == [0, 1, 2] and (frame["n"] == 120).all()
    assert np.allclose(frame["saved"], frame["kl_logit"] - frame["kl_tuned"])
    assert ((frame["low"] < frame["saved"]) & (frame["saved"] < frame["high"])).all()


# Out of fold


def test_out_of_fold_equals_lenses_trained_by_hand(tiny_model, space, items):
    folds = tasks.assign_folds(items, 3)
    residuals = replace(made(tiny_model, planted(tiny_model, len(items))), item_ids=items.ids)
    readout, trainings = tuned_lens_out_of_fold(tiny_model, residuals, items, folds, space, steps=8, batch=16)
    linked = tasks.folds.groups(items)
    assert len(trainings) == 3
    for fold in range(3):
        train, score = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        held = lens_training._whole_groups(train, linked[train], 0.2, 0)
        assert 0.15 * len(train) < len(held) < 0.35 * len(train)
        learnt = train[~np.isin(train, held)]
        assert not set(linked[held]) & set(linked[learnt])
        lens = train_tuned_lens(tiny_model, residuals, rows=learnt, validation=held, steps=8, batch=16)
        assert lens.training == trainings[fold]
        expected = tuned_lens(tiny_model, residuals, lens, space)
        np.testing.assert_array_equal(readout.logits[score], expected.logits[score])
        np.testing.assert_array_equal(readout.other_mass[score], expected.other_mass[score])


def test_a_lens_is_optimistic_about_the_samples_it_was_trained_on(tiny_model):
    """Why the readings of a study are out of fold: on noise, what it has seen looks readable."""
    residuals, seen = made(tiny_model, noise(tiny_model, 120)), np.arange(60)
    lens = train_tuned_lens(tiny_model, residuals, rows=seen, validation=np.arange(60, 120), steps=100)
    found = kl_to_final(tiny_model, residuals, lens)[:, :3]
    assert (found[:60].mean(0) < 0.9 * found[60:].mean(0)).all()


def test_leaky_folds_are_refused(tiny_model, space, items):
    twin = replace(items[0], id="copy")
    leaky = tasks.ItemSet((*items, twin))
    folds = tasks.assign_folds(items, 3)
    residuals = replace(made(tiny_model, noise(tiny_model, len(leaky))), item_ids=leaky.ids)
    with pytest.raises(LeakageError, match="copy"):
        tuned_lens_out_of_fold(tiny_model, residuals, leaky, np.append(folds, (folds[0] + 1) % 3), space)
    with pytest.raises(ValueError, match="same samples"):
        tuned_lens_out_of_fold(tiny_model, residuals, items, folds, space)


# What is refused


def test_a_lens_of_another_model_is_refused(tiny_model, tiny_models, space, tmp_path):
    residuals, lens = made(tiny_model, noise(tiny_model, 2)), random_lens(tiny_model)
    other = load_model(tiny.build("qwen2", tmp_path / "other", seed=1), device="cpu")
    with pytest.raises(ValueError, match=r"asked to read .*hash.*train_tuned_lens.*allow_other_model"):
        tuned_lens(other, residuals, lens, space)
    allowed = tuned_lens(other, residuals, lens, space, allow_other_model=True)
    assert not np.array_equal(allowed.logits, tuned_lens(tiny_model, residuals, lens, space).logits)
    short = replace(lens, weight=lens.weight[:2], bias=lens.bias[:2])
    with pytest.raises(ValueError, match=r"4 layers x 32, by a tuned lens of .*, 3 layers x 32"):
        tuned_lens(tiny_model, residuals, short, space, allow_other_model=True)


@pytest.mark.unchecked("arrays that do not fit")
def test_what_does_not_fit_is_refused(tiny_model, space):
    values, lens = noise(tiny_model, 20), random_lens(tiny_model)
    residuals = made(tiny_model, values)
    tap = replace(residuals, tap="attn_out")
    some = Residuals.of(values[:, :2], residuals.item_ids, residuals.tokens, tiny_model.name)
    wide = made(tiny_model, torch.zeros(2, 4, 8))
    for wrong in (tap, wide):
        for read in (
            lambda r: logit_lens(tiny_model, r, space),
            lambda r: tuned_lens(tiny_model, r, lens, space),
        ):
            with pytest.raises(ValueError, match="capture"):
                read(wrong)
        with pytest.raises(ValueError, match="capture"):
            train_tuned_lens(tiny_model, wrong)
    with pytest.raises(ValueError, match="every layer"):
        train_tuned_lens(tiny_model, some)
    with pytest.raises(ValueError, match=r"share 1 samples, rows \[3\]"):
        train_tuned_lens(tiny_model, residuals, rows=[1, 2, 3], validation=[3, 4])
    with pytest.raises(ValueError, match="two to validate on"):
        train_tuned_lens(tiny_model, residuals, rows=[1, 2, 3])
    for setting in ({"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"weight_decay": -1.0}):
        with pytest.raises(ValueError, match="must be positive"):
            train_tuned_lens(tiny_model, residuals, **setting)
    with pytest.raises(ValueError, match="layers 0 to 3 of width 32"):
        lens.translate(values[0, 0], 4)
    with pytest.raises(ValueError, match="layer, d_model, d_model"):
        replace(lens, bias=lens.bias[:2])
    with pytest.raises(ValueError, match="float32"):
        replace(lens, bias=lens.bias.double())
    with pytest.raises(ValueError, match="translator of layer 2 holds NaN"):
        replace(lens, bias=lens.bias.index_fill(0, torch.tensor([2]), torch.nan))
