"""Donors: whose state is written into a recipient.

A donor names, for every sample, a row of states and the answer class that it stands for. Donors among the
samples themselves are drawn with a seed; a sample that has none of a kind has ``NEVER``, and is not edited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from brewlens.answer_logits import AnswerLogits
from brewlens.brief import brief
from brewlens.intervention.edits import States, Where
from brewlens.intervention.sites import LAST, Site, states
from brewlens.lifecycle.landmarks import NEVER

if TYPE_CHECKING:
    from brewlens.answers import AnswerSpace
    from brewlens.model import HookedModel
    from brewlens.tasks.item import ItemSet


@dataclass(frozen=True, eq=False)
class Donor:
    """Where each sample's donated state comes from.

    Attributes:
        name: For tables.
        values: ``[row, layer, position, width]`` states in every layer.
        rows: ``[sample]`` row of the values, or ``NEVER``.
        classes: ``[sample]`` answer class that the donor stands for, or ``NEVER``.
        source: ``[sample, slot]`` layer that is read, or ``NEVER``; None reads the layer that is written.
        output: What the model says of each row of the values, where that is known.
        where: ``[sample, layer]`` the layers that it is written at; None for all.
    """

    name: str
    values: Float[Tensor, "row layer position width"]
    rows: Int[Tensor, "sample"]
    classes: Int[Tensor, "sample"]
    source: Int[Tensor, "sample slot"] | None = None
    output: AnswerLogits | None = None
    where: Bool[Tensor, "sample layer"] | None = None

    @property
    def there(self) -> Bool[Tensor, "sample"]:
        """Which samples have a donor."""
        return self.rows != NEVER

    def said(self) -> AnswerLogits:
        """What the model says of each row of the values.

        Raises:
            ValueError: If that is not known of this donor.
        """
        if self.output is None:
            raise ValueError(f"donor {self.name!r} was made without the outputs of its runs")
        return self.output

    def at(self, where: Where) -> States:
        """The donated states; of samples that have none, any."""
        layers = where.layers if self.source is None else self.source[where.samples]
        return self.values[self.rows[where.samples].clamp_min(0).unsqueeze(1), layers.clamp_min(0)]

    __repr__ = brief


def counterfactual(
    model: HookedModel, items: ItemSet, space: AnswerSpace, site: Site = LAST, *, progress: bool = False
) -> Donor:
    """The same program with one literal changed, so that the answer is another.

    Args:
        model: The model, which runs the twins.
        items: The samples; those without a counterfactual twin have no donor.
        space: The answer classes.
        site: Where states are read.
        progress: Show a progress bar.

    Raises:
        ValueError: If no item has such a twin.
    """
    twins = [items.twin(item, "counterfactual") for item in items]
    found = [twin for twin in twins if twin is not None]
    if not found:
        raise ValueError(
            f"none of {len(items)} items has a counterfactual twin; generated families have them"
        )
    prompts = [twin.prompt for twin in found]
    there = torch.tensor([twin is not None for twin in twins])
    rows = torch.where(there, there.cumsum(0) - 1, NEVER)
    classes = torch.full((len(items),), NEVER)
    classes[there] = torch.tensor([space.index(twin.answer) for twin in found])
    values = states(model, prompts, site, progress=progress)
    output = model.answer_logits(prompts, space, progress=progress)
    return Donor("counterfactual", values, rows, classes, output=output)


def same_answer(
    values: Float[Tensor, "sample layer position width"],
    classes: Int[Tensor, "sample"],
    strata: Sequence[str] | np.ndarray,
    seed: int = 0,
) -> Donor:
    """Another sample of the same stratum and the same answer class.

    Args:
        values: States of the samples.
        classes: Answer class of each sample.
        strata: Of each sample, its family for one.
        seed: Of the draw.
    """
    return _drawn("same_answer", values, classes, strata, seed, lambda a, b: a == b)


def other_answer(
    values: Float[Tensor, "sample layer position width"],
    classes: Int[Tensor, "sample"],
    strata: Sequence[str] | np.ndarray,
    seed: int = 0,
) -> Donor:
    """Another sample of the same stratum and another answer class; arguments as in :func:`same_answer`."""
    return _drawn("other_answer", values, classes, strata, seed, lambda a, b: a != b)


def shuffled(
    values: Float[Tensor, "sample layer position width"],
    classes: Int[Tensor, "sample"],
    strata: Sequence[str] | np.ndarray,
    seed: int = 0,
) -> Donor:
    """Any other sample of the same stratum; arguments as in :func:`same_answer`."""
    return _drawn("shuffled", values, classes, strata, seed, lambda a, b: np.ones(len(b), dtype=bool))


def earlier(
    values: Float[Tensor, "sample layer position width"],
    classes: Int[Tensor, "sample"],
    source: Int[Tensor, "sample slot"],
) -> Donor:
    """The sample's own state at another layer.

    Args:
        values: States of the samples.
        classes: Answer class of each sample.
        source: ``[sample, slot]`` the layer that is read, or ``NEVER``.
    """
    return Donor("own_earlier", values, torch.arange(len(values)), classes, source)


def _drawn(name, values, classes, strata, seed, suits) -> Donor:
    rng = np.random.default_rng(seed)
    strata, answers = np.asarray(strata), classes.numpy()
    rows = np.full(len(answers), NEVER)
    for stratum in dict.fromkeys(strata.tolist()):
        here = np.flatnonzero(strata == stratum)
        for row in here:
            others = here[(here != row) & suits(answers[row], answers[here])]
            if len(others):
                rows[row] = rng.choice(others)
    found = torch.from_numpy(rows)
    taken = torch.where(found == NEVER, NEVER, classes[found.clamp_min(0)])
    return Donor(name, values, found, taken)
