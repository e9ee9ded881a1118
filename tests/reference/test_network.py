"""The trained computation is Qwen2's, the optimiser is Muon, and padding leaks nowhere."""

import pytest
import torch
from transformers import Qwen2ForCausalLM

from brewlens.reference.config import TrainConfig
from brewlens.reference.muon import StackedMuon
from brewlens.reference.network import StackedQwen2

CONFIG = TrainConfig(steps=1, layers=3, width=32, heads=4, kv_heads=2, mlp_width=48).model_config(300)


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 300, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def network() -> StackedQwen2:
    network = StackedQwen2(CONFIG, seed=1)
    with torch.no_grad():  # weights of an untrained network are so small that errors would hide
        for weight in network.parameters():
            weight.add_(
                0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
            )
    return network


def test_equals_transformers(network):
    theirs = Qwen2ForCausalLM(CONFIG).eval()
    missing, unexpected = theirs.load_state_dict(network.hf_state(), strict=False)
    theirs.tie_weights()
    assert (missing, unexpected) == (["lm_head.weight"], [])
    tokens = rows(4, 23)
    torch.testing.assert_close(network.logits(tokens), theirs(tokens).logits, atol=5e-5, rtol=1e-5)
    assert network.logits(tokens).std() > 0.1


def test_loss_is_the_weighted_cross_entropy(network):
    tokens = rows(3, 12)
    weights = torch.rand(3, 11, generator=torch.Generator().manual_seed(0))
    loss, each = network.loss(tokens, weights)
    logits = network.logits(tokens)[:, :-1]
    want = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    torch.testing.assert_close(each.flatten(), want, atol=5e-5, rtol=1e-5)
    torch.testing.assert_close(loss, (want * weights.flatten()).sum() / 3, atol=5e-5, rtol=1e-5)


def test_padding_leaks_into_neither_loss_nor_gradient(network):
    tokens, weights = rows(2, 10), torch.ones(2, 9)

    def gradients(tokens, weights):
        network.zero_grad()
        loss, _ = network.loss(tokens, weights)
        loss.backward()
        return loss.detach(), [weight.grad.clone() for weight in network.parameters()]

    plain = gradients(tokens, weights)
    for filler in (0, 7):
        padded = torch.cat([tokens, torch.full((2, 5), filler)], dim=1)
        longer = torch.cat([weights, torch.zeros(2, 5)], dim=1)
        torch.testing.assert_close(gradients(padded, longer), plain, atol=1e-5, rtol=1e-4)
    counted = torch.cat([weights, torch.ones(2, 5)], dim=1)  # the positive control: counted, it matters
    assert abs(gradients(padded, counted)[0] - plain[0]) > 0.1


def test_muon_is_that_of_torch():
    for shape in [(3, 16, 16), (3, 8, 16), (3, 48, 16), (3, 16, 48)]:
        start, grads = torch.randn(shape), [torch.randn(shape) for _ in range(3)]
        mine = torch.nn.Parameter(start.clone())
        theirs = [torch.nn.Parameter(matrix.clone()) for matrix in start]
        stacked = StackedMuon([mine], 0.02, 0.9, 0.1)
        single = torch.optim.Muon(
            theirs, 0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
        )
        for grad in grads:
            mine.grad = grad.clone()
            for weight, g in zip(theirs, grad, strict=True):
                weight.grad = g.clone()
            stacked.step()
            single.step()
        moved = (mine - start).abs().mean()
        assert (mine - torch.stack(list(theirs))).abs().mean() < 0.02 * moved  # it computes in bfloat16


def test_muon_refuses_a_vector():
    with pytest.raises(ValueError, match=r"\[layer, out, in\]"):
        StackedMuon([torch.nn.Parameter(torch.zeros(3, 4))])


def test_initial_weights_leave_the_random_state_alone():
    before = torch.get_rng_state()
    first, second = StackedQwen2(CONFIG, seed=5), StackedQwen2(CONFIG, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
