"""Is the brewed answer used? The effect of an intervention along the depth, beside its placebos.

What is drawn is net of no edit: the share of outputs after the edit minus that before it, of the same
samples. A placebo moves the state as far, or writes a state of the same kind, without the other answer; an
effect that a placebo shares is none of the answer's. The grey band spans the intervals of all placebos.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from brewlens.decoding.surface_control import OVERALL
from brewlens.figures import theme
from brewlens.figures.panels import small_multiples

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brewlens.results import Trace

EXPERIMENT = "causal_use"
ALL = "all"
FEW = 10
"""Samples below which a point is hollow, and no part of the line."""
MEASURES = {
    "follows": "follows the donor",
    "unchanged": "output unchanged",
    "right": "output right",
    "logit_difference": "logits moved to donor",
}
ALIGNED = {"fpcl": "layer relative to availability", "fjc": "layer relative to readiness", "layer": "layer"}
EDITS = {
    "whole": "whole state",
    "probe_subspace": "probe’s subspace",
    "learned_subspace": "learned subspace",
    "erase": "probe’s subspace erased",
}
_DASHES = ((0, (1, 1.3)), (0, (4, 1.2, 1, 1.2)), (0, (5, 1.6)), (0, (6, 1.2, 1, 1.2, 1, 1.2)), (0, (2, 2)))
_EFFECTS = (theme.DECODERS["probe"].color, theme.DECODERS["surface"].color)
_PLACEBO = theme.DECODERS["chance"].color


def edit_name(edit: str) -> str:
    """What an edit is called in figures and tables."""
    return EDITS.get(edit, edit.replace("_", " "))


def pooled(table: pd.DataFrame) -> str:
    """The family that stands for all samples: ``overall``, or the only one.

    Raises:
        ValueError: If there are several families and no ``overall``.
    """
    names = list(dict.fromkeys(table["family"]))
    if OVERALL in names:
        return OVERALL
    if len(names) != 1:
        raise ValueError(f"asked for all samples together; found no {OVERALL!r} among {', '.join(names)}")
    return names[0]


def causal_use_table(
    trace: Trace,
    family: str | None = None,
    *,
    edit: str | None = None,
    measure: str = "follows",
    aligned: str = "fpcl",
    outcome: str = ALL,
) -> pd.DataFrame:
    """Effects of exchanging the brewed answer, by layer, and those of the placebos.

    Args:
        trace: A trace with the table ``effects``.
        family: One family, ``overall`` for all samples together, or None for all of these.
        edit: One edit, or None for all.
        measure: ``follows``, ``unchanged``, ``right`` (shares of outputs) or ``logit_difference`` (0 as
            without edit, 1 as the donor).
        aligned: What layers are counted from: ``fpcl`` (the first layer of the brewing stretch, from
            which on the answer is available), ``fjc`` (the first one behind it, from which on it is ready) or
            ``layer`` (0-based).
        outcome: Of the samples, or ``all``.

    Returns:
        The rows of ``effects``, by family and in the order of ``at``, and whether a row is of fewer than
        ``FEW`` samples (``few``).

    Raises:
        ValueError: If the trace has no such effects.
    """
    import pandas as pd

    if "effects" not in trace.tables:
        raise ValueError(
            "needs the table of effects; found none: run the interventions over the trace, or the same "
            "command over the run folder again"
        )
    if measure not in MEASURES or aligned not in ALIGNED:
        raise ValueError(
            f"asked for measure {measure!r} aligned by {aligned!r}; choose one of {', '.join(MEASURES)} and "
            f"one of {', '.join(ALIGNED)}"
        )
    table = trace.tables["effects"]
    table = table[table["experiment"] == EXPERIMENT]
    asked = {"family": family, "edit": edit, "measure": measure, "aligned": aligned, "outcome": outcome}
    for column, value in asked.items():
        if value is None:
            continue
        rows = table[table[column] == value]
        if not len(rows):
            found = ", ".join(map(str, pd.unique(table[column]))) or "no row at all"
            raise ValueError(f"asked for effects with {column} {value!r}; found {found}")
        table = rows
    place = {name: number for number, name in enumerate(dict.fromkeys(table["family"]))}
    table = table.sort_values("at", kind="stable")
    table = table.sort_values("family", key=lambda names: names.map(place), kind="stable", ignore_index=True)
    return table.assign(few=table["n"] < FEW)


def plot_causal_use(
    trace: Trace,
    *,
    edit: str = "whole",
    family: str | None = None,
    measure: str = "follows",
    aligned: str = "fpcl",
    outcome: str = ALL,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw the effect of one edit by layer, its placebos beside it, with 95 % intervals clustered by shape.

    The numbers are those of ``causal_use_table``. Hollow points are of fewer than ``FEW`` samples; a cross
    is on a cell whose edit is as good as no edit, so that its effect says nothing.

    Args:
        trace: A trace with the table ``effects``.
        edit: The edit.
        family: One family, or None for all samples together.
        measure: As in ``causal_use_table``.
        aligned: As in ``causal_use_table``.
        outcome: Of the samples, or ``all``.
        ax: Where to draw; a new one-column figure by default.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: If the trace has no such effects.
    """
    table = causal_use_table(trace, family, edit=edit, measure=measure, aligned=aligned, outcome=outcome)
    table = table if family is not None else table[table["family"] == pooled(table)]
    ax = theme.new_axes(theme.one_column(), 2.9) if ax is None else ax
    with theme.context():
        _Look(table, measure, aligned).draw(ax, table, f"{table['family'].iloc[0]}: {edit_name(edit)}")
        if legend:
            theme.legend_below(ax, 28, ncols=2, handlelength=2.6, columnspacing=1.2)
    return ax


