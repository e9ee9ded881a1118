"""Direct attribution against each architecture's own formula, and overtaking against what is planted."""

from __future__ import annotations

from dataclasses import replace

import architectures
import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from brewlens import tasks
from brewlens.answers import AnswerSpace
from brewlens.intervention.components import (
    Attribution,
    Component,
    attribute,
    component_table,
    components_of,
)
from brewlens.intervention.frozen_norm import FrozenNorm
from brewlens.intervention.overtake import NOWHERE, overtake_table, overtakes
from brewlens.lifecycle.landmarks import NEVER
from brewlens.loading import load_model
from brewlens.model import ModelError
from brewlens.planted import MIX, draw_truth, plant

EXACT = 5e-5
# Parallel blocks, norms behind attention, biases everywhere, heads wider than their share, latent attention.
BUILT = {"pythia", "gptj", "gemma3", "olmo2", "starcoder2", "qwen3", "deepseek_v2"}
ALL = (*tiny.ARCHITECTURES, *sorted(BUILT))


@pytest.fixture(scope="module")
def items():
    return tasks.generate("computing", n=7, seed=3)


@pytest.fixture(scope="module", params=ALL)
def model(request, tmp_path_factory):
    build = architectures.build if request.param in BUILT else tiny.build
    return load_model(build(request.param, tmp_path_factory.mktemp(request.param)), device="cpu")


@pytest.fixture(scope="module")
def space(model, items):
    return model.answer_space(items.prompts)


@pytest.fixture(scope="module")
def found(model, items, space):
    return attribute(model, items, space, heads=True, batch_tokens=700)


def norm_parameters(module):
    """Effective weight, bias, epsilon and whether the mean is taken off, from the module itself."""
    name = type(module).__name__
    epsilon = getattr(module, "eps", None) or getattr(module, "variance_epsilon", None)
    bias = getattr(module, "bias", None)
    weight = module.weight.double() + (1 if name.startswith("Gemma") else 0)
    bias = torch.zeros_like(weight) if bias is None else bias.double()
    return weight, bias, epsilon, "RMS" not in name


def at_scale_of(module, x, part):
    """What a norm makes of a part of ``x`` at the scale of ``x``, without its bias."""
    weight, _, epsilon, centred = norm_parameters(module)
    if centred:
        x, part = x - x.mean(), part - part.mean(-1, keepdim=True)
    return part / (x.square().mean() + epsilon).sqrt() * weight


