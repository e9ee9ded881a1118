"""Typical samples side by side and mean trajectories: who is chosen, how high bars stand, where lines lie."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic import synthetic_trace

from brewlens.figures import examples, save, theme
from brewlens.figures.ridges import (
    _GAP,
    _HEIGHT,
    plot_ridges,
    plot_ridges_grid,
    ridges_alt,
    ridges_size,
    ridges_table,
    typical,
)
from brewlens.figures.trajectories import (
    plot_trajectories,
    plot_trajectories_grid,
    trajectories_alt,
    trajectory_table,
)
from brewlens.lifecycle import NEVER
from brewlens.tasks.item import ItemSet

mpl.use("agg")
LAYERS = 8


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(54, ("computing", "loop"), n_layers=LAYERS)


def drawn(ax):
    return {artist.get_gid(): artist for artist in (*ax.get_lines(), *ax.patches) if artist.get_gid()}


def test_the_most_typical_sample_is_the_example(trace):
    for outcome, row in examples(trace).items():
        chosen = typical(trace, outcome, 4)
        assert chosen[0] == row and len(chosen) == min(4, (trace.lifecycle.outcome == outcome).sum())
        assert len(set(chosen)) == len(chosen)
        assert set(trace.lifecycle.outcome[chosen]) == {outcome}
        assert typical(trace, outcome, 2) == chosen[:2]


def test_typical_is_near_the_middle(trace):
    """Of resolved samples, who all have landmarks: by hand."""
    life = trace.lifecycle
    rows = np.flatnonzero(life.outcome == "resolved")
    features = np.stack([*(getattr(life.landmarks, m)[rows] / LAYERS for m in ("fpcl", "fcc", "fjc")),
                         life.tail_confidence[rows]], axis=1)  # fmt: skip
    assert (features >= 0).all()
    distance = [sum(abs(f - np.median(features, axis=0))) for f in features]
    expected = [int(rows[i]) for i in sorted(range(len(rows)), key=lambda i: (distance[i], i))]
    assert typical(trace, "resolved", len(rows)) == expected


def test_the_table_is_the_readouts(trace):
    table = ridges_table(trace, k=3)
    assert list(dict.fromkeys(table["outcome"])) == list(examples(trace))
    for (outcome, rank), sample in table.groupby(["outcome", "rank"]):
        row = typical(trace, outcome, 3)[rank]
        assert set(sample["id"]) == {trace.items[row].id}
        for role, name in (("availability", "probe"), ("readiness", "context_stripped")):
            strip = sample[sample["role"] == role]
            expected = trace.readouts[name].probabilities[row].ravel()
            assert np.allclose(strip["probability"], expected) and set(strip["decoder"]) == {name}
        for mark in ("fpcl", "fcc", "fjc"):
            layer = getattr(trace.lifecycle.landmarks, mark)[row]
            assert sample[mark].isna().all() if layer == NEVER else sample[mark].eq(layer).all()


def test_landmarks_are_those_of_the_decoders_that_are_drawn(trace):
    table = ridges_table(trace, "resolved", k=4, availability="logit_lens", readiness="context_stripped_raw")
    for rank, row in enumerate(typical(trace, "resolved", 4)):
        sample = table[table["rank"] == rank]
        right = {
            name: trace.readouts[name].select([row]).correct([trace.items[row].answer])[0]
            for name in ("logit_lens", "context_stripped_raw")
        }
        both = right["logit_lens"] & right["context_stripped_raw"]
        for mark, hits in zip(("fpcl", "fcc", "fjc"), (*right.values(), both), strict=True):
            assert sample[mark].iloc[0] == np.flatnonzero(hits)[0]


@pytest.mark.parametrize("outcome", ["resolved", "misresolved", "no_brewing"])
def test_bars_are_as_high_as_the_probabilities(trace, outcome):
    figure = plot_ridges(trace, outcome=outcome, k=2, figure=theme.blank(6, 2))
    table = ridges_table(trace, outcome, k=2)
    for rank, ax in enumerate(figure.axes):
        found, sample = drawn(ax), table[table["rank"] == rank]
        first = sample.iloc[0]
        for role, name in (("availability", "probe"), ("readiness", "context_stripped")):
            row = typical(trace, outcome, 2)[rank]
            p, answer = trace.readouts[name].probabilities[row], int(first["answer"])
            start = (10 + _GAP) * (role == "readiness")
            seen = np.zeros((LAYERS, 10))
            for kind in ("wrong", "right", "unsure"):
                path = found[f"{role}-{kind}"].get_path() if f"{role}-{kind}" in found else None
                for box in [] if path is None else path.vertices.reshape(-1, 5, 2):
                    layer, column = int(box[0, 1]), round(box[0, 0] - start)
                    assert seen[layer, column] == 0
                    seen[layer, column] = (box[1, 1] - layer) / _HEIGHT
                    assert (column == answer) == (kind != "wrong")
                    if column == answer:
                        assert (p[layer].argmax() == answer) == (kind == "right")
            faint = (p < 0.02) & (np.arange(10) != answer)
            assert seen == pytest.approx(np.where(faint, 0, p), abs=1e-6) and faint.any()
        for mark in ("fpcl", "fcc", "fjc"):
            assert (mark in found) == (not pd.isna(first[mark]))
            if mark in found:
                assert set(found[mark].get_ydata()) == {first[mark]}
        start = 10 + _GAP
        assert found["output"].get_xdata()[0] == start + int(first["output"]) + 0.5
        assert found["output"].get_marker() == ("o" if first["output"] == first["answer"] else "X")
        assert [label.get_text() for label in ax.get_xticklabels()] == [first["answer"]] * 2
        assert list(ax.get_xticks()) == [int(first["answer"]) + 0.5, start + int(first["answer"]) + 0.5]


def test_a_row_per_outcome(trace, tmp_path):
    table = ridges_table(trace, k=2)
    made = []
    for name in ("a", "b"):
        figure = plot_ridges_grid(trace, table=table, figure=theme.blank(*ridges_size(table)))
        made.append([p.read_bytes() for p in save(figure, tmp_path / name, table)])
    assert made[0] == made[1]
    names = [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]
    outcome = trace.lifecycle.outcome
    assert names == [f"{theme.OUTCOME_NAMES[o]}\nn = {(outcome == o).sum()}" for o in examples(trace)]
    row = typical(trace, "resolved", 1)[0]
    assert f"resolved: {trace.items[row].id}: answer {trace.items[row].answer}" in ridges_alt(table)
    assert figure.legends[0].get_texts()[0].get_text() == "left: linear probe"


def test_fewer_samples_than_asked_for(trace):
    rows = np.flatnonzero(trace.lifecycle.outcome == "bypassed")[:2]
    others = np.flatnonzero(trace.lifecycle.outcome == "resolved")[:5]
    small = trace.select([*rows, *others])
    assert len(typical(small, "bypassed", 6)) == 2
    figure = plot_ridges_grid(small, k=4, figure=theme.blank(6, 3))
    assert sum(not ax.axison for ax in figure.axes) == 2
    figure.draw_without_rendering()


@pytest.mark.parametrize("family", [None, "loop"])
def test_trajectories_are_means_of_the_right_answer(trace, family):
    table = trajectory_table(trace, family)
    life = trace.lifecycle
    assert table["chance"].eq(0.1).all()
    for row in table.itertuples():
        here = [
            r
            for r in range(len(trace))
            if life.outcome[r] == row.outcome and family in (None, life.families[r])
        ]
        p = [trace.readouts[row.decoder].probabilities[r, row.layer, int(life.answers[r])] for r in here]
        assert row.n == len(here) and row.probability == pytest.approx(np.mean(p), abs=1e-6)
        assert 0 <= row.low <= row.probability <= row.high <= 1
        assert row.n_shapes == len({trace.shapes[r] for r in here})


def test_outcomes_differ_where_they_were_planted_and_chance_is_chance(trace):
    table = trajectory_table(trace).set_index(["outcome", "role", "layer"])["probability"]
    assert table["resolved", "readiness", LAYERS - 1] > 0.8
    over = table.loc[[("overprocessed", "readiness", layer) for layer in range(LAYERS)]]
    assert over.max() > over.iloc[-1] + 0.2
    assert table["misresolved", "readiness", LAYERS - 1] < 0.1
    none = {n: replace(r, logits=np.zeros_like(r.logits)) for n, r in trace.readouts.items()}
    flat = trajectory_table(replace(trace, readouts=none))
    assert flat["probability"].to_numpy() == pytest.approx(0.1)


def test_trajectories_draw_the_table(trace, tmp_path):
    table = trajectory_table(trace)
    ax = Figure().add_subplot()
    assert plot_trajectories(trace, role="availability", ax=ax) is ax
    lines = {line.get_gid(): line for line in ax.get_lines() if line.get_gid()}
    rows = table[table["role"] == "availability"]
    assert set(lines) == {"chance", *(f"availability-{o}" for o in rows["outcome"])}
    for outcome, points in rows.groupby("outcome"):
        line = lines[f"availability-{outcome}"]
        assert np.allclose(line.get_ydata(), points["probability"])
        assert line.get_color() == theme.OUTCOME_COLORS[outcome]
    made = []
    for name in ("a", "b"):
        figure = plot_trajectories_grid(trace, table=table, figure=theme.blank(6.9, 4))
        made.append([p.read_bytes() for p in save(figure, tmp_path / name, table)])
    assert made[0] == made[1]
    second = {line.get_gid(): line for line in figure.axes[1].get_lines()}
    outcome = list(dict.fromkeys(table["outcome"]))[1]
    points = table[(table["outcome"] == outcome) & (table["role"] == "readiness")]
    assert np.allclose(second[f"readiness-{outcome}"].get_ydata(), points["probability"])
    assert f"{theme.OUTCOME_NAMES[outcome]}, n {points['n'].iloc[0]}: linear probe most" in trajectories_alt(
        table
    )


def test_a_single_cluster_has_no_interval(trace):
    first = trace.items[0].id
    linked = tuple(replace(item, twins={"renamed": first}) for item in trace.items)
    one = replace(trace, items=ItemSet(linked))
    table = trajectory_table(one)
    assert table["n_shapes"].eq(1).all() and table[["low", "high"]].isna().all(axis=None)
    assert trajectory_table(trace)[["low", "high"]].notna().all(axis=None)
    plot_trajectories(one, ax=Figure().add_subplot()).figure.draw_without_rendering()


def test_what_cannot_be_drawn_is_refused(trace):
    some = trace.select(np.flatnonzero(trace.lifecycle.outcome == "resolved"))
    with pytest.raises(ValueError, match=r"asked for outcome 'unresolved'; this trace has resolved$"):
        plot_ridges(some, outcome="unresolved", figure=theme.blank(6, 2))
    with pytest.raises(
        ValueError, match=r"asked for readiness by 'surface'; this trace reads layers by probe"
    ):
        ridges_table(trace, readiness="surface")
    with pytest.raises(ValueError, match=r"unknown role 'ready'; choose one of availability, readiness"):
        plot_trajectories(trace, role="ready", ax=Figure().add_subplot())
    with pytest.raises(ValueError, match=r"asked for family 'looop'"):
        trajectory_table(trace, "looop")
