"""Effects: what an intervention changes, net of the no-op, on all eligible samples.

Every effect is paired: each sample with the edit, less the same sample with its own state written back. The
interval is clustered by shape. The p-value of shares of independent samples is McNemar's exact one, every
other that of sign flips of whole shapes. Controls are rows of the same table.

Measures of an edited run, per sample:

* ``right``: the output is the right answer.
* ``unchanged``: the output is what it is without the edit.
* ``follows``: the output is the answer that is donated, *beyond chance*: 1 for that, 0 for the right answer
  and for the un-edited output, and for any other class minus the odds ``q / (1 - q)``, where q is how likely
  that class is to be donated. An edit that merely breaks the model, so that its output has nothing to do with
  the donor, scores 0 on average; one that hands the answer over scores 1.
* ``logit_difference``: donated minus right answer, 0 as un-edited, 1 as in the donor's own run: the ratio of
  the mean changes (the normalised logit difference of patching studies).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int

from brewlens.brief import brief
from brewlens.intervention.grid import NIL, Grid
from brewlens.stats import (
    Estimate,
    benjamini_hochberg,
    clustered_mean,
    detectable,
    mcnemar,
    score_difference,
    sign_flips,
)

if TYPE_CHECKING:
    import pandas as pd

FOLLOWS, UNCHANGED, RIGHT, LOGIT_DIFFERENCE = "follows", "unchanged", "right", "logit_difference"
MEASURES = (FOLLOWS, UNCHANGED, RIGHT, LOGIT_DIFFERENCE)
LEAST = 10
"""Fewest samples of a row; fewer are left out."""
COLUMNS = (
    *("experiment", "family", "outcome", "edit", "donor", "control", "site", "aligned", "at", "measure"),
    *("n", "n_shapes", "before", "after", "net", "low", "high", "p", "p_adjusted", "detectable"),
    *("cosine", "change", "kl", "nil"),
)


@dataclass(frozen=True, eq=False)
class Scores:
    """One measure of every arm and place, before (the no-op) and after.

    Attributes:
        measure: One of ``MEASURES``.
        before: ``[sample, slot]``.
        after: ``[arm, sample, slot]``; NaN where nothing was written.
        whole: ``[sample]`` for ``logit_difference``, what a full effect would be, in logits; None for others.
    """

    measure: str
    before: Float[np.ndarray, "sample slot"]
    after: Float[np.ndarray, "arm sample slot"]
    whole: Float[np.ndarray, "sample"] | None = None

    __repr__ = brief


def follows(
    grid: Grid,
    donated: Int[np.ndarray, "sample"],
    right: Int[np.ndarray, "sample"],
    expected: Float[np.ndarray, "sample class"] | None = None,
) -> Scores:
    """Whether outputs are the donated answer, beyond chance.

    Args:
        grid: The grid.
        donated: Class of each sample's donor; of a placebo's runs the same, that of the treatment's donor.
        right: Class of the right answer.
        expected: How likely each class is to be donated to a sample like this; all alike by default. Donated
            answers are often near the right one, and so are the errors of a disturbed model.
    """
    n, classes = len(donated), grid.logits.shape[-1]
    likely = np.ones((n, classes)) if expected is None else expected
    own, said, rows = grid.predicted[0], grid.predicted, np.arange(n)[:, None]
    possible = repeat(likely, "sample answer -> sample slot answer", slot=own.shape[1])
    np.put_along_axis(possible, own[..., None], 0, -1)
    possible[rows, :, right[:, None]] = 0
    total = possible.sum(-1, keepdims=True)
    share = np.divide(possible, total, out=np.zeros_like(possible), where=total > 0)
    # An output that has nothing to do with the donor is the donated answer as often as its odds.
    odds = share / np.maximum(1 - share, 1e-9)
    stray = np.take_along_axis(np.broadcast_to(odds, (len(said), *odds.shape)), said[..., None], -1)[..., 0]
    hit = said == donated[:, None]
    return _scores(FOLLOWS, grid, np.where(hit, 1.0, -stray))


def unchanged(grid: Grid) -> Scores:
    """Whether outputs are what they are without the edit."""
    return _scores(UNCHANGED, grid, grid.predicted == grid.predicted[0])


def right(grid: Grid, answers: Int[np.ndarray, "sample"]) -> Scores:
    """Whether outputs are the right answer, by class index."""
    return _scores(RIGHT, grid, grid.predicted == answers[:, None])


def logit_difference(
    grid: Grid,
    donated: Int[np.ndarray, "sample"],
    answers: Int[np.ndarray, "sample"],
    donor_logits: Float[np.ndarray, "sample class"],
) -> Scores:
    """Logit of the donated minus the right answer, with what the donor's own run has there."""
    rows = np.arange(len(answers))
    at = np.maximum(donated, 0)
    difference = grid.logits[:, rows, :, at] - grid.logits[:, rows, :, answers]
    difference = rearrange(difference, "sample arm slot -> arm sample slot")
    full = donor_logits[rows, at] - donor_logits[rows, answers]
    found = _scores(LOGIT_DIFFERENCE, grid, difference)
    return Scores(found.measure, found.before, found.after, full)


