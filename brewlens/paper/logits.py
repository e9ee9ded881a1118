"""Which layers write the right answer, and where the wrong one overtakes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from brewlens.figures.causal_use import ALL, pooled
from brewlens.intervention.overtake import NOWHERE
from brewlens.lifecycle.outcomes import RESOLUTION
from brewlens.paper.column import Column, Kind
from brewlens.paper.parts import INTERVALS, SHARE, ZERO_BASED, counts
from brewlens.paper.table import PaperTable

if TYPE_CHECKING:
    import pandas as pd

_KINDS = {"attn": "attention", "mlp": "MLP"}
_OTHERS = {"embed": "embedding", "bias": "bias", NOWHERE: NOWHERE}


def component_tables(tables: Mapping[str, pd.DataFrame]) -> Iterator[PaperTable]:
    """Contributions to the logits, and overtakes, as far as they are there."""
    if len(tables.get("components", ())):
        yield _components(tables["components"])
    if len(tables.get("overtakes", ())):
        yield _overtakes(tables["overtakes"])


def _components(frame: pd.DataFrame) -> PaperTable:
    frame = _named(frame)
    everyone = pooled(frame)
    frame["whole"] = frame["head"].isna()
    return PaperTable(
        "components",
        frame,
        "What attention and MLP of each layer add to the logit of the right answer, less that of the wrong "
        "one. All families, by outcome.",
        f"{INTERVALS} Direct effects only, in logits. The wrong answer is what the model said instead, or "
        "the strongest other class. Single heads, families and the other outcomes are in the CSV.",
        (Column("layer", "where", "text"),),
        _by_outcome(frame[(frame["family"] == everyone) & frame["whole"]], "value", "share"),
        {"family": everyone, "whole": True},
        (Column("component", "kind", "text"),),
        stacked=True,
        units=counts(frame)
        | {"head": ZERO_BASED}
        | dict.fromkeys(("value", "low", "high", "detectable"), "logits"),
    )


def _overtakes(frame: pd.DataFrame) -> PaperTable:
    frame = _named(frame)
    everyone = pooled(frame)
    here: Any = frame[(frame["family"] == everyone) & frame["outcome"].isin([ALL, *RESOLUTION])]
    some = here["count"] > 0
    outcomes = set(here.loc[some & (here["component"] != NOWHERE), "outcome"]) or {ALL}
    here = here[here["outcome"].isin(list(outcomes))]
    part = frame["kind"] + " " + frame["where"]
    frame["overtaken"] = part.isin(list(part[here.index][here["count"] > 0]))
    return PaperTable(
        "overtakes",
        frame,
        "Where the wrong answer overtakes the right one for good: share of samples, in %. All families, by "
        "outcome.",
        f"{INTERVALS} Parts at which it overtakes in none of these samples are left out; they, and the "
        "families, are in the CSV.",
        (Column("layer", "where", "text"),),
        _by_outcome(here, "share", "percent"),
        {"family": everyone, "overtaken": True, "outcome": tuple(outcomes)},
        (Column("component", "kind", "text"),),
        stacked=True,
        units=counts(frame) | dict.fromkeys(("share", "low", "high"), SHARE),
    )


def _named(frame: Any) -> Any:
    """Rows with the kind of their part and its place in words, attention first."""
    kind = frame["component"].map(_KINDS).fillna("other")
    layer = frame["layer"].astype("string")
    where = layer.where(layer.notna(), frame["component"].map(_OTHERS | _KINDS)).astype(str)
    order = {name: rank for rank, name in enumerate([*_KINDS.values(), "other"])}
    frame = frame.assign(kind=kind, where=where)
    return frame.sort_values("kind", key=lambda k: k.map(order), kind="stable").reset_index(drop=True)


def _by_outcome(rows: Any, value: str, kind: Kind) -> tuple[Column, ...]:
    """A column per outcome, with its n."""
    sizes = rows.groupby("outcome", sort=False)["n"].first()
    return tuple(
        Column(f"{name}\nn = {sizes[name]}", value, kind, "low", "high", where={"outcome": name})
        for name in (ALL, *RESOLUTION)
        if name in sizes.index
    )
