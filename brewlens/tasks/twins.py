"""From a sketch to items: an item and its twins share names, literals and layout but for one difference.

Twin kinds, each linked by id from the item's ``twins``:

* ``unrolled`` / ``loop``: the same computation with the loop written out, or written as a loop.
* ``inlined``: every call replaced by the body of the function.
* ``renamed``: other names, the same skeleton.
* ``counterfactual``: one literal changed, so that the answer changes. A literal of a loop's body is one
  literal, and stands in each copy of the body in the unrolled program.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from brewlens.tasks import names
from brewlens.tasks.draft import RESULT, Sketch, fill, opened
from brewlens.tasks.item import Item
from brewlens.tasks.skeleton import digest, tree_text

SUFFIX = '# The value of {} is "'
DIGITS = frozenset(range(10))


class _Tree:
    """Skeleton hashes of one template under many literals, from one walk over its syntax tree."""

    def __init__(self, template: str, slots: Mapping[str, object]):
        text, shape = tree_text(template)
        self._text = opened(text)
        self.shape = digest(fill(shape, dict.fromkeys(slots, "#")))

    def skeleton(self, literals: Mapping[str, object]) -> str:
        return digest(self._text.format_map(literals))


@dataclass(frozen=True)
class Candidate:
    """A sketch with its syntax trees: what answer and which skeletons would given literals make?"""

    sketch: Sketch

    @cached_property
    def main(self) -> _Tree:
        return _Tree(self.sketch.template, self.sketch.choices)

    @cached_property
    def twin(self) -> _Tree | None:
        return None if self.sketch.twin is None else _Tree(self.sketch.twin, self.sketch.choices)

    def answer(self, literals: Mapping[str, object]) -> int | None:
        """What the program gives, or None when that is not one digit."""
        value = self.sketch.evaluate(**literals)
        return value if type(value) is int and value in DIGITS else None

    def skeletons(self, literals: Mapping[str, object]) -> Iterator[str]:
        """The skeleton of the program, then that of its structural twin."""
        yield self.main.skeleton(literals)
        if self.twin is not None:
            yield self.twin.skeleton(literals)

    def counterfactual(
        self, literals: Mapping[str, object], answer: int, allowed: Callable[[str], bool], rng: random.Random
    ) -> dict[str, object] | None:
        """Literals that differ in one place, give another digit, and whose skeletons are allowed."""
        changes = [
            (slot, value)
            for slot, values in self.sketch.choices.items()
            for value in values
            if value != literals[slot]
        ]
        rng.shuffle(changes)
        for slot, value in changes:
            other = {**literals, slot: value}
            if self.answer(other) not in (None, answer) and all(map(allowed, self.skeletons(other))):
                return other
        return None


def run(code: str, result: str) -> object:
    """Execute a generated program and return the value of one of its names."""
    scope: dict = {}
    exec(compile(code, "<item>", "exec"), scope)
    return scope[result]


@dataclass(frozen=True)
class Writer:
    """Writes the items of one candidate: draws names and layout once, and again for the renamed twin."""

    candidate: Candidate
    family: str
    factors: Mapping[str, str | int]
    rng: random.Random

    def item(self, item_id: str, literals: Mapping[str, object], structural: bool = False) -> Item:
        """The program with its literals, or its structural twin."""
        return self._write(item_id, literals, structural, self._names)

    def renamed(self, item_id: str, literals: Mapping[str, object]) -> Item:
        return self._write(item_id, literals, False, names.draw(self.candidate.sketch.slots, self.rng))

    @cached_property
    def _names(self) -> dict[str, str]:
        return names.draw(self.candidate.sketch.slots, self.rng)

    @cached_property
    def _gap(self) -> str:
        return self.rng.choice(("\n\n", "\n\n", "\n\n\n"))

    def _write(
        self, item_id: str, literals: Mapping[str, object], structural: bool, chosen: Mapping[str, str]
    ) -> Item:
        sketch = self.candidate.sketch
        template = (sketch.twin or "") if structural else sketch.template
        tree = self.candidate.twin if structural else self.candidate.main
        code = fill(template.replace("\n\n", self._gap), {**chosen, **literals})
        answer = run(code, chosen[RESULT])
        if answer != self.candidate.answer(literals):
            raise AssertionError(
                f"{item_id}: the program gives {answer!r}, its sketch another answer:\n{code}"
            )
        suffix = SUFFIX.format(chosen[RESULT])
        return Item(
            id=item_id,
            family=self.family,
            factors=self.factors,
            code=code,
            suffix=suffix,
            prompt=code + suffix,
            answer=str(answer),
            skeleton=tree.skeleton(literals),  # type: ignore[union-attr]
            shape=tree.shape,  # type: ignore[union-attr]
        )


def with_twins(
    writer: Writer,
    item_id: str,
    literals: Mapping[str, object],
    other: Mapping[str, object],
    twin_id: str | None,
) -> tuple[Item, list[Item]]:
    """An item linked to its twins, and the twins.

    Args:
        writer: Of the item's candidate.
        item_id: Id of the item; its twins are named ``<id>~<kind>``.
        literals: The item's literals.
        other: Those of the counterfactual twin.
        twin_id: Id of the structural twin when that is an item of another family.
    """
    item = writer.item(item_id, literals)
    partners = [
        writer.renamed(f"{item_id}~renamed", literals),
        writer.item(f"{item_id}~counterfactual", other),
    ]
    links = {"renamed": partners[0].id, "counterfactual": partners[1].id}
    kind = writer.candidate.sketch.twin_kind
    if kind is not None:
        structural = writer.item(twin_id or f"{item_id}~{kind}", literals, structural=True)
        links[kind] = structural.id
        partners.append(structural)
    return replace(item, twins=links), partners
