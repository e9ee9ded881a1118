"""Subspaces hold what the probe reads, and their placebos nothing of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformer_lens.tools.analysis.interchange import probe_basis

from brewlens import tasks
from brewlens.decoding import FitOptions, fit_probes
from brewlens.decoding.mlp import MLPOptions
from brewlens.decoding.near_ood import NearOOD
from brewlens.intervention.edits import Subspace, Where, swap_subspace
from brewlens.intervention.subspaces import probe_subspace, random_subspace, subspace_means
from brewlens.planted import draw_truth, plant
from brewlens.residuals import Residuals
from brewlens.tasks import assign_folds

LAYERS, WIDTH = 3, 24


def of(items, values):
    return Residuals.of(torch.as_tensor(values, dtype=torch.float32), items.ids, ((1,),) * len(items), "test")


@pytest.fixture(scope="module")
def items():
    return tasks.generate(("computing", "conditional"), n=270)


@pytest.fixture(scope="module")
def residuals(items):
    values = np.random.default_rng(0).normal(size=(len(items), LAYERS, WIDTH))
    digit = np.array([int(a) for a in items.answers])
    values[np.arange(len(items)), 1, digit] += 3
    return of(items, values)


@pytest.fixture(scope="module")
def folds(items):
    return assign_folds(items, 5)


@pytest.fixture(scope="module")
def probes(residuals, items, folds):
    return fit_probes(residuals, items, folds, options=FitOptions(C=0.1)).probes


@pytest.fixture(scope="module")
def with_other(residuals, items, folds):
    extra = tasks.near_ood(items, 27)
    values = np.random.default_rng(1).normal(size=(len(extra), LAYERS, WIDTH)) + 1
    other = NearOOD.beside(of(extra, values), extra, items, folds)
    return fit_probes(residuals, items, folds, options=FitOptions(C=0.1), other=other).probes


def everywhere(n):
    return Where(torch.arange(n), torch.arange(LAYERS).expand(n, LAYERS))


def states(residuals):
    return residuals.values.unsqueeze(2)


def answers_read(probes, residuals, values):
    """Answer logits, their mean taken off, of states by the probe of each sample's own fold."""
    logits = torch.empty(len(values), LAYERS, 10, dtype=torch.float64)
    for row, name in enumerate(residuals.item_ids):
        for layer in range(LAYERS):
            h = values[row, layer, 0]
            read = probes.logits(h, probes.item_groups[name], layer, probes.item_folds[name])
            logits[row, layer] = read[:10].double()
    return logits - logits.mean(-1, keepdim=True)