@torch.no_grad()
def naive(model, prompt, right, wrong):
    """Contributions and heads of one prompt, in float64, from a full cache and the model's own modules."""
    cache = {}

    def keeper(name):
        def keep(x, hook):
            cache[name] = x[0, x.shape[1] - 1].double().flatten()

        return keep

    bridge, layers = model.bridge, range(model.n_layers)
    taps = ["hook_in", "hook_attn_out", "hook_mlp_out", "hook_out", "attn.o.hook_in"]
    names = [f"blocks.{layer}.{tap}" for layer in layers for tap in taps]
    pairs = [(name, keeper(name)) for name in names]
    bridge.run_with_hooks(torch.tensor([model.token_ids(prompt)]), fwd_hooks=pairs)
    final, norm = cache[f"blocks.{layers[-1]}.hook_out"], bridge.ln_final.original_component
    head = bridge.original_model.get_output_embeddings()
    direction = (head.weight[right] - head.weight[wrong]).double()

    def value(part):
        return float(at_scale_of(norm, final, part) @ direction)

    bias = float(norm_parameters(norm)[1] @ direction)
    if head.bias is not None:
        bias += float(head.bias[right] - head.bias[wrong])
    values, heads = [bias, value(cache["blocks.0.hook_in"])], []
    for layer in layers:
        attention, z = bridge.blocks[layer].attn, cache[f"blocks.{layer}.attn.o.hook_in"]
        values += [value(cache[f"blocks.{layer}.{tap}"]) for tap in ("hook_attn_out", "hook_mlp_out")]
        out = attention.o.original_component
        n_heads = model.bridge.cfg.n_heads
        masks = torch.eye(n_heads).repeat_interleave(len(z) // n_heads, dim=1)
        none = out(torch.zeros_like(z).float()).double()
        parts = out((z * masks).float()).double() - none
        if "ln1_post" in bridge.blocks[layer].submodules:
            post = bridge.blocks[layer].ln1_post.original_component
            parts = at_scale_of(post, out(z.float()).double(), parts)
        heads.append([value(part) for part in parts])
    return values, heads


def test_every_component_and_head_equals_the_naive_formula(model, items, space, found):
    for row, prompt in enumerate(items.prompts):
        ids = [space.token_ids[k] for k in (found.right[row], found.wrong[row])]
        values, heads = naive(model, prompt, *ids)
        scale = np.abs(values).sum()
        np.testing.assert_allclose(found.values[row], values, rtol=0, atol=EXACT * scale)
        np.testing.assert_allclose(found.heads[row], heads, rtol=0, atol=EXACT * scale)


def test_contributions_add_up_to_the_models_own_logits(model, items, space, found):
    """Of every class, through the soft cap, against a plain Hugging Face forward."""
    cap = getattr(model.bridge.original_model.config, "final_logit_softcapping", None)
    summed = torch.from_numpy(found.logits).double().sum(1)
    summed = summed if cap is None else cap * torch.tanh(summed / cap)
    with torch.no_grad():
        own = torch.stack(
            [
                model.bridge.original_model(torch.tensor([model.token_ids(prompt)])).logits[0, -1]
                for prompt in items.prompts
            ]
        )[:, list(space.token_ids)]
    assert float((summed - own).abs().max() / own.abs().max()) < EXACT
    assert found.error < EXACT
    others = own.scatter(1, torch.from_numpy(found.right)[:, None], -torch.inf)
    assert found.wrong.tolist() == others.argmax(1).tolist()
    assert found.components == components_of(model.n_layers)


def test_batches_and_order_do_not_matter(model, items, space, found):
    backwards = items.select(range(len(items))[::-1])
    again = attribute(model, backwards, space, batch_tokens=1)
    np.testing.assert_allclose(again.values[::-1], found.values, rtol=0, atol=1e-4)
    assert again.heads is None and again.item_ids[::-1] == found.item_ids


class TestNorm:
    @pytest.mark.parametrize("kind", [torch.nn.LayerNorm, torch.nn.RMSNorm])
    @pytest.mark.parametrize("weighted", [True, False])
    def test_parts_of_a_sum_add_up(self, kind, weighted):
        generator = torch.Generator().manual_seed(0)
        norm = kind(16, elementwise_affine=weighted)
        for parameter in norm.parameters():
            parameter.data = torch.randn(16, generator=generator)
        parts, direction = (torch.randn(n, 16, generator=generator) for n in (5, 3))
        x = parts.sum(0, keepdim=True)
        frozen = FrozenNorm.of(norm, 16)
        assert frozen.centred == (kind is torch.nn.LayerNorm)
        with torch.no_grad():
            normed = norm(x)
            naive_bias = norm(torch.zeros(1, 16))[0]
        scale = frozen.inverse_scale(x, normed)
        shares = parts @ frozen.before(direction).T * scale
        expected = (normed - naive_bias) @ direction.T
        torch.testing.assert_close(shares.sum(0, keepdim=True), expected, rtol=1e-5, atol=1e-5)


class TestRefusals:
    @pytest.mark.parametrize(
        ("point", "what"), [("blocks.2.hook_in", "contributions"), ("unembed.hook_in", "last residual")]
    )
    def test_what_does_not_add_up_is_refused_with_the_error(self, tiny_model, items, point, what):
        space = tiny_model.answer_space(items.prompts)
        with (
            tiny_model.hooks([(point, lambda x, hook: 1.1 * x)]),
            pytest.raises(ModelError, match=f"{what}.*5e-05, found a relative error of 0"),
        ):
            attribute(tiny_model, items, space)

    def test_heads_that_are_scaled_are_refused(self, tiny_model, items):
        space = tiny_model.answer_space(items.prompts)
        with (
            tiny_model.hooks([("blocks.1.attn.o.hook_out", lambda x, hook: 1.1 * x)]),
            pytest.raises(ModelError, match="heads"),
        ):
            attribute(tiny_model, items, space, heads=True)

    def test_blocks_of_another_kind_are_refused(self, tiny_model, items):
        space, check = tiny_model.answer_space(items.prompts), tiny_model.check
        try:
            tiny_model.check = replace(check, taps=False)
            with pytest.raises(ModelError, match="nothing else"):
                attribute(tiny_model, items, space)
        finally:
            tiny_model.check = check

    def test_answers_of_several_tokens_are_refused(self, tiny_model, items):
        space = AnswerSpace(("1", "23"), ((5,), (6, 7)))
        with pytest.raises(ValueError, match="one token each"):
            attribute(tiny_model, items, space)

    def test_an_answer_outside_the_classes_is_refused(self, tiny_model, items):
        space = AnswerSpace(("x", "y"), ((5,), (6,)))
        with pytest.raises(ValueError, match="not one of the classes"):
            attribute(tiny_model, items, space)


def made(leads, *, third=0.0, heads=None):
    """An attribution whose leads of right over wrong along the components are given; third answers beside."""
    leads = np.asarray(leads, dtype=float)
    n, k = leads.shape
    logits = np.zeros((n, k, 4))
    logits[..., 0] = np.diff(leads, axis=1, prepend=0)
    logits[..., 2:] = np.diff(np.broadcast_to(third, (n, k)), axis=1, prepend=0)[..., None]
    return Attribution(
        tuple(f"s{row}" for row in range(n)),
        tuple("0123"),
        np.zeros(n, dtype=int),
        np.ones(n, dtype=int),
        components_of((k - 2) // 2),
        logits,
        heads,
        0.0,
    )


class TestTables:
    def test_means_intervals_and_groups(self):
        rng = np.random.default_rng(0)
        steps = rng.standard_normal((40, 6))
        a = made(steps.cumsum(1), heads=rng.standard_normal((40, 2, 3)))
        families = ["a"] * 15 + ["b"] * 25
        outcomes = ["resolved", "overprocessed"] * 20
        table = component_table(a, families, outcomes, np.arange(40) // 2)
        assert list(table.columns) == [
            *("family", "outcome", "component", "layer", "head", "n", "n_shapes", "value", "low", "high"),
            "detectable",
        ]
        assert set(table.family) == {"a", "b", "overall"} and len(table) == 9 * (6 + 6)
        inside = table[(table.family == "b") & (table.outcome == "overprocessed")]
        rows = np.flatnonzero((np.array(families) == "b") & (np.array(outcomes) == "overprocessed"))
        assert inside.value.to_numpy()[:6] == pytest.approx(steps[rows].mean(0))
        assert inside.value.to_numpy()[6:] == pytest.approx(a.heads[rows].mean(0).ravel())
        assert (inside.n == len(rows)).all() and (
            (inside.low < inside.value) & (inside.value < inside.high)
        ).all()
        assert inside["layer"].tolist()[2:6] == [0, 0, 1, 1] and inside["layer"].isna().sum() == 2
        assert inside["head"].tolist()[6:] == [0, 1, 2, 0, 1, 2] and inside["head"].isna().sum() == 6

    def test_one_family_has_no_row_for_all(self):
        a = made(np.ones((4, 4)))
        table = component_table(a, ["a"] * 4, ["resolved"] * 4, range(4))
        assert set(table.family) == {"a"} and set(table.outcome) == {"all", "resolved"}

    @pytest.mark.parametrize("tell", [component_table, lambda a, *rest: overtake_table(overtakes(a), *rest)])
    def test_a_label_too_few_is_refused(self, tell):
        with pytest.raises(ValueError, match="each of 4 samples"):
            tell(made(np.ones((4, 4))), ["a"] * 3, ["resolved"] * 4, range(4))

    def test_frames_have_a_row_per_sample_and_component(self):
        a = made([[0, 1, 3, -2.0], [1, 1, 1, 1]], heads=np.full((2, 1, 2), 0.5))
        frame = a.to_frame()
        assert len(frame) == 2 * (4 + 2) and frame["right"].unique().tolist() == ["0"]
        first = frame[frame.id == "s0"]
        assert first.value.tolist() == [0, 1, 2, -5, 0.5, 0.5]
        assert first.component.tolist() == ["bias", "embed", "attn", "mlp", "attn", "attn"]
        assert "2 samples x 4 components, heads 1 x 2" in repr(a)
        moves = overtakes(a).to_frame()
        assert moves.component.tolist() == ["mlp", NOWHERE] and moves.layer.tolist() == [0, pd.NA]
        assert moves.before.tolist()[0] == 3 and moves.after.tolist()[0] == -2


def naive_overtake(leads):
    """Component that takes off the most of those that end a lead, and the sum of leads."""
    best, where = 0.0, NEVER
    for k in range(1, len(leads)):
        if leads[k - 1] > 0 >= leads[k] and leads[k - 1] - leads[k] > best:
            best, where = leads[k - 1] - leads[k], k
    return (where if leads[-1] <= 0 else NEVER), sum(x for x in leads if x > 0)


class TestOvertakes:
    def test_equals_a_plain_loop(self):
        rng = np.random.default_rng(1)
        a = replace(made(np.zeros((300, 8))), logits=rng.standard_normal((300, 8, 4)))
        found = overtakes(a)
        for row in range(300):
            leads = a.logits[row].cumsum(0) - a.logits[row, :, [1]].T.cumsum(0)
            where, area = naive_overtake(leads[:, 0])
            assert found.crossed[row] == where
            assert found.led[row] == (area > max(naive_overtake(leads[:, k])[1] for k in (2, 3)))
        assert 0.2 < found.led.mean() < 0.5  # one of three

    def test_the_largest_loss_counts_and_only_where_the_wrong_answer_stays_ahead(self):
        found = overtakes(
            made(
                [
                    [0, 1, 3, -2, 0.1, -0.1],  # twice, the first time by more
                    [0, 1, 3, -2, 1, 2],  # regained
                    [0, -1, -1, -2, -1, -2],  # never ahead
                    [0, 1, 2, 1, 1, 1],  # never behind
                    [0, 1, 2, 1, 1, 0],  # a tie is no lead
                ]
            )
        )
        assert found.crossed.tolist() == [3, NEVER, NEVER, NEVER, 5]
        assert found.components[3] == Component("mlp", 0)

    def test_a_lead_that_any_answer_has_is_none(self):
        leads = np.tile([0, 1.0, 2, -3, -3, -3], (2, 1))
        third = np.array([[0, 0.5, 1, -1, -1, -1], [0, 1.0, 2.5, -3, -3, -3]])
        found = overtakes(made(leads, third=third))
        assert found.crossed.tolist() == [3, 3]
        assert found.at.tolist() == [3, NEVER]

    def test_shares_add_up_to_one(self):
        rng = np.random.default_rng(2)
        a = replace(made(np.zeros((50, 6))), logits=rng.standard_normal((50, 6, 4)))
        found = overtakes(a)
        table = overtake_table(found, ["a"] * 50, ["overprocessed"] * 50, np.arange(50))
        whole = table[table.outcome == "all"]
        assert whole["share"].sum() == pytest.approx(1) and whole["count"].sum() == 50
        assert whole[whole.component == NOWHERE]["count"].item() == (found.at == NEVER).sum()
        assert list(table.columns) == [
            *("family", "outcome", "component", "layer", "count", "n", "share", "low", "high")
        ]
        assert ((whole.low <= whole.share) & (whole.share <= whole.high)).all()

    def test_two_classes_are_too_few(self):
        a = made(np.ones((2, 4)))
        with pytest.raises(ValueError, match="third answers, found 2"):
            overtakes(replace(a, classes=("0", "1"), logits=a.logits[..., :2]))


LAYERS = 12


def attributed(hit, *, correlation=0.0, n=240, seed=0, mix=MIX):
    planted = plant(draw_truth(n, LAYERS, mix=mix, seed=seed), hit=hit, correlation=correlation, seed=seed)
    space = planted.model.answer_space(planted.items.prompts)
    return planted.truth, attribute(planted.model, planted.items, space, heads=True)


def planted_at(truth):
    """Number of the MLP that overwrites."""
    return np.where(truth.ready_until == NEVER, NEVER, 2 + 2 * truth.ready_until + 1)


class TestPlanted:
    def test_without_noise_every_component_has_what_is_planted(self):
        truth, found = attributed(1.0)
        over, moves = truth.kind == "overprocessed", overtakes(found)
        np.testing.assert_array_equal(moves.at, planted_at(truth))
        assert moves.led[over].all() and over.sum() > 20
        names = np.array([f"{c.component} {c.layer}" for c in found.components])
        for row in np.flatnonzero(over):
            ready, lost = truth.ready_from[row], truth.ready_until[row]
            wrote = dict(zip(names, found.values[row].round(3), strict=True))
            # The answer is worth SCALE; what overwrites it, twice that.
            assert {name: v for name, v in wrote.items() if v} == {f"mlp {ready}": 8.0, f"mlp {lost}": -16.0}
        assert np.abs(found.heads[over]).max() == 0

    @pytest.mark.parametrize("correlation", [0.0, 0.5])
    def test_the_planted_component_is_found_in_noise(self, correlation):
        mix = {"overprocessed": 0.6, "unresolved": 0.2, "misresolved": 0.2}
        truth, found = attributed(0.95, correlation=correlation, n=300, seed=5, mix=mix)
        over, moves = truth.kind == "overprocessed", overtakes(found)
        assert (moves.crossed == planted_at(truth))[over].mean() >= 0.95
        assert (moves.at == planted_at(truth))[over].mean() >= 0.8
        # Of answers that never were ready, a ninth passes for having led.
        assert (moves.at != NEVER)[~over].mean() < 0.18

    def test_much_noise_hides_some_and_invents_none(self):
        truth, found = attributed(0.8, n=300, seed=6)
        over, moves = truth.kind == "overprocessed", overtakes(found)
        assert (moves.crossed == planted_at(truth))[over].mean() >= 0.75
        assert (moves.at == planted_at(truth))[over].mean() >= 0.6
        never = np.isin(truth.kind, ("misresolved", "unresolved", "no_brewing"))
        assert (moves.at != NEVER)[never].mean() < 0.18
        assert (moves.at[truth.kind == "resolved"] == NEVER).all()

    def test_random_labels_have_no_contributions(self):
        _, found = attributed(0.8, n=200, seed=7)
        rng = np.random.default_rng(0)
        right = rng.integers(10, size=len(found))
        wrong = (right + rng.integers(1, 10, size=len(found))) % 10
        random = replace(found, right=right, wrong=wrong)
        table = component_table(random, ["p"] * len(found), ["x"] * len(found), np.arange(len(found)))
        whole = table[(table.outcome == "all") & (table.detectable > 0) & table["head"].isna()]
        beside = (whole.low > 0) | (whole.high < 0)
        assert len(whole) >= LAYERS and beside.mean() < 0.2
        real = component_table(found, ["p"] * len(found), ["x"] * len(found), np.arange(len(found)))
        real = real[(real.outcome == "all") & (real.detectable > 0) & real["head"].isna()]
        assert ((real.low > 0) | (real.high < 0)).mean() > 0.3
