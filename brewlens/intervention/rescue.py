"""Rescue as a policy: which single intervention repairs most failures, and what does it cost everyone else?

A candidate writes the state that a sample has at one layer at a later layer of the same prompt. *Deployable*
ones name both layers, the same for all samples: they need labels to be chosen, none to be applied. *Oracle*
ones read the state at the sample's own FPCL or FJC (first hits), which takes its right answer: they are no
policy, and only bound what knowing the layer could be worth.

The best of hundreds of candidates on the samples that it was chosen on flatters itself (the winner's curse).
So shapes are split into two halves; a policy is chosen on one and measured on the other, both ways round, and
the two measurements are pooled. ``chosen_on`` is what the choosing halves promised.

For each failure outcome the candidate that repairs the largest share of these failures is chosen, of equal
ones the one with the better net accuracy; the row ``all`` chooses by net accuracy alone. Where no candidate
is better than doing nothing on the choosing half, nothing is edited on the other.

What is chosen is applied to everyone, whatever the outcome: ``repaired`` is the share of these failures made
right, ``broken`` of right resolved samples made wrong, ``net_accuracy`` what all samples together win or
lose.

Two things repair answers by luck, so ``placebo_repaired`` has the same failures under a placebo. An edit that
merely breaks the output repairs a wrong answer in one case of ten: of deployable policies the placebo is
``noise``, a move as far in a random direction at the same layer. An oracle's layer is picked because its
state gives the label, and so it makes the output follow random labels too: of oracles the placebo is
``another_answer``, the same policy with the landmarks of another digit, neither right nor said, and the share
of outputs that become this digit. (Overprocessed samples are those that have an FJC for the right answer,
which few have for another; only the row ``all`` compares like with like.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from brewlens.brief import brief
from brewlens.intervention.anchors import Anchors, anchors, for_other_answers
from brewlens.intervention.contest import Choice, Contest
from brewlens.intervention.earlier_state import MODES
from brewlens.intervention.edits import Edit, noise
from brewlens.intervention.effects import LEAST
from brewlens.intervention.pairs import halves
from brewlens.intervention.policies import Policy, apply, candidates
from brewlens.intervention.samples import ALL, Samples, draw_each, gather
from brewlens.lifecycle.onsets import LEAST_CLASSES
from brewlens.lifecycle.outcomes import OUTCOMES
from brewlens.stats import clustered_share, detectable, paired_difference

if TYPE_CHECKING:
    import pandas as pd

    from brewlens.answers import AnswerSpace
    from brewlens.model import HookedModel
    from brewlens.results import Trace

FAILURES = ("overprocessed", "misresolved", "unresolved")
NO_EDIT = "no edit"
NOISE, ANOTHER_ANSWER = "noise", "another_answer"
COLUMNS = (
    *("outcome", "policy", "oracle", "source", "layer", "mode", "chosen_by", "candidates", "every"),
    *("n_fail", "n_shapes", "chosen_on", "repaired", "repaired_low", "repaired_high"),
    *("placebo", "placebo_repaired", "placebo_low", "placebo_high", "cosine", "change"),
    *("n_resolved", "broken", "broken_low", "broken_high"),
    *("n_all", "net_accuracy", "low", "high", "detectable"),
)
_LAYERS = 12  # that candidates are made of, about, where ``every`` is not given


def rescue(
    model: HookedModel,
    trace: Trace,
    *,
    edits: Sequence[Edit] = MODES,
    every: int | None = None,
    space: AnswerSpace | None = None,
    n: int | None = 200,
    least: int = LEAST,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Choose rescue policies on one half of the shapes, measure them on the other, and the other way round.

    Args:
        model: The model of the trace.
        trace: With landmarks.
        edits: Ways of writing.
        every: Candidates are made of every k-th layer; by default such that there are about twelve.
        space: The answer classes; by default the trace's.
        n: Most samples of an outcome, both halves together, that candidates are compared on; None for all.
            What is chosen is measured on all samples.
        least: Fewest failures of a row.
        seed: Of the halves and of all else that is drawn.
        progress: Show progress bars.

    Returns:
        One row per failure outcome, and ``all``, for the best deployable policy and for the best oracle:
        outcome, policy (text; that of both halves where they differ), oracle, source, layer, mode (missing
        where the halves differ or nothing is edited), chosen_by (``repaired`` or ``net_accuracy``),
        candidates (how many were compared), every, n_fail, n_shapes, chosen_on, repaired, repaired_low,
        repaired_high, placebo, placebo_repaired, placebo_low, placebo_high, cosine and change (mean dose over
        the failures), n_resolved, broken, broken_low, broken_high, n_all, net_accuracy, low, high,
        detectable. Intervals are 95 %, clustered by shape.

    Raises:
        ValueError: If there are fewer than two shapes, ``every`` is below 1, or the trace is of another
            model.
    """
    import pandas as pd

    every = max(1, math.ceil(trace.n_layers / _LAYERS)) if every is None else every
    policies = candidates(trace.n_layers, edits, every)
    found, half = anchors(trace), halves(trace.items, trace.shapes, seed)
    compared = draw_each(found.outcome, OUTCOMES, np.ones(len(trace), dtype=bool), n, seed)
    everyone = gather(model, trace, np.arange(len(trace)), found.outcome, space=space, progress=progress)
    samples = everyone.select(compared)
    tried = apply(model, samples, found.select(compared), policies, progress=progress)
    names, counts = np.unique(found.outcome, return_counts=True)
    weights = dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))
    contest = Contest(policies, tried, samples.outcome, half[compared], weights)
    contests = [(outcome, oracle) for outcome in (*FAILURES, ALL) for oracle in (False, True)]
    chosen = [contest.choose(outcome, oracle) for outcome, oracle in contests]
    labels = _other_answers(trace, everyone, seed)
    luck = Luck(for_other_answers(trace, [everyone.space.classes[k] for k in labels]), labels, seed)
    held_out = _measure(model, everyone, found, chosen, half, luck, progress)
    records = [_row(choice, everyone, out, least) for choice, out in zip(chosen, held_out, strict=True)]
    found_rows = [{**record, "every": every} for record in records if record is not None]
    return pd.DataFrame(found_rows, columns=list(COLUMNS)).astype({"layer": "Int64"})