class TestProbeSubspace:
    @pytest.mark.parametrize("which", ["probes", "with_other"])
    def test_a_swap_inside_gives_the_donors_answer_logits_and_outside_leaves_them(
        self, which, residuals, request
    ):
        probes = request.getfixturevalue(which)
        space = probe_subspace(probes, residuals.item_ids)
        assert (space.rank, space.bases.shape[:2]) == (9, (10, LAYERS))
        own = states(residuals)
        donor = own[torch.randperm(len(own), generator=torch.Generator().manual_seed(0))]
        inside = swap_subspace(space)(own, donor, everywhere(len(own)))
        before, there, after = (answers_read(probes, residuals, x) for x in (own, donor, inside))
        torch.testing.assert_close(after, there, atol=5e-5, rtol=0)
        assert (after - before).abs().max() > 1
        outside = answers_read(probes, residuals, own + donor - inside)
        torch.testing.assert_close(outside, before, atol=5e-5, rtol=0)

    def test_every_basis_is_the_span_of_the_probe_that_did_not_see_the_sample(self, probes, residuals):
        space = probe_subspace(probes, residuals.item_ids)
        for row in range(0, len(residuals), 37):
            name = residuals.item_ids[row]
            at = (probes.groups.index(probes.item_groups[name]), probes.folds.index(probes.item_folds[name]))
            for layer in range(LAYERS):
                expected = probe_basis(probes.weight[at[0], layer, at[1]])
                found = space.bases[space.groups[row], layer]
                torch.testing.assert_close(found @ found.T, expected @ expected.T, atol=1e-5, rtol=0)

    def test_a_ridge_probe_has_one_and_a_two_layer_probe_has_none(self, residuals, items, folds):
        ridge = fit_probes(residuals, items, folds, options=FitOptions(kind="ridge", C=1e-3)).probes
        assert probe_subspace(ridge, items.ids).rank == 9
        options = FitOptions(kind="mlp", mlp=MLPOptions(hidden=4, epochs=2))
        deep = fit_probes(residuals, items, folds, options=options).probes
        with pytest.raises(ValueError, match="'mlp'; fit 'logistic'"):
            probe_subspace(deep, items.ids)

    def test_a_class_that_one_fold_lacks_is_left_out_there_and_the_rank_stays(self, probes, residuals):
        weight, bias = probes.weight.clone(), probes.bias.clone()
        bias[0, :, 2, 4] = -torch.inf
        weight[0, :, 2, 4] = 0
        lacking = replace(probes, weight=weight, bias=bias)
        space = probe_subspace(lacking, residuals.item_ids)
        assert space.rank == 9
        names = [(probes.item_groups[i], probes.item_folds[i]) for i in residuals.item_ids]
        group = space.groups[names.index((probes.groups[0], probes.folds[2]))]
        known = [k for k in range(10) if k != 4]
        for layer in range(LAYERS):
            rows = weight[0, layer, 2, known]
            rows = rows - rows.mean(0)
            basis = space.bases[group, layer]
            torch.testing.assert_close((rows @ basis) @ basis.T, rows, atol=1e-5, rtol=0)
            # The filling is at right angles to what is read: the ninth direction is nothing to the probe.
            assert torch.linalg.matrix_rank(rows @ basis, atol=1e-4) == 8

    def test_without_a_class_in_any_fold_the_rank_is_lower(self, probes, residuals):
        bias = probes.bias.clone()
        bias[..., 4] = -torch.inf
        assert probe_subspace(replace(probes, bias=bias), residuals.item_ids).rank == 8

    def test_a_layer_without_weights_gets_random_directions(self, probes, residuals):
        weight = probes.weight.clone()
        weight[:, 0] = 0
        space = probe_subspace(replace(probes, weight=weight), residuals.item_ids)
        again = probe_subspace(replace(probes, weight=weight), residuals.item_ids)
        assert torch.equal(space.bases, again.bases)
        assert space.bases[:, 0].abs().max() < 0.95
        with pytest.raises(ValueError, match="no probe tells"):
            probe_subspace(replace(probes, weight=torch.zeros_like(weight)), residuals.item_ids)

    def test_wrong_requests(self, probes, residuals, items, folds):
        with pytest.raises(ValueError, match="1 of 2 items are not among those"):
            probe_subspace(probes, [residuals.item_ids[0], "nobody"])
        some = Residuals.of(residuals.values[:, 1:], items.ids, residuals.tokens, "test", (1, 2))
        later = fit_probes(some, items, folds, options=FitOptions(C=0.1)).probes
        with pytest.raises(ValueError, match="every block from 0"):
            probe_subspace(later, items.ids)


