"""Effects: chance is taken off, pairs are paired, and a table says what a hand would."""

from __future__ import annotations

import numpy as np
import pytest

from brewlens.intervention.edits import no_op
from brewlens.intervention.effects import (
    COLUMNS,
    cell_over,
    cells_at,
    effect_table,
    follows,
    logit_difference,
    net,
    right,
    unchanged,
)
from brewlens.intervention.grid import Arm, Grid
from brewlens.intervention.sites import Site
from brewlens.lifecycle.landmarks import NEVER
from brewlens.stats import mcnemar, sign_flip

N, SLOTS, K = 400, 3, 10
LABELS = {"family": "f", "outcome": "all", "aligned": "layer"}


def grid_of(outputs: np.ndarray, layers: np.ndarray | None = None, scale: float = 1.0) -> Grid:
    """A grid whose arms say these classes; the first is the no-op."""
    arms, n, slots = outputs.shape
    layers = np.broadcast_to(np.arange(slots), (n, slots)) if layers is None else layers
    named = [
        Arm("no_op", "no_op", no_op()),
        *(Arm("replace", f"d{k}", no_op(), control=k > 0) for k in range(arms - 1)),
    ]
    written = np.broadcast_to(layers != NEVER, outputs.shape).copy()
    dose = np.where(written, 0.5, np.nan)
    return Grid(tuple(named), Site(), layers, written, scale * np.eye(K)[outputs], dose, dose, dose)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_broken_model_follows_nobody(rng):
    answers = rng.integers(0, K, N)
    donated = (answers + rng.integers(1, K, N)) % K
    own = np.where(rng.random(N) < 0.7, answers, rng.integers(0, K, N))
    keep = own != donated
    outputs = np.stack([np.repeat(own[:, None], SLOTS, 1), rng.integers(0, K, (N, SLOTS))])
    scores = follows(grid_of(outputs), donated, answers)
    after = scores.after[1][keep].mean(1)
    assert (scores.before[keep] == np.where(own == answers, 0, scores.before[:, 0])[keep, None]).all()
    assert abs(after.mean()) < 3 * after.std() / np.sqrt(keep.sum())


def test_chance_is_that_of_the_donated_answers(rng):
    """Errors and donated answers that both lie near the right answer meet more often than one in nine."""
    answers = rng.integers(0, K, 20 * N)
    donated, strays = ((answers + rng.choice([1, 2, 5], 20 * N, p=[0.6, 0.3, 0.1])) % K for _ in range(2))
    expected = np.zeros((20 * N, K))
    for step, share in ((1, 0.6), (2, 0.3), (5, 0.1)):
        expected[np.arange(20 * N), (answers + step) % K] = share
    grid = grid_of(np.stack([answers, strays])[:, :, None])
    plain, matched = (follows(grid, donated, answers, q).after[1] for q in (None, expected))
    assert plain.mean() > 0.3
    assert abs(matched.mean()) < 4 * matched.std() / np.sqrt(20 * N)


def test_a_model_that_follows_scores_one_and_one_that_stays_scores_nothing():
    answers, donated = np.zeros(N, dtype=int), np.full(N, 4)
    outputs = np.stack([np.zeros((N, SLOTS), dtype=int), np.full((N, SLOTS), 4)])
    scores = follows(grid_of(outputs), donated, answers)
    assert (scores.before == 0).all()
    assert (scores.after[1] == 1).all()


def test_a_stray_answer_counts_against():
    outputs = np.zeros((2, 1, 1), dtype=int)
    outputs[1] = 7
    scores = follows(grid_of(outputs), np.array([4]), np.array([0]))
    assert scores.after[1, 0, 0] == pytest.approx(
        -1 / 8
    )  # one of nine classes that are not 0: odds of 1 to 8


def test_rows_are_paired_shares_net_of_the_no_op(rng):
    answers = np.zeros(N, dtype=int)
    before, after = (rng.random((N, 1)) < share for share in (0.3, 0.6))
    outputs = np.where(np.stack([before, after]), 0, 5)
    grid = grid_of(outputs)
    cells = list(cells_at(grid, right(grid, answers), 1, grid.layers, np.ones((N, 1), bool), LABELS))
    table = effect_table(cells, np.arange(N), "x")
    assert tuple(table.columns) == COLUMNS
    row = table.iloc[0]
    assert row["n"] == N
    assert row["net"] == pytest.approx(after.mean() - before.mean())
    assert row["net"] == pytest.approx(row["after"] - row["before"])
    assert row["low"] < row["net"] < row["high"]
    assert row["p"] == pytest.approx(mcnemar(after[:, 0], before[:, 0]))
    assert row["p_adjusted"] == row["p"]
    assert row["cosine"] == 0.5
    assert not row["nil"]


