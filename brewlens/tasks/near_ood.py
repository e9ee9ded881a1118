"""Near-OOD programs: they look like a family's own, but what is asked for is not one digit.

They train the class ``other`` of a probe (arXiv 2606.17648, section 3), which would else have to call
everything a digit. Each is a fresh program of the family's generator, changed as little as its kind
allows. The kind says why no digit is right:

* ``two_digits``, ``negative``, ``string``, ``boolean``, ``none``: the asked value is that. Where the
  family's own literals lead there (a sum above nine, a difference below zero), nothing is changed.
* ``undefined``: the question names nothing that the program has. ``unbound``: it names a variable that
  lives only inside a function, or behind a branch that is not taken. ``function``: the asked name is
  bound to a function that is not called. Until that change, the program's value was one digit.

Text alone gives some kinds away: most families have no quotation marks but in a ``string``. A probe
whose ``other`` is to come from the computation leaves such kinds out, or is compared with ``surface``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, cycle, islice, product
from operator import eq, ge, gt, le, lt, ne

from brewlens.tasks import names
from brewlens.tasks.draft import RESULT, Sketch, fill
from brewlens.tasks.families import FAMILY_MODULES, Source
from brewlens.tasks.folds import universe_of
from brewlens.tasks.generate import configurations
from brewlens.tasks.item import Item, ItemSet
from brewlens.tasks.skeleton import identify
from brewlens.tasks.twins import DIGITS, SUFFIX

NO_ANSWER = ""  # the answer of an item that has none

_UNIVERSE = "eval"
_ASKED = "R1_"  # a second name of the results' pool, where the question is about something else
_WORDS = tuple(word for word in names.VARIABLES if "_" not in word and len(word) > 1)
_SIGNS = {">": gt, "<": lt, ">=": ge, "<=": le, "==": eq, "!=": ne}
_GAPS = ("\n\n", "\n\n", "\n\n\n")  # between definitions, as the generators write them
_DRAWS = 64  # literal draws per sketch
_SKETCHES = 24  # sketches of a configuration before the next one has its turn


@dataclass(frozen=True)
class _Program:
    """A program in the making.

    Attributes:
        template: As in a sketch.
        literals: Literal slot -> value.
        value: What the sketch gives with its own literals, before anything is changed.
        asked: Slot of the name that the question is about.
    """

    template: str
    literals: Mapping[str, object]
    value: object
    asked: str = RESULT

    def new(self, role: str) -> str:
        """A slot that the template does not have."""
        return next(slot for k in count() if (slot := f"{role}{k}_") not in self.template)

    def add(self, *values: object) -> tuple[list[str], _Program]:
        """New literals: their slots, and the program that has the values for them."""
        slots = [f"N{len(self.literals) + k}_" for k in range(len(values))]
        return slots, replace(self, literals={**self.literals, **dict(zip(slots, values, strict=True))})

    @property
    def result(self) -> str:
        """The expression that the result is bound to; a name, a call or a subscript."""
        return next(
            line.removeprefix(f"{RESULT} = ")
            for line in self.template.splitlines()
            if line.startswith(f"{RESULT} = ")
        )

    def bind(self, *lines: str) -> _Program:
        """The program with other lines where its result was bound."""
        old, new = f"\n{RESULT} = {self.result}\n", "\n".join(["", *lines, ""])
        return replace(self, template=self.template.replace(old, new))


def _is_digit(value: object) -> bool:
    return type(value) is int and value in DIGITS


def _is_long(value: object) -> bool:
    return type(value) is int and value > 9


def _is_negative(value: object) -> bool:
    return type(value) is int and value < 0


def _draw(sketch: Sketch, rng: random.Random, accept: Callable[[object], bool]) -> Iterator[_Program]:
    """The sketch with literals of its own that give a wanted value; nothing when none are found."""
    for _ in range(_DRAWS):
        literals = sketch.literals(rng)
        value = sketch.evaluate(**literals)
        if accept(value):
            yield _Program(sketch.template, literals, value)
            return


def _digit(sketch: Sketch, rng: random.Random) -> Iterator[_Program]:
    """The sketch as the family would have it."""
    return _draw(sketch, rng, _is_digit)


def _substituted(sketch: Sketch, rng: random.Random, value: Callable[[], object]) -> Iterator[_Program]:
    """Programs with a foreign value for one literal; most of them do not run, or do not give it."""
    for program in _digit(sketch, rng):
        for slot in rng.sample(sorted(program.literals), len(program.literals)):
            yield replace(program, literals={**program.literals, slot: value()})


def _compared(program: _Program, rng: random.Random, expression: str, truth: bool) -> tuple[str, _Program]:
    """A comparison of the program's digit with a new literal that comes out as wanted."""
    pairs = product(_SIGNS, range(10))
    sign, k = rng.choice([(sign, k) for sign, k in pairs if _SIGNS[sign](program.value, k) is truth])
    (slot,), program = program.add(k)
    return f"{expression} {sign} {slot}", program


