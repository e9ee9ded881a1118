"""Target prompts: what the bundled ones are, and that none is used behind which answers are cut otherwise."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from brewlens import tasks
from brewlens.answers import AnswerSpace
from brewlens.decoding.targets import (
    BUNDLED,
    CONSTANT,
    CONTEXTLESS,
    OWN,
    Target,
    own_suffixes,
    resolve,
    resolve_all,
)


@pytest.fixture(scope="module")
def items():
    return tasks.generate(("computing", "conditional"), n=27)[::6]


class Joining:
    """A tokenizer, with nothing behind it, that joins ``= `` to the digit behind it."""

    name = "joining"

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def token_ids(self, text: str) -> tuple[int, ...]:
        pieces = re.findall(r"= \d|.|\n", text)
        self.pieces += [p for p in dict.fromkeys(pieces) if p not in self.pieces]
        return tuple(self.pieces.index(p) for p in pieces)

    def decode(self, ids) -> str:
        return "".join(self.pieces[i] for i in ids)


def test_the_bundled_set():
    kinds = Counter(target.kind for target in BUNDLED)
    assert kinds["own"] == kinds["constant"] == kinds["contextless"] == 1
    assert kinds["paraphrase"] >= 4 and kinds["few_shot"] >= 2
    assert len({target.name for target in BUNDLED}) == len({t.text for t in BUNDLED if t.text}) + 2 >= 9
    assert all(target.text.endswith(' "') for target in BUNDLED if target.text)
    assert CONSTANT.text == '# The value of x is "'


@pytest.mark.parametrize("target", [t for t in BUNDLED if t.kind == "few_shot"], ids=lambda t: t.name)
def test_few_shot_prompts_show_every_digit_as_often_and_repeat_what_they_show(target):
    *examples, last = target.text.split("\n")
    shown = Counter(digit for example in examples for digit in set(re.findall(r"\d", example)))
    assert set(shown.values()) in (set(), {1}) and len(shown) in (0, 10)
    assert not re.search(r"\d", last) and len(examples) >= 3


def test_targets_resolve_to_one_prompt_per_item(any_model, items):
    space = any_model.answer_space(items.prompts)
    found, left_out = resolve_all(BUNDLED, any_model, items, space)
    assert tuple(found) == BUNDLED and not left_out
    assert found[OWN] == own_suffixes(items) and len(set(found[OWN])) > 1
    assert found[CONSTANT] == (CONSTANT.text,) * len(items)
    # One token, although some of these tokenizers put a beginning-of-text token in front of every text.
    quote = any_model.token_ids('"')
    assert found[CONTEXTLESS] == (quote[len(quote) - 1 :],) * len(items)


@pytest.mark.unchecked("a stand-in for a model")
def test_a_prompt_behind_which_answers_are_cut_otherwise_is_refused_by_name(items):
    model = Joining()
    space = AnswerSpace.derive(model.token_ids, model.decode, items.prompts[:1])
    assert resolve(OWN, model, items, space) == own_suffixes(items)
    joined = Target("sum", "paraphrase", "x = ")
    with pytest.raises(ValueError, match=r"'sum' does not fit joining: behind 'x = ' answer '0'"):
        resolve(joined, model, items, space)
    found, left_out = resolve_all([OWN, joined], model, items, space, unusable="leave_out")
    assert list(found) == [OWN] and "does not fit joining" in left_out["sum"]
    with pytest.raises(ValueError, match="no target prompt is usable"):
        resolve_all([joined], model, items, space, unusable="leave_out")


def test_other_tokens_than_behind_the_items_are_refused(tiny_model, items):
    space = tiny_model.answer_space(items.prompts)
    swapped = replace(space, sequences=space.sequences[::-1])
    for target in (OWN, BUNDLED[2]):
        with pytest.raises(ValueError, match=f"'{target.name}' does not fit"):
            resolve(target, tiny_model, items, swapped)


def test_answers_of_several_tokens_are_checked_whole(tiny_model, items):
    options = {"classes": ["4", "42", "True"], "scoring": "sequence", "end": '"'}
    space = AnswerSpace.derive(tiny_model.token_ids, tiny_model.decode, items.prompts[:2], **options)
    assert resolve(CONSTANT, tiny_model, items, space) == (CONSTANT.text,) * len(items)
    wrong = replace(space, sequences=(space.sequences[1], space.sequences[0], space.sequences[2]))
    with pytest.raises(ValueError, match="'constant' does not fit"):
        resolve(CONSTANT, tiny_model, items, wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ("a", "guess", "x"), "kind 'guess'", marks=pytest.mark.unchecked("a kind that there is not")
        ),
        (("a", "few_shot"), "a text, found text None"),
        (("a", "paraphrase", ""), "a text, found text ''"),
        (("a", "own", "x"), "no text"),
        (("", "own"), "needs a name"),
    ],
)
def test_a_target_says_what_it_lacks(arguments, message):
    with pytest.raises(ValueError, match=message):
        Target(*arguments)


def test_sets_of_targets_are_checked(tiny_model, items):
    space = tiny_model.answer_space(items.prompts)
    with pytest.raises(ValueError, match="a name of its own"):
        resolve_all([OWN, OWN], tiny_model, items, space)
    with pytest.raises(ValueError, match="at least one target"):
        resolve_all([], tiny_model, items, space)


@pytest.mark.unchecked("a choice that there is not")
def test_unusable_targets_are_raised_or_left_out(tiny_model, items):
    space = tiny_model.answer_space(items.prompts)
    with pytest.raises(ValueError, match="found 'skip'"):
        resolve_all([OWN], tiny_model, items, space, unusable="skip")
