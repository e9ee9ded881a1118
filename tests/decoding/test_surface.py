"""The text baselines against one pipeline per fold; they find what the text says and nothing in noise."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from brewlens import tasks
from brewlens.decoding import majority, surface
from brewlens.decoding.probes import ABSENT
from brewlens.decoding.surface import DECODABLE, ROWS, TOL, principal_coordinates
from brewlens.tasks import ItemSet, LeakageError, assign_folds

MODULE = import_module("brewlens.decoding.surface")  # the package exports the function of that name
CLASSES = tuple("0123456789")
NATS = 0.002  # what a converged fit may differ from the optimum


@pytest.fixture(scope="module")
def items():
    return tasks.generate(("value_tracking", "conditional"), n=108)


@pytest.fixture(scope="module")
def folds(items):
    return assign_folds(items, 3)


@pytest.fixture(scope="module")
def few():
    return tasks.generate(("value_tracking", "conditional"), n=54)


@pytest.fixture(scope="module")
def naive(few):
    """By family and not."""
    return {by_family: naive_surface(few, assign_folds(few, 3), by_family) for by_family in (True, False)}


def naive_surface(items, folds, by_family=True):
    """The text of every training fold counted anew; its sparse counts fitted tightly, by another solver."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    prompts, answers = np.array(items.prompts, dtype=object), np.array(items.answers)
    family = np.array([item.family if by_family else "" for item in items])
    logits = np.full((len(items), len(CLASSES)), ABSENT)
    for name in set(family.tolist()):
        for fold in set(folds.tolist()):
            train = np.flatnonzero((family == name) & (folds != fold))
            score = np.flatnonzero((family == name) & (folds == fold))
            grams = CountVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 3), lowercase=False)
            model = make_pipeline(grams, LogisticRegression(max_iter=100_000, tol=TOL / 10))
            with threadpool_limits(1):
                model.fit(prompts[train], answers[train])
            columns = [CLASSES.index(answer) for answer in model.classes_]
            logits[np.ix_(score, columns)] = model.predict_log_proba(prompts[score])
    return logits


@pytest.mark.parametrize(("rows", "by_family"), [(ROWS, True), (ROWS, False), (0, True)])
def test_surface_is_the_optimum_of_one_pipeline_per_fold(few, naive, rows, by_family, monkeypatch):
    monkeypatch.setattr(MODULE, "ROWS", rows)
    found = surface(few, assign_folds(few, 3), by_family=by_family)
    np.testing.assert_allclose(found.logits[:, 0], naive[by_family], atol=NATS)
    np.testing.assert_array_equal(found.predicted[:, 0], naive[by_family].argmax(axis=1))


def test_a_loose_fit_is_farther_from_the_optimum_than_the_tests_allow(few, naive, monkeypatch):
    monkeypatch.setattr(MODULE, "TOL", 1e-3)
    found = surface(few, assign_folds(few, 3))
    assert np.abs(found.logits[:, 0] - naive[True]).max() > 10 * NATS


@pytest.mark.slow
def test_surface_is_the_optimum_on_a_whole_family():
    items = tasks.generate("computing", n=810)
    folds = assign_folds(items, 5)
    found, naive = surface(items, folds), naive_surface(items, folds)
    np.testing.assert_allclose(found.logits[:, 0], naive, atol=NATS)
    assert (found.predicted[:, 0] == naive.argmax(axis=1)).mean() > 0.999


def test_principal_coordinates_keep_the_inner_products_of_centred_rows():
    rng = np.random.default_rng(0)
    for shape in ((12, 40), (12, 3)):
        counts = rng.poisson(0.5, size=shape)
        counts[3] = counts[4]
        centred = counts - counts.mean(axis=0)
        x = principal_coordinates(csr_array(counts))
        assert x.shape == (12, 12)
        np.testing.assert_allclose(x @ x.T, centred @ centred.T, atol=1e-10)
    np.testing.assert_allclose(principal_coordinates(csr_array(np.ones((5, 7)))), 0, atol=1e-6)


def test_neither_text_nor_answers_of_the_scored_rows_move_the_fit(items, folds):
    before = surface(items, folds).logits
    mine = np.flatnonzero(folds == 0)
    reads = mine[1:]
    altered = list(items)
    for row in mine:
        altered[row] = replace(items[row], answer=str(9 - int(items[row].answer)))
    after = surface(ItemSet(tuple(altered), items.partners), folds).logits
    np.testing.assert_array_equal(after[mine], before[mine])
    assert not np.array_equal(after[folds == 1], before[folds == 1])
    altered = list(items)
    altered[mine[0]] = replace(items[mine[0]], prompt="one two three " * 30 + items[mine[0]].prompt)
    after = surface(ItemSet(tuple(altered), items.partners), folds).logits
    np.testing.assert_allclose(after[reads], before[reads], atol=NATS)


def test_an_answer_that_training_lacks_is_absent(items, folds):
    alone = next(row for row in range(108) if items[row].answer == "7")
    rows = [row for row in range(108) if row == alone or items[row].answer != "7"]
    few = items.select(rows)
    found = surface(few, folds[rows])
    own = folds[rows] == folds[alone]
    np.testing.assert_allclose(found.logits[own, 0, 7], ABSENT)
    assert (found.logits[~own, 0, 7] > ABSENT).any()


def test_one_answer_in_training_is_predicted_for_all():
    same = tasks.generate("conditional", n=81)
    same = same.select(row for row, item in enumerate(same) if item.answer == "4")
    found = surface(same, np.arange(len(same)) % 2)
    assert (found.predicted == 4).all()


def told(item, answer):
    return replace(item, prompt=f"{item.code}# hint {answer} {answer} {answer}\n{item.suffix}")


def test_surface_reads_what_the_text_says_and_nothing_that_it_does_not(items, folds):
    rng = np.random.default_rng(0)
    true = ItemSet(tuple(told(item, item.answer) for item in items), items.partners)
    assert surface(true, folds).correct(items.answers).mean() >= DECODABLE
    order = rng.permutation(len(items))
    shuffled = ItemSet(
        tuple(replace(item, answer=items[row].answer) for item, row in zip(items, order, strict=True)),
        items.partners,
    )
    assert abs(surface(shuffled, folds).correct(shuffled.answers).mean() - 0.1) < 0.08


def test_majority_equals_counting(items, folds):
    found = majority(items, folds)
    for row in range(0, len(items), 7):
        counts = np.ones(10)
        for other, item in enumerate(items):
            same = (item.family, item.factors) == (items[row].family, items[row].factors)
            if same and folds[other] != folds[row]:
                counts[int(item.answer)] += 1
        np.testing.assert_allclose(found.probabilities[row, 0], counts / counts.sum(), rtol=1e-5)


def test_a_twin_in_another_fold_is_refused():
    pair = tasks.generate(("loop", "loop_unrolled"), n=54)
    folds = assign_folds(pair, 3)
    folds[0] = (folds[0] + 1) % 3
    with pytest.raises(LeakageError, match=pair[0].id):
        surface(pair, folds, by_family=False)
