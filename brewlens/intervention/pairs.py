"""Pairs of programs to learn an interchange on, and on which to judge it: other programs, of other shapes.

A pair has a recipient and a donor that the model answers rightly and differently. The donor is the
recipient's counterfactual twin, which differs in one literal, or another program of its half, which differs
in everything: from twins alone a subspace could learn whatever else one literal moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from brewlens.brief import brief
from brewlens.residuals import RESID_POST
from brewlens.tasks.folds import groups

if TYPE_CHECKING:
    from brewlens.answers import AnswerSpace
    from brewlens.model import HookedModel
    from brewlens.results import Trace
    from brewlens.tasks.item import ItemSet

COUNTERFACTUAL, OTHER = "counterfactual", "other_answer"
DONORS = 2  # of each recipient, if there are recipients enough: many of them teach more than many donors


class NoPairs(ValueError):
    """Too few samples are answered rightly to learn a subspace from. The text says how many."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Recipients and donors with their states.

    Attributes:
        ids: Token ids of each recipient's prompt.
        states: ``[prompt, layer, d_model]`` block outputs at the last token, float32: the recipients, and
            donors that are none.
        recipient: ``[pair]`` row of ``ids`` and of the states.
        donor: ``[pair]`` row of the states.
        target: ``[pair]`` the donor's answer class.
        half: ``[pair]`` 0 or 1.
        kind: ``[pair]`` ``counterfactual`` or ``other_answer``.
        cluster: ``[pair]`` shape of the recipient.
    """

    ids: tuple[tuple[int, ...], ...]
    states: Float[Tensor, "prompt layer d_model"]
    recipient: Int[Tensor, "pair"]
    donor: Int[Tensor, "pair"]
    target: Int[Tensor, "pair"]
    half: Int[Tensor, "pair"]
    kind: np.ndarray
    cluster: Int[np.ndarray, "pair"]

    def __len__(self) -> int:
        return len(self.recipient)

    __repr__ = brief


def halves(items: ItemSet, shapes: Int[np.ndarray, "sample"], seed: int = 0) -> Int[np.ndarray, "sample"]:
    """Two halves of the samples, 0 and 1, that share no shape, no skeleton and no twin.

    Args:
        items: The samples.
        shapes: Cluster of each, as :attr:`brewlens.results.Trace.shapes`.
        seed: Of the order in which clusters are dealt out, the larger first, to the half that has fewer.

    Raises:
        ValueError: If all samples are linked.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    linked = groups(items)
    size = int(shapes.max()) + 1
    edges = coo_array(
        (np.ones(len(items)), (shapes, size + linked)), shape=2 * (size + int(linked.max()) + 1,)
    )
    _, cluster = np.unique(connected_components(edges, directed=False)[1][shapes], return_inverse=True)
    counts = np.bincount(cluster)
    if len(counts) < 2:
        raise ValueError(
            f"asked for two halves of {len(items)} items that share nothing, found all of them linked by "
            "shape, skeleton or twin; give items of several shapes"
        )
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order], kind="stable")]
    half, total = np.empty(len(counts), dtype=np.int64), [0, 0]
    for number in order.tolist():
        half[number] = fewer = int(total[1] < total[0])
        total[fewer] += int(counts[number])
    return half[cluster]