@dataclass(frozen=True, eq=False)
class HeldOut:
    """One choice on all samples, each under the policy that the other half chose.

    Attributes:
        before: ``[sample]`` whether the output is right un-edited.
        after: ``[sample]`` whether it is right under the policy.
        placebo: Whether the placebo got the answer that it is after; as ``before`` for samples that were
            right.
        cosine: Dose: of what is written to what was there.
        change: Dose: relative length of the difference.
    """

    before: Bool[np.ndarray, "sample"]
    after: Bool[np.ndarray, "sample"]
    placebo: Bool[np.ndarray, "sample"]
    cosine: Float[np.ndarray, "sample"]
    change: Float[np.ndarray, "sample"]

    __repr__ = brief


def _measure(
    model: HookedModel,
    everyone: Samples,
    found: Anchors,
    choices: Sequence[Choice],
    half: Int[np.ndarray, "sample"],
    luck: Luck,
    progress: bool,
) -> list[HeldOut]:
    """Every choice on the half that it was not made on."""
    n = len(everyone)
    before = np.zeros(n, dtype=bool)
    after = np.zeros((len(choices), n), dtype=bool)
    placebo, cosine, change = after.copy(), np.ones(after.shape), np.zeros(after.shape)
    for side in (0, 1):
        chosen = [choice.policies[1 - side] for choice in choices]
        used = list(dict.fromkeys(policy for policy in chosen if policy is not None))
        rows = np.flatnonzero(half == side)
        done = apply(model, everyone.select(rows), found.select(rows), used, progress=progress)
        before[rows] = done.before
        wrong = rows[~done.before]
        lucky = luck.tried(model, everyone.select(wrong), used, wrong, found, progress)
        for k, policy in enumerate(chosen):
            after[k, rows] = placebo[k, rows] = done.before
            if policy is not None:
                at = used.index(policy)
                after[k, rows], placebo[k, wrong] = done.after[at], lucky[at]
                cosine[k, rows], change[k, rows] = done.cosine[at], done.change[at]
    return [HeldOut(before, *parts) for parts in zip(after, placebo, cosine, change, strict=True)]


