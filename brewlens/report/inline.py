"""Inline: figures as SVG inside the page, in the colours of its theme, and their numbers as links."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from brewlens.figures import save, theme

if TYPE_CHECKING:
    from brewlens.figures import Plate

THEMED = {
    theme.INK: "var(--ink)",
    theme.MUTED: "var(--muted)",
    theme.GRID: "var(--grid)",
    theme.FILL: "var(--fill)",
    theme.PAPER: "var(--paper)",
    # Too dark on a dark page.
    theme.DECODERS["probe"].color: "var(--blue)",
    theme.LANDMARK_COLORS["fjc"]: "var(--purple)",
}
"""Colour of a figure -> what stands for it on the page."""

MOST_SVG = 900_000
"""Characters; a heavier drawing is shown as its PNG."""

_COMMENT = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>|<style[^>]*>.*?</style>", re.DOTALL)
_GLYPH = re.compile(r'<path id="(DejaVu[^"]*)" d="[^"]*"[^>]*/>')
_REFERENCE = re.compile(r'(?:xlink:href="#|url\(#)([^")]+)')
_NAMED = re.compile(r'( id="|xlink:href="#|url\(#)([^")]+)')
_STEP = re.compile(r"[A-Za-z]|-?\d+(?:\.\d+)?(?:e-?\d+)?")
_POINTS = {"M": 1, "L": 1, "Q": 2, "C": 3, "z": 0, "Z": 0}


def inline(plate: Plate, folder: Path, glyphs: dict[str, str]) -> Markup:
    """Save a figure's files, and give its SVG for use inside the page.

    Letters that figures share are drawn once for the page: they are taken out of the figure and put into
    ``glyphs``. Other identifiers get the figure's name in front, so that two figures do not share one.
    Points are rounded to a tenth of a point, which is finer than a screen.

    Args:
        plate: The figure.
        folder: The run folder; the files go to its ``figures``.
        glyphs: Identifier -> element; filled here.
    """
    _, svg_file, png_file, _ = save(plate.figure, folder / "figures" / plate.name, plate.data)
    svg = svg_file.read_text("utf-8")
    head, body = svg[svg.index("<svg") :].split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', head)[1]
    body = _COMMENT.sub("", body)
    for color, variable in THEMED.items():
        body = body.replace(color, variable)
    body = re.sub(r'\bd="([^"]*)"', lambda path: f'd="{short_path(path[1])}"', body)
    body = re.sub(r'\bstyle="[^"]*"', lambda style: style[0].replace(": ", ":").replace("; ", ";"), body)
    body = re.sub(r">\s+<", "><", body).strip()
    shared = {m[1] for m in _GLYPH.finditer(body) if glyphs.setdefault(m[1], m[0]) == m[0]}
    body = _GLYPH.sub(lambda m: "" if m[1] in shared else m[0], body)
    used = set(_REFERENCE.findall(body))

    def renamed(match: re.Match) -> str:
        return match[0] if match[2] in shared else f"{match[1]}{plate.name}-{match[2]}"

    body = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", body)
    body = _NAMED.sub(renamed, body).replace("<defs></defs>", "")
    label = escape(plate.alt)
    if len(body) > MOST_SVG:
        png = base64.b64encode(png_file.read_bytes()).decode()
        return Markup(f'<img class="plot" alt="{label}" src="data:image/png;base64,{png}">')
    return Markup(f'<svg class="plot" role="img" aria-label="{label}" viewBox="{box}">{body}')


def definitions(glyphs: dict[str, str]) -> Markup:
    """The letters that the page's figures share, in a drawing that takes no room."""
    return Markup(f'<svg class="glyphs" aria-hidden="true"><defs>{"".join(glyphs.values())}</defs></svg>')


def numbers(plate: Plate) -> str:
    """A figure's CSV, compressed, as the address of a link, for a page that has lost its files."""
    csv = plate.data.to_csv(index=False, lineterminator="\n").encode()
    return f"data:application/gzip;base64,{base64.b64encode(gzip.compress(csv, 9, mtime=0)).decode()}"


def short_path(path: str) -> str:
    """A path of ``M L Q C z`` in relative steps of a tenth; rounding does not add up along it."""
    parts = _STEP.findall(path)
    if any(part.isalpha() and part not in _POINTS for part in parts):
        return path
    return "".join(_relative(parts))


def _relative(parts: list[str]) -> Iterator[str]:
    at, start, command, before = (0, 0), (0, 0), "", ""
    index = 0
    while index < len(parts):
        if parts[index].isalpha():
            command = parts[index]
            index += 1
        if command in "zZ":
            at, before = start, "z"
            yield "z"
            continue
        count = 2 * _POINTS[command]
        tenths = [round(10 * float(part)) for part in parts[index : index + count]]
        index += count
        steps = [value - at[k % 2] for k, value in enumerate(tenths)]
        yield _words(steps, "" if command.lower() == before else command.lower())
        at, before = (tenths[-2], tenths[-1]), command.lower()
        if command == "M":
            start, before = at, "l"  # what follows a move without a letter is a line


def _words(steps: list[int], command: str) -> str:
    """Numbers with no more between them than it takes to tell them apart."""
    words = [f"{step / 10:g}".replace("0.", ".", 1) if abs(step) < 10 else f"{step / 10:g}" for step in steps]
    text = command + (words[0] if command or words[0].startswith("-") else f" {words[0]}")
    return text + "".join(word if word.startswith("-") else f" {word}" for word in words[1:])
