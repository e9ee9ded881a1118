"""What the page says of components: which of them write the right answer, which write the wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from brewlens.figures.causal_use import ALL, FEW, pooled
from brewlens.lifecycle.outcomes import OUTCOMES
from brewlens.report.causal import plain_rows

if TYPE_CHECKING:
    import pandas as pd

    from brewlens.results import Trace

SHOWN = 3
"""Components told of each outcome on each side."""
LEAST = 0.005
"""Logits that a component must add to be told of."""


def components(trace: Trace, figures: Mapping[str, object]) -> dict[str, Any] | None:
    """What ``components.html`` shows; None for a trace without contributions.

    Args:
        trace: The trace.
        figures: The page's figures by name.
    """
    table = trace.tables.get("components")
    if table is None or not len(table):
        return None
    rows = table[table["family"] == pooled(table)]
    overtakes = trace.tables.get("overtakes")
    return {
        "outcomes": [
            _outcome(outcome, rows[rows["outcome"] == outcome], overtakes)
            for outcome in (ALL, *OUTCOMES)
            if len(found := rows[rows["outcome"] == outcome]) and (outcome == ALL or found["n"].max() >= FEW)
        ],
        "figures": [name for name in figures if name.startswith(("contributions", "components", "heads"))],
        "few": FEW,
    }


def _outcome(outcome: str, rows: pd.DataFrame, overtakes: pd.DataFrame | None) -> dict[str, Any]:
    # Heads where there are any: a layer's attention is their sum.
    heads = rows["head"].notna()
    attention = heads if heads.any() else rows["component"] == "attn"
    rows = rows[attention | (rows["component"] == "mlp")]
    ordered = plain_rows(rows.sort_values("value", ascending=False, kind="stable"))
    return {
        "outcome": outcome,
        "n": ordered[0]["n"],
        "n_shapes": ordered[0]["n_shapes"],
        "right": [_named(row) for row in ordered[:SHOWN] if row["value"] >= LEAST],
        "wrong": [_named(row) for row in ordered[::-1][:SHOWN] if row["value"] <= -LEAST],
        "overtakes": [] if overtakes is None else _overtakes(overtakes, outcome),
    }


def _overtakes(overtakes: pd.DataFrame, outcome: str) -> list[dict[str, Any]]:
    """Where the wrong answer overtakes for good in most samples, and how often it does nowhere."""
    rows = overtakes[(overtakes["family"] == pooled(overtakes)) & (overtakes["outcome"] == outcome)]
    somewhere = rows[(rows["component"] != "nowhere") & (rows["count"] > 0)]
    most = somewhere.sort_values("count", ascending=False, kind="stable").head(SHOWN)
    return [_named(row) for row in plain_rows(most)]


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with what its component is called."""
    if row["component"] == "attn":
        head = row.get("head")
        name = f"attention of layer {row['layer']}" if head is None else f"head {row['layer']}.{head}"
    elif row["component"] == "mlp":
        name = f"MLP of layer {row['layer']}"
    else:
        name = {"embed": "embedding", "bias": "bias"}.get(row["component"], row["component"])
    return {**row, "name": name}
