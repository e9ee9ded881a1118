"""Onsets: from which layer on a decoder is right, with a posterior for every sample.

A first hit is a minimum over all layers: at chance with ten classes and 28 layers, 95 % of samples have one.
Here all layers of a sample are weighed together. It is *before* its onset (the decoder knows nothing of the
right answer), *after* it (it is mostly right) or *ended* (another answer has taken over), in that order;
without an onset it is before throughout, or before and then out of reach. What the three states look like,
and how often onsets and ends come at which layer, is estimated from the group by EM
(:mod:`brewlens.lifecycle.onset_fit`); every sample gets a posterior over its onset, never included, and
over its end.

A group whose evidence for onsets is no better than what fitting makes of noise has none.

What it does not show: that the answer is there for other reasons than luck or the text (see
:mod:`brewlens.lifecycle.nulls` and the surface control). An onset is where a decoder is right *from then
on*: a sample that is right early by a short cut, wrong, and right again has the later one, or a posterior
    over both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Int

from brewlens import html
from brewlens.decoding.readout import Readout
from brewlens.lifecycle.change_points import Posterior
from brewlens.lifecycle.landmarks import NEVER
from brewlens.lifecycle.levels import levels
from brewlens.lifecycle.onset_fit import OnsetFit, fit_group

LEAST_CLASSES = 3


@dataclass(frozen=True)
class Onsets:
    """Posterior over the layer from which on a decoder is right.

    Attributes:
        n_layers: L.
        posterior: ``[sample, L + 1]`` probability that the onset is at that layer; the last entry is never.
        until: ``[sample, L + 1]`` probability that it is right no longer from that layer on; the last entry
            is that it never ends, or never begins. None where ends were not asked for.
        fits: Fitted parameters by group.
    """

    n_layers: int
    posterior: Float[np.ndarray, "sample layer_or_never"]
    until: Float[np.ndarray, "sample layer_or_never"] | None = None
    fits: Mapping[str, OnsetFit] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.posterior)

    @property
    def present(self) -> Float[np.ndarray, "sample"]:
        """Probability that there is an onset."""
        return 1 - self.posterior[:, -1]

    @property
    def onset(self) -> Int[np.ndarray, "sample"]:
        """Posterior median of the onset, given that there is one; ``NEVER`` where there is probably none."""
        return _median(self.posterior)

    @property
    def end(self) -> Int[np.ndarray, "sample"]:
        """The same of the end, the first layer at which it is right no longer; needs ``until``."""
        return np.full(len(self), NEVER) if self.until is None else _median(self.until)

    @property
    def restricted(self) -> Float[np.ndarray, "sample"]:
        """Expected onset in layers; never counts as L."""
        return self.posterior @ np.arange(self.n_layers + 1)

    @property
    def by_layer(self) -> Float[np.ndarray, "sample layer"]:
        """Probability that the decoder has become right by that layer and has not ended."""
        begun = np.cumsum(self.posterior[:, :-1], axis=1)
        return begun if self.until is None else begun - np.cumsum(self.until[:, :-1], axis=1)

    def select(self, rows: Sequence[int] | Int[np.ndarray, "row"]) -> Onsets:
        """The samples at ``rows``, in that order; fits are those of all samples."""
        rows = np.asarray(rows, dtype=int)
        until = None if self.until is None else self.until[rows]
        return replace(self, posterior=self.posterior[rows], until=until)

    def __repr__(self) -> str:
        there = np.mean(self.present) if len(self) else np.nan
        return f"Onsets({len(self)} samples x {self.n_layers} layers: {there:.0%} have one)"

    def _repr_html_(self) -> str:
        """The mean posterior by layer, and what was fitted to each group."""
        title = "mean probability that it is right by then and has not ended"
        drawn = html.sparkline(self.by_layer.mean(axis=0) if len(self) else [], title, low=0, high=1)
        rows = [
            {
                "group": name,
                "n": fit.n,
                "evidence beyond noise": fit.present,
                "hit rate after": fit.hit,
                "before, mean": float(np.mean(fit.guess)),
            }
            for name, fit in self.fits.items()
        ]
        here = [html.table([{"n": len(self), "right, by layer": drawn}])]
        return html.card(repr(self), *here, *([html.table(rows)] if rows else []))


def fit_onsets(
    readout: Readout,
    answers: Sequence[str],
    *,
    ends: bool = False,
    groups: Sequence[object] | np.ndarray | None = None,
    least_hit: float = 0.5,
    least_gain: float = 0.05,
    iterations: int = 60,
    tolerance: float = 1e-3,
) -> Onsets:
    """Fit onsets, group by group.

    Args:
        readout: Of the decoder, at least 3 classes.
        answers: Right answer of each sample.
        ends: Whether an answer that was right may be overwritten: for readiness.
        groups: Label of each sample's group, such as its family; one group by default.
        least_hit: Share of layers, from the onset on, at which the decoder of a group is right at least.
        least_gain: Nats per sample, beyond half the logarithm of the group's size for each parameter, that
            onsets must add to the log likelihood of a group; with less, all its samples are never.
        iterations: Of EM, at most.
        tolerance: Change of the prior at which EM stops.

    Raises:
        ValueError: If answers or groups do not fit the readout, it has fewer than 3 classes, or scores are
            not finite.
    """
    target = readout.target_index(answers)
    labels = np.zeros(len(readout), dtype=int) if groups is None else np.asarray(groups)
    if labels.shape != (len(readout),):
        raise ValueError(f"{readout.decoder}: {len(readout)} samples but groups of shape {labels.shape}")
    chance = 1 / len(readout.classes)
    if len(readout.classes) < LEAST_CLASSES:
        raise ValueError(
            f"an onset is told from how wrong answers behave beside each other, so from {LEAST_CLASSES} "
            f"classes on; found {list(readout.classes)}"
        )
    if not chance < least_hit < 1:
        raise ValueError(f"least_hit lies between chance, {chance:.2f}, and 1; found {least_hit}")
    if not np.isfinite(readout.logits).all():
        raise ValueError(
            f"{readout.decoder}: scores must be finite; found nan or infinity: leave out the class that has "
            "them"
        )
    n_layers = readout.n_layers
    posterior = np.zeros((len(readout), n_layers + 1))
    until = np.zeros_like(posterior) if ends else None
    fits: dict[str, OnsetFit] = {}
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        found, fit = fit_group(
            levels(readout.logits[rows], target[rows]),
            target[rows],
            ends,
            least_hit,
            least_gain,
            iterations,
            tolerance,
        )
        fits["all" if groups is None else str(label)] = fit
        if not fit.present:
            found = _none(found)
        posterior[rows] = found.onset
        if until is not None and found.until is not None:
            until[rows] = found.until
    return Onsets(n_layers, posterior, until, fits)


def _none(found: Posterior) -> Posterior:
    """The same samples without an onset."""
    never = np.zeros_like(found.onset)
    never[:, -1] = 1
    return replace(found, onset=never, until=None if found.until is None else never.copy())


def _median(posterior: np.ndarray) -> np.ndarray:
    begun = np.cumsum(posterior[:, :-1], axis=1)
    middle = (begun >= begun[:, -1:] / 2).argmax(axis=1)
    return np.where(posterior[:, -1] > 0.5, NEVER, middle)
