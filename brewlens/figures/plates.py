"""The figures of a run, one after the other, with the numbers behind them; and the folder they go to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from brewlens.decoding.surface_control import OVERALL
from brewlens.figures import theme
from brewlens.figures.accuracy import MARK, accuracy_table, plot_accuracy_grid
from brewlens.figures.causal_use import (
    ALL,
    EXPERIMENT,
    causal_use_table,
    edit_name,
    panels_of,
    plot_causal_use_grid,
    pooled,
)
from brewlens.figures.components import (
    contribution_table,
    outcomes_of,
    overtaken_at,
    plot_contributions_grid,
)
from brewlens.figures.export import save
from brewlens.figures.forest import plot_verdicts, said, verdict_table, verdicts_size
from brewlens.figures.lifecycle import examples, lifecycle_size, lifecycle_table, plot_lifecycle
from brewlens.figures.onsets import ONSETS, onset_table, plot_onsets_grid
from brewlens.figures.outcomes import outcome_table, outcomes_size, plot_outcomes
from brewlens.figures.panels import grid_size
from brewlens.figures.surface_control import plot_surface_control_grid, surface_control_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from brewlens.results import Trace


@dataclass(frozen=True)
class Plate:
    """One figure of a run.

    Attributes:
        name: Stem of its files.
        figure: The figure.
        data: The exact numbers that it draws.
        alt: What a reader who cannot see it needs to know.
        row: The sample that it shows, for a figure of one sample.
    """

    name: str
    figure: Figure
    data: pd.DataFrame
    alt: str
    row: int | None = None


def plates(trace: Trace) -> Iterator[Plate]:
    """The figures of a run.

    Outcome shares by both rules; by layer, accuracy, the probe minus the text-only baseline, and onsets;
    where interventions were run, verdicts, effects along the depth and contributions of the layers; one
    lifecycle per outcome.
    """
    import pandas as pd

    for taxonomy, name in (("repaired", "outcomes"), ("paper", "outcomes_paper")):
        figure = theme.blank(*outcomes_size(trace))
        plot_outcomes(trace, taxonomy=taxonomy, ax=_axes(figure))
        table = outcome_table(trace, taxonomy)
        yield Plate(name, figure, table, _outcomes_alt(table))
    size = grid_size(len(trace.items.families))
    figure = plot_accuracy_grid(trace, figure=theme.blank(*size))
    tables = [accuracy_table(trace, family) for family in trace.items.families]
    yield Plate("accuracy", figure, pd.concat(tables, ignore_index=True), _accuracy_alt(tables))
    if {"probe", "surface"} <= set(trace.readouts):
        table = surface_control_table(trace)
        figure = plot_surface_control_grid(trace, table=table, figure=theme.blank(*size))
        yield Plate("surface_control", figure, table, _surface_control_alt(table))
    if set(ONSETS) <= set(trace.onsets):
        table = onset_table(trace)
        figure = plot_onsets_grid(trace, table=table, figure=theme.blank(*size))
        yield Plate("onsets", figure, table, _onsets_alt(table))
    yield from causal_plates(trace)
    for outcome, row in examples(trace).items():
        figure = theme.blank(*lifecycle_size(trace))
        plot_lifecycle(trace, row, ax=_axes(figure))
        yield Plate(
            f"lifecycle_{outcome}", figure, lifecycle_table(trace, row), _lifecycle_alt(trace, row), row
        )


def causal_plates(trace: Trace) -> Iterator[Plate]:
    """The figures of interventions, as far as the trace has their tables.

    Verdicts; effects relative to availability and to readiness, a panel per edit; each edit by family;
    contributions of the layers.
    """
    tables = trace.tables
    if len(tables.get("causal_verdicts", ())):
        table = verdict_table(trace)
        figure = theme.blank(*verdicts_size(table))
        plot_verdicts(trace, ax=_axes(figure))
        yield Plate("causal_verdicts", figure, table, _verdicts_alt(table))
    if "effects" in tables and (tables["effects"]["experiment"] == EXPERIMENT).any():
        yield from _use_plates(trace)
    if len(tables.get("components", ())) and len(table := contribution_table(trace)):
        figure = theme.blank(*grid_size(len(outcomes_of(table))))
        plot_contributions_grid(trace, table=table, figure=figure)
        yield Plate("contributions", figure, table, _contributions_alt(table))


def _use_plates(trace: Trace) -> Iterator[Plate]:
    effects = trace.tables["effects"]
    effects = effects[(effects["experiment"] == EXPERIMENT) & (effects["outcome"] == ALL)]
    asked = [
        ("causal_use_availability", None, "follows", "fpcl"),
        ("causal_use_readiness", None, "follows", "fjc"),
    ]
    for edit in panels_of(effects, "edit"):
        donated = ((effects["edit"] == edit) & (effects["measure"] == "follows")).any()
        asked.append((f"causal_use_{edit}", edit, "follows" if donated else "unchanged", "fpcl"))
    for name, edit, measure, aligned in asked:
        rows = effects[(effects["measure"] == measure) & (effects["aligned"] == aligned)]
        if edit is None:
            rows = rows[rows["family"] == pooled(rows)] if len(rows) else rows
        else:
            rows = rows[(rows["edit"] == edit) & (rows["family"] != OVERALL)]
        if not len(rows):
            continue
        table = causal_use_table(trace, edit=edit, measure=measure, aligned=aligned)
        table = table[table["family"].isin(rows["family"].unique())].reset_index(drop=True)
        figure = theme.blank(*grid_size(table["edit" if edit is None else "family"].nunique()))
        plot_causal_use_grid(trace, edit=edit, measure=measure, aligned=aligned, table=table, figure=figure)
        yield Plate(name, figure, table, _use_alt(table))


def write(trace: Trace, folder: str | Path) -> list[Path]:
    """Write every figure of a run to ``folder`` as PDF, SVG, PNG and CSV; returns the paths."""
    return [
        path for plate in plates(trace) for path in save(plate.figure, Path(folder) / plate.name, plate.data)
    ]


def _axes(figure: Figure):
    with theme.context():
        return figure.add_subplot()


def _outcomes_alt(table: pd.DataFrame) -> str:
    parts = []
    for family, rows in table[table["outcome"] != "format_miss"].groupby("family", sort=False):
        shares = ", ".join(
            f"{theme.OUTCOME_NAMES[r.outcome]} {100 * r.share:.1f} %"
            for r in rows.itertuples()
            if r.share == r.share
        )
        parts.append(f"{family}: {shares}")
    return "Outcome shares with 95 % intervals. " + "; ".join(parts) + "."


def _accuracy_alt(tables: list[pd.DataFrame]) -> str:
    parts = []
    for table in tables:
        best = table[table["layer"].notna()].sort_values("accuracy", ascending=False, kind="stable")
        tops = [f"{theme.decoder(d).name} {100 * r.iloc[0]['accuracy']:.0f} % at layer {r.iloc[0]['layer']}"
                for d, r in best.groupby("decoder", sort=False)]  # fmt: skip
        parts.append(f"{_marked(table)}: {', '.join(tops)}")
    return "Accuracy by layer. Best layer of each decoder, by family. " + "; ".join(parts) + "."


def _surface_control_alt(table: pd.DataFrame) -> str:
    parts = []
    for _, rows in table.groupby("family", sort=False):
        clear = rows[(rows["low"] > 0)]["layer"]
        first = (
            f"first clearly above zero at layer {clear.iloc[0]}" if len(clear) else "never clearly above zero"
        )
        best = rows.loc[rows["difference"].idxmax()]
        most = f"most at layer {best['layer']}, {100 * best['difference']:+.0f} points"
        parts.append(f"{_marked(rows)}: {first}, {most}")
    return "Probe minus the text-only baseline, by layer. " + "; ".join(parts) + "."


def _onsets_alt(table: pd.DataFrame) -> str:
    parts = []
    for _, rows in table[table["curve"].isin(list(ONSETS))].groupby("family", sort=False):
        told = []
        for curve, points in rows.groupby("curve", sort=False):
            half = points[points["share"] >= 0.5]["layer"]
            at = f"by layer {half.iloc[0]}" if len(half) else "by no layer"
            told.append(f"half {curve} {at}, never {100 * points['never'].iloc[0]:.0f} %")
        parts.append(f"{_marked(rows)}: {'; '.join(told)}")
    return (
        "Share of samples whose answer is available, and ready, from a layer on, beside first hits and first "
        f"hits by chance. {'. '.join(parts)}."
    )


def _verdicts_alt(table: pd.DataFrame) -> str:
    parts = [
        f"{family}: {'; '.join(f'{edit_name(row.edit)} {said(row)}' for row in rows.itertuples())}"
        for family, rows in table.groupby("family", sort=False)
    ]
    return f"Whether the brewed answer is used, by family and edit. {'. '.join(parts)}."


def _use_alt(table: pd.DataFrame) -> str:
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


def _contributions_alt(table: pd.DataFrame) -> str:
    parts = []
    for outcome in outcomes_of(table):
        rows = table[table["outcome"] == outcome]
        ends = [rows.loc[rows["value"].idxmax()], rows.loc[rows["value"].idxmin()]]
        told = [f"{end['component']} of layer {end['layer']} {end['value']:+.2f}" for end in ends]
        where = overtaken_at(rows)
        if where is not None:
            told.append(f"wrong overtakes most often at {where['component']} of layer {where['layer']}")
        parts.append(f"{outcome}: {', '.join(told)}")
    return f"Logit contributions, right minus wrong, by layer: the largest and the least. {'; '.join(parts)}."


def _marked(table: pd.DataFrame) -> str:
    row = table.iloc[0]
    return f"{row['family']} ({MARK})" if row["decodable"] else str(row["family"])


def _lifecycle_alt(trace: Trace, row: int) -> str:
    life = trace.lifecycle
    marks = ", ".join(
        f"{name.upper()} at layer {layer}" if layer >= 0 else f"no {name.upper()}"
        for name, layer in ((n, int(getattr(life.landmarks, n)[row])) for n in ("fpcl", "fcc", "fjc"))
    )
    return (
        f"Distribution over the answer classes at every layer, for sample {life.item_ids[row]}. {marks}. "
        f"Right answer {life.answers[row]}, model's answer {life.output[row]}, outcome "
        f"{theme.OUTCOME_NAMES[life.outcome[row]]}."
    )
