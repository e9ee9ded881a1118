"""Logit lens and context-stripped decoding against one forward per sample and layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import VOCABULARY

from brewlens import tasks
from brewlens.capturing import capture
from brewlens.decoding import context_stripped, logit_lens, own_suffixes
from brewlens.decoding.context_stripped import prior_logits
from brewlens.decoding.readout import Readout
from brewlens.decoding.targets import BUNDLED, CONTEXTLESS, resolve
from brewlens.residuals import Residuals

TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def items():
    return tasks.generate(("computing", "conditional"), n=27)[::6]


def naive_logits(model, prompt, layer=None, vector=None, keep=None):
    """The model's logits behind a text or token ids; one forward, plain hooks of torch on the blocks."""
    ids = torch.tensor([model.token_ids(prompt) if isinstance(prompt, str) else prompt])
    network = model.bridge.original_model
    handles = []

    def hook(block):
        def call(module, inputs, output):
            hidden = output[0] if isinstance(output, tuple) else output
            if keep is not None:
                keep.append(hidden[0, len(ids[0]) - 1].clone())
            if block == layer:
                hidden = hidden.clone()
                hidden[0, len(ids[0]) - 1] = vector
                return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return call

    blocks = network.transformer.h if hasattr(network, "transformer") else network.model.layers
    for block, module in enumerate(blocks):
        handles.append(module.register_forward_hook(hook(block)))
    try:
        with torch.no_grad():
            return network(ids, use_cache=False).logits[0, len(ids[0]) - 1]
    finally:
        for handle in handles:
            handle.remove()


def test_residuals_and_context_stripped_equal_the_naive_loop(any_model, items):
    model, space = any_model, any_model.answer_space(items.prompts)
    residuals = capture(model, items.prompts, items.ids)
    subtracted, raw = context_stripped(model, residuals, own_suffixes(items), space)
    ids = list(space.token_ids)
    for row, item in enumerate(items):
        keep: list[torch.Tensor] = []
        own = naive_logits(model, item.prompt, keep=keep)
        assert torch.allclose(residuals.values[row], torch.stack(keep), atol=TOLERANCE, rtol=TOLERANCE)
        prior = naive_logits(model, item.suffix)
        for layer in range(model.n_layers):
            patched = naive_logits(model, item.suffix, layer, keep[layer])
            np.testing.assert_allclose(raw.logits[row, layer], patched[ids], atol=TOLERANCE, rtol=TOLERANCE)
            np.testing.assert_allclose(
                subtracted.logits[row, layer], (patched - prior)[ids], atol=2 * TOLERANCE, rtol=TOLERANCE
            )
            other = 1 - patched.softmax(-1)[ids].sum()
            assert abs(raw.other_mass[row, layer] - other) < TOLERANCE
        np.testing.assert_allclose(raw.logits[row, -1], own[ids], atol=TOLERANCE, rtol=TOLERANCE)


def test_one_by_one_equals_batched(any_model, items):
    model, space = any_model, any_model.answer_space(items.prompts)
    together = capture(model, items.prompts, items.ids)
    batched = context_stripped(model, together, own_suffixes(items), space)[1]
    for row in range(0, len(items), 4):
        alone = capture(model, [items[row].prompt], [items[row].id])
        assert torch.allclose(alone.values[0], together.values[row], atol=TOLERANCE, rtol=TOLERANCE)
        single = context_stripped(model, alone, own_suffixes(items[row : row + 1]), space)[1]
        np.testing.assert_allclose(single.logits[0], batched.logits[row], atol=TOLERANCE, rtol=TOLERANCE)


def test_the_last_layer_is_the_models_own_answer(any_model, items):
    space = any_model.answer_space(items.prompts)
    passed = any_model.forward(items.prompts, space)
    residuals = Residuals.of(passed.residuals, items.ids, passed.tokens, any_model.name)
    raw = context_stripped(any_model, residuals, own_suffixes(items), space)[1]
    lens = logit_lens(any_model, residuals, space)
    for readout in (raw, lens):
        np.testing.assert_array_equal(readout.predicted[:, -1], passed.output.predicted)
        np.testing.assert_allclose(
            readout.logits[:, -1], passed.output.logits, atol=TOLERANCE, rtol=TOLERANCE
        )


@pytest.mark.parametrize(
    "target", [t for t in BUNDLED if t.kind in ("few_shot", "contextless")], ids=lambda t: t.name
)
def test_other_target_prompts_equal_the_naive_loop(any_model, items, target):
    few, space = items[:2], any_model.answer_space(items.prompts)
    residuals = capture(any_model, few.prompts, few.ids)
    prompts = resolve(target, any_model, few, space)
    subtracted, raw = context_stripped(any_model, residuals, prompts, space)
    ids = list(space.token_ids)
    for row, prompt in enumerate(prompts):
        prior = naive_logits(any_model, prompt)
        for layer in range(any_model.n_layers):
            patched = naive_logits(any_model, prompt, layer, residuals.values[row, layer])
            np.testing.assert_allclose(raw.logits[row, layer], patched[ids], atol=TOLERANCE, rtol=TOLERANCE)
            np.testing.assert_allclose(
                subtracted.logits[row, layer], (patched - prior)[ids], atol=2 * TOLERANCE, rtol=TOLERANCE
            )
            other = 1 - patched.softmax(-1)[ids].sum()
            assert abs(raw.other_mass[row, layer] - other) < TOLERANCE


