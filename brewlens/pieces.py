"""Pieces: which characters of a prompt each of its tokens stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from brewlens.model import HookedModel
    from brewlens.tasks.item import ItemSet


def token_ends(tokenizer: Any, prompt: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of a prompt, and for each the character of the prompt at which it ends.

    A token that stands for no character of its own (a special token, a later byte of one character) ends
    where the one before it ends. A tokenizer that tells no offsets is asked for the text of every
    beginning of the prompt instead.
    """
    if getattr(tokenizer, "is_fast", False):
        encoded = tokenizer(prompt, return_offsets_mapping=True)
        ids, ends = tuple(encoded["input_ids"]), [end for _, end in encoded["offset_mapping"]]
    else:
        ids = tuple(tokenizer(prompt)["input_ids"])
        ends = [
            len(tokenizer.decode(ids[:k], clean_up_tokenization_spaces=False, skip_special_tokens=True))
            for k in range(1, len(ids) + 1)
        ]
    reached, monotone = 0, []
    for end in ends:
        reached = min(max(reached, end), len(prompt))
        monotone.append(reached)
    return ids, tuple(monotone)


def pieces(prompt: str, ends: Sequence[int]) -> list[str]:
    """The text of each token; together they are the prompt, as far as its tokens reach."""
    return [prompt[start:end] for start, end in pairwise((0, *ends))]


def token_table(model: HookedModel, items: ItemSet) -> pd.DataFrame:
    """Tokens of every item and of its counterfactual twin.

    Returns:
        Columns id, token_ids, ends (characters; see :func:`token_ends`), one row per program.
    """
    import pandas as pd

    records = [
        (item.id, *token_ends(model.tokenizer, item.prompt))
        for item in _once([*items, *(items.twin(item, "counterfactual") for item in items)])
    ]
    return pd.DataFrame(records, columns=["id", "token_ids", "ends"])


def _once(items: Iterable[Any]) -> list[Any]:
    return list({item.id: item for item in items if item is not None}.values())
