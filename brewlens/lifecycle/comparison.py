"""What the published recipe says of a run, and what brewlens says of the same samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from brewlens.lifecycle.landmarks import NEVER, Landmarks
from brewlens.lifecycle.onsets import Onsets
from brewlens.lifecycle.outcomes import RESOLUTION
from brewlens.lifecycle.paper import DEPTHS, LABEL_FREE, PaperLifecycle
from brewlens.lifecycle.signals import Signals
from brewlens.lifecycle.trajectory import Lifecycle, onset_outcomes
from brewlens.stats import clustered_mean, clustered_share

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class _Column:
    """One number per sample, and the samples that it is a mean over."""

    values: np.ndarray
    domain: np.ndarray
    says: str

    @property
    def share(self) -> bool:
        return self.values.dtype == bool


def side_by_side(
    paper: PaperLifecycle,
    life: Lifecycle,
    label_free: Signals,
    *,
    onsets: Mapping[str, Onsets] | None = None,
    clusters: Sequence[object] | np.ndarray | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """The published recipe and brewlens on the same samples, per family and over all.

    Denominators differ: an outcome is a share of the samples with an FPCL by either's own decoders, a
    depth of the recipe a mean over the samples that have the landmark, an onset of brewlens one over all
    samples. The difference is paired by sample, its interval linearised (ratio estimators) and clustered.

    Args:
        paper: From :func:`paper_lifecycle`.
        life: brewlens' own lifecycles of the same samples.
        label_free: brewlens' own signals, with each sample's own question.
        onsets: ``available`` and ``ready``. With them brewlens' depths are those of onsets, and outcomes
            stand there a second time, by onsets (``onset_resolved`` and so on); without them all are first
            hits.
        clusters: Shape of each sample; without, samples are independent.
        level: Confidence of the intervals.

    Returns:
        Tidy table: ``family`` (``all`` last); ``quantity``; ``paper``, its ``paper_low``, ``paper_high`` and
        ``paper_n``; ``brewlens`` likewise; ``difference`` (brewlens minus paper) with ``difference_low`` and
        ``difference_high``; ``paper_is`` and ``brewlens_is`` say what the numbers are. NaN, with n 0, where
        there is no sample or no such quantity.

    Raises:
        ValueError: If the inputs are not about the same samples in the same order.
    """
    import pandas as pd

    n = len(paper)
    cluster = np.arange(n) if clusters is None else np.asarray(clusters)
    sizes = {len(each.restricted) for each in (onsets or {}).values()} | {len(cluster)}
    if not paper.item_ids == life.item_ids == label_free.item_ids or sizes != {n}:
        raise ValueError(
            f"both must be about the same samples in the same order; found {n} and {len(life)} samples, "
            f"{len(label_free)} of the signals, and {sorted(sizes)} onsets or clusters"
        )
    family = np.array(paper.families, dtype=object)
    groups = {name: family == name for name in dict.fromkeys(paper.families)}
    columns = list(_quantities(paper, life, label_free, onsets))
    rows = []
    for name, here in {**groups, "all": np.ones(n, dtype=bool)}.items():
        for quantity, ours, theirs in columns:
            rows.append(
                {
                    "family": name,
                    "quantity": quantity,
                    **_described(theirs, "paper", here, cluster, level),
                    **_described(ours, "brewlens", here, cluster, level),
                    **_difference(ours, theirs, here, cluster, level),
                    "paper_is": "" if theirs is None else theirs.says,
                    "brewlens_is": ours.says,
                }
            )
    return pd.DataFrame(rows)


def _quantities(
    paper: PaperLifecycle, life: Lifecycle, label_free: Signals, onsets: Mapping[str, Onsets] | None
) -> Iterator[tuple[str, _Column, _Column | None]]:
    """Quantity, brewlens' column, the recipe's."""
    everyone = np.ones(len(paper), dtype=bool)
    yield (
        "accuracy",
        _Column(life.output_correct, everyone, "of all; arg max over the classes"),
        _Column(paper.output_correct, everyone, "of all; arg max over the full vocabulary"),
    )
    yield from _outcomes(paper, life.outcome, "", "first hits", "with an FPCL")
    if onsets is not None:
        outcome = onset_outcomes(life, onsets["available"].onset, onsets["ready"].onset)
        yield from _outcomes(paper, outcome, "onset_", "onsets", "with an onset of availability")
    for name in DEPTHS:
        yield name, _depth(name, life, onsets), _first_hit(paper.landmarks, name, paper.n_layers)
    for name in LABEL_FREE:
        ours, theirs = getattr(label_free, name), getattr(paper.signals, name)
        yield (
            name,
            _Column(ours, everyone, "mean of all; own question"),
            _Column(theirs, everyone, "mean of all; constant prompt"),
        )


def _outcomes(
    paper: PaperLifecycle, outcome: np.ndarray, prefix: str, basis: str, kept: str
) -> Iterator[tuple[str, _Column, _Column | None]]:
    everyone, brewed = np.ones(len(paper), dtype=bool), outcome != "no_brewing"
    theirs = _Column(~paper.brewing, everyone, "of all; first hits")
    yield f"{prefix}no_brewing", _Column(~brewed, everyone, f"of all; {basis}"), theirs
    for name in (*RESOLUTION, "bypassed"):
        ours = _Column(outcome == name, brewed, f"of those {kept}; repaired rule on {basis}, own question")
        theirs = _Column(
            paper.outcome == name, paper.brewing, "of those with an FPCL; first hits, constant prompt"
        )
        yield f"{prefix}{name}", ours, theirs if name in RESOLUTION else None


def _first_hit(marks: Landmarks, name: str, n_layers: int) -> _Column:
    values = getattr(marks, name)
    return _Column(values / n_layers, values != NEVER, f"{name}/L; first hits, of those that have one")


def _depth(name: str, life: Lifecycle, onsets: Mapping[str, Onsets] | None) -> _Column:
    if onsets is None:
        return _first_hit(life.landmarks, name, life.n_layers)
    available, ready = (onsets[which].restricted / life.n_layers for which in ("available", "ready"))
    everyone = np.ones(len(life), dtype=bool)
    if name == "fpcl":
        return _Column(available, everyone, "onset of availability/L, of all; never is L")
    if name in ("fcc", "fjc"):
        return _Column(ready, everyone, "onset of readiness/L, of all; never is L")
    return _Column(ready - available, everyone, "readiness minus availability, of all; never is L")


def _described(
    column: _Column | None, who: str, here: np.ndarray, cluster: np.ndarray, level: float
) -> dict[str, float]:
    nothing = {who: np.nan, f"{who}_low": np.nan, f"{who}_high": np.nan, f"{who}_n": 0}
    if column is None:
        return nothing
    rows = np.flatnonzero(column.domain & here)
    interval = clustered_share if column.share else clustered_mean
    found = interval(column.values[rows], cluster[rows], level)
    if found is None:
        return nothing
    return {who: found.value, f"{who}_low": found.low, f"{who}_high": found.high, f"{who}_n": found.n}


def _difference(
    ours: _Column, theirs: _Column | None, here: np.ndarray, cluster: np.ndarray, level: float
) -> dict[str, float]:
    names = ("difference", "difference_low", "difference_high")
    if theirs is None or not (ours.domain & here).any() or not (theirs.domain & here).any():
        return dict.fromkeys(names, np.nan)
    rows = np.flatnonzero(here)
    found = clustered_mean(_linearised(ours, rows) - _linearised(theirs, rows), cluster[rows], level)
    return (
        dict.fromkeys(names, np.nan)
        if found is None
        else dict(zip(names, vars(found).values(), strict=False))
    )


def _linearised(column: _Column, rows: np.ndarray) -> Float[np.ndarray, "sample"]:
    """Values over all samples whose mean and spread are those of the mean over the domain."""
    values, inside = column.values[rows].astype(np.float64), column.domain[rows]
    mean = values[inside].mean()
    return mean + np.where(inside, values - mean, 0.0) / inside.mean()
