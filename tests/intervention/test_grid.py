"""The grid against one plain forward per arm, sample and slot, with hooks of its own."""

from __future__ import annotations

from dataclasses import replace as replaced

import numpy as np
import pytest
import torch

from brewlens import tasks
from brewlens.intervention.donors import counterfactual, earlier, other_answer, same_answer, shuffled
from brewlens.intervention.edits import Where, blend, noise, norm_match, replace
from brewlens.intervention.grid import Arm, run_grid
from brewlens.intervention.sites import Site, states
from brewlens.lifecycle.landmarks import NEVER
from brewlens.loading import load_model
from tests import architectures
from tests.tiny import ARCHITECTURES, build

SITES = (
    Site(),
    Site("mlp_out"),
    Site("attn_out", (-3, -1)),
    Site("z"),
    Site("z", heads=(1, 3)),
)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request, tmp_path_factory):
    return load_model(build(request.param, tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def items():
    return tasks.generate("computing", n=8, seed=3)


@pytest.fixture(scope="module")
def space(model, items):
    return model.answer_space(items.prompts)


def hook_point(site: Site, layer: int) -> str:
    names = {
        "resid_post": "hook_out",
        "attn_out": "hook_attn_out",
        "mlp_out": "hook_mlp_out",
        "z": "attn.hook_z",
    }
    return f"blocks.{layer}.{names[site.tap]}"


def naive(model, prompt, space, site, layer, values):
    """Answer logits of one prompt with ``values`` [position, width] written, and the lens a block later."""
    seen = []

    def write(x, hook):
        x = x.clone()
        for value, position in zip(values, site.positions, strict=True):
            x[0, position] = value.reshape(x.shape[2:]).to(x)
        return x

    def see(x, hook):
        seen.append(x[0, -1].clone())

    after = f"blocks.{min(layer + 1, model.n_layers - 1)}.hook_out"
    tokens = torch.tensor([model.token_ids(prompt)])
    with torch.no_grad(), model.hooks([(hook_point(site, layer), write), (after, see)]):
        logits = model.bridge(tokens)[0, -1]
    ids = torch.tensor(space.token_ids)
    return logits[ids], model.read_out(seen[-1][None], space)


@pytest.mark.parametrize("site", SITES, ids=str)
def test_grid_is_the_naive_loop(model, items, space, site):
    own = states(model, items.prompts, site)
    donor = counterfactual(model, items, space, site)
    arms = [
        Arm("blend", "counterfactual", blend(0.5), donor),
        Arm("norm_match", "counterfactual", norm_match(), donor),
        Arm("noise", "counterfactual", noise(replace()), donor),
    ]
    layers = torch.tensor([[0, 2], [1, 3], [NEVER, 2], [2, 3], [0, 1], [0, NEVER], [2, 1], [3, 0]])
    grid = run_grid(model, items.prompts, own, arms, space, layers=layers, site=site)
    columns = site.columns(model)
    for row, item in enumerate(items):
        plain, _ = naive(model, item.prompt, space, site, 0, own[row, 0])
        for slot, layer in enumerate(layers[row].tolist()):
            assert grid.written[:, row, slot].all() == (layer != NEVER)
            if layer == NEVER:
                continue
            where = Where(torch.tensor([row]), layers[row : row + 1, slot : slot + 1])
            mine, theirs = own[row, layer][None, None], donor.values[donor.rows[row], layer][None, None]
            for number, arm in enumerate(grid.arms):
                values = mine.clone()
                if columns is None:
                    values = arm.apply(mine, theirs, where)
                else:
                    values[..., columns] = arm.apply(mine[..., columns], theirs[..., columns], where)
                expected, after = naive(model, item.prompt, space, site, layer, values[0, 0])
                found = torch.from_numpy(grid.logits[number, row, slot])
                torch.testing.assert_close(found, expected, atol=1e-3, rtol=5e-5)
                if number == 0:
                    torch.testing.assert_close(found, plain, atol=1e-3, rtol=5e-5)
                    unedited = after
                    continue
                p, q = (
                    torch.cat([a.logits[0], a.log_other]).double().log_softmax(0) for a in (unedited, after)
                )
                assert grid.kl[number, row, slot] == pytest.approx(float((p.exp() * (p - q)).sum()), abs=2e-4)
                cosine = torch.cosine_similarity(values, mine, dim=-1).min()
                assert grid.cosine[number, row, slot] == pytest.approx(float(cosine), abs=1e-5)
    assert np.isnan(grid.kl[:, 5, 1]).all()
    assert (np.nan_to_num(grid.change[0]) == 0).all()


def test_the_last_residual_of_a_donor_gives_the_donors_logits(model, items, space):
    own = states(model, items.prompts)
    donor = counterfactual(model, items, space)
    grid = run_grid(
        *(model, items.prompts, own, [Arm("replace", "counterfactual", replace(), donor)], space),
        layers=[model.n_layers - 1],
    )
    theirs = donor.said().logits[donor.rows]
    torch.testing.assert_close(torch.from_numpy(grid.logits[1, :, 0]), theirs, atol=5e-4, rtol=5e-5)


def test_samples_without_a_donor_are_not_written(model, items, space):
    own = states(model, items.prompts)
    answers = torch.tensor([space.classes.index(a) for a in items.answers])
    rows = torch.full((len(items),), NEVER)
    rows[0] = 3
    donor = same_answer(own, answers, ["f"] * len(items))
    lonely = type(donor)("some", own, rows, torch.where(rows == NEVER, NEVER, answers[rows.clamp_min(0)]))
    grid = run_grid(model, items.prompts, own, [Arm("replace", "some", replace(), lonely)], space)
    assert grid.written[1].any(1).tolist() == [True] + [False] * (len(items) - 1)
    assert np.isnan(grid.cosine[1, 1:]).all()


def test_a_donor_is_written_only_at_its_layers(model, items, space):
    own = states(model, items.prompts)
    answers = torch.tensor([space.classes.index(a) for a in items.answers])
    where = torch.zeros(len(items), model.n_layers, dtype=torch.bool)
    where[2, 1] = True
    donor = replaced(shuffled(own, answers, ["f"] * len(items)), where=where)
    arms = [Arm("replace", "shuffled", replace(), donor)]
    grid = run_grid(model, items.prompts, own, arms, space, layers=[3, 1])
    assert np.argwhere(grid.written[1]).tolist() == [[2, 1]]


def test_own_earlier_states_come_from_the_layer_named(model, items, space):
    own = states(model, items.prompts)
    answers = torch.tensor([space.classes.index(a) for a in items.answers])
    source = torch.tensor([[1], [NEVER], *[[0]] * (len(items) - 2)])
    donor = earlier(own, answers, source)
    where = Where(torch.arange(len(items)), torch.full((len(items), 1), 3))
    found = donor.at(where)
    assert torch.equal(found[0, 0], own[0, 1])
    assert torch.equal(found[5, 0], own[5, 0])
    grid = run_grid(
        model, items.prompts, own, [Arm("replace", "own_earlier", replace(), donor)], space, layers=[3]
    )
    assert not grid.written[1, 1].any()


def test_donors_are_what_they_are_called():
    rng = np.random.default_rng(0)
    answers = torch.from_numpy(rng.integers(0, 3, 60))
    families = np.array(["a", "b"])[rng.integers(0, 2, 60)]
    values = torch.zeros(60, 1, 1, 1)
    for make, suits in (
        (same_answer, lambda a, b: a == b),
        (other_answer, lambda a, b: a != b),
        (shuffled, lambda a, b: True),
    ):
        donor = make(values, answers, families, seed=1)
        assert donor.there.all()
        for row, other in enumerate(donor.rows.tolist()):
            assert other != row
            assert families[other] == families[row]
            assert suits(int(answers[row]), int(answers[other]))
            assert donor.classes[row] == answers[other]


def test_sites_refuse_what_is_not_there(model, items, space):
    with pytest.raises(ValueError, match="tap"):
        Site("resid_mid_post")
    with pytest.raises(ValueError, match="heads are those of tap 'z'"):
        Site("mlp_out", heads=(0,))
    with pytest.raises(ValueError, match="positions"):
        Site(positions=(0,))
    with pytest.raises(ValueError, match="heads 0 to 3"):
        Site("z", heads=(4,)).columns(model)
    own = states(model, items.prompts)
    with pytest.raises(ValueError, match="own must be"):
        run_grid(model, items.prompts, own[:, :2], [], space)


@pytest.mark.parametrize("name", ["qwen2", "deepseek_v2"])
def test_heads_are_as_wide_as_what_the_model_gives(name, items, tmp_path):
    """Also with MLA, whose queries and values differ in width."""
    model = load_model(architectures.build(name, tmp_path))
    width = states(model, items.prompts[:1], Site("z")).shape[-1]
    n_heads = model.bridge.cfg.n_heads
    every = Site("z", heads=tuple(range(n_heads))).columns(model)
    assert every.tolist() == list(range(width))
    last = Site("z", heads=(n_heads - 1,)).columns(model).tolist()
    assert last == list(range(width - width // n_heads, width))
