"""All layers and folds at once equal scikit-learn, one layer and fold at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import StandardScaler

from brewlens.decoding.fold_fit import GRID, FitOptions, fit_layers
from brewlens.decoding.mlp import MLPOptions
from brewlens.decoding.multinomial import Design, solve
from brewlens.decoding.ridge import solve_ridge

FOLDS = 5


def planted(layers=3, n=200, width=12, classes=4, seed=0):
    """Residuals with a spectrum that falls like 1/i and one large dimension; the answer grows by layer."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    x = rng.normal(size=(layers, n, width)) / np.sqrt(1 + np.arange(width))
    code = rng.normal(size=(classes, width)) / np.sqrt(1 + np.arange(width))
    x += np.arange(layers)[:, None, None] * code[y]
    x = x @ np.linalg.qr(rng.normal(size=(width, width)))[0]
    x[:, :, 1] = 300 + 40 * x[:, :, 1]
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def all_but_one(n):
    fold = torch.arange(n) % FOLDS
    return fold, fold != torch.arange(FOLDS)[:, None]


def sklearn_logits(x, y, train, C):
    """scikit-learn to a tight tolerance: logits of every row, and what it says of the raw residuals."""
    scaler = StandardScaler().fit(x[train].double().numpy())
    oracle = LogisticRegression(C=C, tol=1e-9, max_iter=10_000)
    oracle.fit(scaler.transform(x[train].double().numpy()), y[train].numpy())
    return torch.tensor(oracle.decision_function(scaler.transform(x.double().numpy())))


def centred(logits):
    """Logits have a free constant per row."""
    return logits - logits.mean(-1, keepdim=True)


@pytest.mark.parametrize("C", [1e-3, 0.1, 10.0])
def test_equals_scikit_learn(C):
    x, y = planted()
    _, train = all_but_one(len(y))
    design = Design.of(x, train)
    found = solve(design, y.expand(FOLDS, -1), 4, C, tol=1e-6)
    weight, bias = design.raw(found.v)
    assert found.converged.all()
    for layer in range(len(x)):
        for fold in range(FOLDS):
            expected = centred(sklearn_logits(x[layer], y, train[fold], C))
            torch.testing.assert_close(
                centred(found.logits[layer, fold].T.double()), expected, atol=5e-3, rtol=1e-3
            )
            raw = x[layer].double() @ weight[layer, fold].T.double() + bias[layer, fold]
            torch.testing.assert_close(centred(raw), expected, atol=5e-3, rtol=1e-3)


def test_the_reported_gradient_is_that_of_the_objective():
    x, y = planted(2)
    _, train = all_but_one(len(y))
    found = solve(Design.of(x, train), y.expand(FOLDS, -1), 4, 0.5, tol=1e-3)
    rows = train[1]
    z = x[1, rows].double()
    z = (z - z.mean(0)) / z.std(0, correction=0)
    weight = torch.linalg.lstsq(
        torch.cat([z, torch.ones(len(z), 1)], 1).double(), found.logits[1, 1][:, rows].T.double()
    ).solution
    weight.requires_grad_()
    logits = torch.cat([z, torch.ones(len(z), 1, dtype=z.dtype)], 1) @ weight
    loss = torch.nn.functional.cross_entropy(logits, y[rows], reduction="sum")
    (loss + weight[:-1].square().sum() / 2 / 0.5).backward()
    assert weight.grad.abs().max().item() / len(z) == pytest.approx(found.gradient[1, 1].item(), rel=1e-2)


def test_more_dimensions_than_samples():
    x, y = planted(1, n=60, width=150)
    _, train = all_but_one(len(y))
    found = solve(Design.of(x, train), y.expand(FOLDS, -1), 4, 0.1, tol=1e-6)
    expected = centred(sklearn_logits(x[0], y, train[0], 0.1))
    torch.testing.assert_close(centred(found.logits[0, 0].T.double()), expected, atol=2e-3, rtol=1e-3)


def test_layers_folds_and_label_sets_do_not_touch_each_other():
    x, y = planted(4)
    _, train = all_but_one(len(y))
    other = y.flip(0)
    design = Design.of(x, train).problems(torch.arange(FOLDS).repeat(2))
    labels = torch.stack([y, other]).repeat_interleave(FOLDS, 0)
    together = solve(design, labels, 4, 1.0, tol=1e-6)
    assert len(set(together.iterations.amax(1).tolist())) > 1  # layers were dropped one after the other
    for layer in range(4):
        for number, target in enumerate((y, other)):
            alone = solve(Design.of(x[layer : layer + 1], train[2:3]), target[None], 4, 1.0, tol=1e-6)
            torch.testing.assert_close(
                together.logits[layer, number * FOLDS + 2], alone.logits[0, 0], atol=5e-3, rtol=1e-3
            )


