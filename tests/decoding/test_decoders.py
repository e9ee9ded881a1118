"""Logit lens and context-stripped decoding against one forward per sample and layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brewlens import tasks
from brewlens.decoding import context_stripped, logit_lens, own_suffixes
from brewlens.decoding.readout import Readout
from brewlens.capture import capture
from brewlens.residuals import Residuals

TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def items():
    return tasks.generate(("computing", "conditional"), n=27)[::6]


def naive_logits(model, text, layer=None, vector=None, keep=None):
    """The model's logits behind ``text``; one forward, plain hooks of torch on the blocks."""
    ids = torch.tensor([model.token_ids(text)])
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
