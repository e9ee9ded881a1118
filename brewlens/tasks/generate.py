"""The generator: balanced, duplicate-free sets for evaluation, and an endless stream for training."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, product

from brewlens.tasks.families import FAMILIES, FAMILY_MODULES, Source
from brewlens.tasks.folds import UNIVERSES, universe_of
from brewlens.tasks.item import Item, ItemSet
from brewlens.tasks.twins import Candidate, Writer, with_twins

_TWIN_FAMILY = {"loop": "loop_unrolled", "loop_unrolled": "loop"}
_DRAWS = 64  # literal draws per sketch
_PATIENCE = 20  # sketches without a new item before every answer's quota is raised by one


def configurations(
    family: str, levels: Mapping[str, Sequence[str | int]] | None = None
) -> list[dict[str, str | int]]:
    """Every combination of the family's factors: 27 for those of brewlens, fewer where ``levels`` restricts.

    Raises:
        ValueError: If the family or a level is unknown.
    """
    factors = dict(_module(family).FACTORS)
    for name, wanted in (levels or {}).items():
        if name in factors:
            if unknown := [w for w in wanted if w not in factors[name]]:
                raise ValueError(f"{family}: {name} has levels {factors[name]}, asked for {unknown}")
            factors[name] = tuple(wanted)
    return [dict(zip(factors, combination, strict=True)) for combination in product(*factors.values())]


def _module(family: str) -> Source:
    if family not in FAMILY_MODULES:
        raise ValueError(f"unknown family {family!r}; the families are {', '.join(FAMILY_MODULES)}")
    return FAMILY_MODULES[family]


def generate(
    families: str | Sequence[str] = FAMILIES, n: int = 810, seed: int = 0, *, universe: str = "eval"
) -> ItemSet:
    """Generate ``n`` items of each family, with their twins.

    The ``n`` items are spread evenly over the family's configurations, answers are balanced within
    each as far as it allows, no skeleton occurs twice, and every answer was got by running the program.
    An item and its twins belong to one universe. A family's items do not depend on which other families
    are asked for. Same arguments, same bytes.

    Args:
        families: One family or several, your own (:func:`brewlens.tasks.family`) among them.
        n: Items per family.
        seed: Any integer.
        universe: ``eval``, which the bundled reference model has never seen, or ``train``.

    Returns:
        The items in the order of families and configurations. ``provenance["short"]`` names the
        configurations that could not give as many distinct programs as asked, with what they gave.

    Raises:
        ValueError: If a family or universe is unknown, a family is named twice, or ``n`` is below 1.
    """
    families = (families,) if isinstance(families, str) else tuple(families)
    if universe not in UNIVERSES:
        raise ValueError(f"unknown universe {universe!r}; choose one of {', '.join(UNIVERSES)}")
    if n < 1:
        raise ValueError(f"n is the number of items per family and must be at least 1, found {n}")
    if len(set(families)) != len(families) or not families:
        raise ValueError(f"families must be named once each, at least one; found {list(families)}")
    items: list[Item] = []
    partners: dict[str, Item] = {}
    short: dict[str, str] = {}
    for family in families:
        made, twins, missing = _generate_family(family, n, seed, universe)
        items += made
        partners.update((twin.id, twin) for twin in twins)
        short.update(missing)
    for item in items:
        partners.pop(item.id, None)
    seen: dict[str, Item] = {}
    for item in items:
        if (first := seen.setdefault(item.skeleton, item)) is not item:
            raise AssertionError(f"{item.id} and {first.id} are one program renamed")
    provenance = {
        "source": "generated",
        "families": list(families),
        "n": n,
        "seed": seed,
        "universe": universe,
        "short": short,
    }
    return ItemSet(tuple(items), partners, provenance)


def _generate_family(
    family: str, n: int, seed: int, universe: str
) -> tuple[list[Item], list[Item], dict[str, str]]:
    module = _module(family)
    grid = configurations(family)
    items: list[Item] = []
    partners: list[Item] = []
    short: dict[str, str] = {}
    seen: set[str] = set()
    # Twin families draw from one source, so that item k of one is the exact twin of item k of the other.
    source = "loop" if family in _TWIN_FAMILY else family
    for number, factors in enumerate(grid):
        wanted = n // len(grid) + (number < n % len(grid))
        rng = random.Random(f"brewlens {source} {seed} {universe} {number}")
        made = 0
        # Where the items of a configuration are no multiple of ten, each has its own digits over.
        quota = [wanted // 10 + ((digit - number * wanted) % 10 < wanted % 10) for digit in range(10)]
        for writer, literals, other in _balanced(module, factors, quota, seen, universe, rng, family):
            index = f"{number:02d}.{made:03d}"
            twin_family = _TWIN_FAMILY.get(family)
            twin_id = f"{twin_family}-{seed}-{index}" if twin_family else None
            item, twins = with_twins(writer, f"{family}-{seed}-{index}", literals, other, twin_id)
            items.append(item)
            partners += twins
            made += 1
        if made < wanted:
            name = "/".join(str(level) for level in factors.values())
            short[f"{family}/{name}"] = f"{made} of {wanted}"
    return items, partners, short


def _balanced(
    module: Source,
    factors: Mapping[str, str | int],
    quota: Sequence[int],
    seen: set[str],
    universe: str,
    rng: random.Random,
    family: str,
) -> Iterator[tuple[Writer, dict[str, object], dict[str, object]]]:
    """New programs of one configuration, ``quota[digit]`` of each answer as far as it can be."""

    def allowed(skeleton: str) -> bool:
        return universe_of(skeleton) == universe

    left = list(quota)
    wanted, raised, idle, made = sum(quota), 0, 0, 0
    while made < wanted and raised <= wanted:
        candidate = Candidate(module.sketch(rng, **factors))
        found = _draw(candidate, left, seen, allowed, rng)
        if found is None:
            idle += 1
            if idle > _PATIENCE:
                left = [room + 1 for room in left]
                raised, idle = raised + 1, 0
            continue
        literals, other, answer = found
        seen.update(_own(candidate, literals))
        left[answer] -= 1
        made, idle = made + 1, 0
        yield Writer(candidate, family, factors, rng), literals, other


def _draw(
    candidate: Candidate,
    left: Sequence[int],
    seen: set[str],
    allowed: Callable[[str], bool],
    rng: random.Random,
) -> tuple[dict[str, object], dict[str, object], int] | None:
    """Literals for a sketch such that it is a new program with an answer that is still wanted."""
    for _ in range(_DRAWS):
        literals = candidate.sketch.literals(rng)
        answer = candidate.answer(literals)
        if answer is None or left[answer] <= 0:
            continue
        if any(s in seen for s in _own(candidate, literals)) or not all(
            map(allowed, candidate.skeletons(literals))
        ):
            continue
        other = candidate.counterfactual(literals, answer, allowed, rng)
        if other is not None:
            return literals, other, answer
    return None


def _own(candidate: Candidate, literals: Mapping[str, object]) -> Iterator[str]:
    """The skeletons that no other item may have: also the twin's, where the twin is itself an item."""
    own = candidate.skeletons(literals)
    return own if candidate.sketch.twin_kind in ("loop", "unrolled") else islice(own, 1)


