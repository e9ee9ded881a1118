"""Answers of several tokens in every decoder, against one forward per token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brewlens.capturing import capture
from brewlens.decoding.context_stripped import context_stripped
from brewlens.decoding.logit_lens import logit_lens
from brewlens.decoding.sequences import read_sequences

PROMPTS = ('a = 1\n# a is "', 'total = 4\ntotal += 3\n# total is "', 'b = "x"\nb = True\n# b is "')
CLASSES = ("42", "True", "'ab'", "4")


@pytest.fixture
def traced(any_model):
    space = any_model.answer_space(PROMPTS, CLASSES, scoring="sequence", end='"')
    return any_model, space, capture(any_model, PROMPTS, ("p", "q", "r"))


@torch.no_grad()
def naive_lens(model, prompt, layer, sequence):
    total = 0.0
    for step, token in enumerate(sequence):
        ids = torch.tensor([[*model.token_ids(prompt), *sequence[:step]]])
        _, cache = model.bridge.run_with_cache(ids, names_filter=f"blocks.{layer}.hook_out")
        h = cache[f"blocks.{layer}.hook_out"][0, ids.shape[1] - 1]
        total += float(model.vocabulary_logits(h[None])[0].log_softmax(0)[token])
    return total


def test_the_lens_scores_an_answer_token_by_token(traced):
    model, space, residuals = traced
    found = logit_lens(model, residuals, space)
    for row, prompt in enumerate(PROMPTS):
        for layer in range(model.n_layers):
            expected = [naive_lens(model, prompt, layer, ids) for ids in space.sequences]
            np.testing.assert_allclose(found.logits[row, layer], expected, atol=2e-4, rtol=5e-5)
            assert found.other_mass[row, layer] == pytest.approx(1 - np.exp(expected).sum(), abs=5e-5)


def test_at_the_last_layer_it_is_the_models_own_score(traced):
    model, space, residuals = traced
    own = model.answer_logits(PROMPTS, space)
    lens = logit_lens(model, residuals, space)
    np.testing.assert_allclose(lens.logits[:, -1], own.logits, atol=2e-4, rtol=5e-5)
    assert not np.allclose(lens.logits[:, -2], own.logits, atol=1e-2)


def test_context_stripped_decoding_takes_sequences(traced):
    model, space, residuals = traced
    targets = ['# a is "', '# b is "', '# a is "']
    subtracted, raw = context_stripped(model, residuals, targets, space)
    assert raw.classes == CLASSES
    prior = model.answer_logits(targets, space).logits.numpy()
    np.testing.assert_allclose(raw.logits - subtracted.logits, np.repeat(prior[:, None], 4, 1), atol=1e-4)
    # The target's own last layer, left alone, is the prior.
    same = capture(model, targets, ("p", "q", "r"))
    unchanged = context_stripped(model, same, targets, space)[0]
    np.testing.assert_allclose(unchanged.logits, 0, atol=2e-4)


def test_one_token_answers_read_the_same_both_ways(any_model):
    space = any_model.answer_space(PROMPTS)
    residuals = capture(any_model, PROMPTS, ("p", "q", "r"))
    lens, again = logit_lens(any_model, residuals, space), read_sequences(any_model, residuals, space, "lens")
    np.testing.assert_allclose(lens.logits, again.logits, atol=1e-4, rtol=5e-5)
    np.testing.assert_allclose(lens.other_mass, again.other_mass, atol=5e-5)
