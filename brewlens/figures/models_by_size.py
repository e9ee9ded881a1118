"""How samples end in models of several sizes: outcome shares against the number of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from brewlens.figures import theme
from brewlens.figures.models import models_table, parameters
from brewlens.lifecycle.outcomes import OUTCOMES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from brewlens.results import Trace

MOST_MARKS = 6
"""With more marks than these on the axis, it has powers of ten only."""


def plot_outcomes_by_size(
    traces: Mapping[str, Trace] | Sequence[Trace],
    *,
    sizes: Mapping[str, float] | None = None,
    family: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw outcome shares against the number of parameters; the numbers are those of ``models_table``.

    Intervals are 95 %, clustered by shape. The marks of one model stand beside each other, and models of
    nearly the same size are moved apart, so that none covers another. Where no two are, thin lines join one
    outcome from model to model; they claim nothing between them.

    Args:
        traces: Name of a model -> its trace; or traces, which are called by their ``model``.
        sizes: Number of parameters by name, where the run does not say it.
        family: One family, or None for all samples together.
        ax: Where to draw; a new one-column figure by default.

    Raises:
        ValueError: As ``models_table``, or if a size is not known.
    """
    table = models_table(traces, sizes, family)
    if missing := table[table["n_params"].isna()]["model"].unique().tolist():
        raise ValueError(
            f"no number of parameters for {', '.join(missing)}: their runs do not say it; give "
            f"sizes={{{missing[0]!r}: ...}}"
        )
    models = table.drop_duplicates("model").sort_values("n_params", kind="stable")
    ax = theme.new_axes(*outcomes_by_size_size(models)) if ax is None else ax
    with theme.context():
        size = np.log10(models["n_params"].to_numpy())
        span = max(float(np.ptp(size)), 0.5)
        least = 0.5 * span / max(len(models), 6)
        centre = _apart(size, least)
        moved = not np.allclose(centre, size)
        for number, name in enumerate(OUTCOMES):
            rows = table[table["quantity"] == name].set_index("model").loc[models["model"]]
            x = 10 ** (centre + 0.85 * least * (number / (len(OUTCOMES) - 1) - 0.5))
            value, low, high = (rows[c].to_numpy(float) for c in ("value", "low", "high"))
            color, apart = theme.OUTCOME_COLORS[name], name == "no_brewing"
            ax.vlines(x, low, high, color=color, linewidth=0.9)
            ax.plot(
                x,
                value,
                marker=theme.OUTCOME_MARKERS[name],
                markersize=3.4,
                color=color,
                linestyle="" if moved else "-",
                linewidth=0.5,
                markerfacecolor=theme.PAPER if apart else color,
                label=theme.OUTCOME_NAMES[name] + (" (of all)" if apart else ""),
                gid=name,
            )
        names = {"rotation": 35, "fontsize": 5.8, "color": theme.MUTED, "transform": ax.get_xaxis_transform()}
        for x, row in zip(10**centre, models.itertuples(), strict=True):
            ax.text(x, 1.01, f"{row.model}, {parameters(row.n_params)}", **names)
        ax.set_xscale("log")
        ends = centre[0] - 0.06 * span - least / 2, centre[-1] + 0.06 * span + least / 2
        ax.set_xlim(10 ** ends[0], 10 ** ends[1])
        marks = [m * 10.0**k for k in range(int(ends[0]) - 1, int(ends[1]) + 2) for m in (1, 3)]
        marks = [x for x in marks if ends[0] <= np.log10(x) <= ends[1]]
        if len(marks) > MOST_MARKS:
            marks = [x for x in marks if np.isclose(np.log10(x) % 1, 0)]
        ax.set_xticks(marks)
        ax.xaxis.set_major_formatter(lambda x, _: parameters(x))
        ax.minorticks_off()
        ax.set_ylim(-0.02, min(1.02, 0.05 + table["high"].max()))
        ax.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")
        ax.set(xlabel="parameters", ylabel=f"share of samples with an FPCL, {table['family'].iloc[0]}")
        ax.grid(axis="y", color=theme.GRID, linewidth=0.5)
        ax.set_axisbelow(True)
        theme.legend_below(ax, 28, ncols=2, columnspacing=1.2, handlelength=1.6)
    return ax


def _apart(places: Float[np.ndarray, "model"], least: float) -> Float[np.ndarray, "model"]:
    """Ascending places, those closer than ``least`` moved apart about their middle."""
    groups = [[float(place)] for place in places]
    middles = [float(place) for place in places]
    while True:
        half = [least * (len(group) - 1) / 2 for group in groups]
        close = next(
            (
                k
                for k in range(len(groups) - 1)
                if middles[k + 1] - half[k + 1] - middles[k] - half[k] < least * (1 - 1e-9)
            ),
            None,
        )
        if close is None:
            break
        groups[close : close + 2] = [groups[close] + groups[close + 1]]
        middles[close : close + 2] = [float(np.mean(groups[close]))]
    return np.concatenate(
        [m + least * (np.arange(len(g)) - (len(g) - 1) / 2) for g, m in zip(groups, middles, strict=True)]
    )


def outcomes_by_size_size(models: Sequence[str] | Mapping[str, Trace] | pd.DataFrame) -> tuple[float, float]:
    """Width and height of ``plot_outcomes_by_size``, in inches."""
    return (theme.one_column() if len(models) <= 5 else theme.two_columns()), 3.2
