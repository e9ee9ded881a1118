"""Causal use before resolution: is the answer that a probe reads what the model goes on with?

A probe shows that an answer is there, context-stripped decoding that it could be turned into an output.
Neither shows that it is. Here, in a sample's own prompt, at the last token, at every layer, part of the state
is exchanged with that of the counterfactual twin, the same program with one literal changed; if the model
uses what is exchanged, its output follows the twin. Four edits:

* ``whole``: the whole state.
* ``probe_subspace``: the directions in which the sample's out-of-fold probe tells answers apart, and no more.
* ``learned_subspace``: directions learned for the purpose on other shapes (distributed alignment search,
  Geiger et al. 2024, arXiv 2303.02536); see :mod:`brewlens.intervention.learned`.
* ``erase``: the probe's directions set to the mean of the other folds; ``erase/resampled`` sets them to those
  of a random sample instead.

Controls of each: the state written back (no-op), a donor with the same answer, a shuffled donor, and two that
move as far as the edit does: in a random subspace of equal rank outside the edit's own, and in a random
direction.

The *brewing stretch* of a sample are the layers from that at which its answer is available to the last one
before it is ready; of a sample that never becomes ready, all layers from availability on. Landmarks come from
the probe and from the target prompt of context-stripped decoding; the test is the output in the source
prompt, which neither has seen. Only slots count where the twin has brewed its own answer, by the probe that
reads the sample, and only samples whose un-edited output is not the twin's answer already.

What it does not show: an answer that is used at other tokens than the last one, or along directions that no
probe of this kind reads, is missed by all but ``whole``; and that a subspace carries the answer when it is
exchanged does not show that nothing else does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from brewlens import html
from brewlens.intervention import effects as measured
from brewlens.intervention.anchors import Landmarks
from brewlens.intervention.effects import Cell, Scores, cell_over, cells_at, effect_table
from brewlens.intervention.exchanges import ERASE, LEARNED, PROBE, exchanges
from brewlens.intervention.grid import Arm, Grid, run_grid
from brewlens.intervention.learned import Learned, learned_subspace
from brewlens.intervention.pairs import NoPairs
from brewlens.intervention.samples import ALL
from brewlens.intervention.stretches import Cases, find_cases
from brewlens.intervention.subspaces import probe_subspace, subspace_means
from brewlens.intervention.verdicts import STRETCH, Stretch, verdicts
from brewlens.lifecycle.outcomes import OUTCOMES

if TYPE_CHECKING:
    import pandas as pd

    from brewlens.answers import AnswerSpace
    from brewlens.model import HookedModel
    from brewlens.results import Trace

log = logging.getLogger("brewlens")

MARGIN, LOGIT_MARGIN = 0.1, 0.25
_REACH = 6  # layers on either side of a landmark that are tabled


@dataclass(frozen=True, eq=False)
class CausalUse:
    """What the exchange of brewed answers did.

    Attributes:
        cases: The samples with a brewing stretch, and their twins.
        grid: All arms at all layers.
        effects: The effects, columns ``brewlens.intervention.effects.COLUMNS``.
        verdicts: One row per family, outcome and edit: see :func:`brewlens.intervention.verdicts.verdicts`.
        learned: The learned subspace, if one was asked for.
    """

    cases: Cases
    grid: Grid
    effects: pd.DataFrame
    verdicts: pd.DataFrame
    learned: Learned | None = None

    def __repr__(self) -> str:
        counts = self.verdicts["verdict"].value_counts()
        said = ", ".join(f"{verdict} {count}" for verdict, count in counts.items())
        return f"CausalUse({len(self.cases.samples)} samples with a brewing stretch; {self.grid!r}; {said})"

    def _repr_html_(self) -> str:
        """One row per verdict: the effect beside the strongest control, and the net effect by layer."""
        rows = []
        for said in self.verdicts.to_dict("records"):
            rows.append(
                {
                    **{name: said[name] for name in ("family", "outcome", "edit", "measure", "n")},
                    "net": html.interval(said["net"], said["low"], said["high"]),
                    "strongest control": f"{said['placebo_net']:.2f}",
                    "by layer": self._by_layer(said),
                    "verdict": said["verdict"],
                }
            )
        scale = (
            "Net of the no-op, 95 % intervals by shape. Lines are over layers counted from the end of the "
            "stretch, from 0 to 1 (-1 to 1 for other measures than follows)."
        )
        return html.card(repr(self), html.table(rows), html.note(scale))

    def _by_layer(self, said: Mapping[str, Any]) -> html.Html:
        """The net effect behind a verdict, by layer."""
        rows = (self.effects["aligned"] == "fjc") & ~self.effects["control"].astype(bool)
        for name in ("family", "outcome", "edit", "measure"):
            rows &= self.effects[name] == said[name]
        here = self.effects.loc[rows].set_index("at").sort_index()
        return html.sparkline(
            here["net"],
            f"{said['edit']}: net effect",
            axis="layer from readiness",
            low=0 if said["measure"] == "follows" else -1,
            high=1,
            line=0,
            labels=list(here.index),
        )


def causal_use(
    model: HookedModel,
    trace: Trace,
    *,
    space: AnswerSpace | None = None,
    n: int | None = None,
    landmarks: Landmarks = "onsets",
    learned: bool = True,
    margin: float = MARGIN,
    logit_margin: float = LOGIT_MARGIN,
    least: int = measured.LEAST,
    seed: int = 0,
    progress: bool = True,
) -> CausalUse:
    """Exchange brewed answers with those of counterfactual twins, and see what the outputs do.

    Args:
        model: The model of the trace.
        trace: With probes.
        space: The answer classes; by default those of the trace.
        n: Most samples per family, drawn at random; all by default.
        landmarks: What brewing stretches are taken from: ``onsets`` or the paper's ``first_hits``.
        learned: Learn a subspace too. Answers of several tokens have none, and a model that answers too few
            samples rightly gets a warning instead.
        margin: A share of outputs; what is certainly below it, and below ``logit_margin`` too, is not used.
        logit_margin: A share of the logit difference between the sample and its twin.
        least: Fewest samples of a row of the tables.
        seed: Of all that is drawn.
        progress: Show progress bars.

    Raises:
        NoCases: If no sample has both a brewing stretch and a counterfactual twin.
        ValueError: If the trace has no probes or residuals, or is of another model.
    """
    cases = find_cases(model, trace, space=space, n=n, landmarks=landmarks, seed=seed, progress=progress)
    samples = cases.samples
    subspaces, means, found = {}, None, None
    if trace.probes is not None and trace.probes.hidden is None:  # a two-layer probe has no subspace
        everywhere = probe_subspace(trace.probes, trace.items.ids)
        means = subspace_means(everywhere, _residuals(trace), trace.lifecycle.families, trace.folds)
        subspaces[PROBE] = everywhere.select(samples.rows)
    if learned and samples.space.single:
        try:
            found = learned_subspace(model, trace, samples.space, seed=seed, progress=progress)
            subspaces[LEARNED] = found.subspace.select(samples.rows)
        except NoPairs as error:
            log.warning("no subspace was learned: %s", error)
    arms = exchanges(cases, subspaces, means, seed)
    prompts = samples.items.prompts
    grid = run_grid(model, prompts, samples.own, arms, samples.space, progress=progress)
    return judge(cases, grid, found, margin=margin, logit_margin=logit_margin, least=least, seed=seed)


def judge(
    cases: Cases,
    grid: Grid,
    learned: Learned | None = None,
    *,
    margin: float = MARGIN,
    logit_margin: float = LOGIT_MARGIN,
    least: int = measured.LEAST,
    seed: int = 0,
) -> CausalUse:
    """Effects and verdicts of a grid; arguments as in :func:`causal_use`.

    Args:
        cases: The samples.
        grid: Arms of :func:`brewlens.intervention.exchanges.exchanges` at all layers.
        learned: The learned subspace behind it, if there is one.
        margin: As in :func:`causal_use`, like the next.
        logit_margin: Of the logit difference.
        least: Fewest samples of a row.
        seed: Of the sign flips.
    """
    scores = _scores(cases, grid)
    groups = list(cases.samples.groups((ALL, *OUTCOMES)))
    cells = list(_cells(cases, grid, scores, groups))
    table = effect_table(cells, cases.samples.shapes, "causal_use", least=least, seed=seed)
    stretch = Stretch(grid, scores, cases.inside(grid), cases.samples.shapes)
    said = verdicts(stretch, groups, table, margin=margin, logit_margin=logit_margin)
    return CausalUse(cases, grid, table, said, learned)


def measures_of(arm: Arm) -> Sequence[str]:
    """What is read of an arm: erasure donates no answer that could be followed."""
    return [m for m in measured.MEASURES if m != measured.FOLLOWS or arm.edit != ERASE]


def _scores(cases: Cases, grid: Grid) -> dict[str, Scores]:
    right, donated = cases.samples.classes, cases.donated
    twins = cases.donor.said().logits.numpy()[cases.donor.rows.numpy()]
    found = (
        measured.follows(grid, donated, right, cases.expected),
        measured.unchanged(grid),
        measured.right(grid, right),
        measured.logit_difference(grid, donated, right, twins),
    )
    return {scores.measure: scores for scores in found}


def _cells(
    cases: Cases,
    grid: Grid,
    scores: Mapping[str, Scores],
    groups: Sequence[tuple[str, str, Bool[np.ndarray, "sample"]]],
) -> Iterator[Cell]:
    layers, inside, near = grid.layers, cases.inside(grid), cases.beside(grid)
    becomes_ready = (cases.end < layers.shape[1])[:, None]
    places = {
        "layer": (layers, inside),
        "fpcl": _beside(layers, cases.start, near),
        "fjc": _beside(layers, cases.end, near & becomes_ready),
    }
    for family, outcome, rows in groups:
        labels = {"family": family, "outcome": outcome}
        for arm in range(1, len(grid.arms)):
            for measure in measures_of(grid.arms[arm]):
                found = scores[measure]
                for aligned, (at, there) in places.items():
                    named = {**labels, "aligned": aligned}
                    yield from cells_at(grid, found, arm, at, there & rows[:, None], named)
                yield cell_over(grid, found, arm, inside & rows[:, None], {**labels, "aligned": STRETCH})


def _beside(
    layers: Int[np.ndarray, "sample slot"],
    landmark: Int[np.ndarray, "sample"],
    eligible: Bool[np.ndarray, "sample slot"],
) -> tuple[Int[np.ndarray, "sample slot"], Bool[np.ndarray, "sample slot"]]:
    at = layers - landmark[:, None]
    return at, eligible & (np.abs(at) <= _REACH)


def _residuals(trace: Trace):
    if trace.residuals is None:
        raise ValueError(
            f"erasure takes the mean of the trace's residuals, and {trace!r} has none; brewlens.trace and "
            "brewlens.load_run give them"
        )
    return trace.residuals.values