def test_without_context_it_does_not_matter_which_token_is_replaced(any_model, items):
    few, space = items[:3], any_model.answer_space(items.prompts)
    residuals = capture(any_model, few.prompts, few.ids)
    lone = resolve(CONTEXTLESS, any_model, few, space)
    assert all(len(prompt) == 1 for prompt in lone)
    raw, prior = [], []
    for prompts in (lone, [(5,)] * 3, [(200,)] * 3):
        readouts = context_stripped(any_model, residuals, prompts, space)
        raw.append(readouts[1].logits)
        prior.append(prior_logits(*readouts))
    for other in raw[1:]:
        np.testing.assert_allclose(other, raw[0], atol=TOLERANCE, rtol=TOLERANCE)
    assert all(np.abs(other - prior[0]).max() > 0.05 for other in prior[1:])  # the prior does depend on it
    behind_a_token = context_stripped(any_model, residuals, [(5, *prompt) for prompt in lone], space)[1]
    assert np.abs(behind_a_token.logits - raw[0]).max() > 0.01


def test_residuals_are_read_block_by_block(tiny_model, items, monkeypatch):
    space = tiny_model.answer_space(items.prompts)
    whole = capture(tiny_model, items.prompts, items.ids)
    expected = context_stripped(tiny_model, whole, own_suffixes(items), space)
    parts = Residuals(
        tuple(whole.values.split([2, 4, 3])), items.ids, whole.tokens, whole.model, whole.layers
    )
    sizes, inject = [], type(tiny_model).inject

    def counted(self, residuals, targets, *args, **options):
        sizes.append(len(residuals))
        return inject(self, residuals, targets, *args, **options)

    blocks = Residuals.blocks
    monkeypatch.setattr(type(tiny_model), "inject", counted)
    monkeypatch.setattr(Residuals, "blocks", lambda self: blocks(self, 3))
    monkeypatch.setattr(Residuals, "values", property(lambda self: pytest.fail("all residuals at once")))
    found = context_stripped(tiny_model, parts, own_suffixes(items), space)
    assert sizes == [2, 3, 1, 3]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.logits, b.logits, atol=TOLERANCE, rtol=TOLERANCE)
        np.testing.assert_allclose(a.other_mass, b.other_mass, atol=TOLERANCE)
        assert VOCABULARY not in (*a.logits.shape, *a.other_mass.shape)


def test_context_stripped_refuses_what_does_not_fit(tiny_model, items):
    space = tiny_model.answer_space(items.prompts)
    residuals = capture(tiny_model, items.prompts, items.ids)
    with pytest.raises(ValueError, match="found 8 for 9 samples"):
        context_stripped(tiny_model, residuals, own_suffixes(items)[1:], space)
    with pytest.raises(ValueError, match="'mlp_out'; capture resid_post"):
        context_stripped(tiny_model, replace(residuals, tap="mlp_out"), own_suffixes(items), space)


def test_the_prior_is_found_again_and_only_where_there_is_one(tiny_model, items):
    space = tiny_model.answer_space(items.prompts)
    residuals = capture(tiny_model, items.prompts, items.ids)
    subtracted, raw = context_stripped(tiny_model, residuals, own_suffixes(items), space)
    prior = tiny_model.base_logits(own_suffixes(items), space).logits
    np.testing.assert_allclose(prior_logits(subtracted, raw), prior, atol=TOLERANCE, rtol=TOLERANCE)
    with pytest.raises(ValueError, match="one prior for all layers"):
        prior_logits(logit_lens(tiny_model, residuals, space), raw)


def test_items_without_a_question_get_the_constant_one():
    item = tasks.Item("a", "f", {}, "", "", "1 + 1 =", "2", "s", "s")
    assert own_suffixes(tasks.ItemSet((item,))) == ('# The value of x is "',)


def test_readout_refuses_what_does_not_fit():
    logits = np.zeros((2, 3, 10), np.float32)
    classes = tuple("0123456789")
    with pytest.raises(ValueError, match="10 classes"):
        Readout(logits[..., :9], classes, "probe", ("a", "b"))
    with pytest.raises(ValueError, match="2 rows but 1"):
        Readout(logits, classes, "probe", ("a",))
    with pytest.raises(ValueError, match="'12'"):
        Readout(logits, classes, "probe", ("a", "b")).correct(["1", "12"])


def test_readout_numbers_by_hand():
    logits = np.log(np.array([[[0.2, 0.5, 0.3]]], np.float32))
    readout = Readout(logits, ("a", "b", "c"), "probe", ("x",), np.array([[0.25]], np.float32))
    np.testing.assert_allclose(readout.probabilities[0, 0], [0.2, 0.5, 0.3], rtol=1e-6)
    np.testing.assert_allclose(
        readout.entropy[0, 0], -(0.2 * np.log(0.2) + 0.5 * np.log(0.5) + 0.3 * np.log(0.3)), rtol=1e-5
    )
    assert readout.p_answer(["c"])[0, 0] == pytest.approx(0.3)
    assert readout.correct(["b"]).all() and not readout.correct(["a"]).any()
    row = readout.to_frame(["c"]).iloc[0]
    assert (row["id"], row["layer"], row["predicted"], row["correct"], row["other_mass"]) == (
        "x",
        0,
        "b",
        False,
        0.25,
    )
