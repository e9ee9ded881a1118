"""Programs as batches of token ids: made ahead in a second process, the same whatever the timing.

A *chunk* is a buffer of programs cut into batches of like length. Chunk ``k`` is a function of
``(seed, k, stage)`` alone, so a resumed run asks for the chunk that it was in and replays nothing.
This module does not import torch: the second process stays small.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import numpy as np
from jaxtyping import Int32
from tokenizers import Tokenizer

from brewlens.brief import brief
from brewlens.reference.config import EASY_LEVELS
from brewlens.tasks.item import Item

Stage = Literal["easy", "all", "bare"]
"""Only the easiest levels; all of them; all of them and questions without a program."""

Source = Callable[[int, Stage], Iterator[Item]]
"""``(seed, stage) -> endless programs``; importable by name, because the second process imports it."""

BARE_SHARE = 1 / 64

_AHEAD = 2  # chunks in the making while one is used


@dataclass(frozen=True)
class Batch:
    """Programs with their answers, right-padded with id 0.

    Attributes:
        tokens: Token ids; the last of every row is the answer.
        lengths: Tokens per program, the answer included.
    """

    tokens: Int32[np.ndarray, "batch position"]
    lengths: Int32[np.ndarray, " batch"]

    __repr__ = brief


def training_programs(seed: int, stage: Stage) -> Iterator[Item]:
    """An endless stream of programs of the training universe.

    Args:
        seed: Seed of the stream.
        stage: ``easy``: only the easiest levels (one call, two steps, two iterations). ``bare``: one in
            64 is a question without a program, whose answer is any digit, so that the prior which
            context-stripped decoding subtracts is that of a model that has met the question alone.
    """
    from brewlens import tasks

    programs = tasks.stream(seed, universe="train", levels=EASY_LEVELS if stage == "easy" else None)
    return _with_bare_questions(programs, seed) if stage == "bare" else programs


def _with_bare_questions(programs: Iterator[Item], seed: int) -> Iterator[Item]:
    rng = random.Random(f"bare {seed}")
    for program in programs:
        if rng.random() < BARE_SHARE:
            digit = str(rng.randrange(10))
            program = replace(program, code="", prompt=program.suffix, answer=digit, twins={})
        yield program


def chunk_seed(seed: int, index: int) -> int:
    """Seed of one chunk's stream: distinct for every ``(seed, index)`` that can occur."""
    return random.Random(f"brewlens reference {seed} {index}").getrandbits(60)


def make_chunk(
    source: Source, tokenizer: Tokenizer, seed: int, index: int, stage: Stage, *, size: int, batch: int
) -> list[Batch]:
    """The batches of one chunk, in the order in which they are trained on.

    Args:
        source: Where the programs come from.
        tokenizer: Turns text into ids.
        seed: The run's seed.
        index: Number of the chunk.
        stage: Passed to ``source``.
        size: Programs in the chunk.
        batch: Programs in a batch.
    """
    own = chunk_seed(seed, index)
    texts = [item.prompt + item.answer for item in islice(source(own, stage), size)]
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    rng = random.Random(own)
    order = sorted(range(size), key=lambda i: (len(ids[i]), rng.random()))
    batches = [pad([ids[i] for i in order[start : start + batch]]) for start in range(0, size, batch)]
    rng.shuffle(batches)
    return batches


def pad(sequences: list[list[int]]) -> Batch:
    """Token ids as one array, right-padded with id 0."""
    lengths = np.array([len(s) for s in sequences], dtype=np.int32)
    tokens = np.zeros((len(sequences), int(lengths.max())), dtype=np.int32)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = sequence
    return Batch(tokens, lengths)


class Feed:
    """Batches in order, made ahead of their use.

    Args:
        source: Where the programs come from.
        tokenizer: The tokenizer, as its JSON text.
        seed: The run's seed.
        size: Programs in a chunk.
        batch: Programs in a batch.
        background: Whether a second process makes the chunks; else they are made when needed.
        plan: ``(chunk index, stage)`` of the chunks that were asked for already, the current one first,
            as :attr:`plan` of the interrupted run gave it.
        position: Batches of the current chunk that are used already.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: str,
        seed: int,
        *,
        size: int,
        batch: int,
        background: bool = True,
        plan: list[tuple[int, Stage]] | None = None,
        position: int = 0,
    ) -> None:
        arguments = (source, tokenizer, seed, size, batch)
        self._pool: Executor | None = None
        if background:
            self._pool = ProcessPoolExecutor(
                1,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=arguments,
            )
        else:
            self._inline = _Maker(*arguments)
        self._waiting: deque[tuple[int, Stage, Future[list[Batch]] | None]] = deque()
        self._next = 0
        self._current: list[Batch] | None = None
        self._position, self._per_chunk = position, -(-size // batch)
        for index, stage in plan or []:
            self._ask(index, stage)

    @property
    def plan(self) -> list[tuple[int, Stage]]:
        """``(chunk index, stage)`` of the current chunk and of those already asked for."""
        return [(index, stage) for index, stage, _ in self._waiting]

    @property
    def position(self) -> int:
        """Batches of the current chunk that have been given out."""
        return self._position

    def next(self, stage: Stage) -> Batch:
        """The next batch; ``stage`` decides about the chunks that are asked for from now on."""
        if self._position == self._per_chunk:
            self._waiting.popleft()
            self._current, self._position = None, 0
        while len(self._waiting) <= _AHEAD:
            self._ask(self._next, stage)
        if self._current is None:
            index, kind, future = self._waiting[0]
            self._current = self._inline(index, kind) if future is None else future.result()
        self._position += 1
        return self._current[self._position - 1]

    def _ask(self, index: int, stage: Stage) -> None:
        future = self._pool.submit(_make_in_worker, index, stage) if self._pool else None
        self._waiting.append((index, stage, future))
        self._next = index + 1

    def close(self) -> None:
        """End the second process, without waiting for chunks that nobody will use."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Maker:
    """Makes chunks by number."""

    def __init__(self, source: Source, tokenizer: str, seed: int, size: int, batch: int) -> None:
        self._source, self._seed, self._size, self._batch = source, seed, size, batch
        self._tokenizer = Tokenizer.from_str(tokenizer)

    def __call__(self, index: int, stage: Stage) -> list[Batch]:
        return make_chunk(
            self._source, self._tokenizer, self._seed, index, stage, size=self._size, batch=self._batch
        )


_WORKER: dict[str, _Maker] = {}  # filled in the second process only


def _start_worker(source: Source, tokenizer: str, seed: int, size: int, batch: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core is for the training steps
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _WORKER["maker"] = _Maker(source, tokenizer, seed, size, batch)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make_in_worker(index: int, stage: Stage) -> list[Batch]:
    return _WORKER["maker"](index, stage)
