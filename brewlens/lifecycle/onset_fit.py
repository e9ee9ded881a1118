"""The model behind onsets: three states, and the EM that fits them to one group of samples.

A sample is *before* its onset (what the decoder says of the right answer is what it says of any class),
*after* it (mostly right), or *ended*. Evidence is the level (:mod:`brewlens.lifecycle.levels`) of the right
answer at each layer, given its level at the layer before.

* Before: counted, not fitted. The wrong classes are the control group: for every class, layer and level
  before, how often it takes each level in samples of which it is not the answer and that are before their
  onset themselves. A decoder that says one class for all, or whose guesses persist, is no evidence.
* After, ended: a share of hits, the same at all layers whatever the layer before, and how clear hits and
  misses are, by EM. Being clear can add to, or take from, the evidence of a hit or miss at most
  ``CLEARNESS`` nats: close misses are no onset, and young onsets, whose leads are small, are no luck.
* Shares of onsets, ends and never: by EM (empirical Bayes).

One share of hits for all samples and independent misses are assumptions. Where samples differ much in
noise, or misses persist, onsets come out late: by up to a layer in the simulations of the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from einops import einsum, rearrange
from jaxtyping import Float, Int

from brewlens.brief import brief
from brewlens.lifecycle.change_points import Posterior, Prior, Steps, change_points
from brewlens.lifecycle.levels import AHEAD, LEVELS

CLEARNESS = 1.5
"""Most nats that the clearness of a hit or miss counts, at one layer."""
HIT, ENDED_HIT = 0.9, 0.03
"""Shares of hits after an onset and after its end at which EM starts."""
BORROWED_CLASS, BORROWED = 200.0, 20.0
"""Samples' worth of what all classes, or all layers, have in common, added to each class's or layer's
counts."""


@dataclass(frozen=True)
class OnsetFit:
    """What EM found in a group.

    Attributes:
        n: Samples.
        present: Whether the evidence for onsets exceeds what fitting makes of noise; without, all are never.
        gain: Log likelihood of onsets over that of none, in nats per sample.
        least_gain: What it had to exceed.
        prior: Share of each onset; the last entry is never.
        hazard: Probability to end at each layer, right until then; zeros where nothing ends.
        guess: Share of hits before the onset, by layer.
        hit: The same after it.
        ended: The same after the end; NaN where nothing ends.
        iterations: Of EM.
        converged: Whether the prior had come to rest.
    """

    n: int
    present: bool
    gain: float
    least_gain: float
    prior: Float[np.ndarray, "layer_or_never"]
    hazard: Float[np.ndarray, "layer"]
    guess: Float[np.ndarray, "layer"]
    hit: float
    ended: float
    iterations: int
    converged: bool

    __repr__ = brief


def fit_group(
    level: Int[np.ndarray, "sample layer class"],
    target: Int[np.ndarray, "sample"],
    ends: bool,
    least_hit: float,
    least_gain: float,
    iterations: int,
    tolerance: float,
) -> tuple[Posterior, OnsetFit]:
    """EM for one group.

    Args:
        level: From :func:`brewlens.lifecycle.levels.levels`.
        target: Index of the right class.
        ends: Whether an answer that was right may be overwritten.
        least_hit: Share of hits after an onset, at least.
        least_gain: Nats per sample that onsets must add to the log likelihood, beyond the price of the
            parameters.
        iterations: At most.
        tolerance: Change of the prior at which EM stops.
    """
    n, n_layers = level.shape[:2]
    states = _States(level, target, ends, least_hit)
    onset = np.full(n_layers + 1, 0.5 / n_layers)
    onset[-1] = 0.5
    missed = np.full(n_layers + 1, 0.2 / n_layers)
    missed[-1] = 0.8
    prior = Prior(onset, np.full(n_layers, 0.02) * ends, missed)
    found, change, step = change_points(states.steps(), prior), np.inf, 0
    for step in range(1, iterations + 1):
        new = _prior(found, n_layers)
        change = float(np.abs(new.onset - prior.onset).max())
        prior = new
        states.update(found)
        found = change_points(states.steps(), prior)
        if step > 5 and change < tolerance:
            break
    gain = float((found.log_any - found.log_never).mean())
    parameters = (1 + ends) * (n_layers + LEVELS)
    least = least_gain + parameters * np.log(n) / (2 * n)
    return found, OnsetFit(
        n=n,
        present=bool(gain > least),
        gain=gain,
        least_gain=float(least),
        prior=prior.onset,
        hazard=prior.hazard,
        guess=states.guess,
        hit=states.hit,
        ended=states.ended_hit,
        iterations=step,
        converged=change < tolerance,
    )


def _prior(found: Posterior, n_layers: int) -> Prior:
    """Shares, with half a sample more on never, and another half spread over the layers."""
    extra = np.full(n_layers + 1, 0.5 / n_layers)
    extra[-1] = 0.5
    onset = found.onset.sum(axis=0) + extra
    missed = found.missed.sum(axis=0) + extra
    hazard = np.zeros(n_layers)
    if found.until is not None:
        risk, ended = found.after[:, :-1].sum(axis=0), found.until[:, 1:-1].sum(axis=0)
        typical = (ended.sum() + 0.2) / (risk.sum() + 10)
        hazard[1:] = np.clip((ended + 2 * typical) / (risk + 2), 1e-5, 0.9)
    return Prior(onset / onset.sum(), hazard, missed / missed.sum())


class _States:
    """How levels are distributed in each state.

    ``before`` is ``[class, layer, level before, level]``, ``after`` and ``ended`` are ``[layer, level before,
    level]``. At the first layer, which has none before it, all levels before say the same.
    """

    def __init__(
        self,
        level: Int[np.ndarray, "sample layer class"],
        target: Int[np.ndarray, "sample"],
        ends: bool,
        least_hit: float,
    ) -> None:
        n, n_layers, classes = level.shape
        self.ends, self.least_hit, self.target = ends, least_hit, target
        self.right = np.take_along_axis(level, target[:, None, None], axis=2)[..., 0]
        self.previous = np.concatenate([np.zeros((n, 1), dtype=int), self.right[:, :-1]], axis=1)
        previous = np.concatenate([np.zeros((n, 1, classes), dtype=int), level[:, :-1]], axis=1)
        place = np.arange(n_layers)[:, None] + n_layers * np.arange(classes)
        self._code = (place * LEVELS + previous) * LEVELS + level
        self._control = (np.arange(classes) != target[:, None])[:, None]
        self._shape = (classes, n_layers, LEVELS, LEVELS)
        everywhere = np.ones((n, n_layers))
        self.before = self._count_before(everywhere)
        typical = self.before.mean(axis=(0, 2))
        self.after, self.hit = _with_hits(typical[:, None].repeat(LEVELS, 1), HIT), HIT
        self.ended, self.ended_hit = _with_hits(typical[:, None].repeat(LEVELS, 1), ENDED_HIT), np.nan

    @property
    def guess(self) -> Float[np.ndarray, "layer"]:
        """Share of hits before the onset, of the classes as they are in the group."""
        weight = np.bincount(self.target, minlength=self._shape[0]) / len(self.target)
        return einsum(weight, self._marginal[..., AHEAD:].sum(axis=-1), "answer, answer layer -> layer")

    def steps(self) -> Steps:
        """Evidence of each layer for each step between states."""
        stay = np.log(self.before)

        def entered_and_kept(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            fresh = part.mean(axis=1, keepdims=True).repeat(LEVELS, 1)
            return self._read(_bounded(fresh, stay)), self._read(_bounded(part, stay))

        begin, keep = entered_and_kept(self.after)
        if not self.ends:
            return Steps(self._read(stay), begin, keep)
        end, gone = entered_and_kept(self.ended)
        return Steps(self._read(stay), begin, keep, end, gone, end)

    def update(self, found: Posterior) -> None:
        """Distributions, given how probable each state is."""
        self.before = self._count_before(found.before)
        self.after, self.hit = self._count(found.after, HIT, self.least_hit, 1 - 1e-3)
        if self.ends:
            self.ended, self.ended_hit = self._count(found.ended, ENDED_HIT, 1e-3, float(self.guess.mean()))

    def _read(self, table: Float[np.ndarray, "class layer level level"]) -> Float[np.ndarray, "sample layer"]:
        layer = np.arange(self.right.shape[1])
        return table[self.target[:, None], layer, self.previous, self.right]

    def _count_before(self, weight: np.ndarray) -> Float[np.ndarray, "class layer level level"]:
        """Shares among the samples of which a class is not the answer, by how probably they are before."""
        both = weight.copy()
        both[:, 1:] = np.sqrt(weight[:, 1:] * weight[:, :-1])
        mass = both[..., None] * self._control
        counts = np.bincount(self._code.ravel(), mass.ravel(), int(np.prod(self._shape))).reshape(self._shape)
        counts[:, 0] = counts[:, 0].sum(axis=1, keepdims=True)
        common = counts.sum(axis=0) + 1e-2
        self._marginal = _rows(counts.sum(axis=2) + _rows(common.sum(axis=1)))
        return _rows(
            counts + BORROWED_CLASS * _rows(common + BORROWED * _rows(common[1:].sum(axis=0) + 1e-2))
        )

    def _count(
        self, weight: np.ndarray, start: float, least: float, most: float
    ) -> tuple[Float[np.ndarray, "layer level level"], float]:
        """Shares of the right answer's levels in a state, and its share of hits."""
        n_layers = self.right.shape[1]
        code = self.right + LEVELS * np.arange(n_layers)
        counts = np.bincount(code.ravel(), weight.ravel(), n_layers * LEVELS)
        counts = rearrange(counts, "(layer level) -> layer level", level=LEVELS)
        total = counts.sum(axis=0) + _with_hits(np.ones(LEVELS), start)
        hit = float(np.clip(total[AHEAD:].sum() / total.sum(), least, most))
        total = _with_hits(total, hit)
        layer = _rows(counts + BORROWED * total)
        both = np.minimum(weight[:, 1:], weight[:, :-1])
        pair = self.right[:, :-1] * LEVELS + self.right[:, 1:]
        pairs = np.bincount(pair.ravel(), both.ravel(), LEVELS**2)
        pairs = rearrange(pairs, "(before level) -> before level", level=LEVELS)
        # How a level follows on another, over what it would be by itself, is the same at all layers.
        follows = _rows(pairs + BORROWED * total) / total
        found = layer[:, None] * follows
        found[0] = layer[0]
        return _with_hits(found, hit), hit


