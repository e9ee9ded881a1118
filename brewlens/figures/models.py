"""Several models beside each other: how deep answers brew in them, and how they end.

Depths are shares of a model's own number of layers, so that models of 12 and of 48 layers have one scale. A
first hit comes earlier by chance where there are more layers to hit in: compare depths with their nulls, or
the onsets, before the models with one another. Outcomes against the number of parameters are in
:mod:`brewlens.figures.models_by_size`, base against code-trained models, item by item, in
:mod:`brewlens.figures.model_pairs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from brewlens.decoding.surface_control import OVERALL
from brewlens.figures import theme
from brewlens.figures.accuracy import rows_of
from brewlens.lifecycle.curves import onset_curve
from brewlens.lifecycle.landmarks import NEVER
from brewlens.lifecycle.nulls import ALL, PERMUTED
from brewlens.lifecycle.outcomes import OUTCOMES
from brewlens.stats import ClusteredShare, Estimate, bounded_mean, clustered_share

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from brewlens.results import Trace

ACCURACY = "accuracy"
DEPTHS = ("fpcl", "fcc", "fjc", "brewing")
ONSETS = {"available_from": "available", "ready_from": "ready"}
NAMES = {
    ACCURACY: "output right",
    **theme.OUTCOME_NAMES,
    "fpcl": "FPCL",
    "fcc": "FCC",
    "fjc": "FJC",
    "brewing": "brewing",
    "available_from": "available from",
    "ready_from": "ready from",
}
QUANTILES = (10, 25, 50, 75, 90)
_PLACES = [f"q{place}" for place in QUANTILES]


def models_table(
    traces: Mapping[str, Trace] | Sequence[Trace],
    sizes: Mapping[str, float] | None = None,
    family: str | None = None,
) -> pd.DataFrame:
    """What each model does, with intervals: accuracy, outcomes, landmarks and onsets.

    Args:
        traces: Name of a model -> its trace; or traces, which are called by their ``model``.
        sizes: Number of parameters by name, where the run does not say it (``n_params`` in its manifest).
        family: One family, or None for all samples together (``overall``).

    Returns:
        Columns model, n_params (missing where not known), n_layers, family, quantity, n, n_shapes, value,
        low, high (95 % interval, clustered by shape; missing with a single shape), null (the same by chance,
        from the table ``nulls``), never, q10, q25, q50, q75, q90. Quantities: ``accuracy`` of the model's own
        answers and ``no_brewing``, shares of all samples; the other outcomes, shares of those with an FPCL;
        ``fpcl``, ``fcc``, ``fjc``, mean first hits as shares of the depth, never counted as 1; ``brewing``,
        the mean over samples with an FJC, as share of the depth; ``available_from`` and ``ready_from``, mean
        onsets, never counted as 1, for traces that have them. The last six have quantiles over the samples
        (never counted as 1; of ``brewing`` over those with an FJC; of onsets from the mean posterior) and
        ``never``, the share of samples without. A quantity without samples has n = 0.

    Raises:
        ValueError: If two models have one name, sizes are given for others, or a family is unknown.
    """
    import pandas as pd

    traces = named(traces)
    known = sizes_of(traces, sizes)
    records = []
    for name, trace in traces.items():
        rows = rows_of(trace, family)
        nulls = _nulls(trace, family)
        for record in _records(trace, rows):
            head = {"model": name, "n_params": known[name], "n_layers": trace.n_layers}
            null = nulls.get(str(record["quantity"]), np.nan)
            records.append({**head, "family": OVERALL if family is None else family, "null": null, **record})
    columns = ["model", "n_params", "n_layers", "family", "quantity", "n", "n_shapes", "value", "low", "high"]
    table = pd.DataFrame(records).reindex(columns=[*columns, "null", "never", *_PLACES])
    return table.astype({"n_params": float})


def named(traces: Mapping[str, Trace] | Sequence[Trace]) -> dict[str, Trace]:
    """Traces by name.

    Raises:
        ValueError: If there are none, or two of one name.
    """
    found = dict(traces) if isinstance(traces, Mapping) else {trace.model: trace for trace in traces}
    if len(found) < len(traces):
        raise ValueError(
            f"{len(traces)} traces of the models {', '.join(found)}: give a mapping, with a name for each"
        )
    if not found:
        raise ValueError("asked to compare models; found no trace")
    return found


def sizes_of(traces: Mapping[str, Trace], sizes: Mapping[str, float] | None) -> dict[str, float]:
    """Number of parameters of each model; NaN where neither caller nor manifest says it.

    Raises:
        ValueError: If a size is given for a model that is not there, or is none.
    """
    sizes = dict(sizes or {})
    if unknown := sorted(set(sizes) - set(traces)):
        raise ValueError(f"sizes given for {unknown}; the models are {', '.join(traces)}")
    if wrong := {name: size for name, size in sizes.items() if not 0 < size < np.inf}:
        raise ValueError(f"sizes are numbers of parameters; found {wrong}")
    found = {}
    for name, trace in traces.items():
        told = trace.manifest.get("model")
        stored = told.get("n_params") if isinstance(told, Mapping) else None
        found[name] = float(sizes.get(name, np.nan if stored is None else stored))
    return found


def shares_of(trace: Trace) -> dict[str, Bool[np.ndarray, "sample"]]:
    """Whether each sample is answered rightly, and whether it has each outcome."""
    life = trace.lifecycle
    return {ACCURACY: life.output_correct, **{name: life.outcome == name for name in OUTCOMES}}


def depths_of(trace: Trace) -> dict[str, Float[np.ndarray, "sample"]]:
    """Landmarks as shares of the depth, never as 1; brewing is NaN without an FJC."""
    found, layers = {}, trace.n_layers
    for name in DEPTHS:
        hit = getattr(trace.lifecycle.landmarks, name)
        found[name] = np.where(hit == NEVER, np.nan if name == "brewing" else 1.0, hit / layers)
    return found


def _records(trace: Trace, rows: np.ndarray) -> list[dict[str, object]]:
    shapes, records = trace.shapes[rows], []
    brewed = trace.lifecycle.outcome[rows] != "no_brewing"
    for name, hits in shares_of(trace).items():
        among = brewed if name not in (ACCURACY, "no_brewing") else np.ones(len(rows), dtype=bool)
        records.append({"quantity": name, **_share(clustered_share(hits[rows][among], shapes[among]))})
    for name, values in depths_of(trace).items():
        inside = np.isfinite(values[rows])
        record = {"quantity": name, **_mean(bounded_mean(values[rows][inside], 0, 1, shapes[inside]))}
        if inside.any():
            record |= dict(zip(_PLACES, np.percentile(values[rows][inside], QUANTILES), strict=True))
        hit = getattr(trace.lifecycle.landmarks, name)[rows]
        records.append(record | {"never": float((hit == NEVER).mean())})
    families = np.array(trace.lifecycle.families)[rows]
    for name, role in ONSETS.items():
        if role not in trace.onsets:
            records.append({"quantity": name, **_mean(None)})
            continue
        posterior = trace.onsets[role].posterior[rows]
        curve = onset_curve(posterior, shapes, groups=families)  # which onsets are fitted by
        by = np.r_[curve.share, 1.0]
        places = [float((by < place / 100 - 1e-12).sum()) / trace.n_layers for place in QUANTILES]
        record = {"quantity": name, **_mean(curve.relative), **dict(zip(_PLACES, places, strict=True))}
        records.append(record | {"never": float(posterior[:, -1].mean())})
    return records


def _share(found: ClusteredShare | None) -> dict[str, object]:
    if found is None:
        return {"n": 0, "n_shapes": 0}
    return {"n": found.n, "n_shapes": found.clusters, **_interval(found)}


def _mean(found: Estimate | None) -> dict[str, object]:
    if found is None:
        return {"n": 0, "n_shapes": 0}
    counts = {"n": found.n, "n_shapes": found.clusters}
    return counts | (_interval(found) if np.isfinite(found.se) else {"value": found.value})


def _interval(found: ClusteredShare | Estimate) -> dict[str, object]:
    return {"value": found.value, "low": found.low, "high": found.high}


def _nulls(trace: Trace, family: str | None) -> dict[str, float]:
    """Means by chance, by quantity, where the trace has its table of nulls."""
    table = trace.tables.get("nulls")
    if table is None:
        return {}
    rows = table[(table["null"] == PERMUTED) & (table["family"] == (ALL if family is None else family))]
    return {str(r.statistic).removeprefix("outcome_"): float(r.null_mean) for r in rows.itertuples()}


def plot_model_depths(
    traces: Mapping[str, Trace] | Sequence[Trace],
    *,
    sizes: Mapping[str, float] | None = None,
    family: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how FJC and brewing are distributed in each model; the numbers are those of ``models_table``.

    The thin line holds four of five samples, the thick one half of them, the tick is the median. The mark
    below is the mean with its 95 % interval, clustered by shape; the diamond is the mean by chance. Samples
    without an FJC count as 1 in FJC and are left out of brewing; their share stands at the right. Models are
    ordered by size where all sizes are known.

    Args:
        traces: Name of a model -> its trace; or traces, which are called by their ``model``.
        sizes: Number of parameters by name.
        family: One family, or None for all samples together.
        ax: Where to draw; a new one-column figure by default.

    Raises:
        ValueError: As ``models_table``.
    """
    table = models_table(traces, sizes, family)
    table = table[table["quantity"].isin(["fjc", "brewing"])]
    models = _ordered(table)
    ax = theme.new_axes(*models_size(models)) if ax is None else ax
    with theme.context():
        for number, name in enumerate(models):
            for quantity, y in (("fjc", number - 0.2), ("brewing", number + 0.2)):
                rows = table[(table["model"] == name) & (table["quantity"] == quantity)]
                _draw_spread(ax, rows.iloc[0], y, f"{quantity}-{name}")
            if number % 2 == 0:
                ax.axhspan(number - 0.5, number + 0.5, color=theme.GRID, alpha=0.35, linewidth=0, zorder=0)
        ax.set_yticks(range(len(models)), [_label(table[table["model"] == name].iloc[0]) for name in models])
        ax.tick_params(axis="y", length=0)
        ax.set(xlim=(-0.02, 1.02), ylim=(len(models) - 0.5, -0.5))
        ax.set_xlabel(f"share of the depth, {table['family'].iloc[0]}")
        ax.grid(axis="x", color=theme.GRID, linewidth=0.5)
        ax.set_axisbelow(True)
        ax.spines["left"].set_visible(False)
        ax.set_title("FJC and brewing")
        for quantity in ("fjc", "brewing"):
            ax.plot(
                [], [], "o-", color=theme.LANDMARK_COLORS[quantity], markersize=3.6, label=NAMES[quantity]
            )
        grey = theme.decoder("chance").color
        ax.plot([], [], "D", color=grey, markerfacecolor=theme.PAPER, markersize=3.4, label="mean by chance")
        theme.legend_below(ax, 28, ncols=3, columnspacing=1.2)
    return ax


