"""Surface baselines: what the text alone gives away, on the folds of the probe. They read no model.

Regression on n-grams has tens of thousands of columns against hundreds of rows. The penalised weights lie in
the span of the training rows (representer theorem), and the intercept, which is not penalised, takes up any
shift of the origin: the solution depends on the inner products of the centred rows and on nothing else. So
the rows are replaced, once per family, by as many coordinates as there are rows, with those inner products
(classical scaling; Gower, Biometrika 53, 1966), and every fold is fitted in these. The optimum is that of the
counts; an iteration costs a fraction, and centring leaves fewer of them.

The coordinates are taken from the rows that are scored as well. That gives nothing away: none of their
answers is read, and an n-gram that the training rows lack has no weight at the optimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from brewlens.answers import DIGITS
from brewlens.decoding.out_of_fold import out_of_fold
from brewlens.decoding.probes import ABSENT
from brewlens.decoding.readout import Readout
from brewlens.tasks.item import ItemSet

if TYPE_CHECKING:
    from scipy.sparse import csr_array, csr_matrix

DECODABLE = 0.9  # share of right answers from which on a family counts as decodable from its text
ROWS = 1500  # rows up to which coordinates are faster; they cost the cube in time, the square in memory
TOL = 1e-7  # largest entry of the gradient of the mean loss; log-probabilities are then right to 0.002 nats
MAX_ITER = 1000
_TOKEN = r"\w+|[^\w\s]"


def surface(
    items: ItemSet,
    folds: Int[np.ndarray, "sample"],
    classes: Sequence[str] = DIGITS,
    *,
    by_family: bool = True,
) -> Readout:
    """Logistic regression on 1- to 3-grams of the prompt's words and signs, out of fold.

    Fitted to convergence, with scikit-learn's default penalty (C = 1): in principal coordinates up to
    ``ROWS`` rows of a family, above that on the sparse counts; the optimum is the same. A probe that does
    not beat it has found text, not reasoning.

    Args:
        items: The items; only their prompts are read, and the answers of those trained on.
        folds: Fold of each item.
        classes: The answer classes.
        by_family: Fit families apart, as the probe does.

    Returns:
        A readout whose layer axis has one entry; its logits are log-probabilities in nats.

    Raises:
        LeakageError: If a fold and the rest share an item, a skeleton or a twin.

    Warns:
        ConvergenceWarning: Of scikit-learn, if a fit stopped before it came down to its tolerance.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    answers = np.array(items.answers)
    family = np.array([item.family if by_family else "" for item in items])
    grams = CountVectorizer(token_pattern=_TOKEN, ngram_range=(1, 3), lowercase=False)
    counts: Any = grams.fit_transform(items.prompts)

    @lru_cache(maxsize=1)  # the folds of a family come one after the other
    def design(name: str) -> Any:
        group = counts[family == name]
        if group.shape[0] <= ROWS:
            return principal_coordinates(group)
        return group[:, np.flatnonzero(group.getnnz(axis=0))]  # the n-grams of other families cost time only

    def fit(train: np.ndarray, score: np.ndarray) -> np.ndarray:
        logits = np.full((len(score), 1, len(classes)), ABSENT, dtype=np.float32)
        present = np.unique(answers[train])
        where = [list(classes).index(a) for a in present]
        if len(present) == 1:
            logits[:, 0, where[0]] = 0
            return logits
        name = str(family[train[0]])
        rows, x = np.flatnonzero(family == name), design(name)
        # L-BFGS takes as long on the coordinates, and up to ten times as long on the counts.
        model = LogisticRegression(solver="newton-cg", max_iter=MAX_ITER, tol=TOL)
        model.fit(x[np.searchsorted(rows, train)], answers[train])
        logits[:, 0, where] = model.predict_log_proba(x[np.searchsorted(rows, score)])
        return logits

    return Readout(
        out_of_fold(items, folds, fit, (1, len(classes)), by_family=by_family),
        tuple(classes),
        "surface",
        items.ids,
    )


def principal_coordinates(counts: csr_array | csr_matrix) -> Float[np.ndarray, "row row"]:
    """As many coordinates as rows, with the same distances between the rows.

    With centred counts ``X`` and ``X X' = U diag(l) U'`` they are ``U diag(sqrt(l))``: a rotation of the
    centred rows, dimensions in which none of them lies left out.

    Args:
        counts: ``[row, column]``, sparse.
    """
    gram = (counts @ counts.T).toarray().astype(np.float64)
    mean = gram.mean(axis=0)
    gram += mean.mean() - mean - mean[:, None]
    values, vectors = np.linalg.eigh(gram)
    return vectors * np.sqrt(values.clip(min=0))


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
