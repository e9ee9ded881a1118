"""Signals without the right answer, by outcome, and how well each tells right outputs from wrong ones.

The area under the ROC curve (AUROC) is the share of pairs of a right and a wrong output that a signal puts
in the order expected of it beforehand: high ``rho``, agreement and confidence speak for right, high entropies
and divergence for wrong. An area below one half is a signal that misleads. It is compared with the model's
confidence at its output, which costs nothing. Signals include the last layer, which is the output or nearly
so: an area is no forecast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from brewlens.decoding.surface_control import OVERALL
from brewlens.figures import theme
from brewlens.figures.accuracy import rows_of
from brewlens.lifecycle.detection import CONFIDENCE, final_confidence, placements
from brewlens.lifecycle.outcomes import OUTCOMES
from brewlens.lifecycle.signals import TAIL
from brewlens.stats import Estimate, benjamini_hochberg, bounded_mean, clustered_mean

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brewlens.results import Trace

SIGNALS = {
    "h": "context-stripped entropy",
    "hp": "probe entropy",
    "d": "divergence of the two",
    "a": "agreement of the two",
    "c": "context-stripped confidence",
    "rho": "resolution functional ρ",
    CONFIDENCE: "model's own confidence",
}
"""What each signal is called; all but the last are means over the tail of the layers, and lie in [0, 1]."""
FALLING = ("h", "hp", "d")
"""Signals that are expected to be low where the output is right."""
QUANTILES = tuple(range(5, 100, 10))
"""Where the dots of a distribution stand, in per cent; each is as many samples."""
_GRAIN = 25
"""Dots that fall into one of so many columns stand on each other."""
_PLACES = [f"q{place:02d}" for place in QUANTILES]


def signal_values(trace: Trace) -> dict[str, Float[np.ndarray, "sample"]]:
    """Every signal of every sample, and the model's confidence where it is known.

    Raises:
        ValueError: If the trace has no table of signals, or it is about other samples.
    """
    if "signals" not in trace.tables:
        raise ValueError(
            "needs the table of signals; found none: analyse the trace (brewlens.study.analysis.analyse), or "
            "run the same command over the run folder again"
        )
    table = trace.tables["signals"]
    if tuple(table["id"]) != tuple(trace.lifecycle.item_ids):
        raise ValueError(
            f"the table of signals is about other samples ({len(table)} rows) than the trace "
            f"({len(trace)}), or in another order: make it anew"
        )
    found = {name: table[name].to_numpy(float) for name in TAIL}
    raw = next(
        (trace.readouts[n] for n in ("context_stripped_raw", "logit_lens") if n in trace.readouts), None
    )
    return found if raw is None else {**found, CONFIDENCE: final_confidence(raw).astype(float)}


def signal_table(trace: Trace, family: str | None = None) -> pd.DataFrame:
    """How each signal is distributed among the samples of each outcome.

    Args:
        trace: A trace with the table ``signals``.
        family: One family, or None for all samples together (``overall``).

    Returns:
        Columns family, signal, outcome, n, n_shapes, mean, low, high (95 % interval between 0 and 1,
        clustered by shape; missing with a single shape), q05, q15, ..., q95 (quantiles). Outcomes without a
        sample have n = 0.

    Raises:
        ValueError: If the family is unknown, or the trace has no table of signals.
    """
    import pandas as pd

    rows = rows_of(trace, family)
    outcome, shapes = trace.lifecycle.outcome[rows], trace.shapes[rows]
    records = []
    for name, values in signal_values(trace).items():
        for label in OUTCOMES:
            here = outcome == label
            found = bounded_mean(values[rows][here], 0, 1, shapes[here])
            record: dict[str, object] = {"signal": name, "outcome": label, "n": 0, "n_shapes": 0}
            if found is not None:
                known = np.isfinite(found.se)
                record |= {"n": found.n, "n_shapes": found.clusters, "mean": found.value}
                record |= {"low": found.low if known else np.nan, "high": found.high if known else np.nan}
                places = np.quantile(values[rows][here], np.array(QUANTILES) / 100)
                record |= dict(zip(_PLACES, places, strict=True))
            records.append(record)
    table = pd.DataFrame(records).assign(family=OVERALL if family is None else family)
    first = ["family", "signal", "outcome", "n", "n_shapes", "mean", "low", "high"]
    return table.reindex(columns=[*first, *_PLACES])


def auroc_table(trace: Trace, family: str | None = None) -> pd.DataFrame:
    """How well each signal tells right outputs from wrong ones, beside the model's own confidence.

    Args:
        trace: A trace with the table ``signals``.
        family: One family, or None for all samples together (``overall``).

    Returns:
        Columns family, signal, n, n_shapes, n_right, auroc, low, high (95 % interval, clustered by shape;
        placement values of DeLong et al. 1988), gain, gain_low, gain_high (area minus that of
        ``confidence``, paired), p (of no gain) and p_adjusted (Benjamini and Hochberg over the signals).
        Missing where all outputs are right or all are wrong, and gains where the confidence is not known.

    Raises:
        ValueError: If the family is unknown, or the trace has no table of signals.
    """
    import pandas as pd

    rows = rows_of(trace, family)
    right, shapes = trace.lifecycle.output_correct[rows], trace.shapes[rows]
    one, records = np.zeros(len(rows), dtype=int), []
    both = 0 < right.sum() < len(right)
    placed = {
        name: placements((-values if name in FALLING else values)[rows], right, one)
        for name, values in signal_values(trace).items()
        if both
    }
    for name in signal_values(trace):
        record = {"signal": name, "n": len(rows), "n_shapes": len(np.unique(shapes))}
        record["n_right"] = int(right.sum())
        if both:
            area = clustered_mean(placed[name], shapes)
            record |= {"auroc": area.value, **_ends(area, "")}
        if both and CONFIDENCE in placed and name != CONFIDENCE:
            gain = clustered_mean(placed[name] - placed[CONFIDENCE], shapes)
            record |= {"gain": gain.value, **_ends(gain, "gain_"), "p": gain.p}
        records.append(record)
    columns = ["family", "signal", "n", "n_shapes", "n_right", "auroc", "low", "high"]
    columns += ["gain", "gain_low", "gain_high", "p"]
    table = pd.DataFrame(records).assign(family=OVERALL if family is None else family)
    table = table.reindex(columns=columns)
    table[["low", "high"]] = table[["low", "high"]].clip(0, 1)
    return table.assign(p_adjusted=benjamini_hochberg(table["p"].to_numpy(float)))


def _ends(found: Estimate, before: str) -> dict[str, float]:
    known = np.isfinite(found.se)
    return {f"{before}{end}": getattr(found, end) if known else np.nan for end in ("low", "high")}


def plot_signals(
    trace: Trace, *, signal: str = "rho", family: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw one signal by outcome; the numbers are those of ``signal_table`` and ``auroc_table``.

    Each dot is a tenth of the samples of that outcome, at its quantile; the mark below them is the mean,
    with its 95 % interval clustered by shape. The title gives the AUROC of right against wrong outputs.

    Args:
        trace: A trace with the table ``signals``.
        signal: ``h``, ``hp``, ``d``, ``a``, ``c``, ``rho`` or ``confidence``.
        family: One family, or None for all samples together.
        ax: Where to draw; a new one-column figure by default.

    Raises:
        ValueError: If the family or the signal is unknown, or the trace has no table of signals.
    """
    table, areas = signal_table(trace, family), auroc_table(trace, family)
    if signal not in set(table["signal"]):
        raise ValueError(
            f"asked for signal {signal!r}; there are {', '.join(dict.fromkeys(table['signal']))}"
        )
    ax = theme.new_axes(theme.one_column(), 2.7) if ax is None else ax
    with theme.context():
        _draw(ax, table[table["signal"] == signal], areas[areas["signal"] == signal].iloc[0])
    return ax


