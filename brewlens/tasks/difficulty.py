"""Which factors make a program harder, and in which order their levels do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from brewlens.tasks.families import FAMILY_MODULES
from brewlens.tasks.item import Item

# Named levels whose order in their family is one of difficulty; of other named levels it is no order.
_ORDERED = ("operators", "init_offset")


def difficulty_levels(items: Iterable[Item]) -> dict[str, Mapping[str | int, int]]:
    """The factors that have an order, with the rank of each level from the easiest on.

    Levels that are numbers (depth, steps, iterations, distractors, ...) are in their own order, also those of
    a user's items; ``operators`` and ``init_offset`` in that of the generated families. Factors such as
    ``mechanism`` have no order and are left out, as are those with one level.

    Args:
        items: Items of one family.

    Returns:
        Factor -> level -> rank, 0 for the easiest.
    """
    found: dict[str, dict[str | int, None]] = {}
    families = set()
    for item in items:
        families.add(item.family)
        for name, level in item.factors.items():
            found.setdefault(name, {})[level] = None
    ordered = {}
    for name, levels in found.items():
        named = _named_order(families, name)
        if all(isinstance(level, int) for level in levels):
            order = sorted(levels, key=int)
        elif named is not None and set(levels) <= set(named):
            order = [level for level in named if level in levels]
        else:
            continue
        if len(order) > 1:
            ordered[name] = {level: rank for rank, level in enumerate(order)}
    return ordered


def _named_order(families: set[str], factor: str) -> tuple[str, ...] | None:
    if factor not in _ORDERED:
        return None
    orders = {
        tuple(map(str, FAMILY_MODULES[f].FACTORS[factor]))
        for f in families & set(FAMILY_MODULES)
        if factor in FAMILY_MODULES[f].FACTORS
    }
    return orders.pop() if len(orders) == 1 else None
