"""Repetitions: every part's runs, spread over processes, as tables of one row per run and finding."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

import pandas as pd
from tqdm.auto import tqdm

NULL_RUNS = 500  # of each kind with each number of layers
PLANTED_RUNS = 200
COVERAGE_RUNS = 1000


@dataclass
class Repeated:
    """What came of it.

    Attributes:
        tables: By part, one row per run and finding.
        minutes: By part, wall time.
        processes: That worked side by side.
    """

    processes: int
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    minutes: dict[str, float] = field(default_factory=dict)


def repeat(parts: Sequence[str], *, quick: bool, processes: int) -> Iterator[Repeated]:
    """Run parts; what there is so far after each of them.

    Args:
        parts: Of ``nulls``, ``planted`` and ``coverage``.
        quick: A hundredth of the repetitions, at least two of each.
        processes: That work side by side.
    """
    from benchmarks.truth.coverage import INTERVALS
    from benchmarks.truth.nulls import KINDS, LAYERS
    from benchmarks.truth.planted import specs

    def few(runs: int) -> int:
        return max(2, runs // 100) if quick else runs

    work: dict[str, tuple[Callable, list]] = {
        "nulls": (
            _null,
            [(kind, layers, seed) for seed in range(few(NULL_RUNS)) for kind in KINDS for layers in LAYERS],
        ),
        "planted": (_planted, list(specs(few(PLANTED_RUNS)))),
        "coverage": (_coverage, [(name, seed) for seed in range(few(COVERAGE_RUNS)) for name in INTERVALS]),
    }
    found = Repeated(processes)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_alone) as pool:
        for part in parts:
            run, jobs = work[part]
            start = time.perf_counter()
            frames = _gather(pool, run, jobs, part)
            found.tables[part] = pd.concat(frames, ignore_index=True)
            found.minutes[part] = (time.perf_counter() - start) / 60
            yield found


def _gather(pool: ProcessPoolExecutor, run: Callable, jobs: Sequence, part: str) -> Iterable[pd.DataFrame]:
    size = 1 if len(jobs) < 500 else 8
    return list(tqdm(pool.map(run, jobs, chunksize=size), total=len(jobs), desc=part, mininterval=10))


def _alone() -> None:
    """One thread in each process; they fill the cores by themselves."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)


def _null(job: tuple[str, int, int]) -> pd.DataFrame:
    from benchmarks.truth.nulls import null_run

    kind, layers, seed = job
    found = null_run(kind, layers, 10 * seed)
    table = pd.DataFrame({"test": list(found.p), "p": list(found.p.values())})
    table = table.assign(
        kind=kind,
        n_layers=layers,
        run=seed,
        false_claims=len(found.false_claims),
        present_available=found.present[0],
        present_ready=found.present[1],
    )
    return table


def _planted(spec) -> pd.DataFrame:
    from benchmarks.truth.planted import planted_run

    return planted_run(spec)


def _coverage(job: tuple[str, int]) -> pd.DataFrame:
    from benchmarks.truth.coverage import INTERVALS

    name, seed = job
    return pd.DataFrame(
        [
            {"interval": f"{name}{part}", "run": seed, "covers": hit}
            for part, hit in INTERVALS[name](seed).items()
        ]
    )
