"""The figures of interventions: verdicts, effects along the depth, contributions of the layers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from brewlens.decoding.surface_control import OVERALL
from brewlens.figures.causal_use import (
    ALL,
    EXPERIMENT,
    causal_use_alt,
    causal_use_table,
    panels_of,
    plot_causal_use_grid,
    pooled,
)
from brewlens.figures.components import (
    contribution_alt,
    contribution_table,
    outcomes_of,
    plot_contributions_grid,
)
from brewlens.figures.forest import plot_verdicts, verdict_alt, verdict_table, verdicts_size
from brewlens.figures.panels import grid_size
from brewlens.figures.plate import Makers, Plate, one, several

if TYPE_CHECKING:
    import pandas as pd

    from brewlens.results import Trace


def causal_makers(trace: Trace) -> Makers:
    """What draws the figures of interventions, as far as the trace has their tables.

    Verdicts; effects relative to availability and to readiness, a panel per edit; each edit by family;
    contributions of the layers.
    """
    tables, makers = trace.tables, Makers()
    if len(tables.get("causal_verdicts", ())):
        makers["causal_verdicts"] = partial(_verdicts, trace)
    if "effects" in tables:
        makers |= _use_makers(trace)
    if len(tables.get("components", ())) and len(table := contribution_table(trace)):
        makers["contributions"] = partial(_contributions, trace, table)
    return makers


def _verdicts(trace: Trace) -> Plate:
    table = verdict_table(trace)
    return one(
        *("causal_verdicts", table, lambda ax: plot_verdicts(trace, ax=ax)),
        *(verdicts_size(table), verdict_alt(table)),
    )


def _contributions(trace: Trace, table: pd.DataFrame) -> Plate:
    return several(
        *("contributions", table, lambda f: plot_contributions_grid(trace, table=table, figure=f)),
        *(grid_size(len(outcomes_of(table))), contribution_alt(table)),
    )


def _use_makers(trace: Trace) -> Makers:
    effects = trace.tables["effects"]
    effects = effects[(effects["experiment"] == EXPERIMENT) & (effects["outcome"] == ALL)]
    asked = [
        ("causal_use_availability", None, "follows", "fpcl"),
        ("causal_use_readiness", None, "follows", "fjc"),
    ]
    for edit in panels_of(effects, "edit"):
        donated = ((effects["edit"] == edit) & (effects["measure"] == "follows")).any()
        asked.append((f"causal_use_{edit}", edit, "follows" if donated else "unchanged", "fpcl"))
    makers = Makers()
    for name, edit, measure, aligned in asked:
        rows = effects[(effects["measure"] == measure) & (effects["aligned"] == aligned)]
        if edit is None:
            rows = rows[rows["family"] == pooled(rows)] if len(rows) else rows
        else:
            rows = rows[(rows["edit"] == edit) & (rows["family"] != OVERALL)]
        if len(rows):
            families = tuple(rows["family"].unique())
            makers[name] = partial(_use, trace, name, edit, measure, aligned, families)
    return makers


def _use(
    trace: Trace, name: str, edit: str | None, measure: str, aligned: str, families: tuple[str, ...]
) -> Plate:
    table = causal_use_table(trace, edit=edit, measure=measure, aligned=aligned)
    table = table[table["family"].isin(families)].reset_index(drop=True)
    return several(
        *(name, table),
        lambda figure: plot_causal_use_grid(
            trace, edit=edit, measure=measure, aligned=aligned, table=table, figure=figure
        ),
        *(grid_size(table["edit" if edit is None else "family"].nunique()), causal_use_alt(table)),
    )