def _scores(measure: str, grid: Grid, values: np.ndarray) -> Scores:
    values = values.astype(np.float64)
    return Scores(measure, values[0], np.where(grid.written, values, np.nan))


@dataclass(frozen=True, eq=False)
class Cell:
    """What one row of the table is about.

    Attributes:
        labels: Values of the label columns.
        before: ``[sample]``.
        after: ``[sample]``.
        eligible: ``[sample]`` the samples that count.
        doses: Cosine, change and kl of each sample.
        whole: As in :class:`Scores`.
        shares: Whether before and after are hits.
    """

    labels: Mapping[str, Any]
    before: Float[np.ndarray, "sample"]
    after: Float[np.ndarray, "sample"]
    eligible: Bool[np.ndarray, "sample"]
    doses: Float[np.ndarray, "3 sample"]
    whole: Float[np.ndarray, "sample"] | None = None
    shares: bool = False

    __repr__ = brief


def cells_at(
    grid: Grid,
    scores: Scores,
    arm: int,
    at: Int[np.ndarray, "sample slot"],
    eligible: Bool[np.ndarray, "sample slot"],
    labels: Mapping[str, Any],
) -> Iterator[Cell]:
    """One cell for every value of ``at``: a layer, or layers relative to a landmark.

    Args:
        grid: The grid.
        scores: One measure of it.
        arm: Number of the arm.
        at: ``[sample, slot]`` where each slot stands; no value twice in a row of eligible slots.
        eligible: Which slots count.
        labels: Values of the other label columns.
    """
    there = eligible & grid.written[arm]
    rows = np.arange(len(at))
    for value in np.unique(at[there]):
        here = there & (at == value)
        slot = here.argmax(1)
        yield Cell(
            {**labels, **_arm_labels(grid, arm), "measure": scores.measure, "at": int(value)},
            scores.before[rows, slot],
            scores.after[arm][rows, slot],
            here.any(1),
            np.stack([dose[arm][rows, slot] for dose in (grid.cosine, grid.change, grid.kl)]),
            scores.whole,
            scores.measure in (UNCHANGED, RIGHT),
        )


