"""The explorer's numbers against the trace's own, and its lists against drawing each sample directly."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from brewlens.figures import examples, theme
from brewlens.lifecycle import NEVER, OUTCOMES
from brewlens.views import explore, explore_html
from brewlens.views.choice import chosen_rows
from tests.synthetic import synthetic_trace


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(40, ("computing", "loop"), n_layers=6)


def heat_maps(figure, visible=True):
    return [t for t in figure.data if t.type == "heatmap" and (not visible or t.visible)]


def menu(figure, number):
    return figure.layout.updatemenus[number].buttons


def test_cells_are_the_probabilities(trace):
    row = examples(trace)["overprocessed"]
    figure = explore(trace, row)
    left, right = heat_maps(figure)
    assert (left.xaxis, right.xaxis) == ("x", "x2")
    for drawn, decoder in ((left, "probe"), (right, "context_stripped")):
        readout = trace.readouts[decoder]
        assert drawn.name == theme.decoder(decoder).name
        assert drawn.colorscale[1][1] == theme.decoder(decoder).color
        for layer in range(trace.n_layers):
            for k, answer in enumerate(readout.classes):
                assert drawn.x[k] == answer and drawn.y[layer] == layer
                assert drawn.z[layer][k] == pytest.approx(readout.probabilities[row, layer, k], abs=6e-5)
        assert f"right answer {trace.lifecycle.answers[row]}" in drawn.hovertemplate
        assert f"model's answer {trace.lifecycle.output[row]}" in drawn.hovertemplate


def test_dots_mark_the_most_probable_class_and_tell_right_from_wrong(trace):
    row = examples(trace)["misresolved"]
    heat, dots = (t for t in explore(trace, row).data if t.visible and t.xaxis == "x")
    assert heat.type == "heatmap" and dots.mode == "markers"
    readout = trace.readouts["probe"]
    for layer in range(trace.n_layers):
        said = readout.classes[readout.logits[row, layer].argmax()]
        right = said == trace.items[row].answer
        assert dots.x[layer] == said and dots.marker.symbol[layer] == ("circle" if right else "circle-open")


def test_lines_are_the_probability_of_the_right_answer_for_every_decoder(trace):
    figure = explore(trace, 3)
    lines = {t.name: t for t in figure.data if t.xaxis == "x3"}
    deep = [name for name, readout in trace.readouts.items() if readout.n_layers == trace.n_layers]
    assert len(lines) == len(deep) == 4
    for name in deep:
        p = trace.readouts[name].p_answer(trace.items.answers)[3]
        assert np.allclose(lines[theme.decoder(name).name].x, p, atol=6e-5)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_landmarks_stand_at_their_layers_and_only_there(trace, outcome):
    row = examples(trace)[outcome]
    shapes = explore(trace, row).layout.shapes
    for name, panels in (("fpcl", {"x domain"}), ("fcc", {"x2 domain"}), ("fjc", None)):
        layer = int(getattr(trace.lifecycle.landmarks, name)[row])
        drawn = [s for s in shapes if s.name == name]
        assert {s.y0 for s in drawn} == {s.y1 for s in drawn} == (set() if layer == NEVER else {layer})
        if panels and drawn:
            assert {s.xref for s in drawn} == panels
    answer = trace.readouts["probe"].classes.index(trace.lifecycle.answers[row])
    frames = [s for s in shapes if s.type == "rect"]
    assert [(s.x0 + s.x1) / 2 for s in frames] == [answer, answer]


def test_the_list_of_samples_gives_what_drawing_each_of_them_gives(trace):
    rows = [5, 41, 7]
    figure = explore(trace, rows, per_outcome=0)
    assert len(menu(figure, 0)) == 3
    for row, button in zip(rows, menu(figure, 0), strict=True):
        alone = explore(trace, row, per_outcome=0)
        put, layout = button.args
        for number, drawn in enumerate(alone.data):
            assert list(put["x"][number]) == list(drawn.x)
            if drawn.type == "heatmap":
                assert np.allclose(put["z"][number], drawn.z)
            else:
                assert list(put["marker.symbol"][number] or []) == list(drawn.marker.symbol or [])
            assert put["hovertemplate"][number] == drawn.hovertemplate
        assert layout["title.text"] == alone.layout.title.text
        assert len(layout["shapes"]) == len(alone.layout.shapes)
        here, there = (
            [a["text"] for a in layout["annotations"]],
            [a.text for a in alone.layout.annotations],
        )
        assert here[:-1] == there[:-1]  # the last one says how many there are to choose from


def test_the_lists_of_decoders_show_one_of_them_in_their_own_panel(trace):
    figure = explore(trace, 0)
    for side, axis in enumerate(("x", "x2")):
        for button in menu(figure, 1 + side):
            put, at = button.args
            shown = [figure.data[k] for k, on in zip(at, put["visible"], strict=True) if on]
            assert [t.name for t in shown] == [button.label] * 2 and {t.xaxis for t in shown} == {axis}
            assert {t.type for t in shown} == {"heatmap", "scatter"}
            assert {figure.data[k].xaxis for k in at} == {axis}
        active = figure.layout.updatemenus[1 + side].active
        assert menu(figure, 1 + side)[active].label == heat_maps(figure)[side].name


def test_typical_samples_of_every_outcome_and_those_asked_for(trace):
    rows, said = chosen_rows(trace, "computing-0-01.000", None, 2)
    assert rows[0] == trace.lifecycle.item_ids.index("computing-0-01.000")
    typical, _ = chosen_rows(trace, None, None, 2)
    assert rows == [rows[0], *(row for row in typical if row != rows[0])]
    outcome = trace.lifecycle.outcome
    for name, row in examples(trace).items():
        assert row in typical
        assert sum(outcome[r] == name for r in typical) == min(2, (outcome == name).sum())
    assert said.startswith(f"{len(rows)} to choose from: 1 asked for; of 80 samples the 2 most typical")
    only, _ = chosen_rows(trace, None, "loop", 1)
    assert {trace.lifecycle.families[row] for row in only} == {"loop"}


def test_it_says_what_it_cannot_do(trace):
    with pytest.raises(ValueError, match=r"asked for family 'looop'; this trace has computing, loop"):
        explore(trace, family="looop")
    with pytest.raises(ValueError, match="asked for sample 'nobody'"):
        explore(trace, "nobody")
    with pytest.raises(ValueError, match="asked for row 80"):
        explore(trace, 80)
    with pytest.raises(ValueError, match="none per outcome"):
        explore(trace, per_outcome=0)
    with pytest.raises(ValueError, match="asked for 70 samples, more than 60"):
        explore(trace, list(range(70)), per_outcome=0)


def test_a_trace_without_onsets_is_drawn_without_them(trace):
    bare = explore(replace(trace, onsets={}), 0)
    assert "Onsets" not in bare.layout.annotations[-1].text
    assert "Onsets" in explore(trace, 0).layout.annotations[-1].text


def test_hostile_programs_are_text(trace):
    item = replace(trace.items[0], prompt="if a < b:\n    <b>%{x}</b>\n" + "x" * 300)
    items = replace(trace.items, items=(item, *trace.items.items[1:]))
    text = explore(replace(trace, items=items), 0, per_outcome=0).layout.annotations[-2].text
    assert "a &lt; b" in text and "<b>" not in text and "%{" not in text
    assert max(map(len, text.replace("&lt;", "<").split("<br>"))) < 60


def test_the_page_is_one_file_the_same_every_time(trace, tmp_path):
    first = explore_html(trace, tmp_path / "a" / "one.html", 2, per_outcome=1)
    second = explore_html(trace, tmp_path / "two.html", 2, per_outcome=1)
    page = first.read_text(encoding="utf-8")
    assert page == second.read_text(encoding="utf-8")
    head = page.replace("<script src", "FOUND")
    assert "FOUND" not in head and "<link" not in page and len(page) > 3_000_000
    assert json.dumps("brewlens-explorer") in page
