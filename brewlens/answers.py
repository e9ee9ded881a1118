"""The answer classes, and the token each of them is in the context where the model must say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

DIGITS: tuple[str, ...] = tuple("0123456789")


@dataclass(frozen=True)
class AnswerSpace:
    """A closed set of answers, each one token in context.

    Attributes:
        classes: The answers as text, in the order of every class axis.
        token_ids: The vocabulary id of each class, in the same order.
    """

    classes: tuple[str, ...]
    token_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.classes)

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
    ) -> AnswerSpace:
        """Find the token of each class by writing it behind real prompts.

        A class must add exactly one token to the tokens of every context, the same token in each,
        different from that of every other class, and it must decode back to itself. Taking the
        first piece of the bare string instead is wrong with tokenizers that begin every digit by
        the same prefix token.

        Args:
            encode: Text -> token ids, as the model will read the text.
            decode: Token ids -> text.
            contexts: Prompts that end where the answer must begin; at least one.
            classes: The answers.

        Raises:
            ValueError: Names the class, the context and the tokens found.
        """
        if not contexts:
            raise ValueError("answer tokens are derived in context: give at least one prompt, found none")
        found: dict[str, int] = {}
        for context in contexts:
            prefix = list(encode(context))
            for answer in classes:
                tokens = list(encode(context + answer))
                added = tokens[len(prefix) :]
                if tokens[: len(prefix)] != prefix or len(added) != 1:
                    raise ValueError(
                        f"answer {answer!r} is not one token behind {context[-40:]!r}: the prompt has "
                        f"{len(prefix)} tokens, the prompt with the answer adds {added}. Choose answers "
                        "or a question that this tokenizer splits cleanly, for example one ending in a quote"
                    )
                if found.setdefault(answer, added[0]) != added[0]:
                    raise ValueError(
                        f"answer {answer!r} is token {found[answer]} in one prompt and {added[0]} behind "
                        f"{context[-40:]!r}; give all items the same ending"
                    )
        if len(set(found.values())) != len(found):
            raise ValueError(f"answer tokens must be distinct, found {found}")
        for answer, token in found.items():
            if decode([token]).strip() != answer:
                raise ValueError(f"token {token} of answer {answer!r} decodes to {decode([token])!r}")
        return cls(tuple(found), tuple(found.values()))
