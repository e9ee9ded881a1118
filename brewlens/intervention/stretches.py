"""Brewing stretches: where answers are available and not yet ready, and the twins to exchange them with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from brewlens.brief import brief
from brewlens.intervention.anchors import Landmarks
from brewlens.intervention.donors import Donor, counterfactual
from brewlens.intervention.samples import Samples, draw_each, gather
from brewlens.lifecycle.landmarks import NEVER

if TYPE_CHECKING:
    from brewlens.answers import AnswerSpace
    from brewlens.decoding.probes import Probes
    from brewlens.intervention.grid import Grid
    from brewlens.model import HookedModel
    from brewlens.results import Trace


class NoCases(ValueError):
    """No sample has what an experiment is made on. The text says what was found."""


def stretches(
    trace: Trace, landmarks: Landmarks = "onsets"
) -> tuple[Int[np.ndarray, "sample"], Int[np.ndarray, "sample"]]:
    """First layer of each sample's brewing stretch, and the first behind it; both ``NEVER`` without one.

    A sample that is available and never ready brews to the last layer.

    Args:
        trace: The trace.
        landmarks: ``onsets``, posterior medians of the onset model; ``first_hits``, the paper's FPCL and FJC.

    Raises:
        ValueError: If the landmarks are unknown, or the trace has no onsets.
    """
    if landmarks == "first_hits":
        marks = trace.lifecycle.landmarks
        start, ready = marks.fpcl, marks.fjc
    elif landmarks == "onsets" and trace.onsets:
        start, ready = trace.onsets["available"].onset, trace.onsets["ready"].onset
    else:
        raise ValueError(
            f"landmarks are 'onsets', of a trace that has them, or 'first_hits'; found {landmarks!r} and "
            f"{len(trace.onsets)} onsets"
        )
    end = np.where(ready == NEVER, trace.n_layers, ready)
    there = (start != NEVER) & (start < end)
    return np.where(there, start, NEVER), np.where(there, end, NEVER)


@dataclass(frozen=True, eq=False)
class Cases:
    """The samples with a brewing stretch, and their counterfactual twins.

    Attributes:
        samples: The samples.
        start: ``[sample]`` first layer of the stretch.
        end: ``[sample]`` first layer behind it; the number of layers where the answer never becomes ready.
        donor: The twins.
        available: ``[sample, layer]`` where the sample's own answer is available, by its out-of-fold probe.
        brewed: ``[sample, layer]`` where the twin's answer is available, by the same probe.
        expected: ``[sample, class]`` how likely each class is to be a twin's answer: its share among the
            twins of the family's other items with this answer.
    """

    samples: Samples
    start: Int[np.ndarray, "sample"]
    end: Int[np.ndarray, "sample"]
    donor: Donor
    available: Bool[np.ndarray, "sample layer"]
    brewed: Bool[np.ndarray, "sample layer"]
    expected: Float[np.ndarray, "sample class"]

    @cached_property
    def donated(self) -> Int[np.ndarray, "sample"]:
        """Class of each twin's answer."""
        return self.donor.classes.numpy()

    def can_follow(self, grid: Grid) -> Bool[np.ndarray, "sample"]:
        """Samples that do not say the twin's answer anyway."""
        return grid.predicted[0, :, 0] != self.donated

    def inside(self, grid: Grid) -> Bool[np.ndarray, "sample slot"]:
        """The slots of the brewing stretches that count."""
        stretch = (grid.layers >= self.start[:, None]) & (grid.layers < self.end[:, None])
        return stretch & self.brewed & self.can_follow(grid)[:, None]

    def beside(self, grid: Grid) -> Bool[np.ndarray, "sample slot"]:
        """The slots that count beside a landmark: those before the stretch, too."""
        return (self.brewed | (grid.layers < self.start[:, None])) & self.can_follow(grid)[:, None]

    __repr__ = brief


def find_cases(
    model: HookedModel,
    trace: Trace,
    *,
    space: AnswerSpace | None = None,
    n: int | None = None,
    landmarks: Landmarks = "onsets",
    seed: int = 0,
    progress: bool = False,
) -> Cases:
    """The samples of a trace with a brewing stretch and a counterfactual twin.

    Args:
        model: The model of the trace.
        trace: With probes.
        space: The answer classes; by default those of the trace.
        n: Most samples per family, drawn at random; all by default.
        landmarks: See :func:`stretches`.
        seed: Of the draw.
        progress: Show a progress bar.

    Raises:
        NoCases: If there is no such sample.
        ValueError: If the trace has no probes or is of another model.
    """
    if trace.probes is None:
        raise ValueError(
            f"causal use takes the probes of a trace, and {trace!r} has none; brewlens.trace and "
            "brewlens.load_run give them"
        )
    start, end = stretches(trace, landmarks)
    twin = np.array([trace.items.twin(item, "counterfactual") is not None for item in trace.items])
    families, there = np.array(trace.lifecycle.families), (start != NEVER) & twin
    rows = draw_each(families, trace.items.families, there, n, seed)
    if not len(rows):
        raise NoCases(
            f"causal use exchanges brewed answers with those of counterfactual twins; of {len(trace)} "
            f"samples {(start != NEVER).sum()} have a brewing stretch, {twin.sum()} a twin, and none has both"
        )
    samples = gather(model, trace, rows, trace.lifecycle.outcome, space=space, progress=progress)
    donor = counterfactual(model, samples.items, samples.space, progress=progress)
    available = trace.readouts["probe"].correct(trace.items.answers)[rows]
    brewed, expected = _brewed(trace.probes, samples, donor), _expected(trace, samples, donor)
    return Cases(samples, start[rows], end[rows], donor, available, brewed, expected)


def _brewed(probes: Probes, samples: Samples, donor: Donor) -> Bool[np.ndarray, "sample layer"]:
    states = donor.values[donor.rows].squeeze(2)
    found = torch.zeros(states.shape[:2], dtype=torch.bool)
    places = [(probes.item_groups[i], probes.item_folds[i]) for i in samples.items.ids]
    for group, fold in sorted(set(places)):
        rows = torch.tensor([row for row, place in enumerate(places) if place == (group, fold)])
        for layer in probes.layers:
            scores = probes.logits(states[rows, layer], group, layer, fold)[:, : len(samples.space)]
            found[rows, layer] = scores.argmax(-1) == donor.classes[rows]
    return found.numpy()


def _expected(trace: Trace, samples: Samples, donor: Donor) -> Float[np.ndarray, "sample class"]:
    items, space = trace.items, samples.space
    counts: dict[tuple[str, str], np.ndarray] = {}
    for item in items:
        if (twin := items.twin(item, "counterfactual")) is not None:
            # One more, spread over all classes, so that none is impossible.
            even = np.full(len(space), 1 / len(space))
            counts.setdefault((item.family, item.answer), even)[space.index(twin.answer)] += 1
    found = np.stack([counts[item.family, item.answer] for item in samples.items])
    found[np.arange(len(found)), donor.classes.numpy()] -= 1
    return found / found.sum(1, keepdims=True)
