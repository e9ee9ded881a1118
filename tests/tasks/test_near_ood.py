"""Near-OOD programs: never a digit, otherwise like a family's own, and strangers to what is scored."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from brewlens import tasks
from brewlens.tasks import ItemSet, LeakageError, assign_folds, check_leakage, read_items
from brewlens.tasks.names import RESULTS
from brewlens.tasks.near_ood import KINDS, NO_ANSWER, near_ood
from brewlens.tasks.skeleton import identify
from brewlens.tasks.sources import write_items

N = 54


@pytest.fixture(scope="module")
def items():
    return tasks.generate(n=N, seed=3)


@pytest.fixture(scope="module")
def ood(items):
    return near_ood(items, N)


def scope_of(item):
    scope: dict = {}
    exec(item.code, scope)
    return scope


def asked(item):
    return item.suffix.removeprefix("# The value of ").removesuffix(' is "')


def of_kind(ood, kind):
    return [item for item in ood if item.factors["kind"] == kind]


@pytest.mark.parametrize(
    ("kind", "holds"),
    [
        ("two_digits", lambda value: type(value) is int and value >= 10),
        ("negative", lambda value: type(value) is int and value < 0),
        ("string", lambda value: type(value) is str and value.isalpha()),
        ("boolean", lambda value: type(value) is bool),
        ("none", lambda value: value is None),
    ],
)
def test_the_answer_is_what_the_program_gives_and_no_digit(ood, kind, holds):
    for item in of_kind(ood, kind):
        value = scope_of(item)[asked(item)]
        assert holds(value)
        assert item.answer == str(value)
        assert item.answer not in (*"0123456789", NO_ANSWER)


def test_without_an_answer_the_name_is_missing_hidden_or_a_function(ood):
    for item in of_kind(ood, "undefined"):
        assert asked(item) not in item.code
        assert asked(item) not in scope_of(item)
        (result,) = (value for name, value in scope_of(item).items() if name in RESULTS)
        assert str(result) in "0123456789"  # the program itself is an ordinary one
    for item in of_kind(ood, "unbound"):
        assert asked(item) in item.code
        assert asked(item) not in scope_of(item)
    for item in of_kind(ood, "function"):
        assert callable(scope_of(item)[asked(item)])
    for kind in ("undefined", "unbound", "function"):
        assert {item.answer for item in of_kind(ood, kind)} == {NO_ANSWER}


def test_kinds_and_configurations_are_even(items, ood):
    assert len(ood) == N * len(tasks.FAMILIES)
    assert ood.provenance["short"] == {}
    for family in tasks.FAMILIES:
        kinds = Counter(item.factors["kind"] for item in ood.family(family))
        assert tuple(kinds) == KINDS
        assert max(kinds.values()) - min(kinds.values()) <= 1
        cells = {tuple(item.factors.items())[:-1] for item in ood.family(family)}
        assert cells <= {tuple(item.factors.items()) for item in items.family(family)}
        assert len(cells) > 20
        assert ood.family(family).ids == tuple(f"{family}-ood-{k:05d}" for k in range(N))


def test_they_share_no_skeleton_with_anything_and_are_of_the_evaluation_universe(items, ood):
    skeletons = {item.skeleton for item in ood}
    assert len(skeletons) == len(ood)
    assert not skeletons & {item.skeleton for item in (*items, *items.partners.values())}
    assert {tasks.universe_of(skeleton) for skeleton in skeletons} == {"eval"}
    for item in ood:
        assert (item.skeleton, item.shape) == identify(item.code)
        assert item.prompt == item.code + item.suffix


def test_folds_of_their_own_or_with_the_items_pass_the_leakage_check(items, ood):
    check_leakage(ood, items, items)
    check_leakage(items, ood, items)
    for together in (ood, ItemSet((*items, *ood), items.partners)):
        folds = assign_folds(together, 5)
        for k in range(5):
            train, score = np.flatnonzero(folds != k), np.flatnonzero(folds == k)
            check_leakage(together.select(train), together.select(score), together)
    spoilt = replace(ood[0], skeleton=items.twin(items[0], "counterfactual").skeleton)
    with pytest.raises(LeakageError, match=ood[0].id):
        check_leakage([spoilt], items, items)


def test_same_seed_same_bytes_another_seed_other_programs(items, ood):
    assert near_ood(items, N).fingerprint == ood.fingerprint
    other = near_ood(items, N, seed=1)
    assert len({i.skeleton for i in ood} & {i.skeleton for i in other}) < len(ood) / 10


def test_the_bytes_are_those_of_the_first_release_in_every_process():
    code = (
        "from brewlens import tasks; from brewlens.tasks.near_ood import near_ood; "
        "print(near_ood(tasks.generate(n=27), 16).fingerprint)"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert made == {"0560130fd2882cf8257e9a606c275c0f"}


def test_they_are_as_long_as_the_programs_of_a_digit(items, ood):
    for family in tasks.FAMILIES:
        lengths = [np.mean([len(i.prompt) for i in s.family(family)]) for s in (items, ood)]
        assert 0.8 < lengths[0] / lengths[1] < 1.2


def told_apart(digits, ood):
    """Share that logistic regression on 1- to 3-grams gets right, out of fold, of as many of each."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline

    grams = CountVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 3), lowercase=False)
    model = make_pipeline(grams, LogisticRegression(max_iter=1000))
    rows = np.linspace(0, len(digits) - 1, len(ood)).astype(int)
    prompts = [digits[row].prompt for row in rows] + [item.prompt for item in ood]
    return cross_val_score(model, prompts, np.repeat([0, 1], len(ood)), cv=5).mean()


def test_text_hardly_tells_them_where_it_can_be_avoided():
    digits = tasks.generate("conditional", n=200)
    assert told_apart(digits, near_ood(digits, 160, kinds=("undefined",))) < 0.62
    assert told_apart(digits, near_ood(digits, 160, kinds=("two_digits",))) < 0.7
    assert told_apart(digits, near_ood(digits, 160)) < 0.72
    assert told_apart(digits, near_ood(digits, 160, kinds=("string",))) > 0.9  # its quotation marks


def test_what_is_short_is_said():
    computing = tasks.generate("computing", n=81)
    accumulators = computing.select(
        row for row, item in enumerate(computing) if item.factors["structure"] == "accumulator"
    )
    made = near_ood(accumulators, 10, kinds=("function", "boolean"))
    assert made.provenance["short"] == {"computing/function": "0 of 5"}
    assert [item.factors["kind"] for item in made] == ["boolean"] * 5
    with pytest.raises(ValueError, match="kinds function, which the configurations of these items do not"):
        near_ood(accumulators, 10, kinds=("function",))


def test_items_of_no_generator_are_refused(items, tmp_path):
    write_items(tmp_path / "mine.jsonl", items[:3])
    assert len(near_ood(read_items(tmp_path / "mine.jsonl"), 8)) == 8
    for changed in ({"family": "puzzles"}, {"factors": {"depth": 9}}):
        foreign = ItemSet((items[0], replace(items[1], **changed)))
        with pytest.raises(ValueError, match=f"found '{items[1].id}'.*or fit the probe without"):
            near_ood(foreign, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "at least 1, found 0"),
        ({"kinds": ("float",)}, r"of two_digits, .*found \['float'\]"),
        ({"kinds": ("none", "none")}, "once each"),
        ({"kinds": ()}, "at least one"),
    ],
)
def test_bad_arguments(items, arguments, message):
    with pytest.raises(ValueError, match=message):
        near_ood(items, **{"n": 8, **arguments})
