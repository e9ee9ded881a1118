"""How figures look: one place for colours, markers, names and sizes; no global state is touched.

The colours are those of Okabe and Ito (2008), which readers with any of the common colour-vision
deficiencies tell apart; markers and line styles repeat what colour says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl

from brewlens.html import OUTCOME_COLORS as OUTCOME_COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The report replaces these five by the colours of the reader's theme, so nothing else may use them.
INK = "#1d2329"
MUTED = "#5c6670"
GRID = "#dde2e6"
FILL = "#c3cad1"
PAPER = "#fefefe"

OUTCOME_MARKERS = {
    "resolved": "o",
    "overprocessed": "s",
    "misresolved": "X",
    "unresolved": "D",
    "bypassed": "^",
    "no_brewing": "o",
}
LANDMARK_COLORS = {"fpcl": "#0072b2", "fcc": "#d55e00", "fjc": "#7b4b94", "brewing": "#66709e"}
"""Those of the decoders that a landmark is read with; of both, two more."""

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
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,  # figures ask for it by name
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


@dataclass(frozen=True)
class Venue:
    """What a place of publication asks of figures.

    Attributes:
        name: Of the venue.
        one_column: Width of a figure in one column, in inches.
        two_columns: Width of a figure across the page, in inches.
        rc: Fonts, on top of brewlens' own style.
    """

    name: str
    one_column: float
    two_columns: float
    rc: Mapping[str, object]


_HOUSE = Venue("brewlens", 3.35, 6.9, {})
_current: ContextVar[Venue] = ContextVar("venue", default=_HOUSE)
_FONTS = ("font.family", "font.serif", "font.sans-serif", "mathtext.fontset", "font.size")
_FONT_SIZES = ("axes.labelsize", "axes.titlesize", "legend.fontsize", "xtick.labelsize", "ytick.labelsize")


def venues() -> tuple[str, ...]:
    """Names that :func:`style` takes: those of the bundles of tueplots, with and without their year."""
    from tueplots import bundles

    dated = [name for name in vars(bundles) if name[-4:].isdigit()]
    return tuple(sorted({"brewlens", *dated, *(name[:-4] for name in dated)}))


def venue(name: str) -> Venue:
    """A venue by name; without a year it is the latest that is known.

    Raises:
        ValueError: If it is unknown.
    """
    import inspect

    from tueplots import bundles

    if name == "brewlens":
        return _HOUSE
    found = sorted(n for n in vars(bundles) if n == name or (n[:-4] == name and n[-4:].isdigit()))
    if not found or name not in venues():
        raise ValueError(f"unknown venue {name!r}; choose one of {', '.join(venues())}")
    bundle = getattr(bundles, found[-1])
    takes = inspect.signature(bundle).parameters
    plain = {"usetex": False} if "usetex" in takes else {}
    # One wide column has no half: two figures side by side take what two columns would.
    rc = bundle(**plain, **({"column": "half"} if "column" in takes else {"rel_width": 0.5}))
    page = bundle(**plain, **({"column": "full"} if "column" in takes else {}))
    fonts = {key: rc[key] for key in (*_FONTS, *_FONT_SIZES) if key in rc}
    for kind, last in (("font.serif", "DejaVu Serif"), ("font.sans-serif", "DejaVu Sans")):
        fonts[kind] = [*fonts.get(kind, []), last]  # which every machine has
    return Venue(found[-1], rc["figure.figsize"][0], page["figure.figsize"][0], fonts)


@contextmanager
def style(name: str = "brewlens") -> Iterator[Venue]:
    """Draw for a venue inside the block: its column widths, fonts and font sizes, by tueplots.

    Only brewlens' own figures look at it; matplotlib's parameters stay as they are. Draw and save inside
    the block. LaTeX is not run: letters are those of the first of the venue's fonts that the machine has,
    so that other machines may draw other bytes; the house style brings its font along.

    Args:
        name: ``neurips``, ``icml2024``, ...; see :func:`venues`.

    Raises:
        ValueError: If it is unknown.
    """
    token = _current.set(venue(name))
    try:
        yield _current.get()
    finally:
        _current.reset(token)


def one_column() -> float:
    """Width of a figure in one column of a paper, in inches."""
    return _current.get().one_column


def two_columns() -> float:
    """Width of a figure across both columns, in inches."""
    return _current.get().two_columns


@contextmanager
def context() -> Iterator[None]:
    """Draw in this style inside the block; the parameters that it sets are as before after it.

    Not ``rc_context``, which puts all of them back: a notebook's backend, which matplotlib starts with the
    first figure, makes itself interactive, and would show no figure but that one.
    """
    wanted = {**_RC, **_current.get().rc}
    before = {name: mpl.rcParams[name] for name in wanted}
    mpl.rcParams.update(wanted)
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