def test_clusters_are_flipped_whole(rng):
    shapes = np.arange(N) // 40
    before = np.zeros((N, 1), dtype=bool)
    after = np.repeat(rng.random(10) < 0.5, 40)[:, None]
    grid = grid_of(np.where(np.stack([before, after]), 0, 5))
    cells = list(cells_at(grid, right(grid, np.zeros(N, int)), 1, grid.layers, np.ones((N, 1), bool), LABELS))
    row = effect_table(cells, shapes, "x").iloc[0]
    assert row["n_shapes"] == 10
    assert row["p"] == pytest.approx(sign_flip(after[:, 0].astype(float), shapes))
    assert row["p"] > 1e-3  # ten shapes; as independent samples this would be nothing


def test_only_eligible_places_count(rng):
    layers = np.tile(np.arange(SLOTS), (N, 1))
    layers[: N // 2, 2] = NEVER
    outputs = rng.integers(0, K, (2, N, SLOTS))
    grid = grid_of(outputs, layers)
    eligible = rng.random((N, SLOTS)) < 0.5
    eligible[:, 0] = False
    cells = list(cells_at(grid, unchanged(grid), 1, layers, eligible, LABELS))
    assert [cell.labels["at"] for cell in cells] == [1, 2]
    there = eligible[:, 2] & (layers[:, 2] != NEVER)
    assert (cells[1].eligible == there).all()
    expected = (outputs[1, there, 2] == outputs[0, there, 2]).mean()
    assert cells[1].after[there].mean() == pytest.approx(expected)


def test_the_mean_over_a_stretch_weighs_samples_alike(rng):
    outputs = rng.integers(0, K, (2, N, SLOTS))
    grid = grid_of(outputs)
    eligible = rng.random((N, SLOTS)) < 0.5
    cell = cell_over(grid, unchanged(grid), 1, eligible, LABELS)
    for row in range(20):
        slots = np.flatnonzero(eligible[row])
        assert cell.eligible[row] == (len(slots) > 0)
        if len(slots):
            expected = (outputs[1, row, slots] == outputs[0, row, slots]).mean()
            assert cell.after[row] == pytest.approx(expected)


def test_the_logit_difference_is_one_where_the_edit_does_what_the_donor_has(rng):
    answers, donated = np.zeros(N, dtype=int), np.full(N, 3)
    own, donor = rng.normal(size=(2, N, K))
    grid = grid_of(np.zeros((3, N, 1), dtype=int))
    logits = np.stack([own, donor, 0.75 * own + 0.25 * donor])[:, :, None]
    grid = Grid(
        *(getattr(grid, name) for name in ("arms", "site", "layers", "written")), logits, *3 * [grid.kl]
    )
    scores = logit_difference(grid, donated, answers, donor)
    shown = [
        net(c, np.arange(N))
        for arm in (1, 2)
        for c in cells_at(grid, scores, arm, grid.layers, np.ones((N, 1), bool), LABELS)
    ]
    assert shown[0] is not None and shown[1] is not None
    assert shown[0].value == pytest.approx(1)
    assert shown[1].value == pytest.approx(0.25)
    assert shown[0].se == pytest.approx(0, abs=1e-9)


def test_nothing_is_found_where_nothing_is(rng):
    """Of 300 effects of an edit that does nothing but chance, about one in twenty has p < .05."""
    answers = np.zeros(N, dtype=int)
    shapes = rng.integers(0, 60, N)
    found = []
    for _ in range(300):
        spread = rng.normal(size=60)[shapes]
        outputs = np.where(rng.random((2, N, 1)) < 1 / (1 + np.exp(-spread[:, None])), 0, 5)
        grid = grid_of(outputs)
        found += cells_at(grid, right(grid, answers), 1, grid.layers, np.ones((N, 1), bool), LABELS)
    table = effect_table(found, shapes, "x", n_resamples=999)
    assert 0.02 < (table["p"] < 0.05).mean() < 0.09
    covered = (table["low"] <= 0) & (table["high"] >= 0)
    assert 0.91 < covered.mean() < 0.985
    assert (table["p_adjusted"] < 0.05).sum() <= 1


def test_a_small_dose_is_named(rng):
    grid = grid_of(rng.integers(0, K, (2, N, 1)))
    near = Grid(
        grid.arms,
        grid.site,
        grid.layers,
        grid.written,
        grid.logits,
        np.full((2, N, 1), 0.999),
        grid.change,
        grid.kl,
    )
    cells = list(cells_at(near, unchanged(near), 1, near.layers, np.ones((N, 1), bool), LABELS))
    assert effect_table(cells, np.arange(N), "x")["nil"].all()


def test_few_samples_give_no_row(rng):
    grid = grid_of(rng.integers(0, K, (2, N, 1)))
    few = np.zeros((N, 1), dtype=bool)
    few[:9] = True
    cells = list(cells_at(grid, unchanged(grid), 1, grid.layers, few, LABELS))
    assert not len(effect_table(cells, np.arange(N), "x"))
