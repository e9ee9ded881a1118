"""Can resolution be told without the right answer? A detector on the signals, beside the plain confidence.

A detector is honest only on programs that it never saw (families or models, where it is to hold on those),
and only beside the model's confidence at its output, which costs nothing.

Folds stand in an order, and each is scored by a detector trained on those before it; the first one only
trains. In ordinary cross-validation any two folds train each other: where the signals tell nothing, the error
of the pooled area is larger than that of its folds, and 17 in 100 runs find a detector (nominally 5; n = 200
and 800, five folds). In order it is 5. An area of exactly 1 has no spread, and an interval without width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from brewlens import html
from brewlens.decoding.readout import Readout
from brewlens.lifecycle.signals import TAIL, Signals
from brewlens.stats import Estimate, clustered_mean

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = "confidence"


def final_confidence(raw: Readout) -> Float[np.ndarray, "sample"]:
    """The model's own confidence: the probability of its favourite class behind the whole prompt.

    Over the full vocabulary where ``other_mass`` is known.

    Args:
        raw: ``context_stripped_raw`` or ``logit_lens``, whose last layer is the model's own answer.
    """
    among = raw.probabilities[:, -1].max(axis=-1)
    return among if raw.other_mass is None else among * (1 - raw.other_mass[:, -1])


@dataclass(frozen=True, eq=False)
class Detection:
    """How well resolved samples are told from the others without their answers.

    Attributes:
        auc: Area under the ROC curve by score: ``signals``, ``rho``, ``confidence`` and
            ``signals and confidence``.
        gain: The same minus the area of ``confidence``, paired; without that score itself.
        n: Samples that were scored.
        n_resolved: Those that are resolved.
        scores: Log-odds of the trained detectors, NaN where a sample only trained them; values of the others.
        folds: Fold of each sample; the first ones only train.
    """

    auc: Mapping[str, Estimate]
    gain: Mapping[str, Estimate]
    n: int
    n_resolved: int
    scores: Mapping[str, Float[np.ndarray, "sample"]]
    folds: Int[np.ndarray, "sample"]

    def to_frame(self) -> pd.DataFrame:
        """One row per score: auc, low, high, gain over confidence with its interval and p-value, n."""
        import pandas as pd

        rows = []
        for name, auc in self.auc.items():
            row = {"score": name, "auc": auc.value, "low": auc.low, "high": auc.high}
            if (gain := self.gain.get(name)) is not None:
                row |= {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high, "p": gain.p}
            rows.append(row | {"n": self.n, "n_resolved": self.n_resolved, "clusters": auc.clusters})
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        areas = ", ".join(f"{name} {auc.value:.3f}" for name, auc in self.auc.items())
        return f"Detection({self.n_resolved} of {self.n} resolved; {areas})"

    def _repr_html_(self) -> str:
        """Area and gain over the model's confidence, of every score."""
        rows = []
        for name, auc in self.auc.items():
            gain, row = self.gain.get(name), {"score": name, "n": self.n}
            row["AUC"] = html.interval(auc.value, auc.low, auc.high)
            row["over confidence"] = None if gain is None else html.interval(gain.value, gain.low, gain.high)
            rows.append(row)
        return html.card(f"Detection({self.n_resolved:,} of {self.n:,} resolved)", html.table(rows))


