"""The reference model's tokenizer: byte-level BPE learned on the programs that it is trained on.

Text is first cut as Qwen2's own tokenizer cuts it (every digit alone, a space goes with the word behind
it), because ``AutoTokenizer`` puts that cut in place of whatever a Qwen2 folder says. Merges are learned
on a finer cut, in which brackets, dots and quotes stay apart from names; so ``(x``, ``[x`` and ``x`` share
one token for ``x``, and no merge can reach across the opening quote to the answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END = "<|end|>"
"""End of text and padding, id 0. There is no token for the beginning of a text."""

_QWEN2_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORD = r"[ _]?\p{L}+"


def train_tokenizer(programs: Iterable[str], vocab_size: int = 1024) -> Tokenizer:
    """Learn the merges.

    Args:
        programs: Program texts. The same texts in the same order give the same tokenizer.
        vocab_size: Upper limit of tokens, at least 257 (256 bytes and the end token).

    Returns:
        A tokenizer whose ids are those of the folder that :func:`save_tokenizer` writes.

    Raises:
        ValueError: If ``vocab_size`` is below 257.
    """
    if vocab_size < 257:
        raise ValueError(f"a byte-level vocabulary needs at least 257 tokens, asked for {vocab_size}")
    learner = _bare_tokenizer(models.BPE(), [_QWEN2_CUT, _WORD])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(programs, trainer)
    learned = json.loads(learner.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = _bare_tokenizer(models.BPE(vocab=learned["vocab"], merges=merges), [_QWEN2_CUT])
    tokenizer.add_special_tokens([END])
    return tokenizer


def _bare_tokenizer(model: models.BPE, cuts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(cut), behavior="isolated") for cut in cuts),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files that ``AutoTokenizer.from_pretrained(folder)`` reads beside a Qwen2 model."""
    from transformers import Qwen2Tokenizer

    model = json.loads(tokenizer.to_str())["model"]
    Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],  # pyright: ignore[reportArgumentType]
        unk_token=END,
        eos_token=END,
        pad_token=END,
    ).save_pretrained(folder)


def check_tokenizer(
    tokenizer: Tokenizer | PreTrainedTokenizerBase, prompts: Iterable[str], answers: Iterable[str]
) -> None:
    """Refuse a tokenizer for which an answer is not one token behind its prompt.

    Raises:
        ValueError: If the tokens of prompt + answer are not the prompt's and one more, or two answers
            share a token, or a token does not decode back.
    """
    ids: dict[str, int] = {}
    for prompt, answer in zip(prompts, answers, strict=True):
        alone, whole = encode(tokenizer, prompt), encode(tokenizer, prompt + answer)
        if whole[:-1] != alone:
            raise ValueError(
                f"{answer!r} must be exactly one token behind the prompt, found the ids {alone[-3:]} for its "
                f"end and {whole[-4:]} with the answer; prompt ends in {prompt[-30:]!r}"
            )
        if ids.setdefault(answer, whole[-1]) != whole[-1] or tokenizer.decode([whole[-1]]) != answer:
            raise ValueError(
                f"{answer!r} must have one token of its own, found {ids[answer]} and {whole[-1]}"
            )
    if len(set(ids.values())) != len(ids):
        raise ValueError(f"answers must have distinct tokens, found {ids}")


def encode(tokenizer: Tokenizer | PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, with nothing added."""
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.encode(text, add_special_tokens=False).ids
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
