"""After LEACE no linear probe reads the answer from the states that it was fitted on; before, one does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from brewlens.intervention.edits import Where
from brewlens.intervention.leace import erase_leace

pytest.importorskip("concept_erasure")
N, LAYERS, WIDTH, CLASSES = 600, 2, 20, 5


@pytest.fixture(scope="module")
def setting():
    """Answers along correlated directions in layer 1, nothing in layer 0; another code in each family."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, CLASSES, N)
    families = np.array(["a", "b"])[rng.integers(0, 2, N)]
    folds = rng.integers(0, 3, N)
    values = rng.normal(size=(N, LAYERS, WIDTH)) @ rng.normal(size=(WIDTH, WIDTH)) + 3
    for name in ("a", "b"):
        here = families == name
        values[here, 1] += 6 * rng.normal(size=(CLASSES, WIDTH))[classes[here]]
    return torch.tensor(values, dtype=torch.float32), torch.from_numpy(classes), families.tolist(), folds


def read(values, classes):
    """Training accuracy of a fresh probe."""
    probe = LogisticRegression(max_iter=5000).fit(values.numpy(), classes.numpy())
    return probe.score(values.numpy(), classes.numpy())


def test_no_probe_reads_the_answer_where_one_did(setting):
    values, classes, families, folds = setting
    edit = erase_leace(values, classes, families, folds)
    family = np.array(families)
    fitted = torch.from_numpy(np.flatnonzero((family == "a") & (folds != 1)))
    # Written as states of one sample of fold 1, whose eraser was fitted on the others.
    one = int(np.flatnonzero((family == "a") & (folds == 1))[0])
    x = values[fitted, 1].reshape(1, 1, -1, WIDTH)
    erased = edit(x, x, Where(torch.tensor([one]), torch.tensor([[1]])))[0, 0]
    majority = float(classes[fitted].bincount().max() / len(fitted))
    assert read(values[fitted, 1], classes[fitted]) > 0.9
    assert read(erased, classes[fitted]) < majority + 0.02
    means = torch.stack([erased[classes[fitted] == k].mean(0) for k in range(CLASSES)])
    assert means.std(0).max() < 1e-4
    # The least change that does it: less than taking off the span of the class means.
    plain = values[fitted, 1]
    between = torch.stack([plain[classes[fitted] == k].mean(0) for k in range(CLASSES)]) - plain.mean(0)
    span = torch.linalg.svd(between, full_matrices=False)[2][: CLASSES - 1]
    projected = plain - (plain - plain.mean(0)) @ span.T @ span
    assert (erased - plain).square().sum() < 0.99 * (projected - plain).square().sum()


def test_each_sample_is_erased_by_its_own_family_and_fold(setting):
    values, classes, families, folds = setting
    edit = erase_leace(values, classes, families, folds)
    where = Where(torch.arange(N), torch.arange(LAYERS).expand(N, LAYERS))
    whole = edit(values.unsqueeze(2), values.unsqueeze(2), where)
    samples = torch.tensor([5, 17, 401])
    layers = torch.tensor([[1, 0], [0, 1], [1, 1]])
    own = values[samples.unsqueeze(1), layers].unsqueeze(2)
    part = edit(own, own, Where(samples, layers))
    torch.testing.assert_close(part, whole[samples.unsqueeze(1), layers], atol=1e-4, rtol=1e-4)
    changed = (whole - values.unsqueeze(2)).norm(dim=-1).squeeze(-1).mean(0)
    assert changed[1] > 2 * changed[0]


@pytest.mark.unchecked("arrays that do not fit")
def test_refusals(setting):
    values, classes, families, folds = setting
    with pytest.raises(ValueError, match="same samples"):
        erase_leace(values[1:], classes, families, folds)
    with pytest.raises(ValueError, match="in fold 0 only"):
        erase_leace(values, classes, families, np.zeros(N, dtype=int))
