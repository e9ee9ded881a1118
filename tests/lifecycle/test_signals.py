"""Label-free signals against their formulas; the detector on them against signal, noise and counted pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import binom, entropy
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from brewlens.answers import DIGITS
from brewlens.decoding.readout import Readout
from brewlens.lifecycle.detection import detect_resolved, final_confidence, placements
from brewlens.lifecycle.signals import BY_LAYER, TAIL, signals
from brewlens.stats import clustered_mean


def readout(logits, decoder="probe", classes=None, other=None):
    logits = np.asarray(logits)
    classes = classes or DIGITS[: logits.shape[2]]
    return Readout(logits, tuple(classes), decoder, tuple(f"i{k}" for k in range(len(logits))), other)


def random_pair(n, layers, classes, scale, seed):
    rng = np.random.default_rng(seed)
    # Whole numbers make ties.
    z = np.rint(rng.normal(0, scale, (2, n, layers, classes))).astype(np.float32)
    return readout(z[0]), readout(z[1], "context_stripped")


pairs = st.builds(
    random_pair,
    st.integers(0, 4),
    st.integers(1, 30),
    st.integers(2, 10),
    st.sampled_from([0.0, 0.5, 3.0, 40.0]),
    st.integers(0, 10**6),
)


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_by_layer_as_scipy_has_it(pair):
    p, c = (softmax(r.logits.astype(np.float64), axis=-1) for r in pair)
    found = signals(*pair)
    if len(found):
        np.testing.assert_allclose(found.entropy_available, entropy(p, axis=-1), atol=1e-12)
        np.testing.assert_allclose(found.entropy_ready, entropy(c, axis=-1), atol=1e-12)
        p, c = p + 1e-300, c + 1e-300  # scipy takes a root of what rounding may make negative
        with np.errstate(invalid="ignore"):
            divergence = np.nan_to_num(jensenshannon(p, c, axis=-1)) ** 2
        np.testing.assert_allclose(found.divergence, divergence, atol=1e-12)
    np.testing.assert_allclose(found.confidence, c.max(axis=-1), rtol=1e-12)
    assert (found.divergence >= 0).all() and (found.divergence <= math.log(2) + 1e-12).all()


def by_hand(p_logits, c_logits):
    """The formulas of one sample, layer by layer."""
    layers, k = len(p_logits), len(p_logits[0])
    tail = range((3 * layers) // 4, layers)
    h = hp = d = a = top = 0.0
    for layer in tail:
        p, c = (
            [math.exp(z - max(row)) for z in row]
            for row in (p_logits[layer].tolist(), c_logits[layer].tolist())
        )
        p, c = [x / sum(p) for x in p], [x / sum(c) for x in c]
        h -= sum(x * math.log(x) for x in c if x > 0) / math.log(k)
        hp -= sum(x * math.log(x) for x in p if x > 0) / math.log(k)
        for x, y in zip(p, c, strict=True):
            m = (x + y) / 2
            d += (x * math.log(x / m) if x > 0 else 0) / 2 / math.log(2)
            d += (y * math.log(y / m) if y > 0 else 0) / 2 / math.log(2)
        a += p.index(max(p)) == c.index(max(c))
        top += max(c)
    h, hp, d, a, top = (x / len(tail) for x in (h, hp, d, a, top))
    return {"h": h, "hp": hp, "d": d, "a": a, "c": top, "rho": (1 - h) * (1 - d) * a}


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_tail_means_by_hand(pair):
    found = signals(*pair).to_frame()
    assert found.columns.tolist() == ["id", *TAIL]
    for row in range(len(pair[0])):
        expected = by_hand(pair[0].logits[row], pair[1].logits[row])
        assert found.loc[row, list(TAIL)].tolist() == pytest.approx(list(expected.values()), abs=1e-9)
    assert ((found[list(TAIL)] > -1e-9) & (found[list(TAIL)] < 1 + 1e-9)).all(axis=None)


def test_known_ends():
    flat, sure = np.zeros((1, 8, 10)), np.zeros((1, 8, 10))
    sure[..., 3] = 200
    other = np.roll(sure, 1, axis=2)
    values = {
        "flat": signals(readout(flat), readout(flat)),
        "same": signals(readout(sure), readout(sure)),
        "opposed": signals(readout(sure), readout(other)),
        "probe knows": signals(readout(sure), readout(flat)),
    }
    table = {
        name: [float(getattr(v, q)[0]) for q in ("h", "hp", "d", "a", "rho")] for name, v in values.items()
    }
    assert table["flat"] == pytest.approx([1, 1, 0, 1, 0], abs=1e-12)
    assert table["same"] == pytest.approx([0, 0, 0, 1, 1], abs=1e-12)
    assert table["opposed"] == pytest.approx([0, 0, 1, 0, 0], abs=1e-12)
    assert table["probe knows"][:2] == pytest.approx([1, 0], abs=1e-12)


def test_only_the_tail_counts():
    early, late = np.zeros((1, 10, 10)), np.zeros((1, 10, 10))
    early[:, :7, 2] = 50
    late[:, 7:, 2] = 50
    assert signals(readout(early), readout(early)).h[0] == pytest.approx(1)
    assert signals(readout(late), readout(late)).h[0] == pytest.approx(0)
    assert signals(readout(late), readout(late), tail_start=0.0).h[0] == pytest.approx(0.7)


def test_a_class_that_a_probe_lacks_has_no_weight():
    z = np.zeros((1, 4, 3))
    z[..., 1] = -np.inf
    found = signals(readout(z), readout(z))
    assert found.hp[0] == pytest.approx(math.log(2) / math.log(3))
    assert found.d[0] == 0


def test_frames_and_selection():
    pair = random_pair(5, 6, 10, 2.0, 0)
    found = signals(*pair)
    layers = found.layers_frame()
    assert len(layers) == 30
    assert layers.columns.tolist() == ["id", "layer", *BY_LAYER]
    assert layers.loc[layers["id"] == "i2", "divergence"].tolist() == found.divergence[2].tolist()
    part = found.select([3, 1])
    assert part.item_ids == ("i3", "i1")
    assert part.rho.tolist() == found.rho[[3, 1]].tolist()
    assert found.decoders == ("probe", "context_stripped")


def test_what_does_not_fit_is_refused():
    pair = random_pair(3, 4, 10, 1.0, 0)
    with pytest.raises(ValueError, match="differ in samples, layers or classes"):
        signals(pair[0], pair[1].select([0, 2, 1]))
    with pytest.raises(ValueError, match="differ in samples, layers or classes"):
        signals(pair[0], readout(np.zeros((3, 5, 10))))
    with pytest.raises(ValueError, match="found 1 classes"):
        signals(readout(np.zeros((1, 2, 1))), readout(np.zeros((1, 2, 1))))
    with pytest.raises(ValueError, match="one finite logit"):
        signals(readout(np.full((1, 2, 3), np.nan)), readout(np.zeros((1, 2, 3))))


def test_final_confidence_is_that_of_the_full_vocabulary():
    z = np.zeros((2, 3, 10), dtype=np.float32)
    z[:, -1, 4] = np.log(9)
    among = final_confidence(readout(z))
    assert among == pytest.approx([0.5, 0.5])
    other = np.array([[0, 0, 0.5], [0.9, 0.9, 0.0]])
    assert final_confidence(readout(z, other=other)) == pytest.approx([0.25, 0.5])


# The detector


def samples(n, seed, tells):
    """Signals, confidence and outcomes; ``tells`` scales what each knows of the outcome."""
    rng = np.random.default_rng(seed)
    resolved = rng.uniform(size=n) < 0.5
    clusters = rng.integers(0, n // 2, n)
    z = rng.normal(size=(2, n, 4, 10))
    z[..., 0] += tells[0] * np.where(resolved, 2.0, 0.0)[:, None]
    confidence = rng.normal(size=n) + tells[1] * resolved
    return signals(readout(z[0]), readout(z[1], "context_stripped")), confidence, resolved, clusters


def test_signals_that_tell_are_found():
    found = detect_resolved(*samples(400, 0, (2.0, 0.5)))
    frame = found.to_frame().set_index("score")
    assert frame.loc["signals", "auc"] > 0.9
    assert frame.loc["signals", "gain_low"] > 0.1
    assert frame.loc["signals", "p"] < 1e-6
    assert frame.loc["rho", "gain_low"] > 0
    assert math.isnan(frame.loc["confidence", "gain"])
    assert (frame["n"].between(300, 340)).all()


def test_a_confidence_that_tells_more_is_not_beaten():
    found = detect_resolved(*samples(400, 1, (0.0, 2.0)))
    assert found.gain["signals"].high < -0.2
    assert found.gain["signals and confidence"].low < 0 < found.auc["signals and confidence"].low - 0.8


def test_nothing_is_found_in_noise():
    runs = [detect_resolved(*samples(150, seed, (0.0, 0.0))) for seed in range(24)]
    for name in ("signals", "rho", "confidence", "signals and confidence"):
        areas = np.array([run.auc[name].value for run in runs])
        assert abs(areas.mean() - 0.5) < 4 * areas.std(ddof=1) / np.sqrt(len(areas))
        outside = sum(not run.auc[name].low <= 0.5 <= run.auc[name].high for run in runs)
        assert outside <= binom.ppf(0.999, len(runs), 0.05)
    false = sum(run.gain["signals"].p < 0.05 for run in runs)
    assert false <= binom.ppf(0.999, len(runs), 0.05)


def test_a_fold_is_scored_by_those_before_it():
    found, confidence, resolved, clusters = samples(200, 6, (1.0, 1.0))
    detection = detect_resolved(found, confidence, resolved, clusters)
    features = np.column_stack([getattr(found, name) for name in TAIL])
    first, last = detection.folds == 0, detection.folds == 4
    assert np.isnan(detection.scores["signals"][first]).all()
    train = features[~last]
    scale = (train.mean(axis=0), train.std(axis=0))
    fitted = LogisticRegression(max_iter=1000).fit((train - scale[0]) / scale[1], resolved[~last])
    expected = fitted.decision_function((features[last] - scale[0]) / scale[1])
    assert detection.scores["signals"][last] == pytest.approx(expected, rel=1e-6)
    assert detection.n == (~first).sum() and detection.n_resolved == resolved[~first].sum()


def slow_area(score, resolved, fold):
    """Share of pairs of one fold in the right order; ties count half."""
    right = total = 0.0
    for i in np.flatnonzero(resolved):
        for j in np.flatnonzero(~resolved & (fold == fold[i])):
            right += (score[i] > score[j]) + 0.5 * (score[i] == score[j])
            total += 1
    return right / total


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_areas_by_pairs(seed):
    rng = np.random.default_rng(seed)
    resolved, fold = rng.uniform(size=60) < 0.4, rng.integers(0, 3, 60)
    score = (rng.integers(0, 6, 60) + resolved).astype(float)
    values = placements(score, resolved, fold)
    assert values.mean() == pytest.approx(slow_area(score, resolved, fold), abs=1e-12)
    alone = placements(score, resolved, np.zeros(60, dtype=int))
    assert alone.mean() == pytest.approx(roc_auc_score(resolved, score), abs=1e-12)


def test_the_error_of_an_area_is_that_of_deleting_clusters():
    rng = np.random.default_rng(3)
    n = 300
    clusters = rng.integers(0, 120, n)
    effect = rng.normal(size=120)[clusters]
    resolved = effect + rng.normal(size=n) > 0
    score = resolved + effect + rng.normal(size=n)
    fold = np.zeros(n, dtype=int)
    found = clustered_mean(placements(score, resolved, fold), clusters)
    labels = np.unique(clusters)
    without = [roc_auc_score(resolved[clusters != k], score[clusters != k]) for k in labels]
    count = len(labels)
    jackknife = np.sqrt((count - 1) / count * np.square(without - np.mean(without)).sum())
    assert found.se == pytest.approx(jackknife, rel=0.03)


def test_intervals_of_areas_cover():
    rng = np.random.default_rng(0)
    truth, runs, covered = 0.5, 300, 0
    for _ in range(runs):
        clusters = rng.integers(0, 60, 120)
        resolved = rng.uniform(size=60)[clusters] < 0.5  # whole clusters: samples alone would claim too much
        score = rng.normal(size=60)[clusters] + 0.5 * rng.normal(size=120)
        fold = np.zeros(120, dtype=int)
        found = clustered_mean(placements(score, resolved, fold), clusters)
        covered += found.low <= truth <= found.high
    assert binom.ppf(0.001, runs, 0.93) <= covered <= binom.ppf(0.999, runs, 0.97)


def test_groups_stay_whole():
    found, confidence, resolved, clusters = samples(120, 4, (1.0, 1.0))
    families = clusters % 6
    detection = detect_resolved(found, confidence, resolved, clusters, groups=families, n_splits=3)
    for family in range(6):
        assert len(set(detection.folds[families == family].tolist())) == 1
    by_shape = detect_resolved(found, confidence, resolved, clusters, n_splits=3)
    for cluster in np.unique(clusters):
        assert len(set(by_shape.folds[clusters == cluster].tolist())) == 1


def test_too_little_to_learn_from():
    found, confidence, resolved, clusters = samples(60, 5, (1.0, 1.0))
    assert detect_resolved(found, confidence, np.arange(60) < 3, clusters) is None
    assert detect_resolved(found, confidence, np.ones(60, dtype=bool), clusters) is None
    with pytest.raises(ValueError, match="more than one group"):
        detect_resolved(found, confidence, resolved, np.zeros(60), groups=np.arange(60))


@pytest.mark.unchecked("arrays that do not fit")
def test_every_sample_has_a_confidence():
    found, confidence, resolved, clusters = samples(60, 5, (1.0, 1.0))
    with pytest.raises(ValueError, match="for 60 samples"):
        detect_resolved(found, confidence[:-1], resolved, clusters)
