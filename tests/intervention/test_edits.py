"""Edits: identities that hold for any states, and placebos that move as far."""

from __future__ import annotations

import pytest
import torch

from brewlens.intervention.edits import (
    Subspace,
    Where,
    add,
    as_far_as,
    blend,
    erase_subspace,
    no_op,
    noise,
    norm_match,
    replace,
    swap_subspace,
)

SAMPLES, SLOTS, POSITIONS, WIDTH, LAYERS = 7, 4, 2, 12, 6


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bases(groups: int, rank: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(drawn(groups, LAYERS, WIDTH, rank, seed=seed)).Q


@pytest.fixture
def own() -> torch.Tensor:
    return drawn(SAMPLES, SLOTS, POSITIONS, WIDTH, seed=1)


@pytest.fixture
def donor() -> torch.Tensor:
    return 3 * drawn(SAMPLES, SLOTS, POSITIONS, WIDTH, seed=2)


@pytest.fixture
def where() -> Where:
    layers = torch.randint(0, LAYERS, (SAMPLES, SLOTS), generator=torch.Generator().manual_seed(3))
    return Where(torch.arange(10, 10 + SAMPLES), layers)


GROUPS = torch.tensor([0] * 10 + [0, 1, 2, 0, 1, 2, 1])


@pytest.fixture
def whole() -> torch.Tensor:
    return bases(3, 6, seed=4)


def test_no_op_is_the_very_same_state(own, donor, where):
    assert no_op()(own, donor, where) is own


def test_replace_and_its_limits(own, donor, where):
    torch.testing.assert_close(replace()(own, donor, where), donor)
    torch.testing.assert_close(blend(1.0)(own, donor, where), donor)
    torch.testing.assert_close(blend(0.3)(own, donor, where), 0.7 * own + 0.3 * donor)
    assert torch.equal(blend(0.0)(own, donor, where), own)


def test_norm_match_keeps_the_length_of_the_recipient_and_the_direction_of_the_donor(own, donor, where):
    found = norm_match()(own, donor, where)
    torch.testing.assert_close(found.norm(dim=-1), own.norm(dim=-1))
    cosine = torch.cosine_similarity(found, donor, dim=-1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_projection_is_that_of_a_loop_over_samples_and_slots(own, where, whole):
    subspace = Subspace("s", whole, GROUPS)
    found = subspace.project(own, where)
    for sample in range(SAMPLES):
        for slot in range(SLOTS):
            basis = whole[GROUPS[10 + sample], where.layers[sample, slot]]
            torch.testing.assert_close(found[sample, slot], own[sample, slot] @ basis @ basis.T)


def test_swap_with_an_identical_donor_changes_nothing(own, where, whole):
    assert torch.equal(swap_subspace(Subspace("s", whole, GROUPS))(own, own.clone(), where), own)


def test_swap_moves_the_coordinates_inside_and_no_others(own, donor, where, whole):
    subspace = Subspace("s", whole, GROUPS)
    found = swap_subspace(subspace)(own, donor, where)
    inside = subspace.project(found, where)
    torch.testing.assert_close(inside, subspace.project(donor, where))
    torch.testing.assert_close(found - inside, own - subspace.project(own, where))


def test_disjoint_swaps_commute_and_together_are_one(own, donor, where, whole):
    first = swap_subspace(Subspace("a", whole[..., :2], GROUPS))
    second = swap_subspace(Subspace("b", whole[..., 2:], GROUPS))
    other = donor.flip(0)
    one = second(first(own, donor, where), other, where)
    two = first(second(own, other, where), donor, where)
    torch.testing.assert_close(one, two)
    joint = first.then(second)(own, donor, where)
    torch.testing.assert_close(joint, swap_subspace(Subspace("c", whole, GROUPS))(own, donor, where))


def test_swap_of_the_whole_space_is_replacement(own, donor, where):
    everything = Subspace.fixed("all", torch.linalg.qr(drawn(WIDTH, WIDTH, seed=5)).Q, LAYERS, 20)
    torch.testing.assert_close(swap_subspace(everything)(own, donor, where), donor, atol=1e-5, rtol=1e-5)


def test_erasure_puts_the_mean_there_whatever_was_there(own, donor, where, whole):
    subspace, mean = Subspace("s", whole, GROUPS), drawn(3, LAYERS, WIDTH, seed=6)
    erase = erase_subspace(subspace, mean)
    inside = subspace.project(erase(own, donor, where), where)
    torch.testing.assert_close(inside, subspace.project(erase(5 * own, own, where), where))
    torch.testing.assert_close(
        inside[0, 0],
        (mean[0, where.layers[0, 0]] @ whole[0, where.layers[0, 0]] @ whole[0, where.layers[0, 0]].T).expand(
            POSITIONS, -1
        ),
    )


def test_add_takes_the_vector_of_the_layer(own, donor, where):
    vector = drawn(LAYERS, WIDTH, seed=7)
    found = add(vector, 2.0)(own, donor, where)
    torch.testing.assert_close(found[1, 2, 0] - own[1, 2, 0], 2 * vector[where.layers[1, 2]])


def test_placebos_move_as_far_elsewhere(own, donor, where, whole):
    inner = swap_subspace(Subspace("a", whole[..., :3], GROUPS))
    outer = Subspace("b", whole[..., 3:], GROUPS)
    far = (inner(own, donor, where) - own).norm(dim=-1)
    apart = as_far_as(inner, swap_subspace(outer))(own, donor, where) - own
    torch.testing.assert_close(apart.norm(dim=-1), far)
    torch.testing.assert_close(outer.project(apart, where), apart)
    torch.testing.assert_close((noise(inner)(own, donor, where) - own).norm(dim=-1), far)


def test_a_placebo_of_nothing_is_nothing(own, where, whole):
    inner = swap_subspace(Subspace("a", whole[..., :3], GROUPS))
    assert torch.equal(noise(inner)(own, own, where), own)


def test_noise_is_that_of_the_sample_whatever_is_beside_it(own, donor, where):
    alone = Where(where.samples[3:4], where.layers[3:4])
    state = torch.random.get_rng_state()
    together = noise(replace(), seed=8)(own, donor, where)
    torch.testing.assert_close(noise(replace(), seed=8)(own[3:4], donor[3:4], alone), together[3:4])
    assert not torch.allclose(noise(replace(), seed=9)(own, donor, where), together)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_basis_must_be_orthonormal():
    with pytest.raises(ValueError, match="orthonormal"):
        Subspace("s", 2 * bases(1, 2), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match="2 groups"):
        Subspace("s", bases(2, 2), torch.tensor([2]))
