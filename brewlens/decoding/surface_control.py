"""Surface control: what the probe reads beyond what the text alone gives away, sample by sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from brewlens.decoding.readout import Readout
from brewlens.decoding.surface import DECODABLE
from brewlens.stats import benjamini_hochberg, clustered_mean, detectable
from brewlens.tasks.folds import clusters
from brewlens.tasks.item import ItemSet

if TYPE_CHECKING:
    import pandas as pd

OVERALL = "overall"


def best_layer(
    correct: Bool[np.ndarray, "sample layer"], folds: Int[np.ndarray, "sample"]
) -> tuple[int, Bool[np.ndarray, "sample"]]:
    """Whether a decoder is right at its best layer, which for each fold is chosen on the other folds.

    The best of L layers on the samples that it is scored on flatters a decoder; this does not. With one
    fold there is nothing to choose on, and the last layer stands.

    Args:
        correct: Whether the decoder is right.
        folds: Fold of each sample.

    Returns:
        The layer chosen most often, and for every sample whether the decoder is right at the layer chosen
        for it.
    """
    at = np.full(len(correct), correct.shape[1] - 1)
    if len(np.unique(folds)) > 1:
        for fold in np.unique(folds):
            at[folds == fold] = correct[folds != fold].mean(axis=0).argmax()
    layers, counts = np.unique(at, return_counts=True)
    return int(layers[counts.argmax()]), correct[np.arange(len(correct)), at]


def surface_control(
    probe: Readout, surface: Readout, items: ItemSet, folds: Int[np.ndarray, "sample"]
) -> pd.DataFrame:
    """Accuracy of the probe at its best layer minus that of the text-only baseline, paired by sample.

    Args:
        probe: The probe's readout.
        surface: That of :func:`brewlens.decoding.surface`, on the same folds.
        items: The items.
        folds: Fold of each item; the probe's layer is chosen on the other folds.

    Returns:
        One row per family, and ``overall`` where there are several: family, n, n_shapes, layer (chosen most
        often), probe, surface, difference, low, high (95 %, clustered by shape), p (two-sided),
        p_adjusted (Benjamini and Hochberg over the families), detectable, decodable (whether the
        baseline reaches ``DECODABLE``, so that a right probe may have found text).
    """
    import pandas as pd

    family = np.array([item.family for item in items])
    shape = clusters(items)
    right, text = probe.correct(items.answers), surface.correct(items.answers)[:, 0]
    groups = {name: np.flatnonzero(family == name) for name in items.families}
    if len(groups) > 1:
        groups[OVERALL] = np.arange(len(items))
    records = []
    for name, rows in groups.items():
        layer, hits = best_layer(right[rows], folds[rows])
        found: Any = clustered_mean(hits.astype(float) - text[rows], shape[rows])
        records.append(
            {
                "family": name,
                "n": found.n,
                "n_shapes": found.clusters,
                "layer": layer,
                "probe": hits.mean(),
                "surface": text[rows].mean(),
                "difference": found.value,
                "low": found.low,
                "high": found.high,
                "p": found.p,
                "detectable": detectable(found.se, found.df),
                "decodable": bool(text[rows].mean() >= DECODABLE),
            }
        )
    frame = pd.DataFrame(records)
    own = frame["family"] != OVERALL
    # The row of all samples is no test of its own beside those of its families.
    frame["p_adjusted"] = np.where(own, benjamini_hochberg(frame["p"].where(own).to_numpy()), frame["p"])
    return frame
