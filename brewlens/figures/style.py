"""How figures look: one place for colours, markers, names and sizes; no global state is touched.

The colours are those of Okabe and Ito (2008), which readers with any of the common colour-vision
deficiencies tell apart; markers and line styles repeat what colour says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ONE_COLUMN = 3.35
"""Width of a figure in one column of a paper, in inches."""
TWO_COLUMNS = 6.9
"""Width of a figure across both columns, in inches."""

# The report replaces these five by the colours of the reader's theme, so nothing else may use them.
INK = "#1d2329"
MUTED = "#5c6670"
GRID = "#dde2e6"
FILL = "#c3cad1"
PAPER = "#fefefe"

OUTCOME_COLORS = {
    "resolved": "#009e73",
    "overprocessed": "#e69f00",
    "misresolved": "#d55e00",
    "unresolved": "#0072b2",
    "bypassed": "#cc79a7",
    "no_brewing": "#8a9199",
}
OUTCOME_MARKERS = {
    "resolved": "o",
    "overprocessed": "s",
    "misresolved": "X",
    "unresolved": "D",
    "bypassed": "^",
    "no_brewing": "o",
}
OUTCOME_NAMES = {name: name.replace("_", " ") for name in OUTCOME_COLORS}


@dataclass(frozen=True)
class Line:
    """How one decoder is drawn and what it is called."""

    name: str
    color: str
    dashes: str | tuple[float, tuple[float, ...]] = "-"
    marker: str = ""


DECODERS = {
    "probe": Line("linear probe", "#0072b2", marker="o"),
    "logit_lens": Line("logit lens", "#009e73", marker="^"),
    "tuned_lens": Line("tuned lens", "#56b4e9", marker="v"),
    "context_stripped": Line("context-stripped", "#d55e00", marker="s"),
    "context_stripped_raw": Line("context-stripped (raw)", "#e69f00", (0, (3, 1.5)), marker="D"),
    "context_stripped_pooled": Line("context-stripped (ten prompts)", "#a6761d", (0, (6, 1.5))),
    "context_stripped_constant": Line("context-stripped (constant prompt)", "#cc79a7", (0, (2, 1))),
    "surface": Line("surface (text only)", "#8a5fa8", (0, (5, 2))),
    "chance": Line("chance", "#8a9199", (0, (1, 1.5))),
    "model": Line("model's own answer", INK, marker="*"),
}
_SPARE = ("#cc79a7", "#66709e", "#7a7a00")

_RC = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that every machine draws the same bytes
    "font.size": 7.5,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 7.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "brewlens",
}


@contextmanager
def context() -> Iterator[None]:
    """Draw in this style inside the block; the parameters that it sets are as before after it.

    Not ``rc_context``, which puts all of them back: a notebook's backend, which matplotlib starts with the
    first figure, makes itself interactive, and would show no figure but that one.
    """
    before = {name: mpl.rcParams[name] for name in _RC}
    mpl.rcParams.update(_RC)
    try:
        yield
    finally:
        mpl.rcParams.update(before)


def decoder(name: str) -> Line:
    """How a decoder is drawn; one that is not known here gets a colour that depends only on its name."""
    return DECODERS.get(name) or Line(name.replace("_", " "), _SPARE[sum(name.encode()) % len(_SPARE)])


def legend_below(ax: Axes, points: float, **kwargs: object) -> None:
    """A legend centred ``points`` below the axes, whatever their height."""
    from matplotlib.transforms import ScaledTranslation

    down = ScaledTranslation(0, -points / 72, ax.figure.dpi_scale_trans)
    ax.legend(loc="upper center", bbox_to_anchor=(0.45, 0), bbox_transform=ax.transAxes + down, **kwargs)


def new_axes(width: float, height: float) -> Axes:
    """Axes on a new pyplot figure; sizes in inches.

    The figure belongs to the caller, who shows it, or closes it with ``matplotlib.pyplot.close``.
    """
    import matplotlib.pyplot as plt

    with context():
        return plt.subplots(figsize=(width, height), layout="constrained")[1]


def blank(width: float, height: float) -> Figure:
    """A figure that pyplot does not know, so that nobody has to close it; sizes in inches."""
    from matplotlib.figure import Figure

    with context():
        return Figure(figsize=(width, height), layout="constrained")