def plot_causal_use_grid(
    trace: Trace,
    *,
    edit: str | None = None,
    measure: str = "follows",
    aligned: str = "fpcl",
    outcome: str = ALL,
    table: pd.DataFrame | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Small multiples of ``plot_causal_use``: of one edit a panel per family, else a panel per edit.

    Args:
        trace: A trace with the table ``effects``.
        edit: The edit; None for all of them, over all samples together.
        measure: As in ``causal_use_table``.
        aligned: As in ``causal_use_table``.
        outcome: Of the samples, or ``all``.
        table: The ``causal_use_table`` that these ask for, if it is there already.
        figure: Where to draw, empty and with constrained layout; a new two-column figure by default.

    Raises:
        ValueError: If the trace has no such effects.
    """
    if table is None:
        table = causal_use_table(trace, edit=edit, measure=measure, aligned=aligned, outcome=outcome)
    table = table[table["family"] == pooled(table)] if edit is None else table[table["family"] != OVERALL]
    by, look = ("edit" if edit is None else "family"), _Look(table, measure, aligned)

    def draw(ax: Axes, name: str) -> None:
        look.draw(ax, table[table[by] == name], edit_name(name) if edit is None else name)

    return small_multiples(panels_of(table, by), draw, figure=figure, legend_columns=3)


def panels_of(table: pd.DataFrame, by: str) -> list[str]:
    """Names of the panels: edits in the order of ``EDITS``, families in that of the table."""
    names = list(dict.fromkeys(table[by]))
    known = [name for name in EDITS if name in names] if by == "edit" else []
    return [*known, *(name for name in names if name not in known)]


class _Look:
    """What all panels of a figure share: scale, names of the placebos, and what the legend has to name."""

    def __init__(self, table: pd.DataFrame, measure: str, aligned: str) -> None:
        self.label, self.aligned = MEASURES[measure], aligned
        self.unit = "net of no edit" if measure == "logit_difference" else "share, net of no edit"
        donors = sorted(set(table.loc[table["control"], "donor"]))
        self.dashes = {name: _DASHES[i % len(_DASHES)] for i, name in enumerate(donors)}
        self.effects = list(dict.fromkeys(table.loc[~table["control"], "donor"]))
        self.nil, self.few = bool(table["nil"].any()), bool(table.loc[~table["control"], "few"].any())
        first, last = int(table["at"].min()), int(table["at"].max())
        self.first, self.last, self.scale = first, last, _scale(table)

    def draw(self, ax: Axes, rows: pd.DataFrame, title: str) -> None:
        effect, placebos = rows[~rows["control"]], rows[rows["control"]]
        self._placebos(ax, placebos)
        ax.axhline(0, color=theme.INK, linewidth=0.8, zorder=1.5)
        self._effect(ax, effect)
        self._nil(ax, rows)
        self._legend(ax)
        least, most = (int(effect["n"].agg(f)) for f in ("min", "max"))
        ax.set_title(title)
        numbers = str(least) if least == most else f"{least}–{most}"
        ax.set_title(f"n = {numbers}", loc="right", fontsize=6.5, fontweight="normal", color=theme.MUTED)
        ax.set(xlabel=ALIGNED[self.aligned], ylabel=f"{self.label},\n{self.unit}", ylim=self.scale)
        ax.set_xlim(self.first - 0.4, self.last + 0.4)
        every = max(1, -(-(self.last - self.first + 1) // 8))
        ticks = [t for t in range(self.first, self.last + 1) if t % every == 0]
        ax.set_xticks(ticks, [_signed(t) if self.aligned != "layer" else str(t) for t in ticks])
        ax.yaxis.set_major_formatter(lambda y, _: f"{y:.2g}".replace("-", "−"))
        if self.aligned != "layer":
            ax.axvline(0, color=theme.MUTED, linewidth=0.7, linestyle=(0, (2, 2)), zorder=1.4)
        ax.grid(axis="y", color=theme.GRID, linewidth=0.5)
        ax.set_axisbelow(True)

    def _placebos(self, ax: Axes, rows: pd.DataFrame) -> None:
        enough = rows[~rows["few"]]
        ends = self._unbroken(enough.groupby("at").agg({"low": "min", "high": "max"}))
        band = ax.fill_between(ends.index, ends["low"], ends["high"], color=_PLACEBO, alpha=0.28, linewidth=0)
        band.set_gid("placebos")
        for donor, points in enough.groupby("donor", sort=False):
            net = self._unbroken(points.set_index("at"))["net"]
            look = {"color": _PLACEBO, "linestyle": self.dashes[donor], "linewidth": 1.0}
            ax.plot(net.index, net, gid=f"placebo-{donor}", **look)

    def _effect(self, ax: Axes, rows: pd.DataFrame) -> None:
        for donor, points in rows.groupby("donor", sort=False):
            look, few = self._treatment(donor), points[points["few"]]
            line = self._unbroken(points[~points["few"]].set_index("at"))
            band = {"color": look["color"], "alpha": 0.2, "linewidth": 0, "gid": f"interval-{donor}"}
            ax.fill_between(line.index, line["low"], line["high"], **band)
            ax.plot(line.index, line["net"], gid=f"effect-{donor}", **look)
            at = few["at"].to_numpy(int)
            ax.vlines(at, few["low"], few["high"], color=look["color"], alpha=0.35, linewidth=0.8)
            ax.plot(at, few["net"], gid=f"few-{donor}", **look | _HOLLOW)

    def _unbroken(self, points: pd.DataFrame) -> pd.DataFrame:
        """The points by layer, with nothing where there is none: lines do not lead across it."""
        numbers = points[[c for c in ("net", "low", "high") if c in points]].astype(float)
        return numbers.set_axis(points.index.astype(int)).reindex(range(self.first, self.last + 1))

    def _treatment(self, donor: str) -> dict[str, Any]:
        number = self.effects.index(donor)
        return {"color": _EFFECTS[number % 2], "marker": "os"[number % 2], "markersize": 3.0}

    def _nil(self, ax: Axes, rows: pd.DataFrame) -> None:
        for control, color in ((True, _PLACEBO), (False, theme.INK)):
            nil = rows[rows["nil"] & (rows["control"] == control)]
            gid = "nil-placebo" if control else "nil"
            ax.plot(nil["at"].to_numpy(int), nil["net"], color=color, gid=gid, **_CROSS)

    def _legend(self, ax: Axes) -> None:
        """Entries for all that any panel may show: the legend is that of the first one."""
        for donor in self.effects:
            look, band = self._treatment(donor), {"alpha": 0.2, "linewidth": 0}
            which = f" ({donor.replace('_', ' ')})" if len(self.effects) > 1 else ""
            ax.plot([], [], label=f"effect{which}", **look)
            ax.fill_between([], [], color=look["color"], label="its 95 % interval", **band)
        for donor, dashes in self.dashes.items():
            name = f"placebo: {donor.replace('_', ' ')}"
            ax.plot([], [], color=_PLACEBO, linestyle=dashes, linewidth=1.0, label=name)
        ax.fill_between([], [], color=_PLACEBO, alpha=0.28, linewidth=0, label="placebos’ 95 % intervals")
        if self.few:
            ax.plot([], [], label=f"effect, n below {FEW}", **self._treatment(self.effects[0]) | _HOLLOW)
        if self.nil:
            ax.plot([], [], color=theme.INK, label="as good as no edit (cosine above .995)", **_CROSS)


_HOLLOW = {"linestyle": "", "markerfacecolor": theme.PAPER}
_CROSS = {"marker": "x", "markersize": 4.2, "markeredgewidth": 0.9, "linestyle": "", "zorder": 3}


def _scale(table: pd.DataFrame) -> tuple[float, float]:
    """Limits that hold every interval of enough samples; all points where there is none."""
    rows = table[~table["few"]]
    values = (rows if len(rows) else table)[["low", "high", "net"]].to_numpy(float).ravel()
    low, high = _ends(values[np.isfinite(values)])
    pad = 0.06 * (high - low)
    return low - pad, high + pad


def _ends(values: Float[np.ndarray, "value"]) -> tuple[float, float]:
    low, high = min(0.0, values.min(initial=0)), max(0.0, values.max(initial=0))
    spare = max(0.0, 0.1 - (high - low)) / 2
    return low - spare, high + spare


def _signed(offset: int) -> str:
    return f"{offset:+d}".replace("-", "−") if offset else "0"


def causal_use_alt(table: pd.DataFrame) -> str:
    """What the figure says, for a reader who cannot see it."""
    parts = []
    for (family, edit), rows in table[~table["control"]].groupby(["family", "edit"], sort=False):
        enough = rows if rows["few"].all() else rows[~rows["few"]]
        most = rows.loc[enough["net"].abs().idxmax()]
        beside = table[table["control"] & (table["family"] == family) & (table["edit"] == edit)]
        beside = beside[beside["at"] == most["at"]]["net"].abs()
        placebos = f" (placebos at most {beside.max():.2f})" if len(beside) else ""
        parts.append(f"{family}, {edit_name(edit)}: most at {most['at']}, {most['net']:.2f}{placebos}")
    row = table.iloc[0]
    return f"Effect ({row['measure']}) by layer relative to {row['aligned']}. {'; '.join(parts)}."
