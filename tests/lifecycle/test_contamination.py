"""What the published pooling of probe training data makes of pure noise, and what the folds make of it.

The public scripts train probes on 675 of the 810 evaluation items. That recipe is nowhere but here.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from brewlens import tasks
from brewlens.answers import DIGITS
from brewlens.decoding import probe
from brewlens.decoding.readout import Readout
from brewlens.lifecycle.paper import paper_lifecycle
from brewlens.residuals import Residuals
from brewlens.tasks import ItemSet, LeakageError
from brewlens.tasks.folds import check_leakage

LAYERS, TRAINED = 28, 675
WIDTH = 22  # at which a probe overfits as far as the published ones do
CHANCE = 0.9**LAYERS


@pytest.fixture(scope="module")
def noise():
    """810 programs, residuals and context-stripped scores that know nothing of them."""
    items = tasks.generate("value_tracking", n=810, seed=0)
    rng = np.random.default_rng(0)
    n = len(items)
    ready = rng.normal(size=(n, LAYERS, 10))
    return SimpleNamespace(
        items=items,
        target=np.array([DIGITS.index(a) for a in items.answers]),
        values=rng.normal(size=(n, LAYERS, WIDTH)).astype(np.float32),
        ready=Readout(ready, DIGITS, "context_stripped_constant", items.ids),
        output=ready[:, -1].argmax(axis=1),
        trained=rng.permutation(n)[:TRAINED],
    )


@pytest.fixture(scope="module")
def contaminated(noise):
    logits = np.empty((len(noise.items), LAYERS, 10))
    for layer in range(LAYERS):
        pool = noise.values[noise.trained, layer], noise.target[noise.trained]
        fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(*pool)
        logits[:, layer] = fitted.decision_function(noise.values[:, layer])
    return Readout(logits, DIGITS, "probe", noise.items.ids)


@pytest.fixture(scope="module")
def honest(noise):
    items = noise.items
    held = Residuals.of(torch.as_tensor(noise.values), items.ids, ((1,),) * len(items), "noise")
    return probe(held, items, tasks.assign_folds(items), C=0.1)


def scored(noise, available):
    return paper_lifecycle(
        available,
        noise.ready,
        families=["value_tracking"] * len(noise.items),
        answers=noise.items.answers,
        output=noise.output,
        format_miss=np.zeros(len(noise.items), dtype=bool),
    )


def test_contaminated_probes_read_noise(noise, contaminated):
    correct = contaminated.correct(noise.items.answers)
    unseen = np.setdiff1d(np.arange(len(noise.items)), noise.trained)
    assert correct.mean() == pytest.approx(0.20, abs=0.02)  # "evaluation accuracy", chance is 0.10
    assert correct[noise.trained].mean() > 0.20
    assert correct[unseen].mean() == pytest.approx(0.10, abs=0.02)
    found = scored(noise, contaminated)
    assert (~found.brewing).mean() < 0.02  # honest chance leaves 5.2 % without an FPCL
    assert found.depths()["fpcl"] == pytest.approx(0.14, abs=0.02)
    assert found.depths()["brewing"] > 0.15  # there is "brewing" in pure noise
    assert sum(found.shares().values()) == pytest.approx(1)


def test_folds_read_chance(noise, honest):
    correct = honest.correct(noise.items.answers)
    assert correct.mean() == pytest.approx(0.10, abs=0.01)
    found = scored(noise, honest)
    without = int((~found.brewing).sum())
    assert (
        binom.ppf(0.0001, len(noise.items), CHANCE) <= without <= binom.ppf(0.9999, len(noise.items), CHANCE)
    )
    # Truncated geometric: a first hit by chance, where there is one.
    layer = np.arange(LAYERS)
    expected = (0.9**layer * layer).sum() / (0.9**layer).sum() / LAYERS
    assert found.depths()["fpcl"] == pytest.approx(expected, abs=0.02)


def test_the_pool_is_refused(noise):
    pool = noise.items.select(noise.trained)
    with pytest.raises(LeakageError, match=r"of 810 scoring items share an item, a skeleton") as refusal:
        check_leakage(pool, noise.items, noise.items)
    shared = int(str(refusal.value).split()[0])
    assert TRAINED <= shared <= 810  # besides the items themselves, programs with twins of one skeleton
    named = min(noise.trained)
    assert f"{noise.items.ids[named]} (training) and {noise.items.ids[named]} (scoring)" in str(refusal.value)


def test_renamed_copies_in_other_folds_are_refused(noise):
    few = noise.items.select(range(60))
    copies = tuple(replace(item, id=f"{item.id}-again", twins={}) for item in few)
    items = ItemSet((*few.items, *copies), few.partners)
    values = torch.as_tensor(np.concatenate([noise.values[:60], noise.values[:60]]))
    held = Residuals.of(values, items.ids, ((1,),) * len(items), "noise")
    apart = np.repeat([0, 1], 60)  # a program in one fold, its renamed copy in the other
    with pytest.raises(LeakageError, match="share an item, a skeleton or a twin"):
        probe(held, items, apart, C=0.1)
    assert (
        np.split(tasks.assign_folds(items, 3), 2)[0] == np.split(tasks.assign_folds(items, 3), 2)[1]
    ).all()


def test_what_is_there_is_found_either_way(noise):
    """The folds are honest, not blind."""
    values = noise.values.copy()
    values[np.arange(len(values)), LAYERS // 2 :, noise.target] += 6
    items = noise.items
    held = Residuals.of(torch.as_tensor(values), items.ids, ((1,),) * len(items), "planted")
    correct = probe(held, items, tasks.assign_folds(items), C=0.1).correct(items.answers)
    assert correct[:, LAYERS // 2 :].mean() > 0.95
    assert correct[:, : LAYERS // 2].mean() == pytest.approx(0.10, abs=0.02)
