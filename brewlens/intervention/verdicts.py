"""Verdicts: whether the brewed answer is used, per family, outcome and edit, and from which layer on.

*Used*: averaged over each sample's brewing stretch, outputs follow the twin (of an erasure: do not stay what
they were) more than without the edit, by a p-value that is adjusted over all verdicts (Benjamini and Hochberg
1995), and more than with each of the edit's controls (the paired difference's 95 % interval lies above zero:
an intersection-union test, which needs no further correction). *Not used*: the interval of the effect lies
below the margin, that of the normalised logit difference below its own (an effect that later layers
overwrite shows there and not in the output), and the dose is not nil. *Cannot tell*: neither.

The layer from which it is used is the first one at which the effect is found, p-values adjusted over the
layers of the group; ``used_from_low`` is the first at which an effect of the margin is not excluded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from brewlens.brief import brief
from brewlens.intervention.effects import FOLLOWS, LOGIT_DIFFERENCE, UNCHANGED, Cell, Scores, cell_over
from brewlens.intervention.grid import Grid
from brewlens.stats import benjamini_hochberg, score_difference

if TYPE_CHECKING:
    import pandas as pd

USED, NOT_USED, CANNOT_TELL = "used", "not used", "cannot tell"
VERDICTS = (USED, NOT_USED, CANNOT_TELL)
ALPHA = 0.05
COLUMNS = (
    *("family", "outcome", "edit", "measure", "n", "n_shapes", "net", "low", "high", "p", "p_adjusted"),
    *("placebo", "placebo_net", "placebo_low", "placebo_high", "beyond", "beyond_low", "beyond_high"),
    *("logit_difference", "logit_low", "logit_high"),
    *("used_from", "used_from_low", "used_from_fpcl", "used_from_fjc", "cosine", "nil"),
    *("margin", "logit_margin", "verdict"),
)
ERASE = "erase"
STRETCH = "stretch"
_LOGITS = {"logit_difference": "net", "logit_low": "low", "logit_high": "high"}
_TAKEN = ("n", "n_shapes", "net", "low", "high", "p", "cosine", "nil")
Group = tuple[str, str, Bool[np.ndarray, "sample"]]


@dataclass(frozen=True, eq=False)
class Stretch:
    """A grid, its scores, and the slots of the brewing stretches.

    Attributes:
        grid: The grid.
        scores: By measure.
        inside: ``[sample, slot]``.
        shapes: ``[sample]``.
    """

    grid: Grid
    scores: Mapping[str, Scores]
    inside: Bool[np.ndarray, "sample slot"]
    shapes: Int[np.ndarray, "sample"]

    def means(self, arm: int, measure: str, rows: Bool[np.ndarray, "sample"]) -> Cell:
        """One value per sample: the mean over its slots."""
        return cell_over(self.grid, self.scores[measure], arm, self.inside & rows[:, None], {})

    __repr__ = brief


def verdicts(
    stretch: Stretch,
    groups: Sequence[Group],
    effects: pd.DataFrame,
    *,
    margin: float,
    logit_margin: float,
) -> pd.DataFrame:
    """One row per group and edit that has enough samples.

    Args:
        stretch: What was measured.
        groups: Family, outcome, and their samples.
        effects: The effects of the same grid and groups.
        margin: A share of outputs; what is certainly below it, and below ``logit_margin`` too, is not used.
        logit_margin: A share of the logit difference between the sample and its twin.

    Returns:
        The columns ``COLUMNS``: the effect; the strongest control, its effect (placebo_net, with interval)
        and what the edit does beyond it (paired, with interval); the layers from which the answer is used, in
        ``used_from_fpcl`` and ``used_from_fjc`` relative to the start and the end of the stretch; dose,
        margin and verdict.
    """
    import pandas as pd

    records = [
        record
        for group in groups
        for arm in _treatments(stretch.grid)
        if (record := _judged(stretch, group, arm, effects, margin, logit_margin)) is not None
    ]
    if not records:
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.DataFrame(records)
    table["p_adjusted"] = benjamini_hochberg(table["p"].to_numpy())
    shown = (table["p_adjusted"] < ALPHA) & table.pop("beyond_all")
    excluded = table.pop("excluded") & ~table["nil"]
    table["verdict"] = np.select([excluded, shown], [NOT_USED, USED], CANNOT_TELL)
    for name in ("used_from", "used_from_low", "used_from_fpcl", "used_from_fjc"):
        table[name] = table[name].astype("Int64").where(table["verdict"] == USED)
    return table.reindex(columns=COLUMNS)


def measure_of(edit: str) -> str:
    """The measure that an edit's verdict rests on: erasure donates no answer that could be followed."""
    return UNCHANGED if edit == ERASE else FOLLOWS


