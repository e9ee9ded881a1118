"""Landmarks: the first layers where an answer is available, ready, and both (arXiv 2606.17648, section 3).

They are first hits, a minimum over all layers: at chance with ten classes and 28 layers, 95 % of samples
have an FPCL and 25 % an FJC. FPCL <= FJC and FCC <= FJC hold by construction, whatever the model does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from brewlens import html
from brewlens.brief import brief

NEVER = -1


@dataclass(frozen=True)
class Landmarks:
    """First hits per sample, as 0-based layers; ``NEVER`` (-1) where there is none.

    Attributes:
        fpcl: First probe-correct layer.
        fcc: First context-stripped-correct layer.
        fjc: First jointly correct layer.
        brewing: ``fjc - fpcl`` in layers; ``NEVER`` where there is no fjc.
    """

    fpcl: Int[np.ndarray, "sample"]
    fcc: Int[np.ndarray, "sample"]
    fjc: Int[np.ndarray, "sample"]
    brewing: Int[np.ndarray, "sample"]

    __repr__ = brief

    def _repr_html_(self) -> str:
        """One row per landmark: how many samples have it, and at which layers."""
        rows = []
        for name, layers in vars(self).items():
            found = layers[layers != NEVER]
            counts = np.bincount(found) if len(found) else []
            row: dict[str, object] = {
                "landmark": name.upper() if name != "brewing" else name,
                "n": len(layers),
            }
            row["have it"] = f"{len(found) / len(layers):.1%}" if len(layers) else None
            row["median"] = float(np.median(found)) if len(found) else None
            rows.append(row | {"samples by layer": html.sparkline(counts, f"{name}: samples", low=0)})
        return html.card(f"Landmarks({len(self.fpcl)} samples)", html.table(rows))


def first_hit(correct: Bool[np.ndarray, "sample layer"]) -> Int[np.ndarray, "sample"]:
    """First layer that is True in each row, or ``NEVER``."""
    return np.where(correct.any(axis=1), correct.argmax(axis=1), NEVER)


def landmarks(
    available: Bool[np.ndarray, "sample layer"], ready: Bool[np.ndarray, "sample layer"]
) -> Landmarks:
    """FPCL, FCC, FJC and brewing from the correctness of the two decoders.

    Args:
        available: Whether the availability decoder (the probe) is right.
        ready: Whether the readiness decoder (context-stripped decoding) is right.

    Raises:
        ValueError: If the shapes differ.
    """
    if available.shape != ready.shape or available.ndim != 2:
        raise ValueError(
            f"both decoders must be [sample, layer] of one shape; found {available.shape} and {ready.shape}"
        )
    fpcl, fcc, fjc = first_hit(available), first_hit(ready), first_hit(available & ready)
    return Landmarks(fpcl, fcc, fjc, np.where(fjc == NEVER, NEVER, fjc - fpcl))


def tail(
    probabilities: Float[np.ndarray, "sample layer class"], start: float = 0.75
) -> tuple[Int[np.ndarray, "sample"], Float[np.ndarray, "sample"]]:
    """The class that the last layers favour, and how much: ``max over classes of the mean over the tail``.

    Args:
        probabilities: Of the readiness decoder.
        start: The tail is every layer ``l >= floor(start * L)``.

    Returns:
        Class index per sample, and its mean probability over the tail.
    """
    first = int(np.floor(start * probabilities.shape[1]))
    mean = probabilities[:, first:].mean(axis=1)
    return mean.argmax(axis=1), mean.max(axis=1)
