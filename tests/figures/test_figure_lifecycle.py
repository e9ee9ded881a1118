"""The lifecycle of one sample: marks at the right layers, ridges as high as the probabilities."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic import synthetic_trace

from brewlens.figures import examples, lifecycle_table, plot_lifecycle
from brewlens.figures.lifecycle import _HEIGHT, ridge
from brewlens.lifecycle import NEVER

mpl.use("agg")


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(40, ("computing", "loop"), n_layers=8)


def gids(ax):
    return {line.get_gid(): line for line in ax.get_lines() if line.get_gid()}


def test_landmarks_stand_at_their_layers_and_only_where_there_are_any(trace):
    marks = trace.lifecycle.landmarks
    chosen = examples(trace)
    assert set(chosen) >= {"resolved", "unresolved", "no_brewing"}
    for row in chosen.values():
        lines = gids(plot_lifecycle(trace, row, ax=Figure().add_subplot()))
        for name in ("fpcl", "fcc", "fjc"):
            layer = getattr(marks, name)[row]
            assert (name in lines) == (layer != NEVER)
            if layer != NEVER:
                assert set(lines[name].get_ydata()) == {layer}
        assert ("brewing" in lines) == (marks.brewing[row] > 0)
        if "brewing" in lines:
            assert list(lines["brewing"].get_ydata()) == [marks.fpcl[row], marks.fjc[row]]


def test_ridges_are_as_high_as_the_probabilities(trace):
    row = examples(trace)["resolved"]
    lines = gids(plot_lifecycle(trace, row, ax=Figure().add_subplot()))
    for name in ("probe", "context_stripped"):
        for layer in range(8):
            y = (lines[f"{name}-{layer}"].get_ydata() - layer) / _HEIGHT
            peaks = y.reshape(10, -1).max(axis=1)
            assert np.allclose(peaks, trace.readouts[name].probabilities[row, layer])
            assert peaks.sum() == pytest.approx(1, abs=1e-5)


def test_a_ridge_is_zero_between_the_classes():
    x, height = ridge(np.array([0.2, 0.8]))
    assert np.allclose(height[np.isclose(x, 0.5)], 0)
    assert height[np.isclose(x, 0)] == pytest.approx(0.2)
    assert height[np.isclose(x, 1)] == pytest.approx(0.8)


def test_the_title_and_the_mark_say_what_the_model_answered(trace):
    life = trace.lifecycle
    row = examples(trace)["overprocessed"]
    ax = plot_lifecycle(trace, row, ax=Figure().add_subplot())
    title = ax.get_title(loc="left")
    assert title.startswith("overprocessed")
    assert f"right answer {life.answers[row]}, model's answer {life.output[row]}" in title
    right = 10 + 5.2 - 1
    assert gids(ax)["output"].get_xdata()[0] == pytest.approx(right + int(life.output[row]))


def test_a_sample_by_id_is_the_sample_by_row(trace):
    by_row, by_id = lifecycle_table(trace, 7), lifecycle_table(trace, trace.items[7].id)
    assert by_row.equals(by_id)
    assert len(by_row) == 2 * 8 * 10
    probe = by_row[by_row["decoder"] == "probe"]["probability"].to_numpy().reshape(8, 10)
    assert np.array_equal(probe, trace.readouts["probe"].probabilities[7])
    answer = by_row[by_row["is_answer"]]
    assert set(answer["class"]) == {trace.items[7].answer}


@pytest.mark.parametrize("sample", ["computing-9", -1, 80])
def test_an_unknown_sample_is_refused(trace, sample):
    with pytest.raises(ValueError, match=r"asked for (sample 'computing-9'|row (-1|80)); this trace has"):
        plot_lifecycle(trace, sample, ax=Figure().add_subplot())


def test_examples_are_the_middle_of_their_outcome(trace):
    chosen = examples(trace)
    assert chosen == examples(trace)
    life = trace.lifecycle
    for outcome, row in chosen.items():
        assert life.outcome[row] == outcome
    rows = np.flatnonzero(life.outcome == "resolved")
    fjc = life.landmarks.fjc
    far = np.abs(fjc[rows] - np.median(fjc[rows]))
    assert abs(fjc[chosen["resolved"]] - np.median(fjc[rows])) <= np.median(far)
    absent = trace.select([r for r in range(len(trace)) if life.outcome[r] != "bypassed"])
    assert "bypassed" not in examples(absent)
