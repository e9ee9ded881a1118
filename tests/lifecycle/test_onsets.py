"""Onsets: what is planted is found, nothing is found in noise, and fast sums equal slow ones."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.special import ndtr

from brewlens.answers import DIGITS
from brewlens.decoding.readout import Readout
from brewlens.lifecycle import NEVER
from brewlens.lifecycle.change_points import SHORTEST, Prior, Steps, change_points
from brewlens.lifecycle.levels import AHEAD, LEVELS, leads, levels
from brewlens.lifecycle.onset_fit import CLEARNESS, _bounded, _signs
from brewlens.lifecycle.onsets import Onsets, fit_onsets
from brewlens.planted import MIX, draw_truth, nothing, simulate

FIXED = {"available": 5, "ready": 10, "lost": 17}


def readout(scores, decoder="probe"):
    ids = tuple(f"s{k}" for k in range(len(scores)))
    return Readout(np.asarray(scores, dtype=np.float32), DIGITS[: scores.shape[2]], decoder, ids)


def names(target):
    return tuple(DIGITS[k] for k in target)


@cache
def fitted(n=300, n_layers=20, hit=0.8, correlation=0.0, difficulty=0.0, fixed=False, noise=False, seed=0):
    """Truth, and onsets of both decoders."""
    truth = draw_truth(n, n_layers, difficulty=difficulty, seed=seed, **(FIXED if fixed else {}))
    truth = nothing(truth) if noise else truth
    made = simulate(truth, hit=hit, correlation=correlation, seed=seed + 1)
    return (
        truth,
        fit_onsets(made.readouts["probe"], made.answers),
        fit_onsets(made.readouts["context_stripped"], made.answers, ends=True),
    )


def estimates(truth, available, ready):
    """Name, estimate, truth."""
    yield "available_from", available.onset, truth.available_from
    yield "ready_from", ready.onset, truth.ready_from
    yield "ready_until", ready.end, truth.ready_until


def bias(found, true):
    both = (found != NEVER) & (true != NEVER)
    return (found - true)[both].mean()


def within_one(found, true):
    """Share of samples; never is a value of its own."""
    both = (found != NEVER) & (true != NEVER)
    return np.where(both, np.abs(found - true) <= 1, found == true).mean()


# What is planted is found.


@pytest.mark.parametrize(
    ("hit", "least", "options"),
    [
        (0.95, 0.95, {}),
        (0.95, 0.95, {"n": 600, "n_layers": 12}),
        (0.95, 0.99, {"fixed": True}),
        (0.8, 0.85, {}),
        (0.8, 0.85, {"n": 200, "n_layers": 12}),
        (0.8, 0.83, {"n_layers": 28}),
        (0.8, 0.95, {"fixed": True}),
        (0.6, 0.7, {}),
        (0.8, 0.7, {"correlation": 0.5}),
        (0.8, 0.7, {"difficulty": 0.5}),
    ],
)
def test_planted_onsets_are_found(hit, least, options):
    truth, available, ready = fitted(hit=hit, **options)
    for name, found, true in estimates(truth, available, ready):
        # One hit rate for all samples and independent layers are the model; elsewhere onsets come out late.
        most = 1 if options.get("correlation") or options.get("difficulty") else 0.5
        assert abs(bias(found, true)) < most, name
        assert within_one(found, true) >= least, name
    assert available.fits["all"].present and ready.fits["all"].present
    assert available.fits["all"].hit == pytest.approx(hit, abs=0.1)
    assert available.fits["all"].guess.mean() == pytest.approx(0.1, abs=0.02)
    assert available.fits["all"].converged and available.fits["all"].iterations < 60


@pytest.mark.parametrize("kind", ["resolved", "overprocessed", "misresolved", "unresolved"])
def test_pure_kinds(kind):
    truth = draw_truth(300, 16, mix={kind: 1.0}, seed=3)
    made = simulate(truth, hit=0.95, seed=4)
    found = fit_onsets(made.readouts["context_stripped"], made.answers, ends=True)
    assert within_one(found.onset, truth.ready_from) >= 0.93
    assert within_one(found.end, truth.ready_until) >= 0.93


def test_posteriors_are_calibrated():
    stated, so, error = [], [], []
    for seed in range(3):
        truth, available, ready = fitted(hit=0.8, seed=seed)
        for found, true in ((available, truth.available_from), (ready, truth.ready_from)):
            true = np.where(true == NEVER, 20, true)
            stated.append(np.cumsum(found.posterior[:, :-1], axis=1).ravel())
            so.append((true[:, None] <= np.arange(20)).ravel())
            error.append(found.restricted.mean() - true.mean())
    stated, so = np.concatenate(stated), np.concatenate(so)
    for low, high in ((0, 0.02), (0.02, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 0.98), (0.98, 1.01)):
        rows = (stated >= low) & (stated < high)
        assert so[rows].mean() == pytest.approx(stated[rows].mean(), abs=0.1)
    assert np.abs(np.mean(error)) < 0.2


# Nothing is found where nothing is.


@pytest.mark.parametrize("options", [{}, {"correlation": 0.8}, {"difficulty": 0.7, "correlation": 0.5}])
@pytest.mark.parametrize(("n", "n_layers"), [(200, 28), (800, 12)])
def test_nothing_is_found_in_noise(n, n_layers, options):
    _, available, ready = fitted(n=n, n_layers=n_layers, noise=True, seed=5, **options)
    for found in (available, ready):
        assert not found.fits["all"].present
        assert (found.onset == NEVER).all() and (found.end == NEVER).all()
        assert (found.restricted == n_layers).all() and (found.by_layer == 0).all()


def test_little_is_found_in_samples_without_onset_beside_samples_with():
    truth, available, ready = fitted(hit=0.8, n=600)
    assert available.present[truth.available_from == NEVER].mean() < 0.1
    assert ready.present[truth.ready_from == NEVER].mean() < 0.05


def test_a_decoder_that_says_one_class_finds_nothing():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 10, 400)
    scores = 0.3 * rng.standard_normal((400, 12, 10))
    scores[:, :, 4] += 3
    for ends in (False, True):
        found = fit_onsets(readout(scores), names(target), ends=ends)
        assert found.present.mean() < 0.02


def test_lasting_guesses_are_no_onsets():
    rng = np.random.default_rng(1)
    target, guess = rng.integers(0, 10, (2, 400))
    scores = 0.5 * rng.standard_normal((400, 12, 10))
    scores[np.arange(400), :, guess] += 3
    for ends in (False, True):
        assert fit_onsets(readout(scores), names(target), ends=ends).present.mean() < 0.02


def test_lasting_misses_are_no_onsets():
    """In a group that is mostly right, who is wrong throughout is not right with a miss at every layer."""
    rng = np.random.default_rng(2)
    target = rng.integers(0, 10, 400)
    says = np.where(rng.uniform(size=400) < 0.7, target, (target + rng.integers(1, 10, 400)) % 10)
    scores = np.repeat(0.5 * rng.standard_normal((400, 1, 10)), 12, axis=1)
    scores += 0.2 * rng.standard_normal(scores.shape)
    scores[np.arange(400), :, says] += 4
    for ends in (False, True):
        found = fit_onsets(readout(scores), names(target), ends=ends)
        assert found.present[says == target].mean() > 0.8
        assert found.present[says != target].mean() < 0.02


# Bare hits: at least as good as the plain change point.


def one_hot(onset, target, n_layers, hit, seed, correlation=0.0):
    """Readouts that are right in a share .1 of the layers before the onset, and ``hit`` after it."""
    rng = np.random.default_rng(seed)
    n = len(target)
    noise = rng.standard_normal((2, n, n_layers))
    for k in range(1, n_layers):
        noise[..., k] = correlation * noise[..., k - 1] + np.sqrt(1 - correlation**2) * noise[..., k]
    chance, other = ndtr(noise)
    after = (onset[:, None] != NEVER) & (np.arange(n_layers) >= onset[:, None])
    right = chance < np.where(after, hit, 0.1)
    wrong = (target[:, None] + 1 + np.minimum((other * 9).astype(int), 8)) % 10
    said = np.where(right, target[:, None], wrong)
    return np.eye(10, dtype=np.float32)[said], right


def plain(right, guess=0.1, iterations=200):
    """Bernoulli change point: guess before, one hit rate after; EM."""
    n, n_layers = right.shape
    prior, hit = np.full(n_layers + 1, 1 / (n_layers + 1)), 0.8
    for _ in range(iterations):
        before = np.where(right, np.log(guess), np.log(1 - guess))
        after = np.where(right, np.log(hit), np.log(1 - hit))
        joint = np.zeros((n, n_layers + 1)) + np.log(prior)
        for onset in range(n_layers + 1):
            joint[:, onset] += before[:, :onset].sum(axis=1) + after[:, onset:].sum(axis=1)
        posterior = np.exp(joint - joint.max(axis=1, keepdims=True))
        posterior /= posterior.sum(axis=1, keepdims=True)
        weight = np.cumsum(posterior[:, :-1], axis=1)
        hit = np.clip((weight * right).sum() / weight.sum(), guess + 0.05, 0.999)
        prior = posterior.mean(axis=0) + 1e-9
        prior /= prior.sum()
    return Onsets(n_layers, posterior)


@pytest.mark.parametrize(
    ("onsets", "hit", "correlation"),
    [
        ("spread", 0.95, 0.0),
        ("spread", 0.8, 0.0),
        ("spread", 0.6, 0.0),
        ("spread", 0.8, 0.5),
        ("half", 0.8, 0.5),
        ("never", 0.8, 0.5),
    ],
)
def test_bare_hits_are_used_as_well_as_by_the_plain_change_point(onsets, hit, correlation):
    rng = np.random.default_rng(3)
    n, n_layers = 600, 28
    target = rng.integers(0, 10, n)
    onset = {
        "spread": rng.integers(0, n_layers, n),
        "half": np.where(rng.uniform(size=n) < 0.5, n_layers // 4, NEVER),
        "never": np.full(n, NEVER),
    }[onsets]
    scores, right = one_hot(onset, target, n_layers, hit, 4, correlation)
    ours, theirs = fit_onsets(readout(scores), names(target)), plain(right, iterations=40)
    assert within_one(ours.onset, onset) >= within_one(theirs.onset, onset) - 0.02
    true = np.where(onset == NEVER, n_layers, onset).mean()
    assert abs(ours.restricted.mean() - true) <= abs(theirs.restricted.mean() - true) + 0.3


# Fast sums equal slow ones.


def slow(steps, prior):
    """Every way through the states, one at a time."""
    n, n_layers = steps.stay.shape
    onset, until, missed = np.zeros((3, n, n_layers + 1))
    ends = steps.end is not None
    for s in range(n):
        for o in range(n_layers):
            for e in range(o + SHORTEST, n_layers) if ends else ():
                ways = steps.stay[s, :o].sum() + steps.begin[s, o] + steps.keep[s, o + 1 : e].sum()
                ways += steps.end[s, e] + steps.gone[s, e + 1 :].sum()
                p = np.exp(ways) * prior.onset[o] * np.prod(1 - prior.hazard[o + 1 : e]) * prior.hazard[e]
                onset[s, o] += p
                until[s, e] += p
            ways = steps.stay[s, :o].sum() + steps.begin[s, o] + steps.keep[s, o + 1 :].sum()
            p = np.exp(ways) * prior.onset[o] * (np.prod(1 - prior.hazard[o + 1 :]) if ends else 1)
            onset[s, o] += p
            until[s, -1] += p
            if ends:
                ways = steps.stay[s, :o].sum() + steps.miss[s, o] + steps.gone[s, o + 1 :].sum()
                missed[s, o] = np.exp(ways) * prior.onset[-1] * prior.missed[o]
        p = np.exp(steps.stay[s].sum()) * prior.onset[-1]
        missed[s, -1] = p * (prior.missed[-1] if ends else 1)
    onset[:, -1] = missed.sum(axis=1)
    until[:, -1] += onset[:, -1]
    return onset, until, missed


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2, 3, 7])
def test_change_points_by_enumeration(ends, n_layers):
    rng = np.random.default_rng(n_layers)
    steps = Steps(*rng.normal(-2, 1, (6 if ends else 3, 5, n_layers)))
    onset, missed = rng.dirichlet(np.ones(n_layers + 1), 2)
    prior = Prior(onset, np.concatenate([[0], rng.uniform(0.1, 0.5, n_layers - 1)]), missed)
    found, by_hand = change_points(steps, prior), slow(steps, prior)
    total = by_hand[0].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.onset, by_hand[0] / total, atol=1e-12)
    np.testing.assert_allclose(found.missed, by_hand[2] / total, atol=1e-12)
    np.testing.assert_allclose(found.log_any, np.log(total[:, 0]))
    np.testing.assert_allclose(found.log_never, np.log(by_hand[0][:, -1] / prior.onset[-1]))
    if ends:
        np.testing.assert_allclose(found.until, by_hand[1] / total, atol=1e-12)
    else:
        assert found.until is None
    np.testing.assert_allclose(found.before + found.after + found.ended, 1, atol=1e-9)


def test_leads_by_loop():
    values = np.random.default_rng(7).integers(0, 4, (6, 3, 5)).astype(float)
    found = leads(values)
    for s, layer, c in np.ndindex(values.shape):
        others = np.delete(values[s, layer], c)
        assert found[s, layer, c] == values[s, layer, c] - others.max()


def test_a_class_is_ahead_where_the_readout_says_it():
    truth = draw_truth(60, 12, seed=1)
    made = simulate(truth, seed=1)
    found = levels(made.readouts["probe"].logits, truth.answer)
    assert ((found >= AHEAD) == (np.arange(10) == made.readouts["probe"].predicted[..., None])).all()
    assert found.max() == LEVELS - 1
    ties = levels(np.zeros((3, 2, 5)), np.array([0, 1, 2]))
    assert (ties[..., 0] >= AHEAD).all() and (ties[..., 1:] < AHEAD).all()


def test_levels_by_loop():
    """A level: whether a class is ahead, and whether its lead is above the median of such wrong ones."""
    truth = draw_truth(40, 8, seed=2)
    scores = simulate(truth, hit=0.6, seed=2).readouts["probe"].logits
    found = levels(scores, truth.answer)
    for layer in range(8):
        lead = leads(scores[:, layer])
        first = scores[:, layer].argmax(axis=1)
        control = {True: [], False: []}
        for s, c in np.ndindex(40, 10):
            if c != truth.answer[s]:
                control[bool(c == first[s])].append(lead[s, c])
        for s, c in np.ndindex(40, 10):
            ahead = bool(c == first[s])
            assert found[s, layer, c] == 2 * ahead + (lead[s, c] > np.median(control[ahead]))


def test_clearness_counts_no_more_than_it_may():
    rng = np.random.default_rng(8)
    part, before = rng.dirichlet(np.ones(LEVELS), (6, LEVELS)), rng.dirichlet(np.ones(LEVELS), (3, 6, LEVELS))
    stay = np.log(before)
    evidence = _bounded(part, stay) - stay
    by_sign = np.log(_signs(part)) - np.log(_signs(before))
    assert np.abs(evidence - by_sign).max() <= CLEARNESS + 1e-12
    exact = np.log(part) - stay
    inside = np.abs(exact - by_sign) < CLEARNESS
    assert inside.any() and not inside.all()
    np.testing.assert_allclose(evidence[inside], exact[inside])


# The result.


def test_only_differences_of_scores_count():
    truth = draw_truth(120, 12, seed=1)
    made = simulate(truth, seed=1)
    rng = np.random.default_rng(9)
    moved = made.readouts["probe"].logits.astype(float) * rng.uniform(0.5, 20, (1, 12, 1))
    found = fit_onsets(readout(moved + rng.normal(0, 5, (120, 12, 1))), made.answers)
    same = fit_onsets(made.readouts["probe"], made.answers)
    np.testing.assert_allclose(found.posterior, same.posterior, atol=0.02)


def test_groups_are_fitted_alone():
    truth = draw_truth(200, 12, seed=1)
    made = simulate(truth, seed=1)
    group = np.where(np.arange(200) % 3 == 0, "a", "b")
    found = fit_onsets(made.readouts["context_stripped"], made.answers, ends=True, groups=group)
    assert set(found.fits) == {"a", "b"}
    for label in ("a", "b"):
        rows = np.flatnonzero(group == label)
        answers = tuple(made.answers[r] for r in rows)
        alone = fit_onsets(made.readouts["context_stripped"].select(rows), answers, ends=True)
        np.testing.assert_array_equal(found.select(rows).posterior, alone.posterior)
        np.testing.assert_array_equal(found.select(rows).until, alone.until)
        assert found.fits[label].n == len(rows)


def test_what_a_posterior_says():
    posterior = np.array([[0.1, 0.6, 0.2, 0.1], [0.2, 0.0, 0.2, 0.6], [0.0, 0.0, 0.0, 1.0]])
    until = np.array([[0.0, 0.0, 0.7, 0.3], [0.0, 0.0, 0.1, 0.9], [0.0, 0.0, 0.0, 1.0]])
    found = Onsets(3, posterior, until)
    assert found.onset.tolist() == [1, NEVER, NEVER]
    assert found.end.tolist() == [2, NEVER, NEVER]
    np.testing.assert_allclose(found.present, [0.9, 0.4, 0])
    np.testing.assert_allclose(found.restricted, [1.3, 2.2, 3])
    np.testing.assert_allclose(found.by_layer[0], [0.1, 0.7, 0.2])
    assert Onsets(3, posterior).end.tolist() == [NEVER] * 3
    assert found.select([2, 0]).onset.tolist() == [NEVER, 1]
    assert "3 samples x 3 layers: 43%" in repr(found)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("shape", [(0, 5, 10), (1, 1, 10), (2, 2, 3), (7, 3, 10), (40, 1, 10)])
def test_small_readouts(shape, ends):
    rng = np.random.default_rng(0)
    target = rng.integers(0, shape[2], shape[0])
    for values in (rng.standard_normal(shape), np.zeros(shape), np.ones(shape)):
        found = fit_onsets(readout(values), names(target), ends=ends, iterations=12)
        np.testing.assert_allclose(found.posterior.sum(axis=1), 1)
        assert found.onset.shape == (shape[0],)
        if shape[0] > 2:
            assert (found.onset == NEVER).all()


def test_never_with_a_single_answer_everywhere():
    scores = np.random.default_rng(0).standard_normal((50, 8, 10))
    found = fit_onsets(readout(scores), ("3",) * 50, ends=True)
    assert found.present.mean() < 0.1


def test_what_cannot_be_fitted_is_refused():
    scores = np.zeros((4, 3, 10))
    with pytest.raises(ValueError, match="groups of shape"):
        fit_onsets(readout(scores), ("1",) * 4, groups=["a"])
    with pytest.raises(ValueError, match="from 3 classes"):
        fit_onsets(readout(scores[..., :2]), ("1",) * 4)
    with pytest.raises(ValueError, match="between chance"):
        fit_onsets(readout(scores), ("1",) * 4, least_hit=0.1)
    scores[0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="must be finite"):
        fit_onsets(readout(scores), ("1",) * 4)
    with pytest.raises(ValueError, match="3 answers"):
        fit_onsets(readout(scores), ("1",) * 3)


def test_the_mix_holds_samples_that_are_never_right():
    assert sum(MIX.values()) == pytest.approx(1)
    truth = fitted(n=600)[0]
    assert (truth.available_from == NEVER).mean() > 0.05 and (truth.ready_from == NEVER).mean() > 0.3
