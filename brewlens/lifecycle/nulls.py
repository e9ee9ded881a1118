"""Nulls: what landmarks and outcomes would be if nothing were there, or if depth did not matter.

*Answers permuted* (is it there?). Answers change places within strata, what the decoders say stays. A
decoder without information is as often right about another item of the stratum as about its own, so permuted
statistics are those of noise with the same guesses, the same correlation along depth and the same outputs.
The null mean is over the other answers of the stratum, without the sample's own; the p-value is that of
the studentised permutation test (``permuted``).

*Depth shifted* (does depth matter?). Every trajectory is compared with itself shifted along depth, averaged
over all circular shifts, without the windows that wrap around: where the last layer meets the first the
neighbours are strangers, so that noise with correlated layers would hit earlier once it is shifted. A first
hit, never counted as L, is a sum over windows, ``min(F, L) = sum over k of [no hit in the first k layers]``;
its null is the same sum with each term averaged over all windows of k layers. Where trajectories are
stationary the difference has mean 0 for each sample, whatever the correlation of its layers or its
difficulty, and the test is a t-test with cluster errors; nothing is resampled.

What they do not show: an excess over permuted answers may come from the text; and the depth null also fails
where it is only the guesses that change with depth. An out-of-fold probe is fitted to the answers of the
other folds, so two samples of different folds tell of each other twice, and only probes fitted anew to
permuted answers would reckon with that: on residuals of pure noise both tests of what a probe says reject in
5 to 13 % of runs at 5 %. Context-stripped decoding is not fitted, and its tests hold their size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from brewlens.decoding.readout import Readout
from brewlens.lifecycle.permuted import TIE, permute, permuted_rows, spread
from brewlens.lifecycle.trajectory import Lifecycle
from brewlens.stats import benjamini_hochberg, clustered_mean
from brewlens.tasks.item import ItemSet

if TYPE_CHECKING:
    import pandas as pd

PERMUTED = "answers permuted"
SHIFTED = "depth shifted"
ALL = "all"
COLUMNS = (
    "family",
    "statistic",
    "null",
    "observed",
    "null_mean",
    "excess",
    "low",
    "high",
    "p",
    "p_adjusted",
    "n",
    "n_clusters",
    "resamples",
    "detectable",
)


def strata(items: ItemSet, folds: Int[np.ndarray, "sample"]) -> Int[np.ndarray, "sample"]:
    """Cells of family, factors and fold: where nothing is known, answers are exchangeable within them.

    Within a configuration, because its answers have a distribution of their own, which a decoder may guess
    from the text. Within a fold, because an out-of-fold decoder knows how often each answer occurs in the
    other folds: where folds are balanced it leans away from the answers of its own. A sample alone in its
    cell joins those alone in theirs, of its family and fold.

    Args:
        items: The items.
        folds: Fold of each item.

    Returns:
        Cell number of each item.

    Raises:
        ValueError: If there is not one fold per item.
    """
    if len(folds) != len(items):
        raise ValueError(f"needs one fold per item, {len(items)} in all; found {len(folds)}")
    whole = np.array([f"{item.family}\t{fold}" for item, fold in zip(items, folds, strict=True)])
    own = np.array([f"{w}\t{sorted(i.factors.items())}" for i, w in zip(items, whole, strict=True)])
    _, cell, size = np.unique(own, return_inverse=True, return_counts=True)
    return np.unique(np.where(size[cell] > 1, own, whole), return_inverse=True)[1]


def landmark_nulls(
    available: Readout,
    ready: Readout,
    lifecycle: Lifecycle,
    cells: Int[np.ndarray, "sample"],
    clusters: Sequence[object] | np.ndarray | None = None,
    *,
    linked: Int[np.ndarray, "sample"] | None = None,
    resamples: int = 999,
    seed: int = 0,
) -> pd.DataFrame:
    """Landmark and outcome statistics beside their nulls, for each family and for all samples.

    Args:
        available: Readout of the availability decoder.
        ready: Readout of the readiness decoder.
        lifecycle: Of these two. Its outputs and tails stay fixed; what is right is found anew.
        cells: From :func:`strata`. A sample that is alone in its cell is left out of the permutation null.
        clusters: Shape of each sample; None where samples are independent.
        linked: Group number of each sample; twins of one group are permuted in parallel.
        resamples: Permutations.
        seed: Of the permutations.

    Returns:
        One row per family (and ``all``), statistic and null: family, statistic, null, observed, null_mean,
        excess, low, high (95 %, by clusters), p (two-sided), p_adjusted (Benjamini and Hochberg over the
        table), n (samples that the statistic is a mean over), n_clusters, resamples (0 where none are
        needed), detectable (the least excess that four of five runs of this size would find). Against
        permuted answers ``brewlens.lifecycle.permuted.STATISTICS``; shifted along depth ``fpcl``, ``fcc``,
        ``fjc``, ``brewing_restricted`` as there, and ``slope_available``, ``slope_ready``, the change of
        accuracy over the whole depth on a straight line. NaN where a statistic has no samples, or no spread
        to make an interval of.

    Raises:
        ValueError: If the readouts, the lifecycle, the cells and the clusters are not about the same samples.
    """
    import pandas as pd

    n = len(lifecycle)
    labels = np.arange(n) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    if not available.item_ids == ready.item_ids == lifecycle.item_ids or not n == len(cells) == len(labels):
        raise ValueError(
            "readouts, lifecycle, cells and clusters must be about the same samples in the same order; found "
            f"{len(available)}, {len(ready)}, {n}, {len(cells)} and {len(labels)}"
        )
    family = np.array(lifecycle.families)
    names = list(dict.fromkeys(map(str, lifecycle.families)))
    groups = {name: np.flatnonzero(family == name) for name in names} if len(names) > 1 else {}
    groups[ALL] = np.arange(n)
    permuted = permute(
        available, ready, lifecycle, cells, groups, labels, linked=linked, resamples=resamples, seed=seed
    )
    right = [readout.correct(lifecycle.answers) for readout in (available, ready)]
    rows = []
    for name, members in groups.items():
        for row in permuted_rows(permuted, name, members, labels):
            rows.append({"family": name, "null": PERMUTED, **row})
        for row in shifted_rows(right[0][members], right[1][members], labels[members]):
            rows.append({"family": name, "null": SHIFTED, **row})
    table = pd.DataFrame(rows)
    if len(names) == 1:
        table = pd.concat([table.assign(family=names[0]), table], ignore_index=True)
    table["p_adjusted"] = benjamini_hochberg(table["p"].to_numpy())
    return table.reindex(columns=list(COLUMNS))


def waiting(
    correct: Bool[np.ndarray, "sample layer"],
) -> tuple[Int[np.ndarray, "sample"], Float[np.ndarray, "sample"]]:
    """Layers until the first hit, never counted as L, and their mean over shifts along depth.

    Args:
        correct: Whether the decoder is right.

    Returns:
        Both for every sample, in layers.
    """
    n, layers = correct.shape
    wait = np.zeros((n, layers + 1), dtype=np.int64)
    for layer in range(layers - 1, -1, -1):
        wait[:, layer] = np.where(correct[:, layer], 0, wait[:, layer + 1] + 1)
    # From each start, windows of up to wait[start] layers have no hit; there are L - k + 1 of k layers.
    share = np.r_[0.0, np.cumsum(1 / np.arange(layers, 0, -1))]
    return wait[:, 0], share[wait[:, :-1]].sum(axis=1)


def shifted_rows(
    available: Bool[np.ndarray, "sample layer"],
    ready: Bool[np.ndarray, "sample layer"],
    labels: Int[np.ndarray, "sample"],
) -> Iterator[dict[str, object]]:
    """Each statistic of one group beside its depth null.

    Args:
        available: Whether the availability decoder is right.
        ready: Whether the readiness decoder is right.
        labels: Cluster of every sample.
    """
    n, layers = available.shape
    waits = {"fpcl": waiting(available), "fcc": waiting(ready), "fjc": waiting(available & ready)}
    parts = {name: (first / layers, mean / layers) for name, (first, mean) in waits.items()}
    first, last = parts["fpcl"], parts["fjc"]
    parts["brewing_restricted"] = (last[0] - first[0], last[1] - first[1])
    depth = np.linspace(-0.5, 0.5, layers)
    for name, correct in (("available", available), ("ready", ready)):
        parts[f"slope_{name}"] = (correct @ depth / np.square(depth).sum(), np.zeros(n))
    for name, (observed, null) in parts.items():
        row: dict[str, object] = {"statistic": name, "observed": observed.mean(), "null_mean": null.mean()}
        difference = observed - null
        # What is left of rounding where all agree would pass for a spread.
        found = clustered_mean(np.where(abs(difference) < TIE, 0.0, difference), labels)
        if found is None:
            continue
        row |= {"excess": found.value, "p": found.p, **spread(found)}
        row |= {"n": n, "n_clusters": found.clusters, "resamples": 0}
        yield row
