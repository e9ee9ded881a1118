"""Timing in turns: what disturbs the machine disturbs every way alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch


@dataclass(frozen=True)
class Timed:
    """Seconds of each repeat, and what the last one returned."""

    seconds: tuple[float, ...]
    result: Any

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return median(self.seconds)


def race(ways: Mapping[str, Callable[[], Any]], repeats: int, device: str = "cpu") -> dict[str, Timed]:
    """Time each way once, then each again, and so on."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results = {}
    for _ in range(repeats):
        for name, way in ways.items():
            _wait(device)
            start = time.perf_counter()
            results[name] = way()
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: Timed(tuple(times), results[name]) for name, times in seconds.items()}


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of torch and of the linear algebra behind numpy, inside the block."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
