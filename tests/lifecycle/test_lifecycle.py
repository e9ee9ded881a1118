"""Landmarks and outcomes against a line-by-line reading of their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from brewlens.decoding.readout import Readout
from brewlens.lifecycle import NEVER, OUTCOMES, classify, landmarks, lifecycle, tail

CLASSES = tuple("0123456789")
SHAPE = (6, 8)
flags = arrays(bool, SHAPE)


@given(flags, flags)
@settings(max_examples=100, deadline=None)
def test_landmarks_by_loop(available, ready):
    found = landmarks(available, ready)
    for s in range(SHAPE[0]):
        fpcl = next((k for k in range(SHAPE[1]) if available[s, k]), NEVER)
        fcc = next((k for k in range(SHAPE[1]) if ready[s, k]), NEVER)
        fjc = next((k for k in range(SHAPE[1]) if available[s, k] and ready[s, k]), NEVER)
        assert (found.fpcl[s], found.fcc[s], found.fjc[s]) == (fpcl, fcc, fjc)
        assert found.brewing[s] == (NEVER if fjc == NEVER else fjc - fpcl)


def one_by_one(fpcl, fjc, right, tail_right, confidence, taxonomy):
    """Section 3 of the definitions, read aloud."""
    if fpcl == NEVER:
        return "no_brewing"
    if fjc != NEVER:
        return "resolved" if right else "overprocessed"
    if taxonomy == "repaired":
        if right:
            return "bypassed"
        return "misresolved" if confidence >= 0.5 and not tail_right else "unresolved"
    return "misresolved" if confidence >= 0.5 else "unresolved"


@given(
    st.lists(
        st.tuples(
            st.sampled_from([NEVER, 0, 3]),
            st.sampled_from([NEVER, 3, 5]),
            st.booleans(),
            st.booleans(),
            st.sampled_from([0.0, 0.49, 0.5, 0.9]),
        ),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from(["repaired", "paper"]),
)
@settings(max_examples=100, deadline=None)
def test_outcomes_by_loop(samples, taxonomy):
    columns = [np.array(c) for c in zip(*samples, strict=True)]
    found = classify(*columns, taxonomy=taxonomy)
    assert found.tolist() == [one_by_one(*s, taxonomy) for s in samples]
    assert set(found) <= set(OUTCOMES)


def test_the_tail_starts_at_three_quarters_of_the_layers():
    probabilities = np.zeros((1, 10, 3))
    probabilities[0, :7, 0] = 1
    probabilities[0, 7:, 2] = [0.6, 0.6, 0.9]
    label, confidence = tail(probabilities)
    assert label[0] == 2
    assert confidence[0] == pytest.approx(0.7)


def readout(predicted, decoder, confidence=0.9):
    predicted = np.asarray(predicted)
    p = np.full((*predicted.shape, 10), (1 - confidence) / 9)
    np.put_along_axis(p, predicted[..., None], confidence, axis=2)
    ids = tuple(f"i{k}" for k in range(len(predicted)))
    return Readout(np.log(p).astype(np.float32), CLASSES, decoder, ids)


def make(probe, stripped, answers, output, miss=None, **options):
    n = len(answers)
    return lifecycle(
        readout(probe, "probe"),
        readout(stripped, "context_stripped"),
        families=["f"] * n,
        answers=answers,
        output=np.array(output),
        format_miss=np.zeros(n, bool) if miss is None else np.array(miss),
        **options,
    )


def test_one_sample_of_each_kind():
    right = [5, 5, 5, 5]
    life = make(
        [[0, 5, 5, 5], [0, 5, 5, 5], [5, 0, 0, 0], [0, 5, 0, 0], [5, 0, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 5, 5], [0, 0, 5, 2], [7, 7, 7, 7], [1, 2, 3, 4], [0, 0, 5, 5], right],
        ["5"] * 6,
        [5, 2, 7, 4, 5, 5],
    )
    assert life.outcome.tolist() == [
        "resolved", "overprocessed", "misresolved", "misresolved", "bypassed", "no_brewing",
    ]  # fmt: skip
    assert life.outcome_paper.tolist()[4] == "misresolved"
    frame = life.to_frame()
    assert frame.loc[0, ["fpcl", "fcc", "fjc", "brewing"]].tolist() == [1, 2, 2, 1]
    assert frame["fpcl"].isna().tolist() == [False] * 5 + [True]
    assert frame["fjc"].dtype == "Int64"


def test_an_unsure_tail_is_unresolved():
    stripped = readout([[1, 2, 3, 4]], "context_stripped", confidence=0.4)
    life = lifecycle(
        readout([[5, 0, 0, 0]], "probe"),
        stripped,
        families=["f"],
        answers=["5"],
        output=np.array([4]),
        format_miss=np.array([False]),
    )
    assert life.outcome.tolist() == ["unresolved"]


def test_a_format_miss_is_wrong_for_the_paper_only():
    life = make([[5, 5]], [[5, 5]], ["5"], [5], miss=[True])
    assert (life.outcome[0], life.outcome_paper[0]) == ("resolved", "overprocessed")


def test_settings_are_kept_and_used():
    life = make([[5, 0, 0, 0]], [[1, 2, 3, 7]], ["5"], [4], tail_start=0.0, confident=0.2)
    assert life.settings["tail_start"] == 0.0
    assert life.settings["confident"] == 0.2
    assert life.outcome.tolist() == ["misresolved"]


@pytest.mark.unchecked("arrays that do not fit")
def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="unknown taxonomy 'papre'"):
        classify(*[np.zeros(1)] * 5, taxonomy="papre")
    with pytest.raises(ValueError, match="of one shape"):
        landmarks(np.zeros((2, 3), bool), np.zeros((2, 4), bool))
    with pytest.raises(ValueError, match="differ in their samples"):
        lifecycle(
            readout([[1]], "probe"),
            readout([[1], [2]], "context_stripped"),
            families=["f"],
            answers=["1"],
            output=np.array([1]),
            format_miss=np.array([False]),
        )