def _two_digits(sketch: Sketch, rng: random.Random) -> Iterator[_Program]:
    yield from _draw(sketch, rng, _is_long)
    yield from _substituted(sketch, rng, lambda: rng.randint(10, 99))


def _negative(sketch: Sketch, rng: random.Random) -> Iterator[_Program]:
    yield from _draw(sketch, rng, _is_negative)
    yield from _substituted(sketch, rng, lambda: rng.randint(-9, -1))


def _string(sketch: Sketch, rng: random.Random) -> Iterator[_Program]:
    yield from _substituted(sketch, rng, lambda: rng.choice(_WORDS))
    for program in _digit(sketch, rng):
        condition, program = _compared(program, rng, program.result, rng.random() < 0.5)
        (first, second), program = program.add(*rng.sample(_WORDS, 2))
        yield program.bind(f"{RESULT} = {first} if {condition} else {second}")


def _boolean(sketch: Sketch, rng: random.Random) -> Iterator[_Program]:
    yield from _substituted(sketch, rng, lambda: rng.random() < 0.5)
    for program in _digit(sketch, rng):
        condition, program = _compared(program, rng, program.result, rng.random() < 0.5)
        yield program.bind(f"{RESULT} = {condition}")


def _none(sketch: Sketch, rng: random.Random) -> Iterator[_Program]:
    """A function that lost the word ``return``, or where there is none, ``None`` for a literal."""
    for program in _digit(sketch, rng):
        lines = program.template.splitlines()
        returns = [k for k, line in enumerate(lines) if line.lstrip().startswith("return ")]
        for k in rng.sample(returns, len(returns)):
            kept = lines[k].replace("return ", f"{program.new('V')} = ", 1)
            yield replace(program, template="\n".join([*lines[:k], kept, *lines[k + 1 :], ""]))
    yield from _substituted(sketch, rng, lambda: None)


def _undefined(sketch: Sketch, rng: random.Random) -> Iterator[_Program]:
    for program in _digit(sketch, rng):
        yield replace(program, asked=_ASKED)


def _unbound(sketch: Sketch, rng: random.Random) -> Iterator[_Program]:
    for program in _digit(sketch, rng):
        branched = "if " in program.template  # elsewhere the word would give the kind away
        ways = [_inside, _skipped] if branched else [_inside]
        for way in rng.sample(ways, len(ways)):
            yield from way(program, rng)


def _inside(program: _Program, rng: random.Random) -> Iterator[_Program]:
    """The question is about a name that only a function or class has, and that sounds like a result."""
    slots = Sketch(program.template, {}).slots
    for slot in rng.sample(slots, len(slots)):
        if slot[0] == "V":
            yield replace(program, template=program.template.replace(slot, _ASKED), asked=_ASKED)


def _skipped(program: _Program, rng: random.Random) -> Iterator[_Program]:
    """The result is bound in a branch that is not taken."""
    name, expression = program.new("V"), program.result
    condition, program = _compared(program, rng, name, False)
    yield program.bind(f"{name} = {expression}", f"if {condition}:", f"    {RESULT} = {name}")


def _function(sketch: Sketch, rng: random.Random) -> Iterator[_Program]:
    """The result is one of the functions, or a method whose call has lost its parentheses."""
    for program in _digit(sketch, rng):
        if functions := re.findall(r"^def (F\d+_)", program.template, re.MULTILINE):
            kept = f"{program.new('V')} = {program.result}"
            yield program.bind(kept, f"{RESULT} = {rng.choice(functions)}")
        else:
            called = re.compile(r"^(\w+ = .*)\(\)$", re.MULTILINE)
            yield replace(program, template=called.sub(r"\1", program.template))


_UNBOUND, _BROKEN = object(), object()
_ANSWERLESS = ("undefined", "unbound", "function")
_MAKERS = {
    "two_digits": (_two_digits, _is_long),
    "negative": (_negative, _is_negative),
    "string": (_string, lambda value: value in _WORDS),
    "boolean": (_boolean, lambda value: type(value) is bool),
    "none": (_none, lambda value: value is None),
    "undefined": (_undefined, lambda value: value is _UNBOUND),
    "unbound": (_unbound, lambda value: value is _UNBOUND),
    "function": (_function, callable),
}
KINDS = tuple(_MAKERS)


