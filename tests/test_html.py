"""Notebook HTML: drawn numbers against naive ones, nothing unescaped, nothing but inline SVG."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from brewlens import html, tasks
from brewlens.figures import theme
from brewlens.stats import clustered_share
from tests.synthetic import synthetic_trace

VOID = {"br", "hr", "img", "meta"}
EVIL = "<script>alert(1)</script>&'\""


class Balanced(HTMLParser):
    """Raises if a tag is not closed, and remembers tags."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open.pop() != tag:
            raise AssertionError(f"{tag} closed out of turn")

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)


def tags(text):
    parser = Balanced()
    parser.feed(text)
    parser.close()
    assert not parser.open
    return parser.seen


def points(svg):
    found = re.findall(r"<polyline points='([^']*)'", svg)
    return [[tuple(map(float, pair.split(","))) for pair in line.split()] for line in found]


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(12, ("computing", "loop"), n_layers=6)


def test_outcomes_have_the_colours_of_the_figures():
    assert html.OUTCOME_COLORS == theme.OUTCOME_COLORS


def test_a_sparkline_is_as_high_as_its_values():
    values = [0.1, 0.4, 0.2, 0.9]
    (line,) = points(html.sparkline(values, "x", low=0, high=1))
    heights = [html._HEIGHT - html._EDGE - v * (html._HEIGHT - 2 * html._EDGE) for v in values]
    assert [y for _, y in line] == pytest.approx(heights, abs=0.051)
    steps = np.diff([x for x, _ in line])
    assert steps == pytest.approx(steps[0], abs=0.11) and line[-1][0] == html._WIDTH - html._EDGE


def test_a_sparkline_says_its_numbers():
    drawn = html.sparkline([0.25, 0.75, 0.5], "hits", labels=(4, 6, 8))
    told = "hits: 0.25 at layer 4, greatest 0.75 at layer 6, 0.5 at layer 8"
    assert f"aria-label='{told}'" in drawn and f"<title>{told}</title>" in drawn


def test_a_sparkline_has_gaps_where_there_is_no_number():
    first, second = points(html.sparkline([1, 2, np.nan, 3, 4, np.nan], "x"))
    assert len(first) == len(second) == 2
    assert html.sparkline([np.nan, np.inf], "x") == html.sparkline([], "x") == "–"
    (flat,) = points(html.sparkline([2, 2, 2], "x"))
    assert len({y for _, y in flat}) == 1


def test_values_outside_the_scale_stay_inside_the_drawing():
    (line,) = points(html.sparkline([-5, 0.5, 9], "x", low=0, high=1, line=0.1))
    assert all(0 <= y <= html._HEIGHT for _, y in line)


def test_a_band_encloses_its_line():
    drawn = html.sparkline([0.4, 0.6], "x", low=0, high=1, band=([0.3, 0.5], [0.5, 0.7]))
    corners = re.search(r"<polygon points='([^']*)'", drawn).group(1).split()
    ys = [float(c.split(",")[1]) for c in corners]
    (line,) = points(drawn)
    assert min(ys) < min(y for _, y in line) and max(ys) > max(y for _, y in line)
    assert len(ys) == 4


def test_everything_is_escaped():
    parts = [
        html.table([{EVIL: EVIL}]),
        html.card(EVIL, html.note(EVIL), html.code(EVIL)),
        html.sparkline([1, 2], EVIL, labels=(EVIL, 1)),
        html.outcome_bar({EVIL: 2}),
        html.outcome_key([EVIL]),
    ]
    for part in parts:
        assert "script" not in tags(part) and "alert" in part


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (pd.NA, "–"),
        (np.float32(0.123456), "0.123"),
        (12345, "12,345"),
        (np.int64(3), "3"),
        (True, "yes"),
        (np.bool_(False), "no"),
        ("a<b", "a&lt;b"),
    ],
)
def test_values_are_said_shortly(value, said):
    assert html.safe(value) == said


def test_a_long_table_counts_what_it_leaves_out():
    shown = html.table([{"k": k} for k in range(30)], most=5)
    assert shown.count("<tr>") == 6 and "and 25 more rows" in shown


def test_long_programs_are_cut_and_say_so():
    assert "… 3 more lines" in html.code("\n".join(map(str, range(43))))


def test_a_trace_shows_what_it_holds(trace):
    shown = trace._repr_html_()
    families = np.array(trace.lifecycle.families)
    for family in ("computing", "loop"):
        here = families == family
        right = clustered_share(trace.lifecycle.output_correct[here], trace.shapes[here])
        assert html.interval(right.value, right.low, right.high) in shown
        for decoder in ("probe", "context_stripped"):
            hits = trace.readouts[decoder].correct(trace.items.answers)[here]
            first, last = sum(hits[:, 0]) / here.sum(), sum(hits[:, -1]) / here.sum()
            said = re.search(f"{family}: share that {decoder} has right: ([^<']*)", shown).group(1)
            assert said.startswith(f"{first:.3g} at layer 0") and said.endswith(f"{last:.3g} at layer 5")
        for outcome in ("resolved", "unresolved"):
            count = int((trace.lifecycle.outcome[here] == outcome).sum())
            assert not count or f"{outcome} {count / 12:.0%}" in shown
    assert ">all<" in shown and len(shown) < 20_000


def test_a_lifecycle_counts_its_outcomes(trace):
    shown = trace.lifecycle._repr_html_()
    for outcome in set(trace.lifecycle.outcome):
        count = int((trace.lifecycle.outcome == outcome).sum())
        row = re.search(f">{outcome.replace('_', ' ')}</td><td[^>]*>([0-9]+)<", shown)
        assert int(row.group(1)) == count


def test_hostile_programs_and_families_are_shown_as_text(trace):
    item = replace(trace.items[0], code=EVIL, prompt=EVIL, family=EVIL, answer="<b>", factors={EVIL: EVIL})
    for shown in (item, tasks.ItemSet((item,))):
        assert "script" not in tags(shown._repr_html_())
    families = (EVIL, *trace.lifecycle.families[1:])
    hostile = replace(trace, lifecycle=replace(trace.lifecycle, families=families), model=EVIL)
    assert "script" not in tags(hostile._repr_html_())


def test_no_sample_no_crash(trace):
    empty = trace.readouts["probe"].select(np.zeros(0, dtype=int))
    assert tags(empty._repr_html_())
    assert tags(trace.lifecycle.select(np.zeros(0, dtype=int))._repr_html_())
    assert tags(trace.onsets["ready"].select(np.zeros(0, dtype=int))._repr_html_())
