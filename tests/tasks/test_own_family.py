"""A caller's own family: the generator's promises hold for it, and what is no family is refused."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from brewlens import tasks
from brewlens.tasks.families import FAMILIES, FAMILY_MODULES
from brewlens.tasks.near_ood import near_ood
from brewlens.tasks.skeleton import identify
from brewlens.tasks.twins import Candidate, run


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Each test has a registry of its own."""
    before = dict(FAMILY_MODULES)
    yield
    FAMILY_MODULES.clear()
    FAMILY_MODULES.update(before)


def define(terms=(2, 3), signs=("plus", "minus")):
    @tasks.family(terms=terms, signs=signs)
    def total(rng, terms, signs):
        draft = tasks.Draft(rng)
        names = [draft.name() for _ in range(terms)]
        step = tasks.Function(draft.fn(), [first := draft.name()], [], f"{first} + {draft.lit(0, 3)}")
        draft.functions.append(step)
        draft.main += [f"{name} = {draft.lit(0, 5)}" for name in names[1:]]
        draft.main.append(f"{names[0]} = {step.name}({draft.lit(0, 5)})")
        rng.shuffle(names)
        draft.finish((" + " if signs == "plus" else " - ").join(names))
        return draft.sketch(inlinable=False)

    return total


def test_the_generator_keeps_its_promises():
    define()
    items = tasks.generate("total", n=120, seed=3)
    assert len(items) == 120
    assert Counter(tuple(i.factors.values()) for i in items) == dict.fromkeys(
        [(2, "plus"), (2, "minus"), (3, "plus"), (3, "minus")], 30
    )
    plus = Counter(item.answer for item in items if item.factors["signs"] == "plus")
    assert len(plus) == 10
    assert max(plus.values()) - min(plus.values()) <= 4  # of thirty, as far as the sums allow
    assert len({i.skeleton for i in items}) == 120
    for item in items:
        name = item.suffix.removeprefix("# The value of ").removesuffix(' is "')
        assert str(run(item.code, name)) == item.answer
        assert (item.skeleton, item.shape) == identify(item.code)
        other, renamed = (items.twin(item, kind) for kind in ("counterfactual", "renamed"))
        assert (other.shape, renamed.skeleton) == (item.shape, item.skeleton)
        assert other.answer != item.answer == renamed.answer
        assert {tasks.universe_of(i.skeleton) for i in (item, other)} == {"eval"}
    assert tasks.generate("total", n=120, seed=3).fingerprint == items.fingerprint


def test_answers_are_got_by_running_whatever_the_function_says():
    """A function that lies about its answer cannot: there is nowhere to say it."""

    @tasks.family(offset=(1, 2))
    def shifted(rng, offset):
        draft = tasks.Draft(rng)
        draft.finish(f"{draft.lit(0, 40)} + {draft.lit(0, 9)} - {offset}")
        return draft.sketch(inlinable=False)

    items = tasks.generate("shifted", n=40)
    for item in items:
        line = item.code.strip().splitlines()[-1]
        if "+" in line:
            assert eval(line.split("=")[1]) == int(item.answer)
    assert set(items.answers) <= set("0123456789")


def test_a_poor_family_is_short_and_says_so():
    @tasks.family(only=("one",))
    def poor(rng, only):
        draft = tasks.Draft(rng)
        draft.finish(draft.lit(0, 9))
        return draft.sketch(inlinable=False)

    items = tasks.generate("poor", n=60)
    assert len(items) < 25
    assert len({i.skeleton for i in items}) == len(items)
    assert items.provenance["short"] == {"poor/one": f"{len(items)} of 60"}


def test_it_stands_beside_the_others_and_does_not_change_them():
    before = tasks.generate("loop", n=27).fingerprint
    define()
    assert tasks.generate("loop", n=27).fingerprint == before
    assert tasks.generate(("loop", "total"), n=27).families == ("loop", "total")
    assert tasks.FAMILIES == FAMILIES
    assert "total" not in FAMILIES
    assert len(tasks.configurations("total")) == 4
    assert next(tasks.stream(0, ["total"])).family == "total"
    odd = near_ood(tasks.generate("total", n=40), 20)
    assert {item.family for item in odd} == {"total"}
    assert not set(odd.answers) & set("0123456789")


def test_every_configuration_draws_its_levels():
    define(terms=(2, 5))
    for factors in tasks.configurations("total"):
        sketch = FAMILY_MODULES["total"].sketch(random.Random(0), **factors)
        assert len(Candidate(sketch).sketch.choices) == factors["terms"] + 1


def test_its_definition_may_run_again_and_no_other_takes_its_name():
    define(terms=(2, 3))
    define(terms=(2, 4))
    assert FAMILY_MODULES["total"].FACTORS["terms"] == (2, 4)

    with pytest.raises(ValueError, match="'total' is taken; name the function otherwise"):

        @tasks.family(depth=(1,))
        def total(rng, depth): ...


@pytest.mark.parametrize("name", ["loop", "overall"])
def test_names_of_brewlens_are_refused(name):
    def sketch(rng, depth): ...

    sketch.__name__ = name
    with pytest.raises(ValueError, match=f"{name!r} is taken"):
        tasks.family(depth=(1,))(sketch)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({}, "needs at least one factor"),
        ({"answer": (1, 2)}, "named like a column"),
        ({"depth": ()}, "needs different levels"),
        ({"depth": (1, 1)}, "needs different levels"),
        pytest.param(
            {"depth": (1.5,)}, "needs different levels", marks=pytest.mark.unchecked("a wrong level")
        ),
        ({"width": (1, 2)}, r"called with rng and its factors, as own\(rng, width\)"),
        ({"depth": (1, 2)}, r"must return a sketch .* for \(2,\) it gave None"),
    ],
)
def test_what_is_no_family_is_refused_at_once(factors, message):
    def own(rng, depth):
        draft = tasks.Draft(rng)
        draft.finish(draft.lit(0, 9))
        return draft.sketch() if depth == 1 else None

    with pytest.raises(ValueError, match=message):
        tasks.family(**factors)(own)
    assert "own" not in FAMILY_MODULES
