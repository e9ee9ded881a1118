"""Which characters of a prompt each token stands for."""

from __future__ import annotations

import pytest

import brewlens as bl
from brewlens.pieces import pieces, token_ends, token_table


@pytest.fixture(scope="module")
def model():
    return bl.load_model("reference")


@pytest.mark.parametrize("prompt", ['x = 3\ny = x + 4\n# The value of y is "', "  a  =\t1", "π = 3 # ünï 🙂"])
def test_pieces_are_the_prompt(model, prompt):
    ids, ends = token_ends(model.tokenizer, prompt)
    assert ids == model.token_ids(prompt)
    texts = pieces(prompt, ends)
    assert len(texts) == len(ids)
    assert "".join(texts) == prompt
    # A token whose bytes are whole characters says what it is.
    assert all(
        model.decode([i]) == text for i, text in zip(ids, texts, strict=True) if text.isascii() and text
    )


def test_a_tokenizer_without_offsets_gives_the_same(model):
    class Slow:
        is_fast = False

        def __call__(self, prompt):
            return {"input_ids": model.tokenizer(prompt)["input_ids"]}

        def decode(self, ids, **kwargs):
            return model.tokenizer.decode(list(ids), **kwargs)

    prompt = 'def f(a):\n    return a + 1\nret = f(2)\n# The value of ret is "'
    assert token_ends(Slow(), prompt) == token_ends(model.tokenizer, prompt)


def test_ends_never_go_back_or_beyond():
    class Odd:
        is_fast = True

        def __call__(self, prompt, return_offsets_mapping):
            return {"input_ids": [0, 5, 6, 6, 1], "offset_mapping": [(0, 0), (0, 2), (2, 3), (2, 3), (0, 0)]}

    ids, ends = token_ends(Odd(), "ab🙂")
    assert (ids, ends) == ((0, 5, 6, 6, 1), (0, 2, 3, 3, 3))
    assert pieces("ab🙂", ends) == ["", "ab", "🙂", "", ""]


def test_table_has_items_and_counterfactual_twins(model):
    items = bl.tasks.generate("computing", n=27, seed=0)
    table = token_table(model, items).set_index("id")
    twins = [items.twin(item, "counterfactual") for item in items]
    wanted = {item.id: item.prompt for item in [*items, *(t for t in twins if t is not None)]}
    assert set(table.index) == set(wanted) and len(wanted) > len(items)
    assert all("".join(pieces(wanted[i], row["ends"])) == wanted[i] for i, row in table.iterrows())
