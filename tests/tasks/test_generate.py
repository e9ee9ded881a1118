"""The generator: right answers, no repeats, balance, twins that are what they claim, same seed same bytes."""

from __future__ import annotations

import ast
import json
import random
from collections import Counter

import pytest

from brewlens import tasks
from brewlens.tasks.generate import FAMILY_MODULES, configurations
from brewlens.tasks.skeleton import digest, identify, tree_text
from brewlens.tasks.twins import Candidate, run

N = 54


@pytest.fixture(scope="module")
def items():
    return tasks.generate(n=N, seed=3)


def everything(items):
    return [*items, *items.partners.values()]


def result_name(item):
    return item.suffix.removeprefix("# The value of ").removesuffix(' is "')


def test_every_answer_is_what_the_program_gives(items):
    for item in everything(items):
        assert item.prompt == item.code + item.suffix
        assert str(run(item.code, result_name(item))) == item.answer
        assert item.answer in "0123456789"


def test_each_family_has_27_configurations_filled_evenly(items):
    for family in tasks.FAMILIES:
        assert len(configurations(family)) == 27
        cells = Counter(tuple(item.factors.items()) for item in items.family(family))
        assert len(cells) == 27
        assert set(cells.values()) == {N // 27}


def test_no_skeleton_occurs_twice_and_ids_name_them_honestly(items):
    assert len({item.skeleton for item in items}) == len(items)
    for item in everything(items):
        assert (item.skeleton, item.shape) == identify(item.code)


def test_the_universes_never_meet_whatever_the_seed(items):
    assert {tasks.universe_of(item.skeleton) for item in everything(items)} == {"eval"}
    seen = {item.skeleton for item in everything(items)}
    stream = tasks.stream(seed=12)
    training = [next(stream) for _ in range(400)]
    assert {tasks.universe_of(item.skeleton) for item in training} == {"train"}
    assert not seen & {item.skeleton for item in training}


def test_same_seed_same_bytes_another_seed_other_programs(items):
    assert tasks.generate(n=N, seed=3).fingerprint == items.fingerprint
    other = tasks.generate(n=N, seed=4)
    assert len({i.skeleton for i in items} & {i.skeleton for i in other}) < len(items) / 3


def test_the_bytes_are_those_of_the_first_release():
    """On every supported Python. The reference model's held-out programs must not drift."""
    assert tasks.generate(n=27).fingerprint == "73e99be8f3e345b321251938c0928e43"


def test_a_family_does_not_depend_on_the_families_beside_it(items):
    alone = tasks.generate("loop", n=N, seed=3)
    assert [i.prompt for i in alone] == [i.prompt for i in items.family("loop")]


@pytest.mark.parametrize("family", ["value_tracking", "conditional", "function_call"])
def test_answers_are_balanced_where_the_configurations_allow_it(family):
    made = tasks.generate(family, n=270)
    counts = Counter(made.answers)
    assert len(counts) == 10
    assert max(counts.values()) - min(counts.values()) <= 6


def test_counterfactual_twins_differ_in_one_literal_and_in_the_answer(items):
    for item in items:
        twin = items.twin(item, "counterfactual")
        assert twin.answer != item.answer
        assert twin.shape == item.shape
        nodes = [list(ast.walk(ast.parse(i.code))) for i in (item, twin)]
        assert [type(n) for n in nodes[0]] == [type(n) for n in nodes[1]]
        literals = [[n.value for n in walk if isinstance(n, ast.Constant)] for walk in nodes]
        changes = [(a, b) for a, b in zip(*literals, strict=True) if a != b]
        assert len(set(changes)) == 1
        assert len(changes) == 1 or item.family == "loop_unrolled"  # which repeats the literals of a body
        names = [[n.id for n in walk if isinstance(n, ast.Name)] for walk in nodes]
        assert names[0] == names[1]


def test_renamed_twins_share_the_skeleton_and_not_the_text(items):
    for item in items:
        twin = items.twin(item, "renamed")
        assert (twin.skeleton, twin.answer) == (item.skeleton, item.answer)
        assert twin.code != item.code


def test_loops_and_unrolled_programs_are_twins_of_each_other(items):
    loops, unrolled = items.family("loop"), items.family("loop_unrolled")
    for loop, flat in zip(loops, unrolled, strict=True):
        assert loop.twins["unrolled"] == flat.id
        assert flat.twins["loop"] == loop.id
        assert loop.answer == flat.answer
        assert loop.factors == flat.factors
        kinds = {type(n) for n in ast.walk(ast.parse(flat.code))}
        assert not kinds & {ast.For, ast.While}
        assert {type(n) for n in ast.walk(ast.parse(loop.code))} & {ast.For, ast.While}
        assert loop.code.splitlines()[0].startswith(("def", flat.code.splitlines()[0][:1]))


def test_inlined_twins_call_nothing_and_give_the_same(items):
    found = 0
    for item in items:
        twin = items.twin(item, "inlined")
        if twin is None:
            continue
        found += 1
        kinds = {type(n) for n in ast.walk(ast.parse(twin.code))}
        assert not kinds & {ast.Call, ast.FunctionDef}
        assert twin.answer == item.answer
    assert found > len(items) / 4


@pytest.mark.parametrize("family", tasks.FAMILIES)
def test_every_configuration_has_200_skeletons(family):
    for factors in configurations(family):
        rng = random.Random(0)
        seen: set[str] = set()
        for _ in range(3000):
            candidate = Candidate(FAMILY_MODULES[family].sketch(rng, **factors))
            for _ in range(4):
                literals = candidate.sketch.literals(rng)
                if candidate.answer(literals) is not None:
                    seen.add(candidate.main.skeleton(literals))
            if len(seen) >= 200:
                break
        assert len(seen) >= 200, factors


def test_the_fast_skeleton_of_a_template_is_that_of_the_program():
    rng = random.Random(1)
    for family, module in FAMILY_MODULES.items():
        for factors in configurations(family)[::5]:
            candidate = Candidate(module.sketch(rng, **factors))
            literals = candidate.sketch.literals(rng)
            code = candidate.sketch.template
            for slot, value in literals.items():
                code = code.replace(slot, str(value))
            assert (candidate.main.skeleton(literals), candidate.main.shape) == identify(code)


def test_what_is_short_is_said_and_not_repeated(monkeypatch):
    module = FAMILY_MODULES["value_tracking"]
    tiny = module.sketch(random.Random(0), mechanism="container", depth=1, distractors=0)
    monkeypatch.setattr(module, "sketch", lambda rng, **levels: tiny)
    made = tasks.generate("value_tracking", n=54)
    assert len(made) < 54
    assert len({i.skeleton for i in made}) == len(made)
    assert made.provenance["short"]


def test_levels_restrict_the_stream():
    stream = tasks.stream(seed=1, levels={"depth": (1,), "steps": (2,), "iterations": (2,)})
    for item in (next(stream) for _ in range(200)):
        assert item.factors.get("depth", 1) == 1
        assert item.factors.get("steps", 2) == 2
        assert item.factors.get("iterations", 2) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"families": "loops"}, "unknown family 'loops'"),
        ({"n": 0}, "at least 1, found 0"),
        ({"universe": "test"}, "unknown universe 'test'"),
        ({"families": ("loop", "loop")}, "once each"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        tasks.generate(**{"n": 27, **arguments})


def test_table_and_json(items):
    frame = items.to_frame()
    assert list(frame["id"]) == list(items.ids)
    assert json.loads(frame["twins"][0]) == dict(items[0].twins)


def test_skeletons_abstract_names_and_nothing_else():
    a = "def f(x):\n    return x + 1\n\nr = f(2)\n"
    renamed = "def g(y):\n\n    return (y + 1)  # the same\nq = g(2)"
    assert identify(a) == identify(renamed)
    assert identify(a.replace("1", "3"))[0] != identify(a)[0]
    assert identify(a.replace("1", "3"))[1] == identify(a)[1]
    assert identify(a.replace("+", "-"))[1] != identify(a)[1]
    swapped = "def f(x, y):\n    return x - y\n", "def f(x, y):\n    return y - x\n"
    assert tree_text(swapped[0]) != tree_text(swapped[1])
    assert "range" in tree_text("for i in range(3):\n    pass")[0]
    assert digest("a") != digest("b")
    assert identify("not python (")[0] == identify("not python (")[0]
