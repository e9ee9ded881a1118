"""The published recipe against a plain reading of its definitions; the comparison against slow arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from brewlens.answers import DIGITS
from brewlens.decoding.readout import Readout
from brewlens.lifecycle import NEVER, lifecycle
from brewlens.lifecycle.comparison import _Column, _linearised, side_by_side
from brewlens.lifecycle.onsets import Onsets
from brewlens.lifecycle.paper import DEPTHS, LABEL_FREE, paper_lifecycle
from brewlens.lifecycle.signals import signals
from brewlens.planted import draw_truth, simulate
from brewlens.stats import clustered_mean

# ---------------------------------------------------------------------------------------------------------
# The recipe once more, in plain Python: dictionaries and loops, nothing of brewlens.


def distribution(scores):
    top = max(scores.values())
    weights = {digit: math.exp(score - top) for digit, score in scores.items()}
    total = math.fsum(weights.values())
    return {digit: weight / total for digit, weight in weights.items()}


def favourite(scores):
    """The digit of the largest score, the lowest one of several."""
    best = None
    for digit in "0123456789":
        if best is None or scores[digit] > scores[best]:
            best = digit
    return best


def nats(p):
    return -math.fsum(x * math.log(x) for x in p.values() if x > 0)


def read_aloud(probe, stripped, answer, said):
    """One sample: scores of each digit by layer; ``said`` is the first choice over the full vocabulary."""
    layers = len(probe)
    fpcl = fcc = fjc = None
    for layer in range(layers):
        available = favourite(probe[layer]) == answer
        ready = favourite(stripped[layer]) == answer
        if available and fpcl is None:
            fpcl = layer
        if ready and fcc is None:
            fcc = layer
        if available and ready and fjc is None:
            fjc = layer
    tail = [layer for layer in range(layers) if layer >= math.floor(3 * layers / 4)]
    c = {layer: distribution(stripped[layer]) for layer in tail}
    p = {layer: distribution(probe[layer]) for layer in tail}
    confidence = max(math.fsum(c[layer][t] for layer in tail) / len(tail) for t in "0123456789")
    if fpcl is None:
        outcome = "no_brewing"
    elif fjc is not None and said == answer:
        outcome = "resolved"
    elif fjc is not None and said != answer:
        outcome = "overprocessed"
    elif confidence >= 1 / 2:
        outcome = "misresolved"
    else:
        outcome = "unresolved"
    h = math.fsum(nats(c[layer]) for layer in tail) / len(tail) / math.log(10)
    hp = math.fsum(nats(p[layer]) for layer in tail) / len(tail) / math.log(10)
    d = 0.0
    for layer in tail:
        middle = {t: (c[layer][t] + p[layer][t]) / 2 for t in "0123456789"}
        d += (nats(middle) - nats(c[layer]) / 2 - nats(p[layer]) / 2) / math.log(2) / len(tail)
    a = sum(favourite(stripped[layer]) == favourite(probe[layer]) for layer in tail) / len(tail)
    return {
        "fpcl": fpcl,
        "fcc": fcc,
        "fjc": fjc,
        "brewing": None if fjc is None else fjc - fpcl,
        "output_correct": said == answer,
        "tail_confidence": confidence,
        "outcome": outcome,
        "h": h,
        "hp": hp,
        "d": d,
        "a": a,
        "rho": (1 - h) * (1 - d) * a,
    }


@st.composite
def recordings(draw):
    """Two readouts with classes in any order, ties, an ``other`` class or none, and what the model says."""
    n, layers = draw(st.integers(0, 6)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    classes = list(DIGITS) + ["other"] * draw(st.booleans())
    if draw(st.booleans()):
        rng.shuffle(classes)
    shape = (n, layers, len(classes))
    kind = draw(st.sampled_from(["noise", "coarse", "persistent", "flat"]))
    z = rng.normal(0, draw(st.sampled_from([0.3, 2.0, 20.0])), (2, *shape))
    if kind == "coarse":
        z = rng.integers(-1, 2, (2, *shape)) * draw(st.sampled_from([1.0, 50.0]))
    elif kind == "persistent":  # one wrong or right favourite through all layers
        z += 5 * rng.normal(size=(2, n, 1, len(classes))) + 3 * np.cumsum(
            rng.normal(size=(2, *shape)), axis=2
        )
    elif kind == "flat":
        z = np.zeros((2, *shape))
    ids = tuple(f"i{row}" for row in range(n))
    readouts = [
        Readout(values.astype(np.float32), tuple(classes), name, ids)
        for values, name in zip(z, ("probe", "context_stripped"), strict=True)
    ]
    answers = [str(rng.integers(10)) for _ in ids]
    if n and draw(st.booleans()):  # often right somewhere, often said
        answers = [favourite(dict(zip(classes, row[rng.integers(layers)], strict=True))) for row in z[0]]
    output = rng.integers(0, len(classes), n)
    right = rng.uniform(size=n) < 0.5
    output = np.where(right, [classes.index(answer) for answer in answers], output).astype(int)
    return readouts, answers, output, rng.uniform(size=n) < 0.3


def scored(readouts, answers, output, miss, families=None):
    return paper_lifecycle(
        *readouts,
        families=families or ["f"] * len(answers),
        answers=answers,
        output=output,
        format_miss=miss,
    )


@given(recordings())
@settings(max_examples=150, deadline=None)
def test_as_read_aloud(recording):
    readouts, answers, output, miss = recording
    found = scored(readouts, answers, output, miss)
    frame = found.to_frame()
    classes = readouts[0].classes
    expected = []
    for row, answer in enumerate(answers):
        layers = [[dict(zip(classes, z, strict=True)) for z in r.logits[row].tolist()] for r in readouts]
        digits = [[{t: z[t] for t in DIGITS} for z in each] for each in layers]
        said = "something else" if miss[row] else classes[output[row]]
        expected.append(read_aloud(*digits, answer, said))
    assert len(frame) == len(expected)
    for row, one in enumerate(expected):
        got = frame.loc[row]
        for name in DEPTHS:
            assert (None if pd.isna(got[name]) else got[name]) == one[name]
        assert got["output_correct"] == one["output_correct"]
        assert got["tail_confidence"] == pytest.approx(one["tail_confidence"], abs=1e-12)
        rounding = 0 < abs(one["tail_confidence"] - 0.5) < 1e-12
        assert got["outcome"] == one["outcome"] or rounding
        for name in LABEL_FREE:
            assert got[name] == pytest.approx(one[name], abs=1e-9)
    brewed = [one["outcome"] for one in expected if one["fpcl"] is not None]
    for name, value in found.shares().items():
        assert math.isnan(value) if not brewed else value == pytest.approx(brewed.count(name) / len(brewed))
    for name, value in found.depths().items():
        hits = [one[name] / readouts[0].n_layers for one in expected if one[name] is not None]
        assert math.isnan(value) if not hits else value == pytest.approx(sum(hits) / len(hits))


def test_random_recordings_reach_every_outcome():
    """What the comparison above is worth: none of the five labels is left out of it."""
    seen = set()

    @given(recordings())
    @settings(max_examples=60, deadline=None, derandomize=True)
    def look(recording):
        seen.update(scored(*recording).outcome.tolist())

    look()
    assert seen == {"no_brewing", "resolved", "overprocessed", "misresolved", "unresolved"}


# ---------------------------------------------------------------------------------------------------------
# By hand


def readout(predicted, decoder, p=0.9):
    predicted = np.asarray(predicted)
    probabilities = np.full((*predicted.shape, 10), (1 - p) / 9)
    np.put_along_axis(probabilities, predicted[..., None], p, axis=2)
    return Readout(np.log(probabilities), DIGITS, decoder, tuple(f"i{k}" for k in range(len(predicted))))


def hand(probe, stripped, output, miss=None, answers=None, p=0.9):
    n = len(probe)
    return scored(
        (readout(probe, "probe"), readout(stripped, "context_stripped", p)),
        answers or ["5"] * n,
        np.array(output, dtype=int),
        np.array(miss or [False] * n, dtype=bool),
    )


def test_one_sample_of_each_kind():
    found = hand(
        [
            [0, 5, 5, 5],  # available at 1, both at 2, said
            [0, 5, 5, 5],  # the same, overwritten
            [5, 0, 0, 0],  # a wrong digit is all that is ready
            [5, 0, 0, 0],  # nothing joint, though the right digit is ready at the end and said
            [1, 2, 3, 4],  # nothing available
            [0, 5, 5, 5],  # said, but something that is no digit comes first
        ],
        [[0, 0, 5, 5], [0, 0, 5, 2], [7, 7, 7, 7], [0, 0, 5, 5], [5, 5, 5, 5], [0, 0, 5, 5]],
        [5, 2, 7, 5, 5, 5],
        [False] * 5 + [True],
    )
    assert found.outcome.tolist() == [
        "resolved", "overprocessed", "misresolved", "misresolved", "no_brewing", "overprocessed",
    ]  # fmt: skip
    assert found.landmarks.fpcl.tolist() == [1, 1, 0, 0, NEVER, 1]
    assert found.landmarks.fcc.tolist() == [2, 2, NEVER, 2, 0, 2]
    assert found.landmarks.fjc.tolist() == [2, 2, NEVER, NEVER, NEVER, 2]
    assert found.shares() == {"resolved": 0.2, "overprocessed": 0.4, "misresolved": 0.4, "unresolved": 0.0}
    depths = found.depths()
    assert depths["fpcl"] == pytest.approx((1 + 1 + 0 + 0 + 1) / 5 / 4)
    assert depths["fjc"] == pytest.approx(2 / 4)
    assert depths["brewing"] == pytest.approx(1 / 4)
    frame = found.to_frame()
    assert frame["fpcl"].dtype == "Int64" and frame["fpcl"].isna().tolist() == [False] * 4 + [True, False]
    assert frame["output_correct"].tolist() == [True, False, False, True, True, False]


@pytest.mark.parametrize(
    ("layers", "start"), [(1, 0), (2, 1), (3, 2), (4, 3), (5, 3), (7, 5), (28, 21), (30, 22)]
)
def test_the_tail_starts_at_the_floor_of_three_quarters(layers, start):
    stripped = np.zeros((1, layers), dtype=int)
    stripped[0, start:] = 3
    probe = np.full((1, layers), 1)
    confidence = hand(probe, stripped, [1], answers=["1"], p=0.75).tail_confidence[0]
    assert confidence == pytest.approx(0.75)
    stripped[0, start] = 0
    n, rest = layers - start, 0.25 / 9
    expected = max((n - 1) * 0.75 + rest, 0.75 + (n - 1) * rest) / n
    found = hand(probe, stripped, [1], answers=["1"], p=0.75)
    assert found.tail_confidence[0] == pytest.approx(expected)


def test_a_mean_of_exactly_one_half_is_confident():
    z = np.full((2, 4, 10), -np.inf)
    z[0, :, [3, 4]] = 1.7  # two digits of probability 1/2
    z[1, :, [3, 4, 6]] = 1.7
    probe = readout([[5, 0, 0, 0]] * 2, "probe")
    found = scored(
        (probe, Readout(z, DIGITS, "csd", probe.item_ids)),
        ["5", "5"],
        np.array([3, 3]),
        np.zeros(2, dtype=bool),
    )
    assert found.tail_confidence.tolist() == [0.5, pytest.approx(1 / 3)]
    assert found.outcome.tolist() == ["misresolved", "unresolved"]


def test_the_class_other_stays_out():
    z = np.zeros((1, 4, 11), dtype=np.float32)
    z[..., 10], z[..., 5] = 9, 3
    classes, ids = (*DIGITS, "other"), ("i0",)
    readouts = [Readout(z, classes, name, ids) for name in ("probe", "context_stripped")]
    found = scored(readouts, ["5"], np.array([5]), np.array([False]))
    assert found.landmarks.fjc[0] == 0
    assert found.tail_confidence[0] == pytest.approx(math.exp(3) / (math.exp(3) + 9))
    assert found.outcome[0] == "resolved"
    assert scored(readouts, ["5"], np.array([10]), np.array([False])).outcome[0] == "overprocessed"
    assert found.signals.n_classes == 10


def test_none_and_one():
    empty = hand(np.zeros((0, 5), dtype=int), np.zeros((0, 5), dtype=int), np.zeros(0, dtype=int))
    assert len(empty) == 0 and len(empty.to_frame()) == 0
    assert all(math.isnan(v) for v in (*empty.shares().values(), *empty.depths().values()))
    assert hand([[5]], [[5]], [5]).outcome.tolist() == ["resolved"]
    assert "1 of 1 samples with an FPCL: resolved 100.0 %" in repr(hand([[5]], [[5]], [5]))


def test_the_repaired_labels_use_the_same_landmarks():
    made = simulate(draw_truth(300, 16, seed=1), hit=0.8, seed=1)
    arguments = {
        "families": ["f"] * 300,
        "answers": made.answers,
        "output": made.output,
        "format_miss": np.arange(300) % 7 == 0,
    }
    found = paper_lifecycle(made.readouts["probe"], made.readouts["context_stripped"], **arguments)
    life = lifecycle(made.readouts["probe"], made.readouts["context_stripped"], **arguments)
    assert found.outcome.tolist() == life.outcome_paper.tolist()
    assert (found.landmarks.fjc == life.landmarks.fjc).all()


def test_what_does_not_fit_is_refused():
    five = readout([[5]], "probe")
    arguments = {
        "families": ["f"],
        "answers": ["5"],
        "output": np.array([5]),
        "format_miss": np.array([False]),
    }
    letters = Readout(np.zeros((1, 1, 10)), tuple("abcdefghij"), "probe", five.item_ids)
    with pytest.raises(ValueError, match="ten digits as classes"):
        paper_lifecycle(letters, letters, **arguments)
    with pytest.raises(ValueError, match="layers or classes"):
        paper_lifecycle(five, readout([[5, 5]], "context_stripped"), **arguments)
    with pytest.raises(ValueError, match="for 1 samples"):
        paper_lifecycle(five, five, **{**arguments, "families": []})
    with pytest.raises(ValueError, match="differ in their samples"):
        paper_lifecycle(five, Readout(five.logits, DIGITS, "csd", ("other id",)), **arguments)


# ---------------------------------------------------------------------------------------------------------
# Side by side


def compared(n=240, *, worse=0.0, seed=0, with_onsets=False):
    """Two context-stripped readouts of one truth; the constant prompt's has its own noise, and more of it."""
    truth = draw_truth(n, 12, seed=seed)
    own = simulate(truth, hit=0.9, seed=seed)
    other = simulate(truth, hit=0.9 - worse, seed=seed + 1000)
    families = tuple("ab"[row % 2] for row in range(len(truth)))
    arguments = {"families": families, "answers": own.answers, "output": own.output}
    arguments["format_miss"] = np.zeros(len(truth), dtype=bool)
    probe = own.readouts["probe"]
    paper = paper_lifecycle(probe, other.readouts["context_stripped"], **arguments)
    life = lifecycle(probe, own.readouts["context_stripped"], **arguments)
    onsets = None
    if with_onsets:
        sure = np.eye(13)  # the last entry is never, and so is -1
        onsets = {
            "available": Onsets(12, sure[truth.available_from]),
            "ready": Onsets(12, sure[truth.ready_from]),
        }
    free = signals(probe, own.readouts["context_stripped"])
    table = side_by_side(paper, life, free, onsets=onsets)
    return paper, life, free, table.set_index(["family", "quantity"])