def _draw(ax: Axes, table: pd.DataFrame, area: pd.Series) -> None:
    table = table[table["n"] > 0]
    for y, row in enumerate(table.itertuples()):
        color = theme.OUTCOME_COLORS[row.outcome]
        x = np.array([getattr(row, place) for place in _PLACES])
        columns = np.floor(x * _GRAIN).clip(0, _GRAIN - 1)
        above = np.array([(columns[:k] == column).sum() for k, column in enumerate(columns)])
        ax.plot(
            x,
            y - 0.02 - 0.072 * above,
            **{"marker": "o", "linestyle": "", "markersize": 2.1, "markeredgewidth": 0},
            color=color,
            alpha=0.8,
            gid=f"dots-{row.outcome}",
        )
        if row.low == row.low:
            ax.hlines(y + 0.13, row.low, row.high, color=color, linewidth=1.4)
        ax.plot(
            row.mean,
            y + 0.13,
            marker=theme.OUTCOME_MARKERS[row.outcome],
            markersize=3.6,
            color=color,
            markerfacecolor=theme.PAPER if row.outcome == "no_brewing" else color,
            gid=f"mean-{row.outcome}",
        )
        ax.axhline(y + 0.25, color=theme.GRID, linewidth=0.6)
    names = [f"{theme.OUTCOME_NAMES[r.outcome]}\nn = {r.n}" for r in table.itertuples()]
    ax.set_yticks(range(len(table)), names)
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(-0.03, 1.03), ylim=(len(table) - 0.6, -0.82))
    ax.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    ax.spines["left"].set_visible(False)
    ax.set_title(SIGNALS[area["signal"]], fontsize=6.8, pad=12)
    ax.text(
        *(0, 1.02, f"{area['family']}, n = {area['n']}: AUROC {_told(area)}"),
        **{"transform": ax.transAxes, "fontsize": 6, "color": theme.MUTED, "gid": "auroc"},
    )


