"""The probe beyond the text: found where it is, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from brewlens import tasks
from brewlens.decoding import best_layer, surface_control
from brewlens.decoding.readout import Readout

CLASSES = tuple("0123456789")


def readout(items, name, hits):
    """A readout that is right where ``hits [sample, layer]`` says so, and wrong elsewhere."""
    target = np.array([CLASSES.index(a) for a in items.answers])[:, None]
    said = np.where(hits, target, (target + 1) % len(CLASSES))
    return Readout(np.eye(len(CLASSES), dtype=np.float32)[said], CLASSES, name, items.ids)


@pytest.fixture(scope="module")
def items():
    return tasks.generate(("computing", "loop"), n=200, seed=0)


@pytest.fixture(scope="module")
def folds(items):
    return tasks.assign_folds(items)


def test_by_hand(items, folds):
    rng = np.random.default_rng(0)
    rates = np.array([0.1, 0.7, 0.3])
    right, text = rng.random((len(items), 3)) < rates, rng.random((len(items), 1)) < 0.4
    table = surface_control(readout(items, "probe", right), readout(items, "surface", text), items, folds)
    assert table["family"].tolist() == ["computing", "loop", "overall"]
    assert table["layer"].tolist() == [1, 1, 1]
    for row, members in zip(table.itertuples(), (slice(0, 200), slice(200, 400), slice(0, 400)), strict=True):
        difference = right[members, 1].astype(float) - text[members, 0]
        assert row.difference == pytest.approx(difference.mean())
        assert row.low < row.difference < row.high
        assert row.p_adjusted < 1e-3 and not row.decodable
        assert (row.n, row.n_shapes) == (len(difference), len({i.shape for i in items[members]}))


def test_a_probe_that_reads_the_text_has_nothing_beyond(items, folds):
    """Whatever the probe gets right the text gives too, most of it: decodable from text."""
    text = np.random.default_rng(1).random((len(items), 1)) < 0.93
    table = surface_control(readout(items, "probe", text), readout(items, "surface", text), items, folds)
    assert (table["difference"] == 0).all() and (table["p_adjusted"] == 1).all()
    assert table["decodable"].all()


def test_the_best_layer_does_not_flatter():
    """At chance the best of many layers is above chance where it is chosen, and at chance on other folds."""
    rng = np.random.default_rng(2)
    right, folds = rng.random((400, 60)) < 0.1, np.arange(400) % 5
    layer, hits = best_layer(right, folds)
    assert 0 <= layer < 60
    assert right.mean(axis=0).max() > 0.13
    assert abs(hits.mean() - 0.1) < 0.04
    slow = np.empty(400, dtype=bool)
    for fold in range(5):
        others = [right[[r for r in range(400) if folds[r] != fold], at].mean() for at in range(60)]
        slow[folds == fold] = right[folds == fold, int(np.argmax(others))]
    assert (hits == slow).all()


def test_one_fold_takes_the_last_layer():
    right = np.array([[True, False], [True, True]])
    layer, hits = best_layer(right, np.zeros(2, dtype=int))
    assert layer == 1 and hits.tolist() == [False, True]
