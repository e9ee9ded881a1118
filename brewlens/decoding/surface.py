"""Surface baselines: what the text alone gives away, on the folds of the probe. They read no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from brewlens.answers import DIGITS
from brewlens.decoding.probe import ABSENT, out_of_fold
from brewlens.decoding.readout import Readout
from brewlens.tasks.item import ItemSet

DECODABLE = 0.9  # share of right answers from which on a family counts as decodable from its text
_TOKEN = r"\w+|[^\w\s]"


def surface(
    items: ItemSet,
    folds: Int[np.ndarray, "sample"],
    classes: Sequence[str] = DIGITS,
    *,
    by_family: bool = True,
) -> Readout:
    """Logistic regression on 1- to 3-grams of the prompt's words and signs, out of fold.

    A probe that does not beat it has found text, not reasoning.

    Returns:
        A readout whose layer axis has one entry.

    Raises:
        LeakageError: If a fold and the rest share an item, a skeleton or a twin.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    prompts, answers = np.array(items.prompts, dtype=object), np.array(items.answers)

    def fit(train: np.ndarray, score: np.ndarray) -> np.ndarray:
        logits = np.full((len(score), 1, len(classes)), ABSENT, dtype=np.float32)
        present = np.unique(answers[train])
        where = [list(classes).index(a) for a in present]
        if len(present) == 1:
            logits[:, 0, where[0]] = 0
            return logits
        grams = CountVectorizer(token_pattern=_TOKEN, ngram_range=(1, 3), lowercase=False)
        model = make_pipeline(grams, LogisticRegression(max_iter=1000, tol=1e-3))
        model.fit(prompts[train], answers[train])
        logits[:, 0, where] = model.predict_log_proba(prompts[score])
        return logits

    return Readout(
        out_of_fold(items, folds, fit, (1, len(classes)), by_family=by_family),
        tuple(classes),
        "surface",
        items.ids,
    )


def majority(items: ItemSet, folds: Int[np.ndarray, "sample"], classes: Sequence[str] = DIGITS) -> Readout:
    """The most frequent answer of the same configuration in the other folds.

    Returns:
        A readout whose layer axis has one entry; its logits are smoothed log-frequencies.
    """
    cell = np.array([f"{item.family}\t{sorted(item.factors.items())}" for item in items])
    target = np.array([list(classes).index(a) for a in items.answers])

    def fit(train: np.ndarray, score: np.ndarray) -> np.ndarray:
        counts = np.ones((len(score), len(classes)), dtype=np.float32)
        for k, row in enumerate(score):
            counts[k] += np.bincount(target[train][cell[train] == cell[row]], minlength=len(classes))
        return np.log(counts / counts.sum(axis=1, keepdims=True))[:, None]

    return Readout(out_of_fold(items, folds, fit, (1, len(classes))), tuple(classes), "majority", items.ids)
