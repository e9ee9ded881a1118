"""How often the reference model is right, per family and per configuration, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import binomtest
from torch import Tensor

from brewlens.reference.data import pad
from brewlens.reference.tokenizer import encode
from brewlens.tasks.item import Item

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Forward = Callable[[Tensor, Tensor], Tensor]
"""``(tokens [batch, position], last [batch]) -> logits [batch, token]`` at each row's last token."""

_DIGITS = tuple("0123456789")


def evaluate(
    model: str | Path | torch.nn.Module,
    items: Iterable[Item],
    batch_tokens: int = 16_384,
    tokenizer: Tokenizer | PreTrainedTokenizerBase | None = None,
) -> pd.DataFrame:
    """Ask a model every item, and say whether it is right under two decision rules.

    Args:
        model: A Hugging Face folder, or a causal language model that is loaded already.
        items: Items whose answers are digits.
        batch_tokens: Tokens per forward pass, padding included.
        tokenizer: Needed with a loaded model only.

    Returns:
        One row per item: ``id``, ``family``, ``configuration`` (the levels, joined by ``/``), ``answer``,
        ``digit`` (arg max over the ten digits), ``token`` (text of the arg max over the vocabulary),
        ``correct_digit`` and ``correct_vocab``.

    Raises:
        ValueError: If a loaded model comes without its tokenizer.
    """
    if isinstance(model, (str, Path)):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model)
        network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    else:
        network = model
    if tokenizer is None:
        raise ValueError("a model that is loaded already needs its tokenizer; give tokenizer=...")

    def forward(tokens: Tensor, last: Tensor) -> Tensor:
        hidden = network.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        return network.get_output_embeddings()(hidden[torch.arange(len(last)), last])

    return score(forward, tokenizer, list(items), batch_tokens, device=next(network.parameters()).device)


def score(
    forward: Forward,
    tokenizer: Tokenizer | PreTrainedTokenizerBase,
    items: Sequence[Item],
    batch_tokens: int = 16_384,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """:func:`evaluate` for any forward function."""
    logits = last_logits(forward, [encode(tokenizer, item.prompt) for item in items], batch_tokens, device)
    digit_ids = [encode(tokenizer, digit) for digit in _DIGITS]
    if any(len(ids) != 1 for ids in digit_ids):
        raise ValueError(f"every digit must be one token; this tokenizer gives {digit_ids}")
    ids = np.array(digit_ids)[:, 0]
    digits = [_DIGITS[k] for k in logits[:, ids].argmax(1)]
    tokens = [tokenizer.decode([int(k)]) for k in logits.argmax(1)]
    frame = pd.DataFrame(
        {
            "id": [item.id for item in items],
            "family": [item.family for item in items],
            "configuration": ["/".join(map(str, item.factors.values())) for item in items],
            "answer": [item.answer for item in items],
            "digit": digits,
            "token": tokens,
        }
    )
    frame["correct_digit"] = frame["digit"] == frame["answer"]
    frame["correct_vocab"] = frame["token"] == frame["answer"]
    return frame


def last_logits(
    forward: Forward, sequences: Sequence[list[int]], batch_tokens: int, device: torch.device | str = "cpu"
) -> Float[np.ndarray, "sequence token"]:
    """Logits behind the last token of every sequence, in batches of like length.

    Right padding needs no mask here: no position of a causal model sees what stands behind it.
    """
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]), reverse=True)
    rows: dict[int, np.ndarray] = {}
    start = 0
    with torch.inference_mode():
        while start < len(order):
            step = max(1, batch_tokens // max(1, len(sequences[order[start]])))
            chosen = order[start : start + step]
            batch = pad([sequences[i] for i in chosen])
            tokens = torch.from_numpy(batch.tokens).to(device, torch.long)
            last = torch.from_numpy(batch.lengths).to(device, torch.long) - 1
            rows.update(zip(chosen, forward(tokens, last).float().cpu().numpy(), strict=True))
            start += step
    return np.stack([rows[i] for i in range(len(sequences))])


def accuracy(frame: pd.DataFrame, by: Sequence[str] = ("family",)) -> pd.DataFrame:
    """Accuracy per group, with 95 % Wilson intervals.

    Args:
        frame: As :func:`evaluate` returns it.
        by: Columns to group by, for example ``("family", "configuration")``.

    Returns:
        One row per group in order of first appearance: the group, ``n``, ``accuracy`` (arg max over the
        digits), ``low``, ``high``, and ``accuracy_vocab`` (arg max over the vocabulary).
    """
    rows = []
    for key, group in frame.groupby(list(by), sort=False):
        correct = group["correct_digit"].to_numpy(dtype=bool)
        right, levels = int(correct.sum()), key if isinstance(key, tuple) else (key,)
        interval = binomtest(right, len(group)).proportion_ci(0.95, "wilson")
        rows.append(
            {
                **{str(name): level for name, level in zip(by, levels, strict=True)},
                "n": len(group),
                "accuracy": right / len(group),
                "low": float(interval.low),
                "high": float(interval.high),
                "accuracy_vocab": float(group["correct_vocab"].to_numpy(dtype=bool).mean()),
            }
        )
    return pd.DataFrame(rows)
