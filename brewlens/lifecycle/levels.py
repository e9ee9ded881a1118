"""Levels: whether each class is what a decoder says, and how clearly.

The lead of a class is its score minus the best score of the others; only the class that the decoder says is
ahead. Leads are cut into four levels: far behind, close behind, ahead, clearly ahead. The cuts are the
medians, layer by layer, of the wrong classes' leads, so that the scale of the scores, which grows with
depth, does not matter.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

LEVELS = 4
AHEAD = 2
"""The first level at which a class is what the decoder says."""


def leads(scores: Float[np.ndarray, "*any class"]) -> Float[np.ndarray, "*any class"]:
    """Each class's score minus the best of the others."""
    best = np.partition(scores, -2, axis=-1)[..., -2:]
    return scores - np.where(scores == best[..., 1:], best[..., :1], best[..., 1:])


def levels(
    scores: Float[np.ndarray, "sample layer class"], target: Int[np.ndarray, "sample"]
) -> Int[np.ndarray, "sample layer class"]:
    """The level of every class at every layer.

    The class that is ahead is the arg max, the first of equals.

    Args:
        scores: A decoder's scores; a constant may be added to all of a sample and layer.
        target: Index of the right class.
    """
    _, n_layers, classes = scores.shape
    lead = leads(scores)
    ahead = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(ahead, scores.argmax(axis=-1)[..., None], True, axis=-1)
    wrong = np.broadcast_to((np.arange(classes) != target[:, None])[:, None], scores.shape)
    found = np.where(ahead, AHEAD, 0)
    for layer in range(n_layers):
        for part in (ahead[:, layer], ~ahead[:, layer]):
            control = lead[:, layer][part & wrong[:, layer]]
            if len(control):
                found[:, layer] += part & (lead[:, layer] > np.median(control))
    return found