def test_values_and_denominators_by_hand():
    paper, life, free, table = compared(with_onsets=False)
    assert table.index.get_level_values("family").unique().tolist() == ["a", "b", "all"]
    for family in ("a", "b", "all"):
        rows = [r for r in range(len(life)) if family == "all" or life.families[r] == family]
        for name in ("resolved", "overprocessed", "misresolved", "unresolved"):
            for who, labels in (("paper", paper.outcome), ("brewlens", life.outcome)):
                kept = [labels[r] for r in rows if labels[r] != "no_brewing"]
                line = table.loc[(family, name)]
                assert line[f"{who}_n"] == len(kept)
                assert line[who] == pytest.approx(kept.count(name) / len(kept))
                assert 0 <= line[f"{who}_low"] <= line[who] <= line[f"{who}_high"] <= 1
        for name in DEPTHS:
            for who, marks in (("paper", paper.landmarks), ("brewlens", life.landmarks)):
                hits = [getattr(marks, name)[r] / 12 for r in rows if getattr(marks, name)[r] != NEVER]
                assert table.loc[(family, name), f"{who}_n"] == len(hits)
                assert table.loc[(family, name), who] == pytest.approx(sum(hits) / len(hits))
        for name in LABEL_FREE:
            assert table.loc[(family, name), "brewlens"] == pytest.approx(getattr(free, name)[rows].mean())
            assert table.loc[(family, name), "paper"] == pytest.approx(
                getattr(paper.signals, name)[rows].mean()
            )
    both = table[table["paper_n"] > 0]
    assert (both["difference"] - (both["brewlens"] - both["paper"])).abs().max() < 1e-12
    assert (
        (both["difference_low"] <= both["difference"]) & (both["difference"] <= both["difference_high"])
    ).all()
    bypassed = table.loc[("all", "bypassed")]
    assert bypassed["paper_n"] == 0 and math.isnan(bypassed["paper"]) and math.isnan(bypassed["difference"])