def detect_resolved(
    found: Signals,
    confidence: Float[np.ndarray, "sample"],
    resolved: Bool[np.ndarray, "sample"],
    clusters: Sequence[object] | np.ndarray,
    *,
    groups: Sequence[object] | np.ndarray | None = None,
    n_splits: int = 5,
    seed: int = 0,
    level: float = 0.95,
) -> Detection | None:
    """Detect resolution from the signals, on samples ahead, beside the model's final confidence alone.

    Logistic regression on the standardised ``h, hp, d, a, c, rho``. Areas count pairs of one fold only: the
    log-odds of different detectors have different zeros. Intervals come from placement values summed by
    cluster (DeLong et al. 1988, Obuchowski 1997).

    Args:
        found: The signals.
        confidence: Of the model at its output, from :func:`final_confidence`.
        resolved: Whether each sample is resolved; any other outcome is the negative class.
        clusters: Shape of each sample, for the intervals.
        groups: What stays together in a fold; the shapes by default. Families, or models, for a detector
            that is to hold on those it never saw; each must hold whole clusters.
        n_splits: Folds.
        seed: Of the folds.
        level: Confidence of the intervals.

    Returns:
        None where there is too little to learn from: a class has members in fewer than ``n_splits`` groups,
        or none that can be scored has both.

    Raises:
        ValueError: If the lengths differ or a cluster is in more than one group.
    """
    resolved = np.asarray(resolved, dtype=bool)
    cluster = np.unique(np.asarray(clusters), return_inverse=True)[1]
    group = cluster if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if not len(found) == len(confidence) == len(resolved) == len(cluster) == len(group):
        raise ValueError(
            f"one confidence, outcome, cluster and group per sample: found {len(confidence)}, "
            f"{len(resolved)}, {len(cluster)} and {len(group)} for {len(found)} samples"
        )
    if len(np.unique(np.stack([cluster, group]), axis=1).T) != len(np.unique(cluster)):
        raise ValueError("some cluster is in more than one group; give groups that hold whole clusters")
    if min(len(np.unique(group[resolved])), len(np.unique(group[~resolved]))) < n_splits:
        return None
    features = np.column_stack([getattr(found, name) for name in TAIL])
    both = np.column_stack([features, confidence])
    fold = _folds(resolved, group, n_splits, seed)
    number = np.arange(n_splits)
    seen = [len(np.unique(resolved[fold < k])) == 2 for k in number]
    counts = [int(resolved[fold == k].sum()) * int((~resolved[fold == k]).sum()) for k in number]
    pairs = {int(k): counts[k] for k in number if seen[k] and counts[k]}
    if not pairs:
        return None
    scores = {
        "signals": _ahead(features, resolved, fold, pairs),
        "rho": found.rho,
        CONFIDENCE: np.asarray(confidence, dtype=np.float64),
        "signals and confidence": _ahead(both, resolved, fold, pairs),
    }
    rows = np.flatnonzero(np.isin(fold, list(pairs)))
    placed = {name: placements(score[rows], resolved[rows], fold[rows]) for name, score in scores.items()}
    beside = {name: values - placed[CONFIDENCE] for name, values in placed.items() if name != CONFIDENCE}

    def means(columns: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
        found = {name: clustered_mean(values, cluster[rows], level) for name, values in columns.items()}
        return {name: mean for name, mean in found.items() if mean is not None}

    return Detection(
        auc=means(placed),
        gain=means(beside),
        n=len(rows),
        n_resolved=int(resolved[rows].sum()),
        scores=scores,
        folds=fold,
    )


def _folds(resolved: np.ndarray, group: np.ndarray, n_splits: int, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold

    fold = np.empty(len(resolved), dtype=int)
    splitter = StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed)
    for number, (_, rows) in enumerate(splitter.split(resolved[:, None], resolved, group)):
        fold[rows] = number
    return fold


def _ahead(features: np.ndarray, resolved: np.ndarray, fold: np.ndarray, scored: Iterable[int]) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    scores = np.full(len(resolved), np.nan)
    with threadpool_limits(1):  # problems of six columns: threads cost more than they bring
        for number in scored:
            train, test = fold < number, fold == number
            detector = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            scores[test] = detector.fit(features[train], resolved[train]).decision_function(features[test])
    return scores


def placements(
    score: Float[np.ndarray, "sample"], resolved: Bool[np.ndarray, "sample"], fold: Int[np.ndarray, "sample"]
) -> Float[np.ndarray, "sample"]:
    """Values whose mean is the area over pairs within folds, and whose spread is its standard error.

    A sample's value is the area plus its share in the sum of how often samples of the other class stand on
    the right side of it (placement values, DeLong et al. 1988), centred by fold and class, and widened for
    that by ``sqrt(m / (m - 1))`` of the m samples there. Every fold has both classes.
    """
    values, areas, pairs = np.zeros(len(score)), [], []
    for number in np.unique(fold):
        yes, no = np.flatnonzero((fold == number) & resolved), np.flatnonzero((fold == number) & ~resolved)
        among_all = rankdata(score[np.concatenate([yes, no])])
        above = (among_all[: len(yes)] - rankdata(score[yes])) / len(no)
        below = 1 - (among_all[len(yes) :] - rankdata(score[no])) / len(yes)
        areas.append(above.mean())
        pairs.append(len(yes) * len(no))
        for rows, others, placed in ((yes, no, above), (no, yes, below)):
            wider = np.sqrt(len(rows) / max(len(rows) - 1, 1))
            values[rows] = wider * (placed - areas[-1]) * len(others)
    return np.average(areas, weights=pairs) + len(score) / sum(pairs) * values
