"""Whether failures can be repaired, and at what cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brewlens.figures.causal_use import ALL
from brewlens.paper.column import Column
from brewlens.paper.parts import INTERVALS, SAMPLES, SHAPES
from brewlens.paper.table import PaperTable

if TYPE_CHECKING:
    import pandas as pd

_OF_FAILURES = ("chosen_on", "repaired", "repaired_low", "repaired_high", "placebo_repaired", "placebo_low",
                "placebo_high")  # fmt: skip


def rescue_table(frame: pd.DataFrame) -> PaperTable:
    """The best policy of each outcome, with and without the right answer in hand.

    Args:
        frame: The table ``rescue`` of a trace.
    """
    return PaperTable(
        "rescue",
        frame,
        "The edit that repairs most samples, chosen on half of the program shapes and measured on the "
        "other half, in %.",
        f"{INTERVALS} An oracle needs the right answer to find its layer, a deployable policy does not. "
        "Promised: what the choosing half gave (for all failures, of net). Broken: of the resolved "
        "samples. Net: change of accuracy if everyone were edited, in points. The placebo moves the same "
        "states as far.",
        (Column("n", "n_fail", "count"),),
        (
            Column("promised", "chosen_on", "percent"),
            Column("repaired", "repaired", "percent", "repaired_low", "repaired_high"),
            Column("by placebo", "placebo_repaired", "percent", "placebo_low", "placebo_high"),
            Column("n resolved", "n_resolved", "count"),
            Column("broken", "broken", "percent", "broken_low", "broken_high"),
            Column("n all", "n_all", "count"),
            Column("net", "net_accuracy", "points", "low", "high"),
        ),
        over=(
            Column("outcome", "outcome", "words", names={ALL: "all failures"}),
            Column("kind", "oracle", "text", names={True: "oracle", False: "deployable"}),
            Column("policy", "policy", "words"),
        ),
        stacked=True,
        units={
            **dict.fromkeys(("n_fail", "n_resolved", "n_all"), SAMPLES),
            "n_shapes": SHAPES,
            **dict.fromkeys(_OF_FAILURES, "share of the failures"),
            **dict.fromkeys(("broken", "broken_low", "broken_high"), "share of the resolved"),
            **dict.fromkeys(("net_accuracy", "low", "high", "detectable"), "difference of shares of all"),
        },
    )
