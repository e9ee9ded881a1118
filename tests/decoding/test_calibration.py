"""Calibration by hand, where there is nothing to find, and where there is much."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from brewlens.decoding.calibration import brier, calibration, class_calibration, reliability
from brewlens.decoding.readout import Readout

CLASSES = ("a", "b", "c")


def readout(p, classes=CLASSES):
    """One layer with these probabilities."""
    logits = np.log(np.asarray(p, dtype=np.float64))[:, None].astype(np.float32)
    return Readout(logits, classes, "test", tuple(f"i{k}" for k in range(len(logits))))


def honest(n, seed=0, classes=10, sharpness=2.0):
    """Probabilities, and answers drawn from them."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(n, classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    drawn = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return logits, [str(k) for k in drawn]


def test_four_samples_by_hand():
    p = [[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.05, 0.05, 0.9]]
    answers = ["a", "b", "b", "a"]
    table = calibration(readout(p), answers, bins=2).iloc[0]
    # Favourites a a b c at .6 .5 .8 .9, right: yes no yes no. Bins {.5, .6} and {.8, .9}, half right in both.
    assert table["accuracy"] == 0.5
    assert table["confidence"] == pytest.approx(0.7, abs=1e-6)
    assert table["ece"] == pytest.approx(0.5 * abs(0.5 - 0.55) + 0.5 * abs(0.5 - 0.85), abs=1e-6)
    # Debiased: gaps .05 and .35 squared, each less (1/2)(1/2) / (2 - 1); below zero, so zero.
    assert table["ece_debiased"] == 0.0
    scores = [0.4**2 + 0.3**2 + 0.1**2, 0.5**2 + 0.6**2 + 0.1**2, 0.06, 0.95**2 + 0.05**2 + 0.9**2]
    assert table["brier"] == pytest.approx(np.mean(scores), abs=1e-6)
    assert table["bins"] == 2 and table["n"] == 4
    bins = reliability(readout(p), answers, bins=2)
    assert bins["n"].tolist() == [2, 2]
    np.testing.assert_allclose(bins["confidence"], [0.55, 0.85], atol=1e-6)
    np.testing.assert_allclose(bins["least"], [0.5, 0.8], atol=1e-6)
    assert bins["accuracy"].tolist() == [0.5, 0.5]
    assert (bins["low"] < 0.1).all() and (bins["high"] > 0.9).all()


def test_one_class_by_hand():
    p = [[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.05, 0.05, 0.9]]
    table = class_calibration(readout(p), ["a", "b", "b", "a"], bins=2).set_index("class")
    # Class a: sorted .05 (right) .1 (wrong) | .5 (wrong) .6 (right).
    assert table.loc["a", "ece"] == pytest.approx(0.5 * (0.5 - 0.075) + 0.5 * (0.55 - 0.5), abs=1e-6)
    assert table["n"].tolist() == [2, 2, 0]
    assert table.loc["c", "probability"] == pytest.approx(0.3, abs=1e-6)
    assert table.loc["c", "share"] == 0
    whole = calibration(readout(p), ["a", "b", "b", "a"], bins=2).iloc[0]
    assert whole["ece_class"] == pytest.approx(table["ece"].mean())


def test_brier_is_that_of_scikit_learn():
    logits, answers = honest(200)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = np.array([int(a) for a in answers])
    expected = brier_score_loss(target, p, labels=list(range(10)), scale_by_half=False)
    assert brier(p, target) == pytest.approx(expected)
    equal = np.full((10, 10), 0.1)
    assert brier(equal, np.arange(10)) == pytest.approx(0.9)


def test_answers_drawn_from_the_probabilities_are_calibrated_and_sharper_ones_are_not():
    logits, answers = honest(5000)
    layers = np.stack([logits, 3 * logits, logits / 3], axis=1).astype(np.float32)
    found = Readout(layers, tuple("0123456789"), "test", tuple(map(str, range(5000))))
    table = calibration(found, answers)
    true, sharp, blunt = (table.iloc[k] for k in range(3))
    assert true["ece"] < 0.03 and true["ece_debiased"] < 0.02 and true["ece_class"] < 0.015
    assert sharp["ece"] > 0.15 and sharp["ece_debiased"] > 0.15 and sharp["ece_class"] > 0.03
    assert blunt["ece"] > 0.15
    assert sharp["confidence"] > sharp["high"] and blunt["confidence"] < blunt["low"]
    assert true["brier"] < min(sharp["brier"], blunt["brier"])
    assert table["accuracy"].nunique() == 1
    bins = reliability(found, answers)
    inside = (bins["low"] <= bins["confidence"]) & (bins["confidence"] <= bins["high"])
    share_inside = inside.groupby(bins["layer"]).mean()
    assert share_inside[0] > 0.8 > 0.4 > share_inside[1]
    assert (bins.groupby("layer")["n"].sum() == 5000).all()


def test_few_samples_bias_the_ece_and_not_the_debiased_one():
    """Sixty honest samples in 15 bins look miscalibrated by chance alone."""
    raw, debiased = [], []
    for seed in range(20):
        logits, answers = honest(60, seed)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        row = calibration(readout(p, tuple("0123456789")), answers).iloc[0]
        raw.append(row["ece"])
        debiased.append(row["ece_debiased"])
    assert np.mean(raw) > 0.12
    assert np.mean(debiased) < 0.6 * np.mean(raw)


def test_useless_input_is_refused():
    with pytest.raises(ValueError, match="at least one bin"):
        calibration(readout([[0.2, 0.3, 0.5]]), ["a"], bins=0)
    with pytest.raises(ValueError, match="not among the classes"):
        reliability(readout([[0.2, 0.3, 0.5]]), ["z"])
    assert calibration(readout([[0.2, 0.3, 0.5]]), ["c"]).iloc[0]["bins"] == 1