def draw_pairs(
    model: HookedModel,
    trace: Trace,
    space: AnswerSpace,
    half: Int[np.ndarray, "sample"],
    count: int,
    seed: int = 0,
    *,
    progress: bool = False,
) -> Pairs:
    """Draw recipients among the samples that the model answers rightly, and run them and their twins.

    A recipient is paired with its counterfactual twin, if the twin is answered rightly too, and with other
    recipients of its half whose answer is another.

    Args:
        model: The model.
        trace: Its trace; ``lifecycle.output`` says which samples are answered rightly. Their states are taken
            from its residuals where it has them.
        space: The answer classes.
        half: 0 or 1 of each sample, from :func:`halves`.
        count: Pairs in each half; half as many recipients.
        seed: Of the draws.
        progress: Show a progress bar.

    Returns:
        Fewer pairs where fewer samples are answered rightly.

    Raises:
        NoPairs: If a half has no two rightly answered samples with different answers.
    """
    rng = np.random.default_rng(seed)
    items, life = trace.items, trace.lifecycle
    right = np.array(life.output) == np.array(life.answers)
    rows = [rng.permutation(np.flatnonzero(right & (half == h)))[: -(-count // DONORS)] for h in (0, 1)]
    chosen = np.concatenate(rows)
    if not len(chosen):
        raise NoPairs(_too_few(0, right, half))
    twins = [items.twin(items[row], COUNTERFACTUAL) for row in chosen]
    twins = [twin if twin is not None and twin.answer in space.classes else None for twin in twins]
    found = [twin for twin in twins if twin is not None]
    answers = [items[row].answer for row in chosen] + [twin.answer for twin in found]
    classes = np.array([space.index(answer) for answer in answers])
    states, ids = _own_states(model, trace, chosen, progress)
    if found:
        theirs, _ = model.last_residuals([twin.prompt for twin in found], progress=progress)
        states = torch.cat([states, theirs])
    good = model.read_out(states[:, -1], space).predicted.numpy() == classes
    place = iter(range(len(chosen), len(states)))
    twin_at = np.array([-1 if twin is None else next(place) for twin in twins])
    parts = []
    for h in (0, 1):
        here = np.flatnonzero(good[: len(chosen)] & (half[chosen] == h))
        drawn = _pairs_of(here, twin_at, good, classes, count, rng)
        if not len(drawn):
            raise NoPairs(_too_few(h, right, half))
        parts.append(drawn)
    pairs = np.concatenate(parts)
    return Pairs(
        ids=ids,
        states=states,
        recipient=torch.from_numpy(pairs[:, 0]),
        donor=torch.from_numpy(pairs[:, 1]),
        target=torch.from_numpy(classes[pairs[:, 1]]),
        half=torch.from_numpy(half[chosen][pairs[:, 0]]),
        kind=np.where(pairs[:, 1] < len(chosen), OTHER, COUNTERFACTUAL),
        cluster=trace.shapes[chosen][pairs[:, 0]],
    )


def _own_states(
    model: HookedModel, trace: Trace, rows: Int[np.ndarray, "sample"], progress: bool
) -> tuple[Float[Tensor, "sample layer d_model"], tuple[tuple[int, ...], ...]]:
    """Block outputs at the last token of some samples, and their token ids."""
    whole = tuple(range(model.n_layers))
    if trace.residuals is not None and (trace.residuals.tap, trace.residuals.layers) == (RESID_POST, whole):
        kept = trace.residuals.select(rows.tolist())
        return kept.values.float(), kept.tokens
    return model.last_residuals([trace.items[row].prompt for row in rows], progress=progress)


def _pairs_of(
    recipients: Int[np.ndarray, "recipient"],
    twin_at: Int[np.ndarray, "chosen"],
    good: Bool[np.ndarray, "prompt"],
    classes: Int[np.ndarray, "prompt"],
    count: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "pair two"]:
    """Recipient and donor of every pair of one half, in random order: each recipient's twin, then others."""
    twins = [
        (row, twin_at[row])
        for row in recipients
        if twin_at[row] >= 0 and good[twin_at[row]] and classes[twin_at[row]] != classes[row]
    ]
    wanted = max(0, count - len(twins))
    able = [row for row in recipients if (classes[recipients] != classes[row]).any()]
    each = -(-wanted // max(1, len(able)))
    donors = [rng.permutation(recipients[classes[recipients] != classes[row]])[:each] for row in able]
    others = [(row, d[k]) for k in range(each) for row, d in zip(able, donors, strict=True) if k < len(d)]
    pairs = np.array([*twins[:count], *others[:wanted]], dtype=np.int64).reshape(-1, 2)
    return rng.permutation(pairs)


def _too_few(h: int, right: Sequence[bool] | np.ndarray, half: np.ndarray) -> str:
    count = int((np.asarray(right) & (half == h)).sum())
    return (
        f"a pair needs two programs that the model answers rightly and differently; half {h} has {count} of "
        f"{int((half == h).sum())} samples answered rightly. Give more items, or easier ones"
    )
