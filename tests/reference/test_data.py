"""Batches: every program once, of like length, padded on the right; the same in both processes."""

from itertools import islice

import numpy as np
import pytest
from toy_programs import toy_programs

from brewlens.reference.data import Feed, chunk_seed, make_chunk, training_programs
from brewlens.reference.tokenizer import encode, train_tokenizer
from brewlens.tasks import universe_of


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((p.prompt + p.answer for p in islice(toy_programs(0, "all"), 300)), 300)


def same(first, second):
    return np.array_equal(first.tokens, second.tokens) and np.array_equal(first.lengths, second.lengths)


def test_chunk_holds_every_program_once(tokenizer):
    batches = make_chunk(toy_programs, tokenizer, 1, 4, "all", size=64, batch=8)
    found = sorted(
        tuple(row[:length])
        for batch in batches
        for row, length in zip(batch.tokens, batch.lengths, strict=True)
    )
    source = islice(toy_programs(chunk_seed(1, 4), "all"), 64)
    assert found == sorted(tuple(encode(tokenizer, p.prompt + p.answer)) for p in source)
    for batch in batches:
        padding = np.arange(batch.tokens.shape[1]) >= batch.lengths[:, None]
        assert (batch.tokens[padding] == 0).all() and (batch.tokens[~padding] != 0).all()
        assert batch.tokens.shape == (8, batch.lengths.max())


def test_batches_are_of_like_length(tokenizer):
    batches = make_chunk(toy_programs, tokenizer, 1, 0, "all", size=512, batch=8)
    padded = sum(batch.tokens.size for batch in batches) / sum(batch.lengths.sum() for batch in batches)
    assert padded < 1.02
    lengths = [int(batch.lengths.max()) for batch in batches]
    assert lengths != sorted(lengths)  # but they come in no order of length


def test_second_process_gives_the_same_batches(tokenizer):
    arguments = (toy_programs, tokenizer.to_str(), 7)
    easy = ["easy"] * 5 + ["all"] * 30
    with Feed(*arguments, size=32, batch=8, background=False) as feed:
        want = [feed.next(e) for e in easy]
    with Feed(*arguments, size=32, batch=8, background=True) as feed:
        got = [feed.next(e) for e in easy]
        process = next(iter(feed._pool._processes.values()))
    assert all(same(*pair) for pair in zip(want, got, strict=True))
    assert not process.is_alive()
    assert not same(want[0], want[4])


def test_a_resumed_feed_goes_on_where_it_was(tokenizer):
    arguments = (toy_programs, tokenizer.to_str(), 7)
    easy = ["easy"] * 6 + ["all"] * 34
    with Feed(*arguments, size=32, batch=8, background=False) as feed:
        want = [feed.next(e) for e in easy]
    for stop in (1, 4, 6, 8, 17):
        with Feed(*arguments, size=32, batch=8, background=False) as first:
            got = [first.next(e) for e in easy[:stop]]
        with Feed(
            *arguments, size=32, batch=8, background=False, plan=first.plan, position=first.position
        ) as second:
            got += [second.next(e) for e in easy[stop:]]
        assert all(same(*pair) for pair in zip(want, got, strict=True)), stop


def test_training_programs_are_of_the_training_universe():
    programs = list(islice(training_programs(3, "all"), 300))
    assert {universe_of(p.skeleton) for p in programs} == {"train"}
    assert len({p.family for p in programs}) == 6
    levels = [p.factors.get("depth", p.factors.get("steps", p.factors.get("iterations"))) for p in programs]
    assert set(levels) > {1, 2, 3}
    easy = [p.factors for p in islice(training_programs(3, "easy"), 100)]
    assert {f.get("depth", 1) for f in easy} == {1}
    assert {f.get("steps", 2) for f in easy} == {f.get("iterations", 2) for f in easy} == {2}


def test_chunks_have_seeds_of_their_own():
    assert len({chunk_seed(seed, index) for seed in range(30) for index in range(-1, 30)}) == 30 * 31


def test_bare_questions_are_rare_and_their_answers_even():
    programs = list(islice(training_programs(3, "bare"), 4000))
    bare = [p for p in programs if not p.code]
    assert 30 <= len(bare) <= 100
    assert all(p.prompt == p.suffix and p.prompt.startswith("# The value of ") for p in bare)
    assert len({p.answer for p in bare}) == 10
    assert all(p.code for p in islice(training_programs(3, "all"), 500))