def _draw_spread(ax: Axes, row: pd.Series, y: float, name: str) -> None:
    color = theme.LANDMARK_COLORS[row["quantity"]]
    text = {"transform": ax.get_yaxis_transform(), "fontsize": 5.8, "color": color, "va": "center"}
    if row["quantity"] == "fjc":
        ax.text(1.02, y + 0.06, f"never {100 * row['never']:.0f} %", gid=f"never-{name}", **text)
    if not row["n"]:
        return
    ax.hlines(y, row["q10"], row["q90"], color=color, linewidth=0.8, alpha=0.6)
    ax.hlines(y, row["q25"], row["q75"], color=color, linewidth=3.2, alpha=0.6)
    ax.plot(row["q50"], y, marker="|", markersize=6, color=color, gid=f"median-{name}")
    below = y + 0.15
    if row["low"] == row["low"]:
        ax.hlines(below, row["low"], row["high"], color=color, linewidth=1.3)
    ax.plot(row["value"], below, marker="o", markersize=3.4, color=color, gid=f"mean-{name}")
    grey = theme.decoder("chance").color
    if row["null"] == row["null"]:
        look = {"marker": "D", "markersize": 3.2, "color": grey, "markerfacecolor": theme.PAPER}
        ax.plot(row["null"], below, gid=f"null-{name}", **look)