@pytest.mark.accelerator
@pytest.mark.parametrize("kind", ["logistic", "ridge", "mlp"])
def test_a_gpu_finds_the_same(kind):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    x, y = planted()
    fold, _ = all_but_one(len(y))
    options = FitOptions(kind, mlp=MLPOptions(hidden=8, epochs=3))
    here = fit_layers(x, y[None], fold, 4, (0, 1, 2), options)
    there = fit_layers(x.cuda(), y[None].cuda(), fold.cuda(), 4, (0, 1, 2), options)
    torch.testing.assert_close(there.scores.cpu(), here.scores, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(there.C.cpu(), here.C, equal_nan=True)


def test_a_start_and_mixed_penalties_change_the_way_only():
    x, y = planted()
    _, train = all_but_one(len(y))
    design, labels = Design.of(x, train), y.expand(FOLDS, -1)
    C = torch.tensor([0.01, 0.1, 1.0, 0.1, 0.01]).expand(3, -1)
    mixed = solve(design, labels, 4, C, tol=1e-6)
    started = solve(design, labels, 4, 0.1, tol=1e-6, start=mixed.v)
    cold = solve(design, labels, 4, 0.1, tol=1e-6)
    torch.testing.assert_close(started.logits, cold.logits, atol=5e-3, rtol=1e-3)
    torch.testing.assert_close(mixed.logits[:, [1, 3]], cold.logits[:, [1, 3]], atol=5e-3, rtol=1e-3)
    assert (mixed.logits[:, 2] - cold.logits[:, 2]).abs().max() > 0.1


def test_a_class_that_training_lacks_is_left_out():
    x, y = planted()
    _, train = all_but_one(len(y))
    y[:] = y % 3
    found = solve(Design.of(x, train), y.expand(FOLDS, -1), 4, 0.1)
    without = solve(Design.of(x, train), y.expand(FOLDS, -1), 3, 0.1)
    assert (found.logits[:, :, 3] == -torch.inf).all()
    torch.testing.assert_close(found.logits[:, :, :3], without.logits, atol=1e-3, rtol=1e-3)


def test_two_classes_are_scikit_learns_with_C_doubled():
    x, y = planted(classes=2)
    _, train = all_but_one(len(y))
    found = solve(Design.of(x, train), y.expand(FOLDS, -1), 2, 0.1, tol=1e-6).logits[2, 0]
    gap = (found[1] - found[0]).double()
    torch.testing.assert_close(gap, sklearn_logits(x[2], y, train[0], 0.2), atol=5e-3, rtol=1e-3)
    assert not torch.allclose(gap, sklearn_logits(x[2], y, train[0], 0.1), atol=5e-2, rtol=1e-2)


def test_dimensions_that_are_constant_in_training_carry_nothing():
    x, y = planted(1)
    fold, train = all_but_one(len(y))
    dead = torch.zeros(1, len(y), 2)
    dead[:, :, 0] = 7.0
    dead[0, :, 1] = torch.where(fold == 0, y.float(), 3.0)  # varies in fold 0 alone
    with_dead = solve(Design.of(torch.cat([x, dead], 2), train), y.expand(FOLDS, -1), 4, 0.1, tol=1e-6)
    without = solve(Design.of(x, train), y.expand(FOLDS, -1), 4, 0.1, tol=1e-6)
    torch.testing.assert_close(with_dead.logits[:, 0], without.logits[:, 0], atol=5e-3, rtol=1e-3)


def test_what_does_not_converge_says_so():
    x, y = planted(4)
    _, train = all_but_one(len(y))
    cut = solve(Design.of(x, train), y.expand(FOLDS, -1), 4, 1.0, max_iter=3)
    assert not cut.converged.any()
    assert (cut.iterations == 3).all()
    assert (cut.gradient > cut.tol).all()


@pytest.mark.unchecked("arrays that do not fit, and a kind that there is not")
def test_useless_input_is_refused():
    x, y = planted()
    _, train = all_but_one(len(y))
    with pytest.raises(ValueError, match="at least two answers"):
        solve(Design.of(x, train), torch.zeros_like(y).expand(FOLDS, -1), 4, 1.0)
    with pytest.raises(ValueError, match="at least two answers"):
        solve_ridge(Design.of(x, train), torch.zeros_like(y).expand(FOLDS, -1), 4, 1.0)
    for solver in (solve, solve_ridge):
        with pytest.raises(ValueError, match="positive"):
            solver(Design.of(x, train), y.expand(FOLDS, -1), 4, 0.0)
    with pytest.raises(ValueError, match="training rows"):
        Design.of(x, train & False)
    with pytest.raises(ValueError, match="NaN"):
        Design.of(x * torch.nan, train)
    with pytest.raises(ValueError, match="problem, row"):
        Design.of(x[0], train)
    fold, _ = all_but_one(len(y))
    with pytest.raises(ValueError, match="three folds"):
        fit_layers(x, y[None], fold % 2, 4, (0, 1, 2), FitOptions())
    for wrong in ({"kind": "svm"}, {"C": -1.0}, {"grid": (1.0, 0.1)}):
        with pytest.raises(ValueError, match=r"asked|found"):
            FitOptions(**wrong)


@pytest.mark.parametrize("C", [1e-3, 1.0])
def test_ridge_equals_scikit_learn(C):
    x, y = planted()
    _, train = all_but_one(len(y))
    design = Design.of(x, train)
    found = solve_ridge(design, y.expand(FOLDS, -1), 5, C)
    weight, bias = design.raw(found.v)
    for layer in range(3):
        for fold in range(FOLDS):
            rows = train[fold].numpy()
            scaler = StandardScaler().fit(x[layer, rows].double().numpy())
            oracle = RidgeClassifier(alpha=1 / (2 * C)).fit(
                scaler.transform(x[layer, rows].double()), y[rows]
            )
            expected = torch.tensor(oracle.decision_function(scaler.transform(x[layer].double())))
            torch.testing.assert_close(
                found.logits[layer, fold, :4].T.double(), expected, atol=1e-4, rtol=1e-3
            )
            raw = x[layer] @ weight[layer, fold].T + bias[layer, fold]
            torch.testing.assert_close(raw[:, :4].double(), expected, atol=1e-3, rtol=1e-3)
    assert (found.logits[:, :, 4] == -torch.inf).all()


def naive_choice(x, y, fold, layer, outer):
    """C by scikit-learn: the other folds' neighbours of the outer fold validate, one after the other."""
    losses = []
    for C in GRID:
        loss = []
        for inner in ((outer + 1) % FOLDS, (outer - 1) % FOLDS):
            logits = sklearn_logits(x[layer], y, (fold != outer) & (fold != inner), C)
            rows = fold == inner
            loss.append(torch.nn.functional.cross_entropy(logits[rows], y[rows], reduction="none"))
        losses.append(torch.cat(loss).mean().item())
    return GRID[int(np.argmin(losses))]


def test_the_choice_of_C_equals_a_naive_loop_and_differs_by_layer():
    x, y = planted(4, n=150)
    fold, _ = all_but_one(len(y))
    C = fit_layers(x, y[None], fold, 4, (0, 1, 2, 3), FitOptions()).C
    for layer in (0, 3):
        for outer in (0, 2, 4):
            assert C[layer, outer] == naive_choice(x, y, fold, layer, outer)
    assert C[0].max() < C[3].min()


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_the_choice_of_C_never_sees_the_scored_fold(kind):
    """With another answer to every scored item, the fold's own C stays, and that of others does not."""
    x, y = planted(2, n=150)
    fold, _ = all_but_one(len(y))
    before = fit_layers(x, y[None], fold, 4, (0, 1), FitOptions(kind))
    swapped = y.where(fold != 2, (y + 1) % 4)
    after = fit_layers(x, swapped[None], fold, 4, (0, 1), FitOptions(kind))
    assert (before.C[:, 2] == after.C[:, 2]).all()
    assert (before.C[1] != after.C[1]).any()
    rows = fold == 2
    torch.testing.assert_close(before.scores[0, rows], after.scores[0, rows], atol=1e-2, rtol=1e-2)


def parity(n=400, width=6, seed=0):
    """Two classes that no linear probe tells apart."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, n, width))
    y = ((x[1, :, 0] > 0) ^ (x[1, :, 1] > 0)).astype(int)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def accuracy(fit, y):
    return (fit.scores[0].argmax(2) == y[:, None]).float().mean(0)


MLP = FitOptions("mlp", mlp=MLPOptions(hidden=16, lr=1e-2, batch=64, epochs=40))


def test_a_two_layer_probe_reads_parity_where_it_is_and_a_linear_probe_does_not():
    x, y = parity()
    fold, _ = all_but_one(len(y))
    assert accuracy(fit_layers(x, y[None], fold, 2, (0, 1), FitOptions(C=0.1)), y)[1] < 0.65
    state = torch.get_rng_state()
    found = fit_layers(x, y[None], fold, 2, (0, 1), MLP)
    assert torch.equal(torch.get_rng_state(), state)
    assert accuracy(found, y)[1] > 0.85
    assert accuracy(found, y)[0] < 0.6
    units, shift = found.hidden
    features = (x[1] @ units[1, 0, 2].T + shift[1, 0, 2]).relu()
    logits = features @ found.weight[1, 0, 2].T + found.bias[1, 0, 2]
    torch.testing.assert_close(logits[fold == 2], found.scores[0, fold == 2, 1], atol=1e-4, rtol=1e-4)


def test_a_two_layer_probe_does_not_depend_on_its_neighbours():
    x, y = parity(100)
    fold, _ = all_but_one(len(y))
    few = FitOptions("mlp", mlp=MLPOptions(hidden=4, batch=32, epochs=3))
    both = fit_layers(x, y[None], fold, 3, (0, 1), few)
    alone = fit_layers(x[1:], y[None], fold, 3, (1,), few)
    torch.testing.assert_close(both.scores[0, :, 1], alone.scores[0, :, 0], atol=1e-5, rtol=1e-4)
    assert (both.scores[..., 2] == -torch.inf).all()  # a class without samples
