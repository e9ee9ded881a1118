"""How results show themselves in a notebook: small tables, bars and sparklines, as one piece of HTML.

Everything is inline, in the colour of the text around it, so that it reads on light and on dark pages, and
every text is escaped. Where a page takes the drawings out, their titles stay and say the numbers. Nothing
here knows what it shows: the classes put their own rows together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from numbers import Integral, Real
from typing import SupportsFloat

import numpy as np

OUTCOME_COLORS = {
    "resolved": "#009e73",
    "overprocessed": "#e69f00",
    "misresolved": "#d55e00",
    "unresolved": "#0072b2",
    "bypassed": "#cc79a7",
    "no_brewing": "#8a9199",
}
"""Those of every figure and page: Okabe and Ito (2008), and a grey for what is left out of the shares."""

_WIDTH, _HEIGHT, _EDGE = 120, 26, 3  # of a sparkline, in pixels
_CELL = "padding:1px 10px 1px 0;vertical-align:middle;white-space:nowrap"
_FAINT = "opacity:.72"
_ROWS = 12


class Html(str):
    """HTML that is shown as it is; every other text is escaped."""

    __slots__ = ()


def safe(value: object) -> Html:
    """A value as HTML: numbers to three digits, what is missing as a dash, texts escaped."""
    if isinstance(value, Html):
        return value
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return Html("–")
    if isinstance(value, bool | np.bool_):
        return Html("yes" if value else "no")
    if isinstance(value, Integral):
        return Html(f"{int(value):,}")
    if isinstance(value, Real):
        return Html(f"{float(value):.3g}" if np.isfinite(float(value)) else "–")
    return Html(escape(str(value)))


def interval(value: float, low: float, high: float) -> Html:
    """A number with its interval."""
    return Html(f"{value:.2f} <span style='{_FAINT}'>[{low:.2f}, {high:.2f}]</span>")


def table(rows: Sequence[Mapping[str, object]], *, most: int = _ROWS) -> Html:
    """Rows under the keys of the first of them; beyond ``most`` they are counted, not shown."""
    if not rows:
        return note("nothing to show")
    head = "".join(f"<th style='{_CELL};text-align:left'>{safe(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>"
        + "".join(f"<td style='{_CELL};text-align:left'>{safe(row[name])}</td>" for name in rows[0])
        + "</tr>"
        for row in rows[:most]
    )
    left = note(f"and {len(rows) - most:,} more rows") if len(rows) > most else ""
    made = f"<table style='border-collapse:collapse;margin:.3em 0'><thead><tr>{head}</tr></thead>"
    return Html(f"{made}<tbody>{body}</tbody></table>{left}")


def note(text: object) -> Html:
    """A small line below or between."""
    return Html(f"<div style='font-size:85%;{_FAINT}'>{safe(text)}</div>")


def card(title: object, *parts: Html) -> Html:
    """What a result shows: a line of title, and what belongs to it."""
    return Html(f"<div><div>{safe(title)}</div>{''.join(parts)}</div>")


def code(text: str, *, lines: int = 40) -> Html:
    """Program text, at most so many lines of it."""
    kept = text.split("\n")
    more = [f"… {len(kept) - lines:,} more lines"] if len(kept) > lines else []
    shown = escape("\n".join([*kept[:lines], *more]))
    look = "margin:.4em 0;line-height:1.3;font-family:var(--jp-code-font-family,monospace)"
    return Html(f"<pre style='{look}'>{shown}</pre>")


def sparkline(
    values: Iterable[SupportsFloat],
    what: str,
    *,
    axis: str = "layer",
    low: float | None = None,
    high: float | None = None,
    line: float | None = None,
    band: tuple[Iterable[SupportsFloat], Iterable[SupportsFloat]] | None = None,
    color: str = "currentColor",
    labels: Sequence[object] | None = None,
) -> Html:
    """A line as small as a word, with its numbers in the title.

    Args:
        values: From left to right; gaps where they are not finite.
        what: What they are, for the title.
        axis: What they are along, for the title.
        low: Bottom of the drawing; by default the least value.
        high: Its top; by default the greatest value.
        line: Where to draw a dashed line, such as chance.
        band: Lower and upper ends of intervals.
        color: Any CSS colour.
        labels: Names of the places along the axis; by default 0, 1, ...
    """
    y = np.array([float(value) for value in values])
    there = [k for k, value in enumerate(y) if np.isfinite(value)]
    if not there:
        return Html("–")
    names = list(range(len(y))) if labels is None else list(labels)
    lower, upper = ([], []) if band is None else ([float(v) for v in end] for end in band)
    extremes = [v for v in (*y, *lower, *upper, np.nan if line is None else line) if np.isfinite(v)]
    bottom = min(extremes) if low is None else low
    top = max(extremes) if high is None else high
    span = top - bottom or 1.0
    step = (_WIDTH - 2 * _EDGE) / max(1, len(y) - 1)

    def place(at: int, value: float) -> str:
        share = 0.5 if top == bottom else (min(max(value, bottom), top) - bottom) / span
        return f"{_EDGE + at * step:.1f},{_HEIGHT - _EDGE - share * (_HEIGHT - 2 * _EDGE):.1f}"

    marks = []
    if band is not None:
        inside = [k for k in there if np.isfinite(lower[k]) and np.isfinite(upper[k])]
        corners = [place(k, upper[k]) for k in inside] + [place(k, lower[k]) for k in reversed(inside)]
        marks.append(f"<polygon points='{' '.join(corners)}' fill='{escape(color)}' opacity='.2'/>")
    if line is not None:
        height = place(0, line).split(",")[1]
        marks.append(
            f"<line x1='{_EDGE}' x2='{_WIDTH - _EDGE}' y1='{height}' y2='{height}' "
            "stroke='currentColor' opacity='.45' stroke-dasharray='2 2'/>"
        )
    gaps = [at for at in range(1, len(there)) if there[at] - there[at - 1] > 1]
    for start, end in pairwise([0, *gaps, len(there)]):
        points = " ".join(place(k, y[k]) for k in there[start:end])
        marks.append(
            f"<polyline points='{points}' fill='none' stroke='{escape(color)}' stroke-width='1.5' "
            "stroke-linejoin='round' stroke-linecap='round'/>"
        )
    best = max(there, key=lambda k: y[k])
    cx, cy = place(there[-1], y[there[-1]]).split(",")
    marks.append(f"<circle cx='{cx}' cy='{cy}' r='2' fill='{escape(color)}'/>")
    told = (
        f"{what}: {y[there[0]]:.3g} at {axis} {names[there[0]]}, greatest {y[best]:.3g} at {axis} "
        f"{names[best]}, {y[there[-1]]:.3g} at {axis} {names[there[-1]]}"
    )
    return _svg(told, _WIDTH, "".join(marks))


def outcome_bar(counts: Mapping[str, int]) -> Html:
    """Shares of the outcomes side by side, in the colours that they have in all figures."""
    n = sum(counts.values())
    if not n:
        return Html("–")
    marks, x = [], 0.0
    for name, count in counts.items():
        width = (_WIDTH + 20) * count / n
        color = OUTCOME_COLORS.get(name, "currentColor")
        marks.append(f"<rect x='{x:.1f}' y='7' width='{width:.1f}' height='12' fill='{color}'/>")
        x += width
    told = ", ".join(f"{name.replace('_', ' ')} {count / n:.0%}" for name, count in counts.items() if count)
    return _svg(told, _WIDTH + 20, "".join(marks))


def outcome_key(names: Iterable[str]) -> Html:
    """Which colour is which outcome."""
    keys = (
        f"<span style='color:{OUTCOME_COLORS.get(name, 'currentColor')}'>■</span> "
        f"{escape(name.replace('_', ' '))}"
        for name in names
    )
    return Html(f"<div style='font-size:85%'>{' &nbsp; '.join(keys)}</div>")


def _svg(told: str, width: int, inside: str) -> Html:
    told = escape(told)
    return Html(
        f"<svg width='{width}' height='{_HEIGHT}' viewBox='0 0 {width} {_HEIGHT}' role='img' "
        f"aria-label='{told}' style='vertical-align:middle'><title>{told}</title>{inside}</svg>"
    )
