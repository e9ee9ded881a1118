"""The answer classes, and the tokens each of them is in the context where the model must say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from brewlens import html
from brewlens.brief import brief

DIGITS: tuple[str, ...] = tuple("0123456789")

Scoring = Literal["token", "first", "sequence"]
"""How an answer is scored: as the one token that it is, by its first token, or by the log-probability of
its whole token sequence."""


@dataclass(frozen=True)
class AnswerSpace:
    """A closed set of answers, each one token or several in context.

    Attributes:
        classes: The answers as text, in the order of every class axis.
        sequences: The vocabulary ids of each class, in the same order; no sequence begins another.
    """

    classes: tuple[str, ...]
    sequences: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.sequences) or not self.classes or not all(self.sequences):
            raise ValueError(
                f"each class needs its tokens, found {len(self.classes)} classes and {self.sequences}"
            )
        owner = dict(zip(self.sequences, self.classes, strict=True))
        for ids, answer in zip(self.sequences, self.classes, strict=True):
            for length in range(1, len(ids) + 1):
                if owner.get(ids[:length], answer) != answer:
                    raise ValueError(
                        f"answer {answer!r} ({list(ids)}) begins with the tokens of {owner[ids[:length]]!r}, "
                        "so their probabilities cannot be told apart; let each end in what follows an "
                        "answer, for example end='\"'"
                    )

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def single(self) -> bool:
        """Whether every class is one token."""
        return all(len(ids) == 1 for ids in self.sequences)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The first token of each class."""
        return tuple(ids[0] for ids in self.sequences)

    @cached_property
    def continuations(self) -> tuple[tuple[int, ...], ...]:
        """What must stand behind a prompt, one at a time, for every class to be scored.

        These are the beginnings of classes that are the beginning of no longer one; ``((),)`` when every
        class is one token.
        """
        begun = {ids[:length] for ids in self.sequences for length in range(len(ids))}
        return tuple(sorted(b for b in begun if not any(o != b and o[: len(b)] == b for o in begun)))

    def index(self, answer: str) -> int:
        """The class index of an answer.

        Raises:
            ValueError: If it is not a class.
        """
        if answer not in self.classes:
            raise ValueError(f"answer {answer!r} is not one of the classes {list(self.classes)}")
        return self.classes.index(answer)

    @classmethod
    def derive(
        cls,
        encode: Callable[[str], Sequence[int]],
        decode: Callable[[Sequence[int]], str],
        contexts: Sequence[str],
        classes: Sequence[str] = DIGITS,
        *,
        scoring: Scoring = "token",
        end: str = "",
    ) -> AnswerSpace:
        """Find the tokens of each class by writing it behind real prompts.

        A class must leave the tokens of every context as they are and add the same tokens to each, no two
        classes may be the same, and what is added must decode back to the class. Taking the first piece of
        the bare string instead is wrong with tokenizers that begin every digit by the same prefix token.

        Args:
            encode: Text -> token ids, as the model will read the text.
            decode: Token ids -> text.
            contexts: Prompts that end where the answer must begin; at least one.
            classes: The answers.
            scoring: ``token`` refuses a class of several tokens; ``first`` takes the first token of each
                and refuses classes that share it; ``sequence`` takes all.
            end: What follows an answer, for ``sequence``: it tells ``4`` from the beginning of ``42``.

        Raises:
            ValueError: Names the class, the context and the tokens found.
        """
        if not contexts:
            raise ValueError("answer tokens are derived in context: give at least one prompt, found none")
        found: dict[str, tuple[int, ...]] = {}
        for context in contexts:
            prefix = list(encode(context))
            for answer in classes:
                text = answer + end if scoring == "sequence" else answer
                tokens = list(encode(context + text))
                added = tuple(tokens[len(prefix) :])
                if tokens[: len(prefix)] != prefix or not added or (scoring == "token" and len(added) > 1):
                    raise ValueError(
                        f"answer {text!r} is not one token behind {context[-40:]!r}: the prompt has "
                        f"{len(prefix)} tokens, the prompt with the answer adds {list(added)}. Choose "
                        "answers or a question that this tokenizer splits cleanly, for example one ending "
                        "in a quote"
                        + ("" if len(added) < 2 else ", or score whole answers with scoring='sequence'")
                    )
                if found.setdefault(answer, added) != added:
                    raise ValueError(
                        f"answer {answer!r} is {list(found[answer])} in one prompt and {list(added)} behind "
                        f"{context[-40:]!r}; give all items the same ending"
                    )
        kept = {answer: ids[:1] if scoring == "first" else ids for answer, ids in found.items()}
        if len(set(kept.values())) != len(kept):
            raise ValueError(f"answer tokens must be distinct, found {kept}")
        for answer, ids in found.items():
            text = answer + end if scoring == "sequence" else answer
            if decode(ids).strip() != text.strip():
                raise ValueError(f"tokens {list(ids)} of answer {text!r} decode to {decode(ids)!r}")
        return cls(tuple(kept), tuple(kept.values()))

    __repr__ = brief

    def _repr_html_(self) -> str:
        """The classes and their tokens."""
        pairs = zip(self.classes, self.sequences, strict=True)
        rows = [{"class": answer, "token ids": ", ".join(map(str, ids))} for answer, ids in pairs]
        return html.card(f"AnswerSpace({len(self)} classes)", html.table(rows))
