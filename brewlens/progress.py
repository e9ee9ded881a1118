"""Progress bars: each is named after the stage of a run that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tqdm.auto import tqdm

_stage: ContextVar[str] = ContextVar("stage", default="")


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Name the bars inside the block after a stage."""
    token = _stage.set(name)
    try:
        yield
    finally:
        _stage.reset(token)


def bar(over: Iterable | None = None, *, shown: bool, work: str, unit: str, total: int | None = None) -> tqdm:
    """A progress bar, shown or not.

    Args:
        over: What it runs over; without, the caller updates it.
        shown: Whether it is drawn.
        work: Its name outside a stage.
        unit: What it counts.
        total: How many, where ``over`` does not tell.
    """
    return tqdm(over, desc=_stage.get() or work, disable=not shown, unit=unit, total=total)
