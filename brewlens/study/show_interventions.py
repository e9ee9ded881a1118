"""What a run with interventions prints: whether the brewed answer is used, and what rescues cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from brewlens.intervention.exchanges import ERASE, LEARNED, PROBE, WHOLE
from brewlens.intervention.samples import ALL
from brewlens.intervention.verdicts import CANNOT_TELL

Rows = Sequence[Mapping[str, Any]]
_HEADS = {
    WHOLE: "whole state",
    PROBE: "probe's\nsubspace",
    LEARNED: "learned\nsubspace",
    ERASE: "erased:\nchanged",
}
_NOTE = (
    "Whole state, probe's and learned subspace: % of outputs that follow the counterfactual twin beyond "
    "chance when that is exchanged at the last token, averaged over the layers where the answer is available "
    "and not yet ready; erased: % of outputs that change. Net of no-op, 95 % interval by shape. L: first "
    "layer with an effect. Used: more than without the edit and than with every control. Not used: certainly "
    "less than {margin:.0f} %, and less than {logits:.0f} % of the logit difference. ?: cannot tell."
)


def causal_table(verdicts: Rows) -> Table | None:
    """One row per family, one column per edit; None without verdicts of all outcomes together."""
    rows = [row for row in verdicts if row["outcome"] == ALL]
    if not rows:
        return None
    edits = [edit for edit in _HEADS if any(row["edit"] == edit for row in rows)]
    table = Table(
        title="Is the brewed answer used before it is ready?",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
        title_justify="left",
    )
    table.add_column("family", no_wrap=True)
    table.add_column("n", justify="right")
    for edit in edits:
        table.add_column(_HEADS[edit], justify="right", no_wrap=True)
    for family in dict.fromkeys(row["family"] for row in rows):
        here = {row["edit"]: row for row in rows if row["family"] == family}
        if family == "overall":
            table.add_section()
        n = max(row["n"] for row in here.values())
        table.add_row(family, str(n), *(_cell(here.get(edit)) for edit in edits))
    return table


def causal_note(verdicts: Rows) -> str:
    """What the table's columns and marks mean."""
    return _NOTE.format(margin=100 * verdicts[0]["margin"], logits=100 * verdicts[0]["logit_margin"])


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    sign = -1 if row["edit"] == ERASE else 1
    ends = sorted((100 * sign * row["low"], 100 * sign * row["high"]))
    said = {CANNOT_TELL: "?"}.get(row["verdict"], row["verdict"])
    layer = "" if row["used_from"] is None else f" L{row['used_from']}"
    shown = f"{round(100 * sign * row['net']) + 0:d} {said}{layer}"
    return f"{shown}\n[dim]{ends[0]:.0f} to {ends[1]:.0f}[/dim]"


def rescue_lines(rescues: Rows) -> Iterator[str]:
    """The policy that repairs most of each outcome, chosen on the other half, and its cost."""
    if rescues:
        yield (
            "Rescue: chosen on one half of the shapes, measured on the other; accuracy if applied to "
            "everyone, in points"
        )
    for row in rescues:
        kind = "with the right answer in hand" if row["oracle"] else "without"
        yield (
            f"  {row['outcome']}, {kind}: {row['policy']}: repairs {_share(row, 'repaired')} of "
            f"{row['n_fail']}, breaks {_share(row, 'broken')} of {row['n_resolved']} resolved, net "
            f"{100 * row['net_accuracy']:+.1f}{_points(row)}"
        )


def _points(row: Mapping[str, Any]) -> str:
    return "" if row["low"] is None else f" \\[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"


def _share(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return "-"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    ends = "" if low is None else f" \\[{100 * low:.0f}, {100 * high:.0f}]"
    return f"{100 * row[name]:.0f} %{ends}"