def _told(row: pd.Series) -> str:
    if row["auroc"] != row["auroc"]:
        return "not known: outputs are all alike"
    ends = "" if row["low"] != row["low"] else f" [{_short(row['low'])}, {_short(row['high'])}]"
    return f"{_short(row['auroc'])}{ends}"


def _short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def plot_auroc(trace: Trace, *, family: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw how well each signal tells right outputs from wrong ones; the numbers are ``auroc_table``'s.

    The band is the model's own confidence; a filled mark differs from it (adjusted p below .05), a hollow
    one does not.

    Args:
        trace: A trace with the table ``signals``.
        family: One family, or None for all samples together.
        ax: Where to draw; a new one-column figure by default.

    Raises:
        ValueError: If the family is unknown, or the trace has no table of signals.
    """
    table = auroc_table(trace, family)
    ax = theme.new_axes(theme.one_column(), 2.4) if ax is None else ax
    with theme.context():
        _draw_areas(ax, table)
    return ax


def _draw_areas(ax: Axes, table: pd.DataFrame) -> None:
    color = theme.DECODERS["context_stripped"].color
    for y, row in enumerate(table.itertuples()):
        own = row.signal == CONFIDENCE
        if own and row.low == row.low:
            ax.axvspan(row.low, row.high, color=theme.decoder("chance").color, alpha=0.25, linewidth=0)
        look = theme.INK if own else color
        if row.low == row.low:
            ax.hlines(y, row.low, row.high, color=look, linewidth=1.3)
        filled = own or row.p_adjusted < 0.05
        ax.plot(
            row.auroc,
            y,
            marker=theme.DECODERS["model"].marker if own else "o",
            markersize=6 if own else 4.2,
            color=look,
            markerfacecolor=look if filled else theme.PAPER,
            gid=f"auroc-{row.signal}",
        )
    ax.axvline(0.5, color=theme.MUTED, linewidth=0.7, linestyle=(0, (1, 1.5)))
    ax.set_yticks(range(len(table)), [SIGNALS[name].split(" (")[0] for name in table["signal"]])
    ax.tick_params(axis="y", length=0)
    low = table["low"].min() if table["low"].notna().any() else 0.5
    ax.set(xlim=(min(0.45, low - 0.02), 1.01), ylim=(len(table) - 0.5, -0.5))
    ax.set_xlabel("AUROC of right against wrong\n(hollow: like the model's confidence)")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.2g}".removeprefix("0") or "0")
    ax.grid(axis="x", color=theme.GRID, linewidth=0.5)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
    row = table.iloc[0]
    ax.set_title(f"{row['family']}  (n = {row['n']}, {row['n_right']} right)", fontsize=7.2)


def plot_signals_grid(trace: Trace, *, family: str | None = None, figure: Figure | None = None) -> Figure:
    """A panel per signal, as ``plot_signals`` draws it, and the areas of all in the last.

    Args:
        trace: A trace with the table ``signals``.
        family: One family, or None for all samples together.
        figure: Where to draw, empty and with constrained layout; a new two-column figure by default.

    Raises:
        ValueError: If the family is unknown, or the trace has no table of signals.
    """
    table, areas = signal_table(trace, family), auroc_table(trace, family)
    if figure is None:
        import matplotlib.pyplot as plt

        with theme.context():
            figure = plt.figure(figsize=signals_size(), layout="constrained")
    with theme.context():
        upper, lower = figure.subfigures(2, 1, height_ratios=[2, 1])
        corner, rest = lower.subfigures(1, 2, width_ratios=[1.22, 2])
        panels = [*upper.subplots(2, 3).flat, corner.subplots()]
        for number, (ax, (_, area)) in enumerate(zip(panels, areas.iterrows(), strict=False)):
            _draw(ax, table[table["signal"] == area["signal"]], area)
            if number % 3:
                ax.set_yticklabels([])
        for ax in panels[len(areas) :]:
            ax.set_axis_off()
        _draw_areas(rest.subplots(), areas)
    return figure


def signals_size() -> tuple[float, float]:
    """Width and height of the small multiples, in inches."""
    return theme.two_columns(), 6.6


def auroc_alt(areas: pd.DataFrame) -> str:
    """What the figure says, for a reader who cannot see it, from ``auroc_table``."""
    row = areas.iloc[0]
    told = "; ".join(f"{SIGNALS[area['signal']]} {_told(area)}" for _, area in areas.iterrows())
    return (
        f"Label-free signals by outcome. AUROC of right ({row['n_right']}) against wrong "
        f"({row['n'] - row['n_right']}) outputs: {told}."
    )
