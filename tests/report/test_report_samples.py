"""The data of single samples: everything comes back, and what does not fit is thinned evenly and told."""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic import CLASSES, synthetic_trace

from brewlens.decoding.readout import Readout
from brewlens.figures import examples
from brewlens.lifecycle.outcomes import OUTCOMES
from brewlens.report.browser import changed, embedded, packed, quantised, thinned


@pytest.fixture(scope="module")
def trace():
    made = synthetic_trace(40, ("computing", "loop"), n_layers=7)
    twins = [made.items.twin(item, "counterfactual") for item in made.items]
    programs = {i.id: i.prompt for i in (*made.items, *twins) if i is not None}
    # A made-up tokenizer: pieces of three characters, the last one shorter; the first stands for nothing.
    ends = [[0, *range(3, len(p), 3), len(p)] for p in programs.values()]
    tokens = pd.DataFrame({"id": list(programs), "token_ids": [[0] * len(e) for e in ends], "ends": ends})
    return made.with_tables(tokens=tokens)


def unpacked(data):
    """What the page's script reads, done naively: the record, and decoder -> [sample, class, layer]."""
    raw = gzip.decompress(base64.b64decode(data))
    length = int.from_bytes(raw[:4], "little")
    record, at, blocks = json.loads(raw[4 : 4 + length]), 4 + length, []
    for decoder in record["decoders"]:
        shape = (len(record["samples"]["id"]), len(record["classes"]), decoder["layers"])
        blocks.append(np.frombuffer(raw[at : at + int(np.prod(shape))], np.uint8).reshape(shape))
        at += int(np.prod(shape))
    assert at == len(raw)
    return record, blocks


def test_every_probability_comes_back_to_a_step(trace):
    found = embedded(trace)
    assert found.shown == found.n == len(trace)
    record, blocks = unpacked(found.data)
    names = {d["name"]: block for d, block in zip(record["decoders"], blocks, strict=True)}
    assert list(names)[:2] == ["linear probe", "context-stripped"] and len(names) == len(trace.readouts)
    assert [d["role"] for d in record["decoders"]] == ["available", "ready", "", "", ""]
    for name, decoder in (
        ("linear probe", "probe"),
        ("logit lens", "logit_lens"),
        ("surface (text only)", "surface"),
    ):
        exact = trace.readouts[decoder].probabilities
        assert names[name].shape == exact.transpose(0, 2, 1).shape
        off = 255 * np.abs(names[name].transpose(0, 2, 1) / 255 - exact)
        assert off.max() <= 1 + 1e-4 and (off > 0.5001).mean() < 0.01
        assert (names[name].argmax(axis=1) == trace.readouts[decoder].predicted).all()


def test_the_prediction_outlives_rounding():
    rng = np.random.default_rng(0)
    for spread in (1e-6, 1e-3, 0.02, 1):
        logits = rng.normal(0, spread, (300, 4, 10)).astype(np.float32)
        readout = Readout(logits, CLASSES, "flat", tuple(map(str, range(300))))
        plain = np.rint(readout.probabilities * 255).argmax(axis=2)
        assert (plain != readout.predicted).any() or spread == 1  # rounding alone would lose it
        steps = quantised(readout, range(300))
        assert (steps.argmax(axis=2) == readout.predicted).all()
        assert np.abs(steps - 255 * readout.probabilities).max() <= 1 + 1e-4


def test_what_is_told_of_a_sample_is_what_the_trace_says(trace):
    record, _ = unpacked(embedded(trace).data)
    samples, frame = record["samples"], trace.to_frame()
    assert all(len(column) == len(trace) for column in samples.values())
    assert samples["id"] == frame["id"].tolist()
    for name in ("fpcl", "fcc", "fjc", "brewing", "available_from", "ready_from", "ready_until"):
        assert samples[name] == [None if pd.isna(v) else int(v) for v in frame[name]], name
    for name in ("outcome", "outcome_paper", "outcome_onset"):
        assert [OUTCOMES[k] for k in samples[name]] == frame[name].tolist()
    assert samples["answer"] == frame["answer"].tolist() and samples["output"] == frame["output"].tolist()
    assert [record["families"][k] for k in samples["family"]] == frame["family"].tolist()
    assert record["start"] == next(iter(examples(trace).values()))


