"""Landmark statistics with answers permuted within cells, while what the decoders say stays.

What a sample adds to a statistic depends on its own answer and no other's. So its part is tabled once for
every answer that there is, and a permutation is a look-up.

Excess is studentised: the observed statistic minus its mean over the other answers of the cells, over the
cluster-robust error of that difference. The permutation test is exact where answers are exchangeable within
cells, and beyond that right in large samples wherever the true excess is 0 (Janssen 1997, Chung and Romano
2013): where samples of one cluster are alike, or where the decoders know something that this statistic does
not show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
from einops import einsum, rearrange
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from brewlens.brief import brief
from brewlens.decoding.readout import Readout
from brewlens.lifecycle.landmarks import NEVER, landmarks
from brewlens.lifecycle.outcomes import RESOLUTION, classify
from brewlens.lifecycle.trajectory import Lifecycle
from brewlens.stats import Estimate, clustered_mean, detectable

CHUNK = 20_000
"""Samples times permutations at a time; bounds the memory."""
TIE = 1e-9
"""Statistics that differ by less are equal: what is left of their sums' rounding."""


@dataclass(frozen=True)
class Statistic:
    """Mean of a column over those samples that ``among`` counts; a ``share`` is one of yes or no."""

    column: str
    among: str = "samples"
    share: bool = False


STATISTICS: Mapping[str, Statistic] = {
    **{f"{mark}_share": Statistic(f"{mark}_share", share=True) for mark in ("fpcl", "fcc", "fjc")},
    **{mark: Statistic(mark) for mark in ("fpcl", "fcc", "fjc")},
    "brewing": Statistic("brewing", "fjc_share"),
    "brewing_restricted": Statistic("brewing_restricted"),
    "area_available": Statistic("area_available"),
    "area_ready": Statistic("area_ready"),
    **{
        f"outcome_{name}": Statistic(f"outcome_{name}", "fpcl_share", share=True)
        for name in (*RESOLUTION, "bypassed")
    },
    "outcome_no_brewing": Statistic("outcome_no_brewing", share=True),
    **{
        f"outcome_paper_{name}": Statistic(f"outcome_paper_{name}", "fpcl_share", share=True)
        for name in RESOLUTION
    },
}
"""``*_share``: share of samples with the landmark. ``fpcl``, ``fcc``, ``fjc``: mean first hit, never counted
as L. ``brewing``: mean over the samples with an FJC (the paper's). ``brewing_restricted``: ``fjc - fpcl``.
``area_*``: mean accuracy over layers. ``outcome_*``, ``outcome_paper_*``: share of the samples with an FPCL,
for ``no_brewing`` of all. Layers are in units of L."""


