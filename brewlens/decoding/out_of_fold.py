"""Out of fold: who is trained on and who is scored, for every decoder that is trained on answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from brewlens.tasks.folds import check_leakage
from brewlens.tasks.item import ItemSet

_SMALL = 5_000_000  # residual entries per layer up to which one thread is faster


def threads_for(samples: int, width: int) -> int | None:
    """Threads of the matrix products of a probe: one for small ones, else what the libraries choose."""
    return 1 if samples * width < _SMALL else None


def split_folds(
    items: ItemSet, folds: Int[np.ndarray, "sample"], *, by_family: bool = True
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows to train on and rows to score, fold by fold and, by default, family by family.

    Raises:
        LeakageError: If the two share an item, a skeleton or a twin; names the ids.
        ValueError: If there is not one fold per item, or a fold leaves nothing to train on.
    """
    folds = np.asarray(folds)
    if len(folds) != len(items):
        raise ValueError(f"one fold per item: found {len(folds)} folds for {len(items)} items")
    family = np.array([item.family for item in items])
    for name in items.families if by_family else [None]:
        here = family == name if name is not None else np.ones(len(items), dtype=bool)
        for fold in np.unique(folds[here]):
            train, score = np.flatnonzero(here & (folds != fold)), np.flatnonzero(here & (folds == fold))
            if not len(train):
                raise ValueError(f"every item of {name or 'the set'} is in fold {fold}; nothing to train on")
            check_leakage(items.select(train), items.select(score), items)
            yield train, score


def out_of_fold(
    items: ItemSet,
    folds: Int[np.ndarray, "sample"],
    fit: Callable[[np.ndarray, np.ndarray], Float[np.ndarray, "score layer class"]],
    shape: tuple[int, int],
    *,
    by_family: bool = True,
    threads: int | None = 1,
    progress: str | None = None,
) -> Float[np.ndarray, "sample layer class"]:
    """Score every item by a decoder fitted on the other folds.

    Args:
        items: The items.
        folds: Fold of each.
        fit: Maps training rows and scoring rows to the logits of the latter.
        shape: Number of layers and of classes.
        by_family: Fit families apart.
        threads: Threads of the matrix products. Small ones are an order of magnitude slower with two
            threads than with one; None leaves the choice to the libraries.
        progress: Label of a progress bar; none without.
    """
    from threadpoolctl import threadpool_limits

    logits = np.empty((len(items), *shape), dtype=np.float32)
    splits = list(split_folds(items, folds, by_family=by_family))
    with threadpool_limits(threads):
        for train, score in tqdm(splits, desc=progress, disable=progress is None, unit="fold"):
            logits[score] = fit(train, score)
    return logits
