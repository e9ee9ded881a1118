"""The program families by name: the six that come with brewlens, and a caller's own.

A family is its factors and a function that draws one program of given levels, with names and literals left
open (:mod:`brewlens.tasks.draft`). The generator fills them in, so that all families keep what it promises:
answers got by running, no skeleton twice, balance, universes, and twins.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import product
from types import ModuleType

from brewlens.tasks import computing, conditional, function_call, loop, loop_unrolled, value_tracking
from brewlens.tasks.draft import RESULT, Sketch
from brewlens.tasks.sources import RESERVED

Level = str | int
Sketcher = Callable[..., Sketch]


@dataclass(frozen=True)
class OwnFamily:
    """A family that :func:`family` made of a function."""

    FACTORS: Mapping[str, Sequence[Level]]
    sketch: Sketcher


Source = ModuleType | OwnFamily

FAMILY_MODULES: dict[str, Source] = {
    module.__name__.rsplit(".", 1)[1]: module
    for module in (value_tracking, computing, conditional, function_call, loop, loop_unrolled)
}
FAMILIES: tuple[str, ...] = tuple(FAMILY_MODULES)
"""The families that come with brewlens. Those of a caller are not among them: ask for them by name."""

_TOTALS = ("all", "overall")  # what tables call the families together


def family(**factors: Sequence[Level]) -> Callable[[Sketcher], Sketcher]:
    """Make a function a program family, named after the function, for this session. For example::

        @bl.tasks.family(terms=(2, 3, 4), last=("kept", "dropped"))
        def total(rng, terms, last):
            draft = bl.tasks.Draft(rng)
            names = [draft.name() for _ in range(terms)]
            draft.main += [f"{name} = {draft.lit(0, 4)}" for name in names]
            draft.finish(" + ".join(names if last == "kept" else names[:-1]))
            return draft.sketch(inlinable=False)

        items = bl.tasks.generate("total", n=270)

    The function is called with a ``random.Random`` and one level of each factor, once for every program. It
    returns a program with slots for names and literals, which :class:`brewlens.tasks.Draft` writes. All that
    is random must come from ``rng``. The values of the literals are drawn afterwards, until the answer is a
    digit that is wanted. Whatever the function, an item's answer is what its program gives when it is run.

    A run folder cannot hold code, so ``brewlens run`` takes such items from a file
    (:func:`brewlens.tasks.write_items`), without their twins; :func:`brewlens.trace` takes them as they are.

    Args:
        **factors: The levels of each factor, text or whole numbers; numbers are taken for an order of
            difficulty. Every combination is a configuration.

    Returns:
        A decorator that gives the function back unchanged.

    Raises:
        ValueError: If there is no factor, a factor has no levels, has one twice or is named like a column of
            the tables; if the name is taken by another function or by brewlens; if the function does not
            take ``rng`` and the factors, or does not give a sketch that assigns the result. Running one
            definition again, as one does in a notebook, replaces it.
    """
    levels = {name: tuple(values) for name, values in factors.items()}
    _check_factors(levels)

    def register(sketch: Sketcher) -> Sketcher:
        name = sketch.__name__
        there = FAMILY_MODULES.get(name)
        same = isinstance(there, OwnFamily) and _place(there.sketch) == _place(sketch)
        if name in _TOTALS or (there is not None and not same):
            raise ValueError(
                f"a family is named after its function, and {name!r} is taken; name the function otherwise. "
                f"There are {', '.join(FAMILY_MODULES)}; {' and '.join(_TOTALS)} stand for several families"
            )
        _check_sketches(name, sketch, levels)
        FAMILY_MODULES[name] = OwnFamily(levels, sketch)
        return sketch

    return register


def _place(function: Sketcher) -> tuple[str, str]:
    """Where a function is defined; another of that name there takes its place in Python, too."""
    return function.__module__, function.__qualname__


def _check_factors(factors: Mapping[str, Sequence[Level]]) -> None:
    if not factors:
        raise ValueError(
            "a family needs at least one factor with its levels, found none: family(depth=(1, 2))"
        )
    for name, levels in factors.items():
        if name in RESERVED:
            raise ValueError(
                f"factor {name!r} is named like a column of the tables ({', '.join(RESERVED)}); "
                "name it otherwise"
            )
        typed = all(type(level) in (int, str) for level in levels)
        if not typed or not levels or len(set(levels)) != len(levels):
            raise ValueError(
                f"factor {name!r} needs different levels, text or whole numbers, found {list(levels)}"
            )


def _check_sketches(name: str, sketch: Sketcher, factors: Mapping[str, Sequence[Level]]) -> None:
    """Draw one program of each configuration."""
    rng = random.Random(name)
    try:
        signature(sketch).bind(rng, **{factor: levels[0] for factor, levels in factors.items()})
    except TypeError as error:
        raise ValueError(
            f"{name} is called with rng and its factors, as {name}(rng, {', '.join(factors)}); {error}"
        ) from None
    for combination in product(*factors.values()):
        drawn = sketch(rng, **dict(zip(factors, combination, strict=True)))
        if not isinstance(drawn, Sketch) or RESULT not in drawn.template:
            raise ValueError(
                f"{name} must return a sketch whose result is bound, draft.finish(value) and then "
                f"draft.sketch(); for {combination} it gave {drawn!r}"
            )
