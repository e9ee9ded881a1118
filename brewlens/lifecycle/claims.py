"""Claims: what the paper says of a model, one line each, and whether this run bears it out.

Every line has an effect that may come out either way, its interval, n, and a two-sided p-value; the
p-values of the table are adjusted together (Benjamini and Hochberg 1995), so that where nothing is there at
all the whole table says so in 95 of 100 runs. A statement about *when* something is there takes, besides,
that it is there: its p-value is the largest of its own and those of the presence of both decoders' answers
(intersection-union test, Berger 1982).

What the table does not show: that an available answer is used, or that a probe reads more than the text. A
probe is a bound: what it cannot read, for want of samples to learn from, may be there all the same, and
then answers seem to become available late. That the order is contradicted is said of this probe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from brewlens.lifecycle.curves import restricted_difference, scaled
from brewlens.lifecycle.landmarks import NEVER
from brewlens.lifecycle.nulls import ALL, PERMUTED
from brewlens.lifecycle.onsets import Onsets
from brewlens.lifecycle.trajectory import Lifecycle
from brewlens.stats import (
    Estimate,
    benjamini_hochberg,
    clustered_mean,
    detectable,
    paired_difference,
    trend,
)
from brewlens.tasks.difficulty import difficulty_levels
from brewlens.tasks.folds import clusters
from brewlens.tasks.item import ItemSet

if TYPE_CHECKING:
    import pandas as pd

SUPPORTED = "supported"
NOT_DISTINGUISHABLE = "not distinguishable from null"
CONTRADICTED = "contradicted"
VERDICTS = (SUPPORTED, NOT_DISTINGUISHABLE, CONTRADICTED)
ALPHA = 0.05
MOST_STRATA = 50
"""Combinations of the other factors' levels up to which a factor's trend is tested within each of them."""
ORDER = "answers are available before they are ready"


@dataclass(frozen=True)
class Claim:
    """One statement, measured.

    Attributes:
        statement: What is claimed; its effect is positive where it holds.
        scope: The family and factor that it is about, or ``all``.
        effect: The effect, in ``unit``; NaN where there was nothing to measure it on.
        low: Lower end of its 95 % interval, clustered by shape.
        high: Upper end.
        unit: Of the effect.
        n: Samples, or pairs of them.
        clusters: Shapes among them.
        p: Two-sided, not adjusted.
        detectable: The least effect that would be found in four of five runs of this size.
    """

    statement: str
    scope: str
    effect: float
    low: float
    high: float
    unit: str
    n: int
    clusters: int
    p: float
    detectable: float

    @classmethod
    def of(
        cls,
        statement: str,
        scope: str,
        unit: str,
        estimate: Estimate | None,
        *,
        p: float | None = None,
    ) -> Claim:
        """A claim whose effect is an estimate; ``p`` instead of the estimate's own, if given."""
        if estimate is None:
            return cls(statement, scope, np.nan, np.nan, np.nan, unit, 0, 0, np.nan, np.nan)
        return cls(
            statement,
            scope,
            estimate.value,
            estimate.low,
            estimate.high,
            unit,
            estimate.n,
            estimate.clusters,
            estimate.p if p is None else p,
            detectable(estimate.se, estimate.df),
        )


def claims(
    items: ItemSet,
    lifecycle: Lifecycle,
    onsets: Mapping[str, Onsets],
    nulls: pd.DataFrame,
    failures: Mapping[str, Estimate | None],
) -> pd.DataFrame:
    """The claims table of one run.

    Args:
        items: The items.
        lifecycle: Their lifecycles.
        onsets: ``available`` and ``ready``; without them the claims about onsets have no row.
        nulls: From :func:`brewlens.lifecycle.nulls.landmark_nulls`, with rows of the family ``all``.
        failures: From :func:`brewlens.lifecycle.failures.failure_excess`.

    Returns:
        One row per statement and scope: the fields of :class:`Claim`, ``p_adjusted`` (over all rows that
        have a p-value) and ``verdict``, one of ``VERDICTS``. A statement that this run cannot speak of (no
        loop twins, no ordered factor, or none that varies while the others stay) has no row; one without
        any sample to measure it on has no effect and is not distinguishable from null.
    """
    import pandas as pd

    shapes = clusters(items)
    found = [
        *(_order(onsets, nulls, shapes, lifecycle) if onsets else ()),
        *_against_chance(nulls),
        *(
            Claim.of(
                f"more samples are {name} than noise would make",
                "samples answered wrongly, against an unsaid digit in its place",
                "share of samples",
                excess,
            )
            for name, excess in failures.items()
        ),
        *_difficulty(items, lifecycle, shapes),
        *_twins(items, lifecycle, shapes),
    ]
    table = pd.DataFrame([vars(claim) for claim in found])
    table["p_adjusted"] = benjamini_hochberg(table["p"].to_numpy())
    table["verdict"] = verdicts(table["effect"].to_numpy(), table["p_adjusted"].to_numpy())
    return table


