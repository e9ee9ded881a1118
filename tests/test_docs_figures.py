"""The figures of README and docs come again, byte for byte, from what is stored."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs import draw

CHEAP = ("flow", "lifecycle_resolved", draw.ERRORS, draw.SCALING)
KINDS = (".pdf", ".svg", ".csv")


def committed(name):
    return (draw.RESULTS if name == draw.SCALING else draw.FIGURES) / name


def compare(out, names=()):
    there = json.loads((draw.FIGURES / "versions.json").read_text("utf-8"))
    if there != draw.versions():
        pytest.skip(f"the figures were drawn with {there}; here are {draw.versions()}")
    drawn = [path for path in draw.draw(out, out, names) if path.suffix in KINDS]
    assert len(drawn) >= 3 * max(len(names), 20 if not names else 0)
    for path in drawn:
        assert path.read_bytes() == committed(path.stem).with_suffix(path.suffix).read_bytes(), path.name


def test_some_figures_come_again(tmp_path):
    compare(tmp_path, CHEAP)


@pytest.mark.slow
def test_all_figures_come_again(tmp_path):
    compare(tmp_path)


def test_what_the_pages_show_is_there():
    pages = [draw.ROOT / "README.md", *draw.ROOT.glob("docs/*.md")]
    shown = {
        (page.parent / link).resolve()
        for page in pages
        for link in re.findall(r"(?:\]\(|\{image\} )([\w/.]+\.(?:svg|png))", page.read_text("utf-8"))
    }
    assert len(shown) > 10
    assert not [str(path) for path in shown if not Path(path).is_file()]