def _bounded(
    part: Float[np.ndarray, "layer level level"], stay: Float[np.ndarray, "class layer level level"]
) -> Float[np.ndarray, "class layer level level"]:
    """Log shares in a state, moved towards those before the onset until clearness counts what it may."""
    reference = np.exp(stay)
    by_sign = np.log(_signs(part)) - np.log(_signs(reference))
    by_clearness = np.log(part) - stay - by_sign
    return stay + by_sign + np.clip(by_clearness, -CLEARNESS, CLEARNESS)


def _signs(share: Float[np.ndarray, "*any level"]) -> Float[np.ndarray, "*any level"]:
    """For each level the share of all levels on its side, hit or miss."""
    sides = (share[..., :AHEAD], share[..., AHEAD:])
    return np.concatenate([side.sum(-1, keepdims=True).repeat(side.shape[-1], -1) for side in sides], axis=-1)


def _rows(counts: Float[np.ndarray, "*any level"]) -> Float[np.ndarray, "*any level"]:
    return counts / counts.sum(axis=-1, keepdims=True)


def _with_hits(share: Float[np.ndarray, "*any level"], hits: float) -> Float[np.ndarray, "*any level"]:
    """Shares of levels, rescaled so that hits have a share ``hits``."""
    wanted = np.array([1 - hits] * AHEAD + [hits] * (LEVELS - AHEAD))
    return share / _signs(share) * wanted
