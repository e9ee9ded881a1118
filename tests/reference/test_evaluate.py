"""Accuracy: both decision rules, whatever the batches, with intervals that are Wilson's."""

import numpy as np
import pandas as pd
import pytest
import torch
from toy_programs import toy_programs
from transformers import Qwen2ForCausalLM

from brewlens.reference.config import TrainConfig
from brewlens.reference.evaluate import accuracy, evaluate, last_logits, score
from brewlens.reference.tokenizer import encode, train_tokenizer


@pytest.fixture(scope="module")
def items():
    return [item for item, _ in zip(toy_programs(0, False), range(50), strict=False)]


@pytest.fixture(scope="module")
def tokenizer(items):
    return train_tokenizer((item.prompt + item.answer for item in items), 300)


def test_batches_and_padding_do_not_matter(items, tokenizer):
    config = TrainConfig(steps=1, layers=2, width=32, heads=2, kv_heads=1, mlp_width=48)
    model = Qwen2ForCausalLM(config.model_config(tokenizer.get_vocab_size())).eval()

    def forward(tokens, last):
        return model(tokens, use_cache=False).logits[torch.arange(len(last)), last]

    sequences = [encode(tokenizer, item.prompt) for item in items]
    with torch.no_grad():
        want = np.stack([model(torch.tensor([ids])).logits[0, len(ids) - 1].numpy() for ids in sequences])
    for batch_tokens in (1, 200, 100_000):
        np.testing.assert_allclose(last_logits(forward, sequences, batch_tokens), want, atol=5e-5)
    frames = [evaluate(model, items, n, tokenizer=tokenizer) for n in (1, 5000)]
    pd.testing.assert_frame_equal(*frames)
    with pytest.raises(ValueError, match="needs its tokenizer"):
        evaluate(model, items)


def test_both_rules(items, tokenizer):
    """An oracle that prefers a word to every digit is right by the digits only."""
    digits = [encode(tokenizer, d)[0] for d in "0123456789"]
    word = encode(tokenizer, "alpha")[0]
    answers = {tuple(encode(tokenizer, i.prompt)): digits[int(i.answer)] for i in items}
    preferred = 5.0

    def forward(tokens, last):
        logits = torch.zeros(len(last), tokenizer.get_vocab_size())
        for row, (ids, end) in enumerate(zip(tokens.tolist(), last.tolist(), strict=True)):
            logits[row, answers[tuple(ids[: end + 1])]] = 3.0
        logits[:, word] = preferred
        return logits

    frame = score(forward, tokenizer, items)
    assert frame["correct_digit"].all() and not frame["correct_vocab"].any()
    preferred = 1.0
    assert score(forward, tokenizer, items)["correct_vocab"].all()


def test_accuracy_table():
    frame = pd.DataFrame({"family": ["b"] * 10 + ["a"] * 4, "correct_digit": [True] * 9 + [False] * 5})
    frame["correct_vocab"] = False
    table = accuracy(frame)
    assert list(table["family"]) == ["b", "a"] and list(table["n"]) == [10, 4]
    assert list(table["accuracy"]) == [0.9, 0.0] and list(table["accuracy_vocab"]) == [0.0, 0.0]
    # Wilson's interval by its own formula
    z, p, n = 1.959964, 0.9, 10
    middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    want = [(middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)]
    np.testing.assert_allclose(table.loc[0, ["low", "high"]].astype(float), want, atol=1e-5)