def _treatments(grid: Grid) -> list[int]:
    """The first treatment of every edit."""
    first = {}
    for number, arm in enumerate(grid.arms[1:], start=1):
        if not arm.control:
            first.setdefault(arm.edit, number)
    return list(first.values())


def _judged(
    stretch: Stretch,
    group: Group,
    arm: int,
    effects: pd.DataFrame,
    margin: float,
    logit_margin: float,
) -> dict[str, Any] | None:
    family, outcome, rows = group
    grid = stretch.grid
    treatment = grid.arms[arm]
    measure = measure_of(treatment.edit)
    sign = -1 if measure == UNCHANGED else 1
    here: Any = effects[
        (effects["family"] == family) & (effects["outcome"] == outcome) & (effects["edit"] == treatment.edit)
    ]
    inside = here[(here["aligned"] == STRETCH) & (here["measure"] == LOGIT_DIFFERENCE)].set_index("donor")
    here = here[here["measure"] == measure]
    whole = here[here["aligned"] == STRETCH].set_index("donor")
    if treatment.donor not in whole.index:
        return None
    nothing = dict.fromkeys(_LOGITS.values(), np.nan)
    logits = inside.loc[treatment.donor] if treatment.donor in inside.index else nothing
    found, own = whole.loc[treatment.donor], stretch.means(arm, measure, rows)
    placebos, beyond = whole[whole["control"].astype(bool)], {}
    for donor in placebos.index:
        other = stretch.means(grid.index(treatment.edit, donor), measure, rows)
        both = own.eligible & other.eligible
        moved, theirs = (sign * (cell.after - cell.before)[both] for cell in (own, other))
        beyond[donor] = score_difference(moved - theirs, stretch.shapes[both])
    at = here[here["donor"] == treatment.donor]
    depth = at[at["aligned"] == "layer"]
    record = {
        "family": family,
        "outcome": outcome,
        "edit": treatment.edit,
        "measure": measure,
        **{name: found[name] for name in _TAKEN},
        "used_from": _first(depth, sign),
        "used_from_low": _possible(depth, sign, margin),
        "used_from_fpcl": _first(at[at["aligned"] == "fpcl"], sign),
        "used_from_fjc": _first(at[at["aligned"] == "fjc"], sign),
        "margin": margin,
        "beyond_all": bool(beyond)
        and sign * found["net"] > 0
        and all(b is not None and b.low > 0 for b in beyond.values()),
        "logit_margin": logit_margin,
        **{name: logits[of] for name, of in _LOGITS.items()},
        "excluded": bool(
            (found["high"] if sign > 0 else -found["low"]) < margin and logits["high"] < logit_margin
        ),
    }
    if not len(placebos):
        return record
    strongest = (sign * placebos["net"]).idxmax()
    row, more = placebos.loc[strongest], beyond[strongest]
    return {
        **record,
        "placebo": strongest,
        **{f"placebo_{name}": row[name] for name in ("net", "low", "high")},
        "beyond": None if more is None else more.value,
        "beyond_low": None if more is None else more.low,
        "beyond_high": None if more is None else more.high,
    }


def _first(rows: Any, sign: int) -> int | None:
    """First place with an effect in the right direction, adjusted over the places."""
    found = rows[(benjamini_hochberg(rows["p"].to_numpy()) < ALPHA) & (sign * rows["net"].to_numpy() > 0)]
    return int(found["at"].min()) if len(found) else None


def _possible(rows: Any, sign: int, margin: float) -> int | None:
    """First place at which an effect of the margin is not excluded."""
    upper = rows["high"] if sign > 0 else -rows["low"]
    found = rows[upper.to_numpy() >= margin]
    return int(found["at"].min()) if len(found) else None
