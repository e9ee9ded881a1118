"""Folds keep groups whole; the leakage check finds every way to meet, and nothing where nothing is shared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from brewlens import tasks
from brewlens.tasks import (
    Item,
    ItemSet,
    LeakageError,
    assign_folds,
    check_leakage,
    clusters,
    few_shapes,
    groups,
)


def item(name, skeleton="", **twins):
    return Item(name, "f", {}, "", "", name, "1", skeleton or f"s-{name}", "shape", twins)


@pytest.fixture(scope="module")
def items():
    return tasks.generate(("loop", "loop_unrolled", "computing"), n=81)


def test_twins_share_a_fold_and_folds_are_even(items):
    fold = assign_folds(items, 5)
    assert sorted(set(fold)) == [0, 1, 2, 3, 4]
    for row, one in enumerate(items):
        for kind in one.twins:
            twin = items.twin(one, kind)
            if twin is not None and twin.id in items.ids:
                assert fold[items.row(twin.id)] == fold[row]
    for family in items.families:
        rows = [r for r, i in enumerate(items) if i.family == family]
        sizes = np.bincount(fold[rows], minlength=5)
        assert sizes.max() - sizes.min() <= 12


def test_folds_pass_the_leakage_check(items):
    fold = assign_folds(items, 5)
    for k in range(5):
        train = [i for i, f in zip(items, fold, strict=True) if f != k]
        score = [i for i, f in zip(items, fold, strict=True) if f == k]
        check_leakage(train, score, items)


def test_groups_follow_chains():
    a, b, c, d = item("a", "s1", renamed="b"), item("b", "s2"), item("c", "s2"), item("d", "s3")
    assert groups(ItemSet((a, b, c, d))).tolist() == [0, 0, 0, 1]


def test_a_partner_that_is_another_items_program_ties_them():
    a, b = item("a", "s1", inlined="a~inlined"), item("b", "s9")
    partner = replace(item("a~inlined"), skeleton="s9")
    assert groups(ItemSet((a, b), {"a~inlined": partner})).tolist() == [0, 0]
    with pytest.raises(LeakageError, match="a \\(training\\) and b \\(scoring\\)"):
        check_leakage([a], [b], ItemSet((a, b), {"a~inlined": partner}))


@pytest.mark.parametrize(
    ("train", "score"),
    [
        (item("a"), item("a")),
        (item("a", "same"), item("b", "same")),
        (item("a", renamed="b"), item("b")),
        (item("a", loop="x"), item("b", loop="x")),
    ],
)
def test_leakage_is_refused_with_the_ids(train, score):
    with pytest.raises(LeakageError, match=f"{train.id} .training. and {score.id} .scoring."):
        check_leakage([train, item("z")], [item("y"), score])
    check_leakage([item("z")], [item("y")])


def test_too_few_groups():
    with pytest.raises(ValueError, match="asked for 5 folds, found 2"):
        assign_folds(ItemSet((item("a"), item("b"))), 5)


def test_answers_too_rare_for_every_fold_are_no_error():
    items = tasks.generate("computing", n=54, seed=0)
    rows = {item.answer: row for row, item in enumerate(items)}  # one of each answer
    fold = assign_folds(items.select(sorted(rows.values())), 5)
    assert set(fold.tolist()) == set(range(5))


def test_clusters_join_shapes_and_twins():
    items = tasks.generate(("loop", "loop_unrolled"), n=120, seed=0)
    found = clusters(items)
    for a, first in enumerate(items):
        for b, second in enumerate(items):
            if first.shape == second.shape or second.id in first.twins.values():
                assert found[a] == found[b]
    # No more than that: every cluster hangs together by shapes and twins.
    for number in set(found):
        rows = {r for r in range(len(items)) if found[r] == number}
        reached, edge = set(), {min(rows)}
        while edge:
            reached |= edge
            near = [items[r] for r in edge]
            edge = {
                r
                for r in rows - reached
                if any(items[r].shape == n.shape or items[r].id in n.twins.values() for n in near)
            }
        assert reached == rows
    alone = items.family("loop")
    assert len(set(clusters(alone))) == len({item.shape for item in alone})


def test_few_shapes_are_no_clusters():
    """A user's items from one template: statements are about it, and its items are independent."""
    items = tasks.generate("computing", n=40, seed=0)
    one = ItemSet(tuple(replace(i, shape="template", twins={}) for i in items))
    assert few_shapes(one) == {"computing": 1} and len(set(clusters(one))) == 40
    ten = ItemSet(tuple(replace(i, shape=str(k % 10), twins={}) for k, i in enumerate(items)))
    assert few_shapes(ten) == {} and len(set(clusters(ten))) == 10
    assert few_shapes(items[:5]) == {} and few_shapes(items) == {}