def test_tokens_and_twins(trace):
    samples = unpacked(embedded(trace).data)[0]["samples"]
    tokens = trace.tables["tokens"].set_index("id")["ends"]
    for row, item in enumerate(trace.items):
        text, lengths, span = samples["program"][row]
        assert text == item.prompt and np.cumsum(lengths).tolist() == tokens[item.id]
        twin = trace.items.twin(item, "counterfactual")
        if twin is None:
            assert samples["twin"][row] is samples["twin_answer"][row] is span is None
            continue
        other, _, there = samples["twin"][row]
        assert other == twin.prompt and samples["twin_answer"][row] == twin.answer != item.answer
        assert text[: span[0]] == other[: there[0]] and text[span[1] :] == other[there[1] :]
        assert text[slice(*span)] != other[slice(*there)]
    assert any(twin is not None for twin in samples["twin"])


def test_an_old_run_has_no_tokens(trace):
    tables = {name: table for name, table in trace.tables.items() if name != "tokens"}
    samples = unpacked(embedded(replace(trace, tables=tables)).data)[0]["samples"]
    assert all(lengths is None for _, lengths, _ in samples["program"])


@pytest.mark.parametrize(
    ("text", "other", "stretches"),
    [
        ("x = 1\n", "x = 7\n", ("1", "7")),
        ("x = 12 + y", "x = 13 + y", ("12", "13")),
        ("x = 1\n", "x = 12\n", ("1", "12")),
        ("x = 122\n", "x = 22\n", ("122", "22")),
        ("f(True)", "f(False)", ("True", "False")),
        ("x = -3", "x = 3", ("-", "")),
        ("x < 3", "x > 3", ("<", ">")),
        ("same", "same", ("", "")),
        ("", "x", ("", "x")),
        ("😀 = 1", "😀 = 2", ("1", "2")),
    ],
)
def test_the_changed_literal_is_found_whole(text, other, stretches):
    assert (text[slice(*changed(text, other))], other[slice(*changed(other, text))]) == stretches


def test_thinning_is_even_and_keeps_the_typical_samples(trace):
    rows = thinned(trace, 0.5)
    assert set(examples(trace).values()) <= set(rows.tolist()) and (np.diff(rows) > 0).all()
    families, outcomes = np.array(trace.lifecycle.families), trace.lifecycle.outcome
    whole = Counter(zip(families, outcomes, strict=True))
    some = Counter(zip(families[rows], outcomes[rows], strict=True))
    for cell, count in whole.items():
        assert count / 2 - 0.5 <= some[cell] <= count / 2 + 1.5  # a typical sample may come on top
    large = max(whole, key=whole.get)
    cell = np.flatnonzero((families == large[0]) & (outcomes == large[1]))
    assert np.diff(np.searchsorted(cell, np.intersect1d(cell, rows))).max() <= 3


def test_a_budget_is_kept_and_what_is_left_out_is_said(trace):
    whole, typical = embedded(trace), trace.items.ids[next(iter(examples(trace).values()))]
    for share in (0.9, 0.5, 0.2):
        budget = int(share * len(whole.data))
        found = embedded(trace, budget)
        assert len(found.data) <= budget and share / 2 < found.shown / found.n < share + 0.1
        record, _ = unpacked(found.data)
        assert len(record["samples"]["id"]) == found.shown
        assert record["samples"]["id"][record["start"]] == typical
    none = embedded(trace, 100)
    assert (none.data, none.shown, none.n) == ("", 0, len(trace))


def test_the_same_trace_gives_the_same_bytes(trace):
    assert packed(trace, range(9)) == packed(trace, range(9)) and embedded(trace) == embedded(trace)
