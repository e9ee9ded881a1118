"""Which factors have an order, and which one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from brewlens import tasks
from brewlens.tasks.difficulty import difficulty_levels


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("value_tracking", {"depth": [1, 2, 3], "distractors": [0, 1, 2]}),
        ("computing", {"steps": [2, 3, 4], "operators": ["add", "add_sub", "add_mul"]}),
        ("conditional", {"depth": [1, 2, 3]}),
        ("loop", {"iterations": [2, 3, 4], "init_offset": ["0", "low", "high"]}),
        ("loop_unrolled", {"iterations": [2, 3, 4], "init_offset": ["0", "low", "high"]}),
    ],
)
def test_levels_from_easy_to_hard(family, expected):
    items = list(reversed(tasks.generate(family, n=27)))
    assert {
        name: sorted(ranks, key=ranks.get) for name, ranks in difficulty_levels(items).items()
    } == expected


def test_names_without_an_order_are_left_out():
    """A user's own factors: numbers have an order, names have none, even under a name that has one here."""
    items = [
        replace(
            item, family="mine", factors={"size": k % 3 * 10, "kind": "ab"[k % 2], "operators": "xy"[k % 2]}
        )
        for k, item in enumerate(tasks.generate("loop", n=12))
    ]
    assert difficulty_levels(items) == {"size": {0: 0, 10: 1, 20: 2}}


def test_one_level_is_no_trend():
    items = [item for item in tasks.generate("loop", n=54) if item.factors["iterations"] == 2]
    assert list(difficulty_levels(items)) == ["init_offset"]