def test_onsets_stand_beside_first_hits():
    *_, table = compared(with_onsets=True)
    line = table.loc[("all", "fpcl")]
    assert (line["brewlens_n"], line["brewlens_is"]) == (240, "onset of availability/L, of all; never is L")
    assert line["paper_n"] < 240
    brewing, available, ready = (table.loc[("all", name), "brewlens"] for name in ("brewing", "fpcl", "fjc"))
    assert brewing == pytest.approx(ready - available)
    never = draw_truth(240, 12, seed=0).available_from == NEVER
    line = table.loc[("all", "onset_no_brewing")]
    assert line["brewlens"] == pytest.approx(never.mean())
    assert line["paper"] < never.mean()  # most of those have a first hit by chance
    assert table.loc[("all", "onset_resolved"), "brewlens_n"] == (~never).sum()
    assert table.loc[("all", "onset_resolved"), "paper"] == table.loc[("all", "resolved"), "paper"]


def test_a_prompt_that_reads_worse_shows():
    *_, table = compared(600, worse=0.5)
    for name in ("a", "rho"):
        assert table.loc[("all", name), "difference_low"] > 0.05
    *_, table = compared(600, worse=0.0)
    inside = table.loc["all"].query("paper_n > 0")
    missed = ~((inside["difference_low"] <= 0) & (inside["difference_high"] >= 0))
    assert missed.sum() <= 3  # of 15, and some are nearly the same quantity


