"""View: a CircuitsVis drawing that needs nothing from the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from uuid import uuid4

from brewlens import html
from brewlens.files import replacing

_SHEET = "background:#fefefe;color:#1d2329;color-scheme:light;padding:12px 14px;border-radius:6px"
_CODE = "font-family:ui-monospace,'DejaVu Sans Mono',Menlo,monospace"
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ margin: 1.5rem; font-family: system-ui, sans-serif; background: #fefefe }}</style></head>
<body>
{body}
</body>
</html>
"""


@dataclass(frozen=True, repr=False)
class View:
    """What a notebook shows, and ``save`` writes: with its own copy of CircuitsVis, from local files.

    CircuitsVis' own object asks a search engine whether there is a network, and then loads its program from a
    server. This one never does either.

    Attributes:
        title: What is shown.
        element: Name of the CircuitsVis element.
        props: What it is given; lists, numbers and texts only.
        notes: What the reader has to know, one line each.
    """

    title: str
    element: str
    props: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_html(self, place: str = "brewlens-view") -> str:
        """The drawing as a piece of HTML; ``place`` is the id of its element, once per page."""
        # "</script>" in a text would end the script; JavaScript reads \\u003c as "<".
        props = json.dumps(self.props, separators=(",", ":")).replace("<", "\\u003c")
        notes = "".join(html.note(line) for line in self.notes)
        return (
            f'<div style="{_SHEET}"><div style="font-weight:600">{html.safe(self.title)}</div>{notes}'
            f'<div id="{place}" style="margin:12px 0 4px;{_CODE}"></div></div>\n'
            # Each view brings the program along; a page with several runs it once.
            f'<script type="module">\nif (!globalThis.brewlensViews) {{\n{_program()}\n'
            "globalThis.brewlensViews = CircuitsVis\n}\n"
            f'brewlensViews.render("{place}", brewlensViews.{self.element}, {props})\n</script>'
        )

    def save(self, path: str | Path) -> Path:
        """Write a page that opens offline; equal views give equal bytes."""
        path = Path(path)
        text = _PAGE.format(title=html.safe(self.title), body=self.to_html())
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path

    def __repr__(self) -> str:
        return f"View({self.element}: {self.title[:200]})"

    def _repr_html_(self) -> str:
        return self.to_html(f"brewlens-view-{uuid4().hex[:12]}")


@cache
def _program() -> str:
    """CircuitsVis' browser program, as its package has it."""
    import circuitsvis

    path = Path(circuitsvis.__file__).parent / "dist" / "cdn" / "iife.js"
    return path.read_text(encoding="utf-8").replace("</script", "<\\/script")
