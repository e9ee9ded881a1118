"""Tables of several seeds: how far the main numbers spread, and how firm the verdicts are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brewlens.decoding.surface_control import OVERALL
from brewlens.lifecycle.claims import CONTRADICTED, NOT_DISTINGUISHABLE, SUPPORTED
from brewlens.paper.column import Column
from brewlens.paper.parts import FAMILY, SAMPLES
from brewlens.paper.table import PaperTable

if TYPE_CHECKING:
    from brewlens.study.seeds import Seeds

_QUANTITIES = {
    "accuracy": "model right, %",
    "probe_best": "probe, best layer, %",
    "context_stripped_best": "context-stripped, best layer, %",
    "surface_control: difference": "probe beyond text, points",
    "outcomes.resolved": "resolved, %",
    "outcomes.overprocessed": "overprocessed, %",
    "onsets: available_from": "available from, % of L",
    "onsets: ready_from": "ready from, % of L",
}
_VERDICTS = {
    SUPPORTED: "supported",
    NOT_DISTINGUISHABLE: "not distin-\nguishable",
    CONTRADICTED: "contra-\ndicted",
}


def seed_tables(seeds: Seeds) -> dict[str, PaperTable]:
    """The spread between seeds, and the verdicts of the seeds on the claims, by name.

    Args:
        seeds: From :func:`brewlens.load_seeds` or :func:`brewlens.run_seeds`.
    """
    tables = [_spread(seeds), *([_verdicts(seeds)] if len(seeds.verdicts) else [])]
    return {table.name: table for table in tables}


def _spread(seeds: Seeds) -> PaperTable:
    frame = seeds.spread
    there = [name for name in _QUANTITIES if name in set(frame["quantity"])]
    families = [f for f in dict.fromkeys(frame["family"]) if f not in (OVERALL, "claims")] + [OVERALL]
    order = {key: at for at, key in enumerate((f, q) for f in families for q in there)}
    keys = list(zip(frame["family"], frame["quantity"], strict=True))
    first = sorted(range(len(keys)), key=lambda row: order.get(keys[row], len(order)))
    return PaperTable(
        "seeds",
        frame.iloc[first].reset_index(drop=True),
        f"Spread between {len(seeds.seeds)} seeds ({', '.join(map(str, seeds.seeds))}).",
        f"{seeds.redrawn[0].upper()}{seeds.redrawn[1:]}. Intervals: 95 %, Student’s t over the seeds. "
        "Within: mean half-width of one seed’s own 95 % interval. Programs whose skeleton another seed has, "
        f"too: {100 * seeds.shared_skeletons:.0f} %. n: least of a seed. All quantities are in the CSV.",
        (FAMILY, Column("quantity", "quantity", "text", names=_QUANTITIES)),
        (
            Column("seeds", "seeds", "count"),
            Column("n", "n_least", "count"),
            Column("mean", "mean", "percent", "low", "high"),
            Column("SD", "sd", "percent"),
            Column("within", "within", "percent"),
        ),
        shown={"quantity": tuple(there), "family": tuple(families)},
        grouped=True,
        units={"seeds": "seeds", "n_least": SAMPLES, "n_most": SAMPLES},
    )


def _verdicts(seeds: Seeds) -> PaperTable:
    import pandas as pd

    records = [
        {
            **{"statement": statement, "scope": scope, "verdict": verdict},
            "seeds": sum(said == verdict for said in verdicts.values()),
            "which": ", ".join(str(seed) for seed, said in verdicts.items() if said == verdict),
        }
        for (statement, scope), verdicts in seeds.verdicts_by_claim().items()
        for verdict in _VERDICTS
    ]
    return PaperTable(
        "seed_verdicts",
        pd.DataFrame(records),
        f"Published claims: how many of {len(seeds.seeds)} seeds come to which verdict.",
        "Which seeds they are is in the CSV.",
        (
            Column("statement", "statement", "text", width="4.0cm"),
            Column("scope", "scope", "text", width="3.6cm"),
        ),
        tuple(Column(head, "seeds", "count", where={"verdict": v}) for v, head in _VERDICTS.items()),
        grouped=True,
        units={"seeds": "seeds"},
    )
