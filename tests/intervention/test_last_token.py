"""Running last tokens alone is running whole prompts: values and gradients, in every architecture."""

from __future__ import annotations

import pytest
import tiny
import torch

from brewlens.answers import AnswerSpace
from brewlens.intervention.last_token import LastToken, NoCache, WholePrompt, continuation

PROMPTS = [
    'x = 3\n# The value of x is "',
    'total = 4 + 1\nrest = total - 2\n# The value of rest is "',
    'y = 7\n# The value of y is "',
    'a = 1\nb = a + 5\nc = b - 2\nd = c\n# The value of d is "',
    "2",
]


@pytest.fixture
def setting(any_model):
    space = any_model.answer_space(PROMPTS)
    return any_model, any_model.ids(PROMPTS), space, any_model.answer_logits(PROMPTS, space).logits


def states_of(model):
    residuals, _ = model.last_residuals(PROMPTS)
    return residuals.flip(0) + 0.1


def test_whole_prompts_say_what_the_model_says_and_what_an_injection_gives(setting):
    model, ids, space, plain = setting
    run, rows = WholePrompt(model, ids, space), torch.arange(len(ids))
    torch.testing.assert_close(run(rows, 0, None), plain, atol=5e-5, rtol=5e-5)
    states = states_of(model)
    injected = model.inject(states, PROMPTS, space).logits
    for layer in range(tiny.LAYERS):
        torch.testing.assert_close(
            run(rows, layer, states[:, layer]), injected[:, layer], atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gpt2"])
@pytest.mark.parametrize("batch_tokens", [4096, 40])
def test_last_tokens_alone_give_the_same_answers_and_gradients(tiny_models, architecture, batch_tokens):
    model = tiny_models[architecture]
    space = model.answer_space(PROMPTS)
    whole = WholePrompt(model, model.ids(PROMPTS), space)
    last = LastToken(model, model.ids(PROMPTS), space, batch_tokens)
    rows = torch.tensor([3, 0, 2, 2, 4, 1])  # out of order, one twice, one without a prefix
    torch.testing.assert_close(last(rows, 0, None), whole(rows, 0, None), atol=5e-5, rtol=5e-5)
    for layer in range(tiny.LAYERS):
        found = []
        for run in (whole, last):
            states = states_of(model)[rows, layer].requires_grad_()
            logits = run(rows, layer, states)
            (gradient,) = torch.autograd.grad(logits.log_softmax(-1)[:, 3].sum(), states)
            found.append((logits.detach(), gradient))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        assert found[0][1].abs().max() > 1e-3


def test_a_sliding_window_falls_back_to_whole_prompts(tiny_models):
    model = tiny_models["gemma2"]  # its window is 16 tokens
    space = model.answer_space(PROMPTS)
    with pytest.raises(NoCache):
        LastToken(model, model.ids(PROMPTS), space)
    assert isinstance(continuation(model, model.ids(PROMPTS), space), WholePrompt)
    short = model.ids(["1+1=", "2"])
    assert isinstance(continuation(model, short, space), LastToken)


def test_the_fast_way_is_taken_where_there_is_one_and_every_answer_is_checked(tiny_model, monkeypatch):
    space = tiny_model.answer_space(PROMPTS)
    ids, own = tiny_model.ids(PROMPTS), tiny_model.answer_logits
    assert isinstance(continuation(tiny_model, ids, space), LastToken)
    monkeypatch.setattr(tiny_model, "grows", False)
    assert isinstance(continuation(tiny_model, ids, space), WholePrompt)
    other = [PROMPTS[1], *PROMPTS[1:]]
    monkeypatch.setattr(tiny_model, "answer_logits", lambda prompts, space: own(other, space))
    with pytest.raises(ValueError, match="differ from a plain forward"):
        continuation(tiny_model, ids, space)


def test_classes_of_several_tokens_are_refused(tiny_model):
    space = AnswerSpace(("10", "2"), ((20, 19), (21,)))
    with pytest.raises(ValueError, match="one token each, found 2 tokens"):
        continuation(tiny_model, tiny_model.ids(PROMPTS), space)


def test_no_hook_and_no_gradient_flag_is_left_behind(tiny_model):
    space = tiny_model.answer_space(PROMPTS)
    flags = [p.requires_grad for p in tiny_model.bridge.parameters()]
    before = tiny_model.answer_logits(PROMPTS, space).logits
    run = LastToken(tiny_model, tiny_model.ids(PROMPTS), space)
    run(torch.arange(2), 1, states_of(tiny_model)[:2, 1])
    with pytest.raises(RuntimeError):
        run(torch.arange(2), 1, torch.zeros(2, 5))
    assert torch.equal(tiny_model.answer_logits(PROMPTS, space).logits, before)
    assert [p.requires_grad for p in tiny_model.bridge.parameters()] == flags
    assert torch.is_grad_enabled()
