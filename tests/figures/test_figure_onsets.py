"""Onset curves: posterior means, first hits beside what chance makes of them, and the never named."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic import synthetic_trace

from brewlens.figures import onset_table, plates, plot_onsets, plot_onsets_grid, save, theme
from brewlens.figures.onsets import first_hits_by_chance
from brewlens.lifecycle import NEVER
from brewlens.lifecycle.nulls import strata
from brewlens.lifecycle.onsets import Onsets

mpl.use("agg")
LAYERS = 8


def posteriors(posterior, until=None):
    return Onsets(LAYERS, posterior, until)


def certain(onset):
    """Posteriors that are sure of these layers."""
    return np.eye(LAYERS + 1)[np.where(onset == NEVER, LAYERS, onset)]


@pytest.fixture(scope="module")
def trace():
    made = synthetic_trace(54, ("computing", "loop"), n_layers=LAYERS)
    marks = made.lifecycle.landmarks
    rng = np.random.default_rng(0)
    blurred = 0.8 * certain(marks.fpcl) + 0.2 * rng.dirichlet(np.ones(LAYERS + 1), len(made))
    lost = (marks.fcc != NEVER) & (np.arange(len(made)) % 4 == 0)
    ends = certain(np.where(lost, LAYERS - 1, NEVER))
    onsets = {"available": posteriors(blurred), "ready": posteriors(certain(marks.fcc), ends)}
    return replace(made, onsets=onsets)


def rows_of(trace, family):
    return [r for r, item in enumerate(trace.items) if item.family == family]


def test_onset_curves_are_posterior_means(trace):
    table = onset_table(trace).set_index(["family", "curve", "layer"])
    rows = rows_of(trace, "loop")
    for name in ("available", "ready"):
        posterior = trace.onsets[name].posterior[rows]
        for layer in range(LAYERS):
            row = table.loc[("loop", name, layer)]
            assert row["share"] == pytest.approx(np.mean([sum(p[: layer + 1]) for p in posterior]))
            assert 0 <= row["low"] <= row["share"] <= row["high"] <= 1
            assert row["never"] == pytest.approx(posterior[:, -1].mean())
            assert row["detectable"] > 0
            assert row["n"] == 54
    last = (
        table.loc[("loop", "ready", LAYERS - 1), "share"]
        - table.loc[("loop", "still_ready", LAYERS - 1), "share"]
    )
    assert last == pytest.approx(trace.onsets["ready"].until[rows, -2].mean())
    assert np.isnan(table.loc[("loop", "still_ready", 0), "never"])


def test_first_hits_are_the_landmarks(trace):
    table = onset_table(trace).set_index(["family", "curve", "layer"])
    for family, rows in (("computing", rows_of(trace, "computing")), ("overall", range(len(trace)))):
        for name in ("fpcl", "fcc"):
            hit = getattr(trace.lifecycle.landmarks, name)[list(rows)]
            for layer in range(LAYERS):
                row = table.loc[(family, name, layer)]
                assert row["share"] == np.mean([h != NEVER and h <= layer for h in hit])
            assert row["never"] == pytest.approx((hit == NEVER).mean())


def slow_chance(predicted, answer, cells):
    """One sample, one other sample of its cell, one layer after the other."""
    n, layers = predicted.shape
    chance = np.full((n, layers), np.nan)
    for s in range(n):
        others = [o for o in range(n) if cells[o] == cells[s] and o != s]
        for layer in range(layers):
            hits = [answer[o] in list(predicted[s, : layer + 1]) for o in others]
            if hits:
                chance[s, layer] = np.mean(hits)
    return chance


def test_first_hits_by_chance_agree_with_the_slow_way(trace):
    rng = np.random.default_rng(1)
    predicted, answer = rng.integers(0, 10, (40, 6)), rng.integers(0, 10, 40)
    cells = np.r_[rng.integers(0, 6, 39), 99]
    fast = first_hits_by_chance(predicted, answer, cells, 10)
    assert np.allclose(fast, slow_chance(predicted, answer, cells), equal_nan=True)
    assert np.isnan(fast[39]).all()
    table = onset_table(trace, "loop").set_index(["curve", "layer"])
    rows = rows_of(trace, "loop")
    cells, probe = strata(trace.items, trace.folds)[rows], trace.readouts["probe"].select(rows)
    slow = slow_chance(probe.predicted, probe.target_index([trace.items[r].answer for r in rows]), cells)
    assert table.loc["fpcl_null"]["share"].to_numpy() == pytest.approx(np.nanmean(slow, axis=0))
    assert table.loc["fpcl_null"][["low", "high", "detectable"]].isna().all(axis=None)


def test_noise_has_the_first_hits_of_chance_and_a_signal_has_more(trace):
    rng = np.random.default_rng(2)
    n, answer = 600, rng.integers(0, 10, 600)
    predicted, cells = rng.integers(0, 10, (n, 24)), np.arange(n) % 40
    expected = 1 - 0.9 ** np.arange(1, 25)
    seen = np.logical_or.accumulate(predicted == answer[:, None], axis=1).mean(axis=0)
    chance = first_hits_by_chance(predicted, answer, cells, 10).mean(axis=0)
    assert np.abs(chance - expected).max() < 0.02
    assert np.abs(seen - chance).max() < 0.06
    table = onset_table(trace, "overall").set_index(["curve", "layer"])["share"]
    assert (table["fpcl"] - table["fpcl_null"]).iloc[-1] > 0.4


def test_the_figure_draws_the_table(trace):
    ax = Figure().add_subplot()
    assert plot_onsets(trace, family="loop", ax=ax) is ax
    table = onset_table(trace, "loop")
    lines = {line.get_gid(): line for line in ax.get_lines()}
    assert set(lines) == set(table["curve"])
    for curve, rows in table.groupby("curve"):
        assert np.allclose(lines[curve].get_ydata(), rows["share"])
        assert lines[curve].get_xdata().tolist() == list(range(LAYERS))
    grey = theme.decoder("chance").color
    assert {lines[c].get_color() for c in ("fpcl_null", "fcc_null")} == {grey}
    named = {text.get_gid(): text.get_text() for text in ax.texts}
    never = table[table["curve"] == "available"]["never"].iloc[0]
    assert named["never-available"] == f"never {100 * never:.0f} %"
    assert set(named) == {"never-available", "never-ready"}
    places = sorted(text.get_position()[1] for text in ax.texts)
    assert places[1] - places[0] > 0.08  # they do not cover each other


def test_without_ends_there_is_no_line_for_them(trace):
    ready = posteriors(trace.onsets["ready"].posterior)
    table = onset_table(replace(trace, onsets={**trace.onsets, "ready": ready}))
    assert "still_ready" not in set(table["curve"])


def test_nobody_is_ever_ready(trace):
    never = posteriors(certain(np.full(len(trace), NEVER)))
    none = replace(trace, onsets={"available": never, "ready": never})
    table = onset_table(none, "loop").set_index("curve")
    assert (table.loc["ready", "share"] == 0).all()
    assert (table.loc["ready", "never"] == 1).all()
    assert (table.loc["ready", "high"] > 0.01).all()  # of 54 samples, not of all there are
    texts = plot_onsets(none, family="loop", ax=Figure().add_subplot()).texts
    assert {text.get_text() for text in texts} == {"never 100 %"}


def test_a_plate_only_where_there_are_onsets(trace, tmp_path):
    plate = next(p for p in plates(trace) if p.name == "onsets")
    assert "loop: half available by layer" in plate.alt
    assert [ax.get_title(loc="left") for ax in plate.figure.axes] == ["computing  (n = 54)", "loop  (n = 54)"]
    again = plot_onsets_grid(trace, figure=theme.blank(*plate.figure.get_size_inches()))
    made = [save(f, tmp_path / name, plate.data) for name, f in (("a", plate.figure), ("b", again))]
    assert [p.read_bytes() for p in made[0]] == [p.read_bytes() for p in made[1]]
    without = replace(trace, onsets={})
    names = (plate.name for plate in plates(without))
    assert "onsets" not in list(takewhile(lambda name: not name.startswith("lifecycle"), names))
    with pytest.raises(ValueError, match="found no available and no ready: trace the items anew"):
        plot_onsets(without, ax=Figure().add_subplot())


def test_an_unknown_family_is_refused(trace):
    with pytest.raises(ValueError, match=r"asked for family 'looop'.*computing"):
        plot_onsets(trace, family="looop", ax=Figure().add_subplot())