def test_the_same_arrays_do_not_differ():
    made = simulate(draw_truth(120, 8, mix={"resolved": 1.0}, seed=2), seed=2)
    arguments = {"families": ["f"] * 120, "answers": made.answers, "output": made.output}
    arguments["format_miss"] = np.zeros(120, dtype=bool)
    pair = made.readouts["probe"], made.readouts["context_stripped"]
    paper, life = paper_lifecycle(*pair, **arguments), lifecycle(*pair, **arguments)
    table = side_by_side(paper, life, signals(*pair))
    both = table[table["paper_n"] > 0]
    assert both["difference"].abs().max() < 1e-12
    assert (both["difference_high"] - both["difference_low"]).max() < 1e-12


def test_no_sample_no_number():
    pair = readout([[1, 2]] * 3, "probe"), readout([[5, 5]] * 3, "context_stripped")
    arguments = {"families": ["f"] * 3, "answers": ["5"] * 3, "output": np.array([5] * 3)}
    arguments["format_miss"] = np.zeros(3, dtype=bool)
    paper, life, free = paper_lifecycle(*pair, **arguments), lifecycle(*pair, **arguments), signals(*pair)
    table = side_by_side(paper, life, free).set_index(["family", "quantity"])
    for name in ("resolved", "unresolved", "fpcl", "fjc"):
        line = table.loc[("f", name)]
        assert line["paper_n"] == line["brewlens_n"] == 0
        assert (
            math.isnan(line["paper"]) and math.isnan(line["brewlens_low"]) and math.isnan(line["difference"])
        )
    assert table.loc[("all", "no_brewing"), "paper"] == 1
    assert table.loc[("all", "fcc"), "paper_n"] == 3
    with pytest.raises(ValueError, match="same samples in the same order"):
        side_by_side(paper, life, free.select([0, 1, 1]))
    with pytest.raises(ValueError, match="same samples in the same order"):
        side_by_side(paper, life, free, clusters=[0])


