"""Figures inside the page: the same drawing in fewer characters, and each in its section."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from brewlens.figures import Plate, theme
from brewlens.report import inline as drawing
from brewlens.report.inline import definitions, inline, short_path
from brewlens.report.placing import placed


def points(path):
    """End points of an M L Q C z path, absolute or relative, read naively."""
    found, at, start, command = [], np.zeros(2), np.zeros(2), ""
    words = re.findall(r"[A-Za-z]|-?\d*\.?\d+(?:e-?\d+)?", path)
    while words:
        if words[0].isalpha():
            command = words.pop(0)
        if command in "zZ":
            at = start
            continue
        count = {"m": 2, "l": 2, "q": 4, "c": 6}[command.lower()]
        values = np.array([float(words.pop(0)) for _ in range(count)]).reshape(-1, 2)
        values = values + at if command.islower() else values
        at = values[-1]
        if command in "mM":
            start, command = at, "l" if command == "m" else "L"
        found.extend(values)
    return np.array(found)


def test_a_short_path_stays_within_half_a_tenth():
    rng = np.random.default_rng(0)
    for _ in range(20):
        path = "M {} {}\n".format(*rng.uniform(-9, 500, 2))
        for command, count in zip(rng.choice(list("LQC"), 60), rng.integers(1, 4, 60), strict=True):
            for _ in range(count if command == "L" else 1):
                size = {"L": 2, "Q": 4, "C": 6}[command]
                path += f"{command} {' '.join(f'{v:.6f}' for v in rng.uniform(-9, 500, size))} \n"
        path += "z\nM 3 4 L 5.04 6.06 z"
        short = short_path(path)
        assert np.abs(points(path) - points(short)).max() <= 0.05 + 1e-9
        assert len(short) < 0.75 * len(path)


def test_a_path_of_other_commands_stays():
    assert short_path("M 1 2 A 3 3 0 0 1 5 6") == "M 1 2 A 3 3 0 0 1 5 6"


@pytest.fixture
def plate():
    figure = theme.blank(2, 2)
    with theme.context():
        ax = figure.add_subplot()
        ax.plot([0, 1], [0, 1], color=theme.INK)
        ax.set_title("Ready & able")
    return Plate("one", figure, pd.DataFrame({"x": [0, 1]}), 'An "odd" <alt>')


def test_letters_are_shared_and_all_else_is_the_figures_own(plate, tmp_path):
    glyphs: dict[str, str] = {}
    first = inline(plate, tmp_path, glyphs)
    letters = dict(glyphs)
    inline(plate, tmp_path, glyphs)
    assert glyphs == letters and letters
    assert not re.search(r'id="DejaVu', first) and 'aria-label="An &#34;odd&#34; &lt;alt&gt;"' in first
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', first))
    defined = set(re.findall(r'\bid="([^"]+)"', first))
    assert used <= defined | set(letters) and all(name.startswith("one-") for name in defined)
    assert definitions(glyphs).count("<path") == len(letters)
    assert "var(--ink)" in first and theme.INK not in first


def test_letters_that_differ_under_one_name_stay_apart(plate, tmp_path):
    name = next(iter(_glyphs(plate, tmp_path)))
    glyphs = {name: "<path/>"}
    svg = inline(plate, tmp_path, glyphs)
    assert f'id="one-{name}"' in svg and f'"#one-{name}"' in svg and f'"#{name}"' not in svg


def _glyphs(plate, folder):
    glyphs: dict[str, str] = {}
    inline(plate, folder, glyphs)
    return glyphs


def test_a_drawing_that_is_too_heavy_is_a_picture(plate, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "MOST_SVG", 1000)
    picture = inline(plate, tmp_path, {})
    assert picture.startswith(
        '<img class="plot" alt="An &#34;odd&#34; &lt;alt&gt;" src="data:image/png;base64,'
    )


def test_every_figure_has_one_place():
    names = ["outcomes", "flow", "ridges_resolved", "lifecycle_resolved", "reliability", "something_new"]
    found = placed(names)
    assert sorted(f.name for figures in found.values() for f in figures) == sorted(names)
    assert [f.name for f in found["outcomes"]] == ["outcomes", "flow"]
    assert [f.name for f in found["more"]] == ["something_new"]
    (ridges,) = found["samples"]
    assert ridges.folded == "More typical samples: resolved" and ridges.caption
    assert placed([])["more"] == []
