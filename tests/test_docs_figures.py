"""The figures of README and docs come again, byte for byte, from what is stored."""

from __future__ import annotations

import json
import re
import zlib
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
        there = committed(path.stem).with_suffix(path.suffix)
        assert path.read_bytes() == there.read_bytes() or drawn_alike(path, there), path.name


def drawn_alike(path, other):
    """The same marks at the same places; another processor may round their tenth decimals otherwise."""
    return places(path.read_bytes()) == places(other.read_bytes())


def places(content):
    """Text of a figure: streams of a PDF unpacked, numbers to six decimals, names made of hashes left out."""
    if content.startswith(b"%PDF"):
        packed = re.findall(rb"stream\r?\n(x.*?)\r?\nendstream", content, flags=re.DOTALL)
        content = b"\n".join(map(zlib.decompress, packed))
    content = re.sub(rb"\b[pm][0-9a-f]{10}\b", b"name", content)
    return re.sub(rb"\d+\.\d+", lambda number: b"%.6f" % float(number[0]), content)


def test_a_figure_that_differs_is_not_drawn_alike(tmp_path):
    for suffix in (".pdf", ".svg"):
        one, two = (committed(name).with_suffix(suffix) for name in ("flow", "scaling"))
        assert drawn_alike(one, one) and not drawn_alike(one, two)
        moved = tmp_path / f"moved{suffix}"
        text = places(one.read_bytes())
        number = re.search(rb"\d+\.\d{6}", text)[0]
        moved.write_bytes(text.replace(number, b"%.6f" % (float(number) + 1e-3), 1))
        assert places(moved.read_bytes()) != text


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
