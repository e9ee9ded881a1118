"""Near-OOD items in training: a class ``other``, so that a probe may say that there is no answer to read.

Without it a probe must call everything one of the answers. With it, mind the shares: at a layer where nothing
is to be read, a probe says ``other`` of all items if near-OOD items outnumber each single answer. How well
they are recognised is to be read beside the false alarms
(:meth:`brewlens.decoding.probe.ProbeFit.recognised`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from jaxtyping import Bool, Int

from brewlens.brief import brief
from brewlens.decoding.readout import Readout
from brewlens.residuals import Residuals
from brewlens.tasks.folds import groups
from brewlens.tasks.item import ItemSet


@dataclass(frozen=True)
class NearOOD:
    """Items of the same surface form that have no answer among the classes, to be trained on as ``other``.

    Attributes:
        residuals: Of these items, in this order.
        items: The items; their answers are not classes.
        folds: Fold of each, from the folds of the answerable items. What shares a skeleton shares a fold.
    """

    residuals: Residuals
    items: ItemSet
    folds: Int[np.ndarray, "sample"]

    @classmethod
    def beside(
        cls, residuals: Residuals, others: ItemSet, items: ItemSet, folds: Int[np.ndarray, "sample"]
    ) -> NearOOD:
        """Give near-OOD items folds that fit those of the answerable items.

        One that shares a skeleton or a twin with an item goes to its fold; the others are dealt out evenly,
        family by family.

        Args:
            residuals: Of the near-OOD items.
            others: The near-OOD items.
            items: The answerable items.
            folds: Fold of each of these.
        """
        group = groups(ItemSet((*items, *others), {**items.partners, **others.partners}))
        known = dict(zip(group[: len(items)].tolist(), np.asarray(folds).tolist(), strict=True))
        labels = np.unique(folds).tolist()
        dealt = {name: cycle(labels) for name in others.families}
        found = []
        for item, number in zip(others, group[len(items) :].tolist(), strict=True):
            if number not in known:
                known[number] = next(dealt[item.family])
            found.append(known[number])
        return cls(residuals, others, np.array(found))

    __repr__ = brief


def says_other(readout: Readout) -> Bool[np.ndarray, "sample layer"]:
    """Whether ``other`` is likelier than every answer.

    Raises:
        ValueError: If the readout knows no class ``other``.
    """
    if readout.other_mass is None:
        raise ValueError(f"{readout.decoder} knows only the classes {list(readout.classes)}, and no other")
    return readout.other_mass > (1 - readout.other_mass) * readout.probabilities.max(axis=-1)


def check_other(
    other: NearOOD, residuals: Residuals, items: ItemSet, classes: Mapping[str, int], by_family: bool
) -> None:
    """Refuse near-OOD items that do not fit the items they are trained beside.

    Raises:
        ValueError: Says how.
    """
    if other.residuals.item_ids != other.items.ids or len(other.folds) != len(other.items):
        raise ValueError(
            "near-OOD items, their residuals and their folds are not the same samples in the same order"
        )
    seen, new = ((r.model, r.layers, r.d_model, r.tap) for r in (residuals, other.residuals))
    if seen != new:
        raise ValueError(
            f"items and near-OOD items are to have residuals of one model, found {residuals!r} "
            f"and {other.residuals!r}"
        )
    if answered := [item.id for item in other.items if item.answer in classes]:
        raise ValueError(
            f"{len(answered)} near-OOD items have an answer among the classes, first {answered[:3]}; "
            "leave them out"
        )
    if missing := sorted(set(items.families) - set(other.items.families)) if by_family else []:
        raise ValueError(
            f"families {missing} have no near-OOD items to train on; give some, or probe with by_family=False"
        )
    if unknown := sorted(set(other.items.families) - set(items.families)) if by_family else []:
        raise ValueError(f"near-OOD items of families {unknown}, of which there are no items; leave them out")