@dataclass(frozen=True, eq=False)
class Luck:
    """What placebos are made of.

    Attributes:
        found: Landmarks of another answer of each sample.
        labels: Class of that answer.
        seed: Of the noise.
    """

    found: Anchors
    labels: Int[np.ndarray, "sample"]
    seed: int

    def tried(
        self,
        model: HookedModel,
        samples: Samples,
        policies: Sequence[Policy],
        rows: Int[np.ndarray, "sample"],
        found: Anchors,
        progress: bool,
    ) -> Bool[np.ndarray, "policy sample"]:
        """Whether the placebo of each policy gives the answer that it is after.

        Args:
            model: The model.
            samples: The samples.
            policies: The policies.
            rows: Where the samples stand among all.
            found: Landmarks of all.
            progress: Show a progress bar.
        """
        out = np.zeros((len(policies), len(samples)), dtype=bool)
        other = replaced(samples, classes=self.labels[rows])
        for oracle, recipients, marks in ((False, samples, found), (True, other, self.found)):
            numbers = [k for k, policy in enumerate(policies) if policy.oracle == oracle]
            chosen = [policies[k] for k in numbers]
            if not oracle:
                chosen = [replaced(policy, edit=noise(policy.edit, self.seed)) for policy in chosen]
            if chosen and len(samples):
                out[numbers] = apply(model, recipients, marks.select(rows), chosen, progress=progress).after
        return out

    __repr__ = brief


def _other_answers(trace: Trace, samples: Samples, seed: int) -> Int[np.ndarray, "sample"]:
    """Class of an answer that is neither right nor said, at random; of two classes there may be none."""
    said = np.array([samples.space.index(answer) for answer in trace.lifecycle.output])
    order = np.random.default_rng(seed).random((len(samples), len(samples.space)))
    rows = np.arange(len(samples))
    order[rows, samples.classes] = order[rows, said] = -1
    return order.argmax(axis=1)


def _row(choice: Choice, samples: Samples, out: HeldOut, least: int) -> dict[str, Any] | None:
    """One row of the table; None with too few failures."""
    failed = ~out.before & ((samples.outcome == choice.outcome) | (choice.outcome == ALL))
    if failed.sum() < least:
        return None
    resolved = out.before & (samples.outcome == "resolved")
    net: Any = paired_difference(out.after, out.before, samples.shapes)
    record: dict[str, Any] = {
        "outcome": choice.outcome,
        **_named(choice),
        "chosen_by": choice.by,
        "candidates": choice.candidates,
        "n_fail": int(failed.sum()),
        "n_shapes": len(np.unique(samples.shapes[failed])),
        "placebo": ANOTHER_ANSWER if choice.oracle else NOISE,
        "chosen_on": choice.chosen_on,
        **_share("repaired", "repaired", out.after[failed], samples.shapes[failed]),
        **_share("placebo_repaired", "placebo", out.placebo[failed], samples.shapes[failed]),
        "cosine": float(out.cosine[failed].mean()),
        "change": float(out.change[failed].mean()),
        "n_resolved": int(resolved.sum()),
        **_share("broken", "broken", ~out.after[resolved], samples.shapes[resolved]),
        "n_all": len(samples),
        "net_accuracy": net.value,
        "low": net.low,
        "high": net.high,
        "detectable": detectable(net.se, net.df),
    }
    if choice.oracle and len(samples.space) < LEAST_CLASSES:
        record |= dict.fromkeys(("placebo_repaired", "placebo_low", "placebo_high"), math.nan)
    if choice.policies == (None, None):  # nothing was done, and that is certain
        intervals = [f"{name}_{end}" for name in ("repaired", "placebo", "broken") for end in ("low", "high")]
        certain = (*intervals, "low", "high", "detectable")
        record |= {name: 0.0 for name in certain if not math.isnan(record[name])}
    return record


def _named(choice: Choice) -> dict[str, Any]:
    texts = [NO_EDIT if policy is None else str(policy) for policy in choice.policies]
    same = len(set(texts)) == 1
    policy = choice.policies[0] if same else None
    return {
        "policy": texts[0] if same else " | ".join(texts),
        "oracle": choice.oracle,
        "source": None if policy is None else str(policy.source),
        "layer": None if policy is None else policy.layer,
        "mode": None if policy is None else policy.edit.name,
    }


def _share(
    name: str, interval: str, hits: Bool[np.ndarray, "sample"], shapes: Int[np.ndarray, "sample"]
) -> dict[str, float]:
    found = clustered_share(hits, shapes)
    if found is None:
        return {name: math.nan, f"{interval}_low": math.nan, f"{interval}_high": math.nan}
    return {name: found.value, f"{interval}_low": found.low, f"{interval}_high": found.high}
