"""Calibration: does a decoder that says 80 % turn out right in 80 % of the samples?

Per layer, of a :class:`~brewlens.decoding.readout.Readout` and the right answers:

* *Brier score* (Brier 1950): mean over samples of ``sum over classes (p - 1[class is right])^2``; 0 is
  perfect, 2 the worst, ``1 - 1 / classes`` what equal probabilities score.
* *ECE*, the expected calibration error of the favourite class: samples are sorted by confidence, the largest
  probability, into bins of equally many, and ``sum over bins (n_bin / n) |accuracy - mean confidence|``. Bins
  of equal mass are less biased than those of equal width (Nixon et al., arXiv 1904.01685; Roelofs et al.,
  arXiv 2012.08668).
* *Class-conditional ECE*: the same for each class in turn, of the probability given to it against whether it
  is right, over all samples; and its mean over classes (Kull et al., arXiv 1910.12656, "classwise").

ECE is biased upwards: in a bin of ``m`` samples, chance alone puts the accuracy about ``sqrt(2 p (1 - p) /
(pi m))`` away from the confidence. ``ece_debiased`` is Bröcker's correction in the squared form (Kumar et
al., arXiv 1909.10155): the root of ``sum over bins (n_bin / n) [(accuracy - confidence)^2 - accuracy (1 -
accuracy) / (n_bin - 1)]``, 0 where that is negative. It estimates the root mean square, so it is no smaller
than the mean deviation that ``ece`` is after.

Given ``other_mass``, calibration is that of the distribution among the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from brewlens.decoding.readout import Readout
from brewlens.stats import share

if TYPE_CHECKING:
    import pandas as pd

BINS = 15


def calibration(readout: Readout, answers: Sequence[str], *, bins: int = BINS) -> pd.DataFrame:
    """Accuracy and calibration per layer.

    Args:
        readout: Out-of-fold probabilities; of a ridge probe they are none.
        answers: The right answer of each sample.
        bins: Bins of equal mass; fewer where there are fewer samples.

    Returns:
        Tidy table: layer (entry of the layer axis), decoder, n, accuracy with low and high of its Wilson
        interval, confidence (mean), brier, ece, ece_debiased, ece_class (mean over classes), bins.

    Raises:
        ValueError: If there are no samples or bins, or an answer is not a class.
    """
    import pandas as pd

    target = _checked(readout, answers, bins)
    rows = []
    for layer in range(readout.n_layers):
        p = _probabilities(readout, layer)
        confidence, right = p.max(axis=1), p.argmax(axis=1) == target
        found = share(int(right.sum()), len(right))
        if found is None:
            raise ValueError("calibration needs samples, found none")
        ece, debiased = _errors(confidence, right, bins)
        per_class = [_errors(p[:, k], target == k, bins)[0] for k in range(p.shape[1])]
        rows.append(
            {
                "layer": layer,
                "decoder": readout.decoder,
                "n": len(right),
                "accuracy": found.value,
                "low": found.low,
                "high": found.high,
                "confidence": confidence.mean(),
                "brier": brier(p, target),
                "ece": ece,
                "ece_debiased": debiased,
                "ece_class": float(np.mean(per_class)),
                "bins": min(bins, len(right)),
            }
        )
    return pd.DataFrame(rows)


def class_calibration(readout: Readout, answers: Sequence[str], *, bins: int = BINS) -> pd.DataFrame:
    """Class-conditional calibration error per layer and class.

    Returns:
        Tidy table: layer, class, n samples whose answer it is, mean probability given to it over all samples,
        share of samples whose answer it is, ece, ece_debiased.

    Raises:
        ValueError: As :func:`calibration`.
    """
    import pandas as pd

    target = _checked(readout, answers, bins)
    rows = []
    for layer in range(readout.n_layers):
        p = _probabilities(readout, layer)
        for k, name in enumerate(readout.classes):
            right = target == k
            ece, debiased = _errors(p[:, k], right, bins)
            rows.append(
                {
                    "layer": layer,
                    "class": name,
                    "n": int(right.sum()),
                    "probability": p[:, k].mean(),
                    "share": right.mean(),
                    "ece": ece,
                    "ece_debiased": debiased,
                }
            )
    return pd.DataFrame(rows)


def reliability(
    readout: Readout, answers: Sequence[str], *, bins: int = BINS, level: float = 0.95
) -> pd.DataFrame:
    """What a reliability diagram shows: confidence against accuracy, bin by bin.

    Returns:
        Tidy table: layer, bin (from the least confident), n, confidence (mean) with its least and most,
        accuracy with low and high of its Wilson interval.

    Raises:
        ValueError: As :func:`calibration`.
    """
    import pandas as pd

    target = _checked(readout, answers, bins)
    rows = []
    for layer in range(readout.n_layers):
        p = _probabilities(readout, layer)
        confidence, right = p.max(axis=1), p.argmax(axis=1) == target
        for number, members in enumerate(_bins(confidence, bins)):
            found = share(int(right[members].sum()), len(members), level)
            if found is not None:
                rows.append(
                    {
                        "layer": layer,
                        "bin": number,
                        "n": len(members),
                        "confidence": confidence[members].mean(),
                        "least": confidence[members].min(),
                        "most": confidence[members].max(),
                        "accuracy": found.value,
                        "low": found.low,
                        "high": found.high,
                    }
                )
    return pd.DataFrame(rows)


def brier(p: Float[np.ndarray, "sample class"], target: Int[np.ndarray, "sample"]) -> float:
    """Multi-class Brier score, between 0 and 2."""
    right = np.zeros_like(p)
    right[np.arange(len(p)), target] = 1
    return float(((p - right) ** 2).sum(axis=1).mean())


def _checked(readout: Readout, answers: Sequence[str], bins: int) -> Int[np.ndarray, "sample"]:
    if bins < 1 or not len(readout):
        raise ValueError(
            f"calibration needs samples and at least one bin, found {len(readout)} and {bins}; "
            "15 bins are usual"
        )
    return readout.target_index(answers)


def _probabilities(readout: Readout, layer: int) -> Float[np.ndarray, "sample class"]:
    return readout.probabilities[:, layer].astype(np.float64)


def _bins(p: Float[np.ndarray, "sample"], bins: int) -> list[Int[np.ndarray, "_"]]:
    """Rows in bins of equal mass, by ascending ``p``; ties stay in the order of the samples."""
    return np.array_split(np.argsort(p, kind="stable"), min(bins, len(p)))


def _errors(p: Float[np.ndarray, "sample"], right: np.ndarray, bins: int) -> tuple[float, float]:
    """ECE, and the root of the debiased squared error."""
    ece = square = 0.0
    for members in _bins(p, bins):
        m, accuracy = len(members), right[members].mean()
        gap = accuracy - p[members].mean()
        ece += m / len(p) * abs(gap)
        square += m / len(p) * (gap**2 - (accuracy * (1 - accuracy) / (m - 1) if m > 1 else 0.0))
    return float(ece), float(np.sqrt(max(square, 0.0)))