def permutations(
    cells: Int[np.ndarray, "sample"],
    resamples: int,
    *,
    linked: Int[np.ndarray, "sample"] | None = None,
    seed: int = 0,
    chunk: int = CHUNK,
) -> Iterator[Int[np.ndarray, "resample sample"]]:
    """Random permutations within cells, a chunk at a time: sample ``s`` gets what ``permutation[s]`` has.

    Args:
        cells: Cell of each sample.
        resamples: How many.
        linked: Samples of one number in cells of the same numbers (exact twins) move in parallel.
        seed: Of the draws.
        chunk: At most so many samples times permutations at a time.
    """
    rng = np.random.default_rng(seed)
    unit = np.arange(len(cells)) if linked is None else np.unique(linked, return_inverse=True)[1]
    order = np.lexsort((unit, cells))
    rank, unit = np.unique(cells[order], return_inverse=True)[1], unit[order]
    # Two samples of one unit in one cell have draws of their own, or they would always stay neighbours.
    place = np.arange(len(cells))
    first = np.r_[True, (rank[1:] != rank[:-1]) | (unit[1:] != unit[:-1])]
    repeat = place - np.maximum.accumulate(np.where(first, place, 0))
    draw = np.unique(np.stack([unit, repeat]), axis=1, return_inverse=True)[1].reshape(-1)
    step = max(1, chunk // len(cells))
    for start in range(0, resamples, step):
        keys = rng.random((min(step, resamples - start), draw.max() + 1))[:, draw] + rank
        permutation = np.empty(keys.shape, dtype=np.int64)
        permutation[:, order] = order[keys.argsort(axis=1)]
        yield permutation


def permutation_p(observed: float, drawn: Float[np.ndarray, "resample"]) -> float:
    """Two-sided p-value: twice the smaller tail, with the observed value counted among the draws.

    Draws that equal the observed value count half (mid-p, Lancaster 1961), which keeps the size of discrete
    statistics near its nominal value. NaN where nothing was observed.
    """
    if not np.isfinite(observed):
        return float("nan")
    difference = drawn[np.isfinite(drawn)] - observed
    half = (1 + (abs(difference) <= TIE).sum()) / 2
    tail = half + min((difference > TIE).sum(), (difference < -TIE).sum())
    return float(min(1.0, 2 * tail / (len(difference) + 1)))


def contributions(
    available: Readout, ready: Readout, lifecycle: Lifecycle, answer: int
) -> dict[str, np.ndarray]:
    """What every sample would add to the statistics if its answer were class ``answer``, by column."""
    depth, name = lifecycle.n_layers, ready.classes[answer]
    at, rt = available.predicted == answer, ready.predicted == answer
    marks = landmarks(at, rt)
    hits = {mark: getattr(marks, mark) for mark in ("fpcl", "fcc", "fjc")}
    restricted = {mark: np.where(hit == NEVER, depth, hit) / depth for mark, hit in hits.items()}
    columns = {"samples": np.ones(len(at))}
    columns |= {f"{mark}_share": hit != NEVER for mark, hit in hits.items()} | restricted
    columns["brewing"] = np.where(marks.fjc == NEVER, 0, marks.brewing) / depth
    columns["brewing_restricted"] = restricted["fjc"] - restricted["fpcl"]
    columns["area_available"], columns["area_ready"] = at.mean(axis=1), rt.mean(axis=1)
    said = np.array(lifecycle.output) == name
    for taxonomy, prefix in (("repaired", "outcome"), ("paper", "outcome_paper")):
        outcome = classify(
            marks.fpcl,
            marks.fjc,
            said & ~lifecycle.format_miss if taxonomy == "paper" else said,
            np.array(lifecycle.tail_class) == name,
            lifecycle.tail_confidence,
            taxonomy=taxonomy,
            confident=float(lifecycle.settings["confident"]),  # type: ignore[arg-type]
        )
        names = (*RESOLUTION, "bypassed", "no_brewing") if taxonomy == "repaired" else RESOLUTION
        columns |= {f"{prefix}_{label}": outcome == label for label in names}
    return columns


def studentised(
    columns: Float[np.ndarray, "column resample cluster"], pairs: Int[np.ndarray, "statistic 2"]
) -> Float[np.ndarray, "resample statistic"]:
    """Excess of ratios of sums over its cluster-robust error, both linearised; NaN where a sum is 0.

    Args:
        columns: Sums over each cluster, first all of the observed, then the same under the null.
        pairs: Columns of numerator and denominator of each ratio.
    """
    by_resample = rearrange(columns, "column resample cluster -> resample column cluster")
    by_cluster = rearrange(columns, "column resample cluster -> resample cluster column")
    sums, products = columns.sum(axis=-1), by_resample @ by_cluster
    which = np.concatenate([pairs, pairs + len(columns) // 2], axis=1).T
    part, among, part_null, among_null = sums[which]
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = part / among - part_null / among_null
        # Each cluster's influence is a combination of its four sums.
        combined = [1 / among, -part / among**2, -1 / among_null, part_null / among_null**2]
        square = sum(
            combined[i] * combined[j] * products[:, which[i], which[j]].T for i in range(4) for j in range(4)
        )
        count = columns.shape[-1]
        error = np.sqrt(np.maximum(square, 0) * count / max(count - 1, 1))
        return (excess / np.maximum(error, TIE)).T


@dataclass(frozen=True)
class Permuted:
    """What samples add to the statistics, and what permutations of their answers make of these.

    Attributes:
        index: Column by name.
        own: ``[column, sample]`` with the sample's own answer.
        null: ``[column, sample]`` mean over the other answers of its cell.
        paired: ``[sample]`` whether its cell has another sample.
        observed: By group, ``[statistic]`` studentised excess over its paired samples.
        drawn: By group, ``[resample, statistic]`` the same with permuted answers.
    """

    index: dict[str, int]
    own: Float[np.ndarray, "column sample"]
    null: Float[np.ndarray, "column sample"]
    paired: np.ndarray
    observed: dict[str, Float[np.ndarray, "statistic"]]
    drawn: dict[str, Float[np.ndarray, "resample statistic"]]

    __repr__ = brief


def permute(
    available: Readout,
    ready: Readout,
    lifecycle: Lifecycle,
    cells: Int[np.ndarray, "sample"],
    groups: Mapping[str, Int[np.ndarray, "_"]],
    labels: Int[np.ndarray, "sample"],
    *,
    linked: Int[np.ndarray, "sample"] | None = None,
    resamples: int = 999,
    seed: int = 0,
) -> Permuted:
    """Studentised excess of all statistics over groups of samples, under permutations within cells.

    Args:
        available: Readout of the availability decoder.
        ready: Readout of the readiness decoder.
        lifecycle: Of these two.
        cells: Cell of each sample.
        groups: Rows of each group.
        labels: Cluster of each sample.
        linked: As in :func:`permutations`.
        resamples: Permutations.
        seed: Of the permutations.
    """
    classes, answer = np.unique(available.target_index(lifecycle.answers), return_inverse=True)
    tables = [contributions(available, ready, lifecycle, c) for c in classes.tolist()]
    index = {name: k for k, name in enumerate(tables[0])}
    values = np.stack([np.stack(list(t.values())) for t in tables], axis=-1).astype(np.float64)
    sample, cell = np.arange(len(answer)), np.unique(cells, return_inverse=True)[1]
    counts = np.zeros((cell.max() + 1, len(classes)))
    np.add.at(counts, (cell, answer), 1)
    others = counts.sum(axis=1)[cell] - 1
    paired = others > 0
    weight = np.where(paired, 1 / np.maximum(others, 1), 0.0)
    total = einsum(counts[cell], values, "sample answer, column sample answer -> column sample") * weight
    flat = rearrange(values, "column sample answer -> column (sample answer)")

    pairs = np.array([(index[s.column], index[s.among]) for s in STATISTICS.values()])

    def ordered(rows: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
        """Rows by cluster, those alone in theirs first: their number, and where the other clusters start."""
        rows = rows[paired[rows]]
        cluster, size = np.unique(labels[rows], return_inverse=True, return_counts=True)[1:]
        rows = rows[np.lexsort((cluster, size[cluster] > 1))]
        single = int((size == 1).sum())
        return rows, single, np.flatnonzero(np.diff(labels[rows[single:]], prepend=-1))

    members = {name: ordered(rows) for name, rows in groups.items()}
    drawn = {name: np.full((resamples + 1, len(STATISTICS)), np.nan) for name in groups}
    done = 0
    # The products are small: threads would cost more than they bring.
    with threadpool_limits(1):
        for permutation in chain([sample[None]], permutations(cell, resamples, linked=linked, seed=seed)):
            entry = sample * len(classes) + answer[permutation]
            for name, (rows, single, starts) in members.items():
                if not len(rows):
                    continue
                both = np.empty((2 * len(index), len(entry), len(rows)))
                np.take(flat, entry[:, rows], axis=1, out=both[: len(index)])
                np.multiply(both[: len(index)], -weight[rows], out=both[len(index) :])
                both[len(index) :] += total[:, None, rows]
                if len(starts):
                    together = np.add.reduceat(both[..., single:], starts, axis=-1)
                    both = np.concatenate([both[..., :single], together], axis=-1)
                drawn[name][done : done + len(entry)] = studentised(both, pairs)
            done += len(entry)
    own = values[:, sample, answer]
    return Permuted(
        index=index,
        own=own,
        null=total - own * weight,
        paired=paired,
        observed={name: z[0] for name, z in drawn.items()},
        drawn={name: z[1:] for name, z in drawn.items()},
    )


def permuted_rows(
    found: Permuted, group: str, rows: Int[np.ndarray, "row"], labels: Int[np.ndarray, "sample"]
) -> Iterator[dict[str, object]]:
    """Each statistic of one group beside its null.

    Args:
        found: From :func:`permute`.
        group: Name of the group.
        rows: Its rows.
        labels: Cluster of each sample.
    """
    rows = rows[found.paired[rows]]
    labels = labels[rows]
    for k, (name, statistic) in enumerate(STATISTICS.items()):
        column, among = found.index[statistic.column], found.index[statistic.among]
        observed, influence = _ratio(found.own[column, rows], found.own[among, rows])
        null_mean, influence_null = _ratio(found.null[column, rows], found.null[among, rows])
        excess = observed - null_mean
        domain = found.own[among, rows] > 0
        row: dict[str, object] = {"statistic": name, "observed": observed, "null_mean": null_mean}
        row |= {"excess": excess, **spread(None)}
        row |= {"p": permutation_p(found.observed[group][k], found.drawn[group][:, k])}
        row |= {"n": int(domain.sum()), "n_clusters": len(np.unique(labels[domain]))}
        row |= {"resamples": len(found.drawn[group])}
        estimate = clustered_mean(excess + len(rows) * (influence - influence_null), labels)
        # Where next to none or all are expected, what is seen of the spread may be less than chance gives.
        rare = null_mean * (1 - null_mean) / max(int(domain.sum()), 1) if statistic.share else 0.0
        yield row | (spread(estimate, np.sqrt(rare)) if np.isfinite(excess) else {})


def spread(estimate: Estimate | None, least: float = 0.0) -> dict[str, float]:
    """Interval and detectable difference, with a standard error of ``least`` at least; NaN without spread."""
    if estimate is None or estimate.se < TIE:
        return dict.fromkeys(("low", "high", "detectable"), np.nan)
    if not np.isfinite(estimate.se):
        return {"low": estimate.low, "high": estimate.high, "detectable": np.nan}
    wider, value = max(1.0, least / estimate.se), estimate.value
    low, high = (value + wider * (end - value) for end in (estimate.low, estimate.high))
    return {"low": low, "high": high, "detectable": detectable(wider * estimate.se, estimate.df)}


def _ratio(
    part: Float[np.ndarray, "sample"], among: Float[np.ndarray, "sample"]
) -> tuple[float, Float[np.ndarray, "sample"]]:
    """A ratio of sums, and every sample's part in its error; NaN without samples."""
    size = among.sum()
    if size == 0:
        return float("nan"), np.full(len(part), np.nan)
    value = float(part.sum() / size)
    return value, (part - value * among) / size