def stream(
    seed: int,
    families: Sequence[str] = FAMILIES,
    *,
    universe: str = "train",
    levels: Mapping[str, Sequence[str | int]] | None = None,
) -> Iterator[Item]:
    """An endless stream of programs for training, without twins; a skeleton may come again.

    Families, configurations and, as far as a program allows it, answers are drawn uniformly.

    Args:
        seed: Any integer.
        families: The families.
        universe: Every skeleton of the stream belongs to it.
        levels: Factor -> levels, to restrict the configurations; a family without the factor is not
            affected.
    """
    rng = random.Random(f"brewlens stream {seed} {universe}")
    grids = [(family, _module(family), configurations(family, levels)) for family in families]
    number = 0
    while True:
        family, module, grid = rng.choice(grids)
        factors = rng.choice(grid)
        candidate = Candidate(module.sketch(rng, **factors))
        target = rng.randrange(10)
        best: dict[str, object] | None = None
        for _ in range(12):
            literals = candidate.sketch.literals(rng)
            answer = candidate.answer(literals)
            if answer is None or (best is not None and answer != target):
                continue
            if universe_of(candidate.main.skeleton(literals)) == universe:
                best = literals
                if answer == target:
                    break
        if best is not None:
            yield Writer(candidate, family, factors, rng).item(f"{family}-s{seed}-{number}", best)
            number += 1
