"""What is measured: one program with a question and an answer, and an ordered set of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, SupportsIndex, overload

from brewlens import html
from brewlens.brief import brief

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from jaxtyping import Int


@dataclass(frozen=True, slots=True)
class Item:
    """One program, the question about it, and the answer that running it gives.

    Attributes:
        id: Unique within a set.
        family: Program family, for example ``"computing"``; free text for a user's own items.
        factors: Factor name -> level, in the family's order.
        code: The program text. Empty when a user's item gave only a prompt.
        suffix: The question, for example ``'# The value of ret is "'``. Empty when not known.
        prompt: What the model reads: ``code + suffix`` for generated items.
        answer: The right answer: one of the answer classes, or of a near-OOD item something else or nothing.
        skeleton: Hash of the syntax tree with names abstracted and literals kept.
        shape: Hash of the syntax tree with names and literals abstracted.
        twins: Kind of twin -> id of the twin item.
    """

    id: str
    family: str
    factors: Mapping[str, str | int]
    code: str
    suffix: str
    prompt: str
    answer: str
    skeleton: str
    shape: str
    twins: Mapping[str, str] = field(default_factory=dict)

    __repr__ = brief

    def _repr_html_(self) -> str:
        """The prompt as the model reads it, and what is known of it."""
        row = {"id": self.id, "family": self.family, **self.factors, "right answer": self.answer}
        twins = [html.note(f"Twins: {', '.join(self.twins)}.")] if self.twins else []
        return html.card("Item", html.table([row]), html.code(self.prompt), *twins)


@dataclass(frozen=True)
class ItemSet(Sequence[Item]):
    """An ordered set of items, and the twins that they link to.

    Args:
        items: The items that are evaluated. Ids are unique.
        partners: Twins that are not evaluated themselves (inlined, renamed and counterfactual
            programs), by id. Every id in an item's ``twins`` is an item or a partner, unless it
            belongs to a family that is not in this set.
        provenance: How the set came to be: generator arguments or a file's name and hash.

    Raises:
        ValueError: If two items have one id, or the set is empty.
    """

    items: tuple[Item, ...]
    partners: Mapping[str, Item] = field(default_factory=dict)
    provenance: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.items:
            raise ValueError("an item set needs at least one item, found none")
        if len(self._rows) != len(self.items):
            seen: set[str] = set()
            twice = sorted({i.id for i in self.items if i.id in seen or seen.add(i.id)})
            raise ValueError(
                f"item ids must be unique; {len(twice)} occur more than once, first: {twice[:3]}"
            )

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {item.id: row for row, item in enumerate(self.items)}

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> ItemSet: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Item | ItemSet:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        return self.items[index]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def select(self, rows: Iterable[int] | Int[np.ndarray, "row"]) -> ItemSet:
        """The items at ``rows``, in that order, with the same partners and provenance."""
        return ItemSet(tuple(self.items[r] for r in rows), self.partners, self.provenance)

    def row(self, item_id: str) -> int:
        """Position of an item, by id."""
        return self._rows[item_id]

    def twin(self, item: Item, kind: str) -> Item | None:
        """The twin of ``item`` of one kind, or None when it has none in this set."""
        twin_id = item.twins.get(kind)
        if twin_id in self._rows:
            return self.items[self._rows[twin_id]]
        return self.partners.get(twin_id) if twin_id is not None else None

    @property
    def ids(self) -> tuple[str, ...]:
        """One id per item."""
        return tuple(item.id for item in self.items)

    @property
    def prompts(self) -> tuple[str, ...]:
        """What the model reads, one text per item."""
        return tuple(item.prompt for item in self.items)

    @property
    def answers(self) -> tuple[str, ...]:
        """The right answers."""
        return tuple(item.answer for item in self.items)

    @property
    def families(self) -> tuple[str, ...]:
        """Family names in order of first appearance."""
        return tuple(dict.fromkeys(item.family for item in self.items))

    def family(self, name: str) -> ItemSet:
        """The items of one family.

        Raises:
            ValueError: If the set has no item of that family.
        """
        rows = [r for r, item in enumerate(self.items) if item.family == name]
        if not rows:
            raise ValueError(f"no item of family {name!r}; this set has {list(self.families)}")
        return self.select(rows)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every item and partner: equal fingerprints, equal bytes."""
        digest = hashlib.blake2b(digest_size=16)
        for item in (*self.items, *self.partners.values()):
            digest.update(json.dumps(asdict(item), sort_keys=True).encode())
        return digest.hexdigest()

    def to_frame(self) -> pd.DataFrame:
        """One row per item: id, family, factors as columns, answer, skeleton, shape, twins, prompt."""
        import pandas as pd

        return pd.DataFrame(
            {
                "id": item.id,
                "family": item.family,
                **item.factors,
                "answer": item.answer,
                "skeleton": item.skeleton,
                "shape": item.shape,
                "twins": json.dumps(dict(item.twins)),
                "prompt": item.prompt,
            }
            for item in self.items
        )

    def __repr__(self) -> str:
        return f"ItemSet({len(self)} items, {len(self.partners)} partners, {', '.join(self.families)})"

    def _repr_html_(self) -> str:
        """One row per family, and the first item's program."""
        rows = []
        for name in self.families:
            items = [item for item in self.items if item.family == name]
            levels = {f: len({item.factors.get(f) for item in items}) for f in items[0].factors}
            counts = Counter(item.answer for item in items)
            by_answer = [counts[answer] for answer in sorted(counts)]
            rows.append(
                {
                    "family": name,
                    "n": len(items),
                    "shapes": len({item.shape for item in items}),
                    "factors (levels)": ", ".join(f"{f} ({k})" for f, k in levels.items()) or None,
                    "answers": len(counts),
                    "items by answer": html.sparkline(
                        by_answer, f"{name}: items", axis="answer", low=0, labels=sorted(counts)
                    ),
                }
            )
        first = self.items[0]
        shown = [
            html.note(f"The first item, {first.id}; its answer is {first.answer}:"),
            html.code(first.prompt),
        ]
        return html.card(repr(self), html.table(rows), *shown)