class TestRandomSubspace:
    def test_at_right_angles_of_equal_rank_and_seeded(self, probes, residuals):
        space = probe_subspace(probes, residuals.item_ids)
        state = torch.get_rng_state()
        drawn = random_subspace(space, seed=1)
        assert torch.equal(torch.get_rng_state(), state)
        assert drawn.bases.shape == space.bases.shape and torch.equal(drawn.groups, space.groups)
        assert (space.bases.mT @ drawn.bases).abs().max() < 1e-6
        assert torch.equal(drawn.bases, random_subspace(space, seed=1).bases)
        assert not torch.equal(drawn.bases, random_subspace(space, seed=2).bases)

    def test_draws_are_spread_evenly_over_the_complement(self):
        basis = torch.eye(12)[:, :2]
        like = Subspace.fixed("two", basis, 400, 1)
        share = random_subspace(like).bases[0].square().sum(-1).mean(0)  # rank / 10 outside, nothing inside
        assert share[:2].max() < 1e-12
        assert (share[2:] - 0.2).abs().max() < 0.03

    def test_refuses_a_width_that_does_not_hold_both(self):
        like = Subspace.fixed("wide", torch.eye(8)[:, :5], 1, 1)
        with pytest.raises(ValueError, match="needs a width of 10 at least, found 8"):
            random_subspace(like)

    def test_swapping_it_leaves_the_probe_alone(self, probes, residuals):
        space = random_subspace(probe_subspace(probes, residuals.item_ids))
        own = states(residuals)
        swapped = swap_subspace(space)(own, own.flip(0), everywhere(len(own)))
        assert (swapped - own).abs().max() > 1
        torch.testing.assert_close(
            answers_read(probes, residuals, swapped), answers_read(probes, residuals, own), atol=5e-5, rtol=0
        )


class TestMeans:
    def test_of_the_family_outside_the_fold(self, probes, residuals, items, folds):
        space = probe_subspace(probes, items.ids)
        family = np.array([item.family for item in items])
        means = subspace_means(space, residuals.values, family.tolist(), folds)
        for row in range(0, len(items), 41):
            others = [r for r in range(len(items)) if family[r] == family[row] and folds[r] != folds[row]]
            expected = residuals.values[others].mean(0)
            torch.testing.assert_close(means[space.groups[row]], expected, atol=1e-6, rtol=0)

    def test_over_halves_and_refusals(self, residuals):
        half = torch.arange(len(residuals)) % 2
        space = Subspace("learned", torch.eye(WIDTH)[:, :2].expand(2, LAYERS, WIDTH, 2), half)
        everyone = ["all"] * len(residuals)
        means = subspace_means(space, residuals.values, everyone, half.numpy())
        torch.testing.assert_close(means[0], residuals.values[1::2].mean(0), atol=1e-6, rtol=0)
        with pytest.raises(ValueError, match="none in another fold"):
            subspace_means(space, residuals.values, everyone, np.zeros(len(residuals), dtype=int))

    @pytest.mark.unchecked("arrays that do not fit")
    def test_samples_that_differ_are_refused(self, residuals):
        half = torch.arange(len(residuals)) % 2
        space = Subspace("learned", torch.eye(WIDTH)[:, :2].expand(2, LAYERS, WIDTH, 2), half)
        everyone = ["all"] * len(residuals)
        with pytest.raises(ValueError, match="same samples"):
            subspace_means(space, residuals.values[1:], everyone, half.numpy())


def test_planted_answer_directions_are_the_probe_subspace_once_they_are_available():
    """Between available and ready the answer stands in ten dimensions; before, twenty hold noise alone."""
    truth = draw_truth(240, 6, mix={"resolved": 1.0}, available=1, ready=4, seed=0)
    planted = plant(truth, hit=0.95, seed=1)
    values, tokens = planted.model.last_residuals(planted.items.prompts)
    residuals = Residuals.of(values, planted.items.ids, tokens, planted.model.name)
    folds = assign_folds(planted.items, 5)
    probes = fit_probes(residuals, planted.items, folds, options=FitOptions(C=0.01)).probes
    space = probe_subspace(probes, planted.items.ids)
    planted_basis = torch.zeros(planted.layout.d_model, 9)
    # What is common to all ten says nothing of the answer.
    planted_basis[planted.layout.available] = torch.linalg.svd(torch.eye(10) - 0.1)[0][:, :9]
    cosines = torch.linalg.svdvals(space.bases.mT @ planted_basis)
    shared = cosines.square().mean(-1).mean(0)
    assert (truth.available_from == 1).all() and (truth.ready_from == 4).all()
    assert shared[1:4].min() > 0.8 and cosines[:, 1:4].amin() > 0.5
    assert abs(shared[0] - 9 / 20) < 0.1 and cosines[:, 0, -1].mean() < 0.2
