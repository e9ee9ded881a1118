"""Linear probe: can the answer be read from the residual stream at this layer?

Per layer, multinomial logistic regression on standardised residuals, out of fold: a sample is scored
only by a probe that never saw it, its twins, or a program of its skeleton (arXiv 2606.17648, section 3,
with the folds that the published recipe lacked). What a probe reads the model need not use; and what a
text-only classifier reads as well is no evidence of reasoning: compare ``surface``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from brewlens.answers import DIGITS
from brewlens.decoding.readout import Readout
from brewlens.residuals import Residuals
from brewlens.tasks.folds import check_leakage
from brewlens.tasks.item import ItemSet

_SMALL = 5_000_000  # residual entries per layer up to which one thread is faster
ABSENT = np.log(1e-6)  # log-probability of a class that the training fold does not have


def fit_logits(
    train: Float[np.ndarray, "train d_model"],
    target: Int[np.ndarray, "train"],
    score: Float[np.ndarray, "score d_model"],
    n_classes: int,
    *,
    C: float = 0.1,
    max_iter: int = 1000,
) -> Float[np.ndarray, "score class"]:
    """Fit one probe and return the log-probabilities it gives other samples.

    Args:
        train: Residuals of one layer. They are standardised by their own mean and deviation.
        target: Class index of each.
        score: Residuals to be read.
        n_classes: Number of classes.
        C: Inverse strength of the L2 penalty.
        max_iter: Most L-BFGS iterations.

    Raises:
        ValueError: If the training samples have fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(target)) < 2:
        raise ValueError("a probe needs training samples of at least two answers, found one")
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=max_iter))
    probe.fit(train, target)
    logits = np.full((len(score), n_classes), ABSENT, dtype=np.float32)
    logits[:, probe.classes_] = np.log(np.maximum(probe.predict_proba(score), np.exp(ABSENT)))
    return logits


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


def probe(
    residuals: Residuals,
    items: ItemSet,
    folds: Int[np.ndarray, "sample"],
    classes: Sequence[str] = DIGITS,
    *,
    C: float = 0.1,
    by_family: bool = True,
    progress: bool = False,
) -> Readout:
    """Out-of-fold linear probes at every layer.

    Args:
        residuals: Of these items, in this order.
        items: The items; their answers are the targets.
        folds: Fold of each item, from :func:`brewlens.tasks.assign_folds`.
        classes: The answer classes.
        C: Inverse strength of the L2 penalty.
        by_family: Train one set of probes per family, as the paper does, or one for all.
        progress: Show a progress bar.

    Raises:
        LeakageError: If a fold and the rest share an item, a skeleton or a twin.
        ValueError: If residuals and items do not match, or an answer is not a class.
    """
    if residuals.item_ids != items.ids:
        raise ValueError("residuals and items are not the same samples in the same order")
    values = residuals.values.float().numpy()
    where = {c: k for k, c in enumerate(classes)}
    target = np.array([where.get(a, -1) for a in items.answers])
    if (target < 0).any():
        raise ValueError(
            f"answers {sorted({a for a in items.answers if a not in where})[:5]} are not classes"
        )

    def fit(train: np.ndarray, score: np.ndarray) -> np.ndarray:
        layers = [
            fit_logits(values[train, layer], target[train], values[score, layer], len(classes), C=C)
            for layer in range(values.shape[1])
        ]
        return np.stack(layers, axis=1)

    logits = out_of_fold(
        items,
        folds,
        fit,
        (values.shape[1], len(classes)),
        by_family=by_family,
        threads=threads_for(len(items), values.shape[2]),
        progress="probe" if progress else None,
    )
    return Readout(logits, tuple(classes), "probe", items.ids)
