"""Change points: the posterior over all ways through before, after and ended, given each layer's evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from brewlens.brief import brief

SHORTEST = 2
"""Layers that a decoder is right for at least, if that ends: one layer cannot be told from a lucky guess."""


@dataclass(frozen=True)
class Steps:
    """Log density of each layer's level, given the level of the layer before and the states of both.

    Attributes:
        stay: Before the onset at both layers.
        begin: The onset is at this layer.
        keep: After it.
        end: It ends at this layer; None where nothing ends.
        gone: It has ended.
        miss: The answer is out of reach from this layer on, and was never right.
    """

    stay: Float[np.ndarray, "sample layer"]
    begin: Float[np.ndarray, "sample layer"]
    keep: Float[np.ndarray, "sample layer"]
    end: Float[np.ndarray, "sample layer"] | None = None
    gone: Float[np.ndarray, "sample layer"] | None = None
    miss: Float[np.ndarray, "sample layer"] | None = None

    __repr__ = brief


@dataclass(frozen=True)
class Prior:
    """Shares of a group's samples.

    Attributes:
        onset: By onset; the last entry is never.
        hazard: Probability to end at a layer, right until then.
        missed: Of those without an onset, by the layer from which the answer is out of reach; the last entry
            is nowhere.
    """

    onset: Float[np.ndarray, "layer_or_never"]
    hazard: Float[np.ndarray, "layer"]
    missed: Float[np.ndarray, "layer_or_never"]

    __repr__ = brief


@dataclass(frozen=True)
class Posterior:
    """What the evidence says of every sample; ``log_never`` and ``log_any`` are its log densities.

    Attributes:
        onset: Over the onset; the last entry is never.
        until: Over the end; the last entry is none. None where nothing ends.
        missed: Over the layer from which an answer that is never right is out of reach; the last entry is
            nowhere. Sums to the probability of never.
        log_any: Log density of the evidence.
        log_never: The same if no sample had an onset.
    """

    onset: Float[np.ndarray, "sample layer_or_never"]
    until: Float[np.ndarray, "sample layer_or_never"] | None
    missed: Float[np.ndarray, "sample layer_or_never"]
    log_any: Float[np.ndarray, "sample"]
    log_never: Float[np.ndarray, "sample"]

    @property
    def before(self) -> Float[np.ndarray, "sample layer"]:
        """Probability that the decoder knows nothing yet."""
        gone = np.cumsum(self.onset[:, :-1] + self.missed[:, :-1], axis=1)
        return np.clip(1 - gone, 0, 1)

    @property
    def after(self) -> Float[np.ndarray, "sample layer"]:
        """Probability that it is right."""
        begun = np.cumsum(self.onset[:, :-1], axis=1)
        return np.clip(begun if self.until is None else begun - np.cumsum(self.until[:, :-1], axis=1), 0, 1)

    @property
    def ended(self) -> Float[np.ndarray, "sample layer"]:
        """Probability that it is right no longer, or that the answer is out of reach."""
        return np.clip(1 - self.before - self.after, 0, 1)

    __repr__ = brief


def change_points(steps: Steps, prior: Prior) -> Posterior:
    """Sum over all onsets, and over all ends of each, in time linear in the layers.

    Args:
        steps: Evidence.
        prior: Shares.
    """
    n, n_layers = steps.stay.shape
    with np.errstate(divide="ignore"):
        onset, missed, hazard = np.log(prior.onset), np.log(prior.missed), np.log(prior.hazard)
    stay = np.concatenate([np.zeros((n, 1)), np.cumsum(steps.stay, axis=1)], axis=1)
    keep = np.cumsum(steps.keep, axis=1)
    start = stay[:, :-1] + steps.begin - keep + onset[:-1]
    never = stay[:, -1:] + onset[-1]
    if steps.end is None or steps.gone is None or steps.miss is None:
        joint = np.concatenate([start + keep[:, -1:], never], axis=1)
        log_any = _total(joint)
        posterior = np.exp(joint - log_any[:, None])
        nowhere = np.zeros_like(posterior)
        nowhere[:, -1] = posterior[:, -1]
        return Posterior(posterior, None, nowhere, log_any, stay[:, -1])
    gone = np.cumsum(steps.gone, axis=1)
    rest = gone[:, -1:] - gone
    survive = np.concatenate([[0.0], np.cumsum(np.log1p(-prior.hazard[1:]))])
    start = start - survive
    stop = np.full((n, n_layers), -np.inf)
    stop[:, 1:] = keep[:, :-1] + steps.end[:, 1:] + rest[:, 1:] + hazard[1:] + survive[:-1]
    to_the_end = keep[:, -1] + survive[-1]
    # An onset at o meets the ends from o + SHORTEST on, and none.
    ends = np.full((n, n_layers + SHORTEST), -np.inf)
    ends[:, :n_layers] = np.logaddexp.accumulate(stop[:, ::-1], axis=1)[:, ::-1]
    by_onset = start + np.logaddexp(ends[:, SHORTEST:], to_the_end[:, None])
    starts = np.logaddexp.accumulate(start, axis=1)
    by_end = np.full((n, n_layers + 1), -np.inf)
    by_end[:, SHORTEST:-1] = stop[:, SHORTEST:] + starts[:, :-SHORTEST]
    by_end[:, -1] = to_the_end + starts[:, -1]
    out_of_reach = stay[:, :-1] + steps.miss + rest
    by_miss = np.concatenate([out_of_reach, stay[:, -1:]], axis=1) + missed
    log_never = _total(by_miss)
    by_miss = by_miss + onset[-1]
    log_any = np.logaddexp(_total(by_onset), _total(by_miss))
    found = [np.exp(part - log_any[:, None]) for part in (by_onset, by_end, by_miss)]
    absent = found[2].sum(axis=1, keepdims=True)
    found[1][:, -1:] += absent
    return Posterior(np.concatenate([found[0], absent], axis=1), found[1], found[2], log_any, log_never)


def _total(values: Float[np.ndarray, "sample any"]) -> Float[np.ndarray, "sample"]:
    return np.logaddexp.reduce(values, axis=1)
