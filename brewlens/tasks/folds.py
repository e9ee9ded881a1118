"""Who may meet whom: the training and evaluation universes, folds by skeleton, and the leakage check."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from brewlens.tasks.item import Item, ItemSet

UNIVERSES = ("train", "eval")
FEW_SHAPES = 10


class LeakageError(ValueError):
    """Training and scoring items share an item, a skeleton or a twin."""


def universe_of(skeleton: str) -> str:
    """The universe a skeleton belongs to, whatever the seed: ``train`` or ``eval``, half of them each.

    The reference model is trained on programs whose skeleton is in ``train``; an evaluation item and all
    of its twins have skeletons in ``eval``, so a program never is in one and its twin in the other.
    """
    return UNIVERSES[int(skeleton[:4], 16) & 1]


def _keys(item: Item, items: ItemSet | None) -> list[str]:
    """What an item must not share with an item of another fold: its skeleton and those of its twins."""
    keys = [item.skeleton]
    for kind, twin_id in item.twins.items():
        keys.append("id:" + twin_id)
        twin = items.twin(item, kind) if items is not None else None
        if twin is not None:
            keys.append(twin.skeleton)
    return [*keys, "id:" + item.id]


def groups(items: ItemSet) -> Int[np.ndarray, "sample"]:
    """Group number per item: items linked by a shared skeleton or by twins, directly or in a chain."""
    return _linked([_keys(item, items) for item in items])


def clusters(items: ItemSet) -> Int[np.ndarray, "sample"]:
    """Cluster number per item, for intervals: items of one shape, and twins, are not independent.

    Items are linked by their shape and by twins that are items too, directly or in a chain. In a family of
    fewer than ``FEW_SHAPES`` shapes, such as a user's items from one template, nothing can be said of other
    shapes: there statements are about these, and items of one shape are not linked.
    """
    ids, few = set(items.ids), few_shapes(items)
    return _linked(
        [
            [
                *([] if item.family in few else ["shape:" + item.shape]),
                "id:" + item.id,
                *("id:" + t for t in item.twins.values() if t in ids),
            ]
            for item in items
        ]
    )


def few_shapes(items: ItemSet) -> dict[str, int]:
    """Families of fewer than ``FEW_SHAPES`` shapes, though of more items than that, and their number."""
    shapes: dict[str, list[str]] = {}
    for item in items:
        shapes.setdefault(item.family, []).append(item.shape)
    counts = {family: len(set(found)) for family, found in shapes.items()}
    return {f: n for f, n in counts.items() if n < FEW_SHAPES and n < len(shapes[f])}


def _linked(keys: Sequence[Sequence[str]]) -> Int[np.ndarray, "row"]:
    """Rows that share a key, directly or in a chain, have one number."""
    parent = list(range(len(keys)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    owner: dict[str, int] = {}
    for row, own in enumerate(keys):
        for key in own:
            parent[root(row)] = root(owner.setdefault(key, row))
    roots = [root(row) for row in range(len(keys))]
    number = {r: k for k, r in enumerate(dict.fromkeys(roots))}
    return np.array([number[r] for r in roots])


def assign_folds(items: ItemSet, k: int = 5, seed: int = 0) -> Int[np.ndarray, "sample"]:
    """Fold per item, 0-based: groups stay whole, answers are spread evenly within each family.

    Raises:
        ValueError: If there are fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    group = groups(items)
    if len(set(group.tolist())) < k:
        raise ValueError(
            f"asked for {k} folds, found {len(set(group.tolist()))} independent groups of items; "
            "give more items or fewer folds"
        )
    strata = np.unique([f"{item.family}\t{item.answer}" for item in items], return_inverse=True)[1]
    if np.bincount(strata).max() < k:
        strata = np.zeros_like(strata)  # every answer is too rare to be in every fold
    fold = np.empty(len(items), dtype=np.int64)
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
    for number, (_, rows) in enumerate(_quiet_split(splitter, strata, group)):
        fold[rows] = number
    return fold


def _quiet_split(splitter, strata, group):
    """scikit-learn warns when a class has fewer members than folds; here that is an ordinary case."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        yield from splitter.split(np.zeros((len(strata), 1)), strata, group)


def check_leakage(train: Sequence[Item], score: Sequence[Item], items: ItemSet | None = None) -> None:
    """Refuse training and scoring items that share an item, a skeleton or a twin.

    Args:
        train: The items that a decoder is fitted on.
        score: The items that it is scored on.
        items: Where the twins of both are found; without it twins are compared by id only.

    Raises:
        LeakageError: Names up to five pairs of ids.
    """
    owner = {key: item.id for item in train for key in _keys(item, items)}
    shared = [
        (owner[key], item.id)
        for item in score
        if (key := next((k for k in _keys(item, items) if k in owner), None))
    ]
    if shared:
        pairs = ", ".join(f"{a} (training) and {b} (scoring)" for a, b in shared[:5])
        raise LeakageError(
            f"{len(shared)} of {len(score)} scoring items share an item, a skeleton or a twin with the "
            f"training items: {pairs}{' ...' if len(shared) > 5 else ''}. Split by skeleton, for example "
            "with brewlens.tasks.assign_folds"
        )