def cell_over(
    grid: Grid,
    scores: Scores,
    arm: int,
    eligible: Bool[np.ndarray, "sample slot"],
    labels: Mapping[str, Any],
) -> Cell:
    """One cell of each sample's mean over its eligible slots; arguments as in :func:`cells_at`."""
    there = eligible & grid.written[arm]
    count = np.maximum(there.sum(1), 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.where(there, values, 0).sum(1) / count

    return Cell(
        {**labels, **_arm_labels(grid, arm), "measure": scores.measure, "at": None},
        mean(scores.before),
        mean(scores.after[arm]),
        there.any(1),
        np.stack([mean(dose[arm]) for dose in (grid.cosine, grid.change, grid.kl)]),
        scores.whole,
    )


def _arm_labels(grid: Grid, arm: int) -> dict[str, Any]:
    found = grid.arms[arm]
    return {
        "edit": found.edit,
        "donor": found.donor,
        "control": found.control,
        "site": grid.site.tap,
    }


def net(cell: Cell, clusters: Int[np.ndarray, "sample"]) -> Estimate | None:
    """The effect of a cell, with its interval; None where no sample is eligible.

    Bonett and Price's interval of paired shares, and of scores between -1 and 1
    (``stats.score_difference``); of ``logit_difference`` a ratio of means, linearised.
    """
    rows = cell.eligible
    before, after, shape = cell.before[rows], cell.after[rows], clusters[rows]
    if cell.whole is not None:
        moved, full = after - before, cell.whole[rows] - before
        if not len(moved) or full.mean() == 0:
            return None
        ratio = moved.mean() / full.mean()
        return clustered_mean(ratio + (moved - ratio * full) / full.mean(), shape)
    return score_difference(after - before, shape)


def effect_table(
    cells: Sequence[Cell],
    clusters: Int[np.ndarray, "sample"],
    experiment: str,
    *,
    least: int = LEAST,
    n_resamples: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per cell that has enough samples.

    Args:
        cells: The cells.
        clusters: Shape of each sample.
        experiment: Name of the experiment.
        least: Fewest samples of a row.
        n_resamples: Sign flips behind a p-value.
        seed: Of the flips.

    Returns:
        The columns ``COLUMNS``. ``p_adjusted`` is Benjamini-Hochberg's over the rows that are no controls;
        controls have none. ``cosine``, ``change`` and ``kl`` are means over the samples. ``nil``: the mean
        cosine is above .995, so that the dose is as good as none, and no effect says nothing.
    """
    import pandas as pd

    used = [cell for cell in cells if cell.eligible.sum() >= least]
    records, flipped = [], []
    for cell in used:
        found = net(cell, clusters)
        if found is None:
            continue
        rows = cell.eligible
        dose = [_known_mean(values) for values in cell.doses[:, rows]]
        independent = cell.shares and found.clusters == found.n
        p = np.nan
        if independent:
            p = mcnemar(cell.after[rows].astype(bool), cell.before[rows].astype(bool))
        flipped.append(None if independent else np.where(rows, cell.after - cell.before, 0.0))
        ratio = cell.whole is not None
        records.append(
            {
                **cell.labels,
                "experiment": experiment,
                "n": found.n,
                "n_shapes": found.clusters,
                "before": 0.0 if ratio else float(cell.before[rows].mean()),
                "after": found.value if ratio else float(cell.after[rows].mean()),
                "net": found.value,
                "low": found.low if np.isfinite(found.se) else np.nan,
                "high": found.high if np.isfinite(found.se) else np.nan,
                "p": p,
                "detectable": detectable(found.se, found.df),
                **dict(zip(("cosine", "change", "kl"), dose, strict=True)),
                "nil": bool(dose[0] > NIL),
            }
        )
    table = pd.DataFrame(records, columns=[c for c in COLUMNS if c != "p_adjusted"])
    if not len(table):
        return table.reindex(columns=COLUMNS)
    asked = [k for k, values in enumerate(flipped) if values is not None]
    if asked:
        values = np.stack([flipped[k] for k in asked], axis=1)  # type: ignore[arg-type]
        p = sign_flips(values, clusters, n_resamples=n_resamples, seed=seed)
        table.loc[table.index[asked], "p"] = p
    table["p_adjusted"] = np.nan
    treated = ~table["control"].to_numpy(dtype=bool)
    table.loc[treated, "p_adjusted"] = benjamini_hochberg(table.loc[treated, "p"].to_numpy())
    table["at"] = table["at"].astype("Int64")
    return table.reindex(columns=COLUMNS)


def _known_mean(values: Float[np.ndarray, "sample"]) -> float:
    """The mean of what is not NaN."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
