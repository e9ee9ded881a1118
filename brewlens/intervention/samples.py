"""Samples: the rows of a trace that an experiment edits, with what all experiments need of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from brewlens.brief import brief
from brewlens.decoding.surface_control import OVERALL
from brewlens.intervention.effects import Cell, Scores, cells_at
from brewlens.intervention.grid import Grid
from brewlens.intervention.sites import states
from brewlens.residuals import RESID_POST
from brewlens.tasks.item import ItemSet

if TYPE_CHECKING:
    from brewlens.answers import AnswerSpace
    from brewlens.model import HookedModel
    from brewlens.results import Trace

ALL = "all"


@dataclass(frozen=True, eq=False)
class Samples:
    """Rows of a trace; every array has one entry per row.

    Attributes:
        rows: Which rows.
        items: Their items.
        families: Family of each.
        outcome: Outcome of each, by the landmarks of the experiment.
        shapes: Cluster of each.
        classes: Class of the right answer.
        own: ``[sample, layer, 1, width]`` residuals at the last token of the item's prompt.
        space: The answer classes.
    """

    rows: Int[np.ndarray, "sample"]
    items: ItemSet
    families: np.ndarray
    outcome: np.ndarray
    shapes: Int[np.ndarray, "sample"]
    classes: Int[np.ndarray, "sample"]
    own: Float[Tensor, "sample layer 1 width"]
    space: AnswerSpace

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: Int[np.ndarray, "row"]) -> Samples:
        """The samples at ``rows``, in that order."""
        return Samples(
            self.rows[rows],
            self.items.select(rows.tolist()),
            self.families[rows],
            self.outcome[rows],
            self.shapes[rows],
            self.classes[rows],
            self.own[torch.from_numpy(rows)],
            self.space,
        )

    @property
    def strata(self) -> list[str]:
        """Family and outcome, within which placebo donors are drawn."""
        return [f"{family}\t{end}" for family, end in zip(self.families, self.outcome, strict=True)]

    @property
    def targets(self) -> Int[Tensor, "sample"]:
        """``classes`` as a tensor."""
        return torch.from_numpy(self.classes)

    def groups(self, outcomes: Sequence[str]) -> Iterator[tuple[str, str, Bool[np.ndarray, "sample"]]]:
        """Family (and all of them, where there are several), outcome (or ``all``), and who belongs there."""
        names = list(dict.fromkeys(self.families.tolist()))
        for family in [*names, OVERALL] if len(names) > 1 else names:
            inside = np.ones(len(self), dtype=bool) if family == OVERALL else self.families == family
            for outcome in outcomes:
                yield family, outcome, inside & ((self.outcome == outcome) | (outcome == ALL))

    def cells(
        self,
        grid: Grid,
        scores: Scores,
        at: Int[np.ndarray, "sample slot"],
        eligible: Bool[np.ndarray, "sample slot"],
        outcomes: Sequence[str],
        aligned: str,
    ) -> Iterator[Cell]:
        """Cells of every arm but the no-op, by family and outcome.

        Args:
            grid: A grid of these samples.
            scores: One measure of it.
            at: Where each slot stands.
            eligible: Which slots count.
            outcomes: Those that get rows; ``all`` is every sample.
            aligned: What ``at`` is relative to, for the table.
        """
        for family, outcome, inside in self.groups(outcomes):
            labels: dict[str, Any] = {"family": family, "outcome": outcome, "aligned": aligned}
            for arm in range(1, len(grid.arms)):
                yield from cells_at(grid, scores, arm, at, eligible & inside[:, None], labels)

    __repr__ = brief


def gather(
    model: HookedModel,
    trace: Trace,
    rows: Int[np.ndarray, "sample"],
    outcome: np.ndarray,
    *,
    space: AnswerSpace | None = None,
    progress: bool = False,
) -> Samples:
    """The samples at some rows of a trace.

    Args:
        model: The model of the trace.
        trace: The trace. Its residuals are used where it has them, else the prompts are run again.
        rows: Which rows, at least one.
        outcome: ``[trace sample]`` outcomes.
        space: The answer classes; by default those of the trace, scored as they were there.
        progress: Show a progress bar.

    Raises:
        ValueError: If the trace is of another model.
    """
    if trace.model != model.name:
        raise ValueError(
            f"asked to intervene in {model.name}, found a trace of {trace.model}: give its model"
        )
    items = trace.items.select(rows.tolist())
    space = _space(model, trace) if space is None else space
    return Samples(
        rows,
        items,
        np.array(trace.lifecycle.families)[rows],
        outcome[rows],
        trace.shapes[rows],
        np.array([space.index(answer) for answer in items.answers]),
        _own(model, trace, rows, items, progress),
        space,
    )


def draw(eligible: Bool[np.ndarray, "sample"], n: int | None, seed: int) -> Int[np.ndarray, "row"]:
    """Rows that are eligible, in order: all, or ``n`` of them at random."""
    rows = np.flatnonzero(eligible)
    if n is None or len(rows) <= n:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, n, replace=False))


def draw_each(
    outcome: np.ndarray,
    outcomes: Sequence[str],
    eligible: Bool[np.ndarray, "sample"],
    n: int | None,
    seed: int,
) -> Int[np.ndarray, "row"]:
    """Rows of each outcome as :func:`draw` takes them, in order."""
    return np.sort(np.concatenate([draw(eligible & (outcome == name), n, seed) for name in outcomes]))


def layers_from_end(layers: Sequence[int], n_layers: int) -> Int[np.ndarray, "layer"]:
    """Layers as 0-based blocks; negative ones count from the end, -1 is the last block.

    Raises:
        ValueError: If the model has no such layer, or one is named twice.
    """
    found = np.array([layer + n_layers if layer < 0 else layer for layer in layers], dtype=int)
    if len(found) and (found.min() < 0 or found.max() >= n_layers or len(set(found.tolist())) < len(found)):
        raise ValueError(
            f"layers run from 0 to {n_layers - 1}, or from -{n_layers} to -1 from the end, each once; found "
            f"{list(layers)}"
        )
    return found


def _space(model: HookedModel, trace: Trace) -> AnswerSpace:
    plan = trace.manifest.get("plan")
    asked = plan if isinstance(plan, dict) else {}
    options: dict[str, Any] = {name: asked[name] for name in ("scoring", "end") if name in asked}
    return model.answer_space(trace.items.prompts, trace.readouts["probe"].classes, **options)


def _own(
    model: HookedModel, trace: Trace, rows: Int[np.ndarray, "sample"], items: ItemSet, progress: bool
) -> Float[Tensor, "sample layer 1 width"]:
    found = trace.residuals
    if found is not None and found.tap == RESID_POST and found.layers == tuple(range(model.n_layers)):
        return found.select(rows.tolist()).values.float().unsqueeze(2)
    return states(model, items.prompts, progress=progress)
