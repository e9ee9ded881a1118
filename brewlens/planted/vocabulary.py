"""Words of planted models: every byte of a text, and the planted tokens of each program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

EVENTS = ("available", "ready", "write", "overwrite", "noise")
"""What a planted token does at the last token, in one block; see :mod:`brewlens.planted.network`."""
SPECIAL = ("<pad>", "<s>", "</s>")
PLAIN = 256 + len(SPECIAL)
"""Number of tokens that are not planted; theirs are the first ids."""


def word(event: str, program: str, layer: int | None = None) -> str:
    """The token of one event of one program, with the space before it; noise has a token per layer.

    The name says neither layer nor digit of an event, so that the text gives nothing away.
    """
    return f" {event}_{program}" + ("" if layer is None else f"_{layer}")


@dataclass(frozen=True)
class Vocabulary:
    """Vocabulary of a planted model: special tokens, the bytes, the planted words, in this order.

    Attributes:
        words: The planted words.
    """

    words: tuple[str, ...]

    def __len__(self) -> int:
        return PLAIN + len(self.words)

    @cached_property
    def _plain(self) -> dict[str, int]:
        from tokenizers import pre_tokenizers

        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        return {text: number for number, text in enumerate((*SPECIAL, *alphabet))}

    def plain(self, texts: Sequence[str]) -> list[int]:
        """Ids of printable ASCII characters but the space."""
        return [self._plain[text] for text in texts]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A Hugging Face tokenizer: one token per planted word and per byte of all other text.

        The words are added tokens, as Hugging Face loads a tokenizer beside a Qwen2 model by rules of its own
        for all the rest.
        """
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        backend = Tokenizer(models.BPE(self._plain, []))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(  # type: ignore[assignment]
            add_prefix_space=False, use_regex=False
        )
        backend.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        backend.add_tokens([AddedToken(word, normalized=False) for word in self.words])
        pad, bos, eos = SPECIAL
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, pad_token=pad, bos_token=bos, eos_token=eos, unk_token=eos
        )