def near_ood(items: ItemSet, n: int, *, kinds: Sequence[str] = KINDS, seed: int = 0) -> ItemSet:
    """Generate ``n`` near-OOD programs for each family of ``items``.

    They are spread evenly over the kinds and, as far as these allow it, over the configurations of the
    family that ``items`` have. They share no skeleton with the items, with their twins or among
    themselves, and all belong to the evaluation universe. Same arguments, same bytes.

    Args:
        items: Generated items, for whose probe the class ``other`` is meant.
        n: Programs per family.
        kinds: Some of ``KINDS``.
        seed: Any integer.

    Returns:
        The programs in the order of families and kinds, without twins. Factors are those of the family
        and ``kind``. The answer is the value as text (``"37"``, ``"-4"``, ``"grade"``, ``"True"``,
        ``"None"``), or ``NO_ANSWER``; never a digit. ``provenance["short"]`` names the kinds of which a
        family could not give as many as asked.

    Raises:
        ValueError: If an item is of no configuration that the generators know, a kind is unknown or named
            twice, or ``n`` is below 1.
    """
    if n < 1:
        raise ValueError(f"n is the number of programs per family and must be at least 1, found {n}")
    if not kinds or len(set(kinds)) != len(kinds) or set(kinds) - set(KINDS):
        raise ValueError(
            f"kinds must be named once each, at least one, of {', '.join(KINDS)}; found {list(kinds)}"
        )
    grids = {family: _configurations(items.family(family)) for family in items.families}
    seen = {item.skeleton for item in (*items, *items.partners.values())}
    made: list[Item] = []
    short: dict[str, str] = {}
    for family, grid in grids.items():
        index = count()
        for number, kind in enumerate(kinds):
            wanted = n // len(kinds) + (number < n % len(kinds))
            rng = random.Random(f"brewlens near-ood {family} {kind} {seed}")
            found = list(islice(_items(family, kind, grid, seen, rng), wanted))
            made += [replace(item, id=f"{family}-ood-{next(index):05d}") for item in found]
            if len(found) < wanted:
                short[f"{family}/{kind}"] = f"{len(found)} of {wanted}"
    if not made:
        raise ValueError(
            f"asked for the kinds {', '.join(kinds)}, which the configurations of these items do not allow; "
            "give more kinds or items of more configurations"
        )
    provenance = {
        "source": "near_ood",
        "of": items.fingerprint,
        "families": list(grids),
        "n": n,
        "kinds": list(kinds),
        "seed": seed,
        "universe": _UNIVERSE,
        "short": short,
    }
    return ItemSet(tuple(made), {}, provenance)


def _configurations(items: ItemSet) -> Sequence[Mapping[str, str | int]]:
    """The configurations of one family's items, in the order of the grid."""
    family = items[0].family
    known = configurations(family) if family in FAMILY_MODULES else []
    odd = next((item for item in items if dict(item.factors) not in known), None)
    if odd is not None:
        raise ValueError(
            f"near-OOD programs are drawn from the generators of {', '.join(FAMILY_MODULES)}; found "
            f"{odd.id!r} of family {family!r} with factors {dict(odd.factors)}, which is no configuration of "
            "theirs. Give generated items only, or fit the probe without the class other"
        )
    return [factors for factors in known if any(dict(item.factors) == factors for item in items)]


def _items(
    family: str, kind: str, grid: Sequence[Mapping[str, str | int]], seen: set[str], rng: random.Random
) -> Iterator[Item]:
    """Items of one kind, still without ids, from one configuration after the other."""
    module, idle = FAMILY_MODULES[family], 0
    for factors in cycle(rng.sample(grid, len(grid))):
        item = _item(family, kind, factors, module, seen, rng)
        idle = 0 if item is not None else idle + 1
        if item is not None:
            seen.add(item.skeleton)
            yield item
        if idle == len(grid):
            return


def _item(
    family: str,
    kind: str,
    factors: Mapping[str, str | int],
    module: Source,
    seen: set[str],
    rng: random.Random,
) -> Item | None:
    """A new program of one configuration and kind, or None where that has none."""
    make, wanted = _MAKERS[kind]
    for _ in range(_SKETCHES):
        sketch = module.sketch(rng, **factors)
        gap = rng.choice(_GAPS)
        for program in make(sketch, rng):
            chosen = names.draw(sorted({*Sketch(program.template, {}).slots, program.asked}), rng)
            literals = {slot: repr(value) for slot, value in program.literals.items()}
            code = fill(program.template.replace("\n\n", gap), {**chosen, **literals})
            name = chosen[program.asked]
            value = _value(code, name)
            if not wanted(value):
                continue
            skeleton, shape = identify(code)
            if skeleton in seen or universe_of(skeleton) != _UNIVERSE:
                break  # to the next sketch: another change of this one would be much like it
            answer = NO_ANSWER if kind in _ANSWERLESS else str(value)
            suffix = SUFFIX.format(name)
            every = {**factors, "kind": kind}
            return Item("", family, every, code, suffix, code + suffix, answer, skeleton, shape)
    return None


def _value(code: str, name: str) -> object:
    """What a program binds a name to, ``_UNBOUND`` if nothing, ``_BROKEN`` if it does not run."""
    scope: dict = {}
    try:
        exec(compile(code, "<item>", "exec"), scope)
    except TypeError:  # a foreign value met an operator that is not for it
        return _BROKEN
    return scope.get(name, _UNBOUND)