def _ordered(table: pd.DataFrame) -> list[str]:
    models = table.drop_duplicates("model")
    if models["n_params"].notna().all():
        models = models.sort_values("n_params", kind="stable")
    return models["model"].tolist()


def _label(row: pd.Series) -> str:
    size = f", {parameters(row['n_params'])}" if row["n_params"] == row["n_params"] else ""
    return f"{row['model']}\nL = {row['n_layers']}{size}"


def parameters(count: float) -> str:
    """A number of parameters in words: 494M, 1.5B."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g}{letter}"
    return f"{count:.0f}"


def models_size(models: Sequence[str] | Mapping[str, Trace]) -> tuple[float, float]:
    """Width and height of ``plot_model_depths``, in inches."""
    return theme.one_column(), 1.0 + 0.55 * len(models)


def models_alt(table: pd.DataFrame) -> str:
    """What the figures say, for a reader who cannot see them, from ``models_table``."""
    parts = []
    for name, rows in table.groupby("model", sort=False):
        values = rows.set_index("quantity")
        told = [
            f"{NAMES[q]} {100 * values.loc[q, 'value']:.0f} %"
            for q in (ACCURACY, *OUTCOMES)
            if values.loc[q, "n"]
        ]
        told += [f"{NAMES[q]} {values.loc[q, 'value']:.2f} of the depth" for q in (*DEPTHS, *ONSETS)
                 if values.loc[q, "n"]]  # fmt: skip
        parts.append(f"{name}: {', '.join(told)}")
    return f"Models beside each other ({table['family'].iloc[0]}). {'. '.join(parts)}."