def test_the_error_of_a_difference_is_that_of_deleting_clusters():
    rng = np.random.default_rng(5)
    n = 400
    clusters = rng.integers(0, 150, n)
    effect = rng.normal(size=150)[clusters]
    inside = [rng.uniform(size=n) < share for share in (0.9, 0.5)]
    values = [(effect + rng.normal(size=n) > cut) for cut in (0, 0.3)]
    columns = [_Column(v, d, "") for v, d in zip(values, inside, strict=True)]
    everything = np.arange(n)
    found = clustered_mean(
        _linearised(columns[0], everything) - _linearised(columns[1], everything), clusters
    )

    def difference(keep):
        return values[0][inside[0] & keep].mean() - values[1][inside[1] & keep].mean()

    assert found.value == pytest.approx(difference(np.ones(n, dtype=bool)), abs=1e-12)
    labels = np.unique(clusters)
    without = np.array([difference(clusters != k) for k in labels])
    jackknife = np.sqrt((len(labels) - 1) / len(labels) * np.square(without - without.mean()).sum())
    assert found.se == pytest.approx(jackknife, rel=0.03)


def test_intervals_of_differences_cover():
    rng = np.random.default_rng(6)
    runs, covered = 300, 0
    for _ in range(runs):
        clusters = rng.integers(0, 60, 150)
        effect = 0.7 * rng.normal(size=60)[clusters]
        columns = [
            _Column(effect + rng.normal(size=150) > 0, rng.uniform(size=150) < share, "")
            for share in (0.9, 0.6)
        ]
        rows = np.arange(150)
        found = clustered_mean(_linearised(columns[0], rows) - _linearised(columns[1], rows), clusters)
        covered += found.low <= 0 <= found.high
    assert binom.ppf(0.001, runs, 0.93) <= covered <= binom.ppf(0.999, runs, 0.97)