def verdicts(effect: np.ndarray, p_adjusted: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """The verdict on each claim; without a p-value it is not distinguishable from null."""
    clear = p_adjusted <= alpha
    return np.select(
        [clear & (effect > 0), clear & (effect < 0)], [SUPPORTED, CONTRADICTED], NOT_DISTINGUISHABLE
    )


def _order(
    onsets: Mapping[str, Onsets], nulls: pd.DataFrame, shapes: np.ndarray, lifecycle: Lifecycle
) -> Iterator[Claim]:
    available, ready = onsets["available"], onsets["ready"]
    presence = [float(_null(nulls, f"area_{name}")["p"]) for name in ("available", "ready")]

    def both_there(estimate: Estimate | None) -> float | None:
        # Unlike max, this is NaN where one of them is: what was not found to be there has no time.
        return None if estimate is None else float(np.max([estimate.p, *presence]))

    later = restricted_difference(ready.posterior, available.posterior, shapes, groups=lifecycle.families)
    later = scaled(later, 1 / lifecycle.n_layers)
    yield Claim.of(
        ORDER,
        "all, as this probe reads; never counts as after the last layer",
        "share of depth",
        later,
        p=both_there(later),
    )
    rows = np.flatnonzero((available.onset != NEVER) & (ready.onset != NEVER))
    brewing = clustered_mean((ready.onset[rows] - available.onset[rows]) / lifecycle.n_layers, shapes[rows])
    yield Claim.of(
        "brewing takes a share of the depth",
        "samples that are available, as this probe reads, and ready",
        "share of depth",
        brewing,
        p=both_there(brewing),
    )


def _null(nulls: pd.DataFrame, statistic: str) -> Any:
    rows = nulls[(nulls["family"] == ALL) & (nulls["statistic"] == statistic) & (nulls["null"] == PERMUTED)]
    return rows.iloc[0]


_CHANCE = {
    "brewing": (
        "brewing from FPCL to FJC is longer than first hits by chance make it",
        "samples with an FJC",
        "share of depth",
    ),
    "outcome_resolved": (
        "more samples are resolved than noise would make",
        "samples with an FPCL",
        "share of samples",
    ),
}


def _against_chance(nulls: pd.DataFrame) -> Iterator[Claim]:
    for statistic, (statement, scope, unit) in _CHANCE.items():
        row = _null(nulls, statistic)
        effect, low, high, p, least = (
            float(row[name]) for name in ("excess", "low", "high", "p", "detectable")
        )
        n, shapes = int(row["n"]), int(row["n_clusters"])
        yield Claim(statement, scope, effect, low, high, unit, n, shapes, p, least)


def _difficulty(items: ItemSet, lifecycle: Lifecycle, shapes: np.ndarray) -> Iterator[Claim]:
    family = np.array(lifecycle.families)
    resolved = lifecycle.outcome == "resolved"
    for name in items.families:
        rows = np.flatnonzero(family == name)
        members = [items[int(row)] for row in rows]
        for factor, ranks in difficulty_levels(members).items():
            within = [int(row) for row, item in zip(rows, members, strict=True) if factor in item.factors]
            rank = np.array([ranks[items[row].factors[factor]] for row in within])
            others = [
                "\t".join(f"{k}={v}" for k, v in items[row].factors.items() if k != factor) for row in within
            ]
            cells = set(zip(others, rank.tolist(), strict=True))
            if len(cells) == len(set(others)) or len(set(others)) > MOST_STRATA:
                continue  # the other factors cannot be held fixed
            slope = trend(resolved[within], rank, shapes[within], strata=np.array(others))
            yield Claim.of(
                "harder programs are resolved less often",
                f"{name}, {factor}",
                "share of samples per level",
                None
                if slope is None
                else replace(slope, value=-slope.value, low=-slope.high, high=-slope.low),
            )


def _twins(items: ItemSet, lifecycle: Lifecycle, shapes: np.ndarray) -> Iterator[Claim]:
    """A loop against its exact unrolled twin."""
    resolved, ids = lifecycle.outcome == "resolved", set(items.ids)
    pairs = [
        (row, items.row(item.twins["unrolled"]))
        for row, item in enumerate(items)
        if item.twins.get("unrolled") in ids
    ]
    if pairs:
        loops, unrolled = np.array(pairs).T
        difference = paired_difference(resolved[loops], resolved[unrolled], shapes[loops])
        yield Claim.of(
            "a loop is resolved more often than its unrolled twin",
            "pairs of exact twins",
            "share of samples",
            difference,
        )
