"""A prefix reaches every attention, whatever the libraries call it; where it cannot, that is said."""

from __future__ import annotations

import re
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from brewlens import kv_cache
from brewlens.kv_cache import Handover
from brewlens.loading import load_model
from brewlens.model import HookedModel, ModelError
from brewlens.selfcheck import TESTED


def attentions(model: HookedModel) -> list[torch.nn.Module]:
    return list(kv_cache._attentions(model.bridge))


@contextmanager
def handed_on_as(model: HookedModel, keyword: str):
    """Blocks of an imagined release hand their cache on under another keyword."""

    def rename(module, args, kwargs):
        return args, {keyword if isinstance(v, DynamicCache) else k: v for k, v in kwargs.items()}

    handles = [part.register_forward_pre_hook(rename, with_kwargs=True) for part in attentions(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.fixture
def fresh(tiny_folders):
    """A model of its own, as hooks are left on it."""
    return load_model(tiny_folders["qwen2"], device="cpu")


def test_a_keyword_that_no_bridge_knows_costs_nothing(fresh):
    with handed_on_as(fresh, "keys_and_values"):
        again = HookedModel.from_bridge(fresh.bridge, fresh.tokenizer)
        assert again.grows
        handover = Handover.of(fresh.bridge)
        assert list(handover.keywords) == attentions(fresh)
        # Without the handover the cache is lost: the forward runs, and nobody reads it.
        assert not Handover(handover.argument, {})._readers(fresh.bridge)
        assert handover._readers(fresh.bridge) == set(attentions(fresh))


def test_hooks_of_the_handover_are_gone_afterwards(fresh):
    with handed_on_as(fresh, "keys_and_values"):
        again = HookedModel.from_bridge(fresh.bridge, fresh.tokenizer)
        before = [len(part._forward_pre_hooks) for part in attentions(again)]
        again.prefix_cache(again.encode(["abc"]))
        with pytest.raises(RuntimeError), again.handing(DynamicCache()):
            assert [len(p._forward_pre_hooks) for p in attentions(again)] == [n + 1 for n in before]
            raise RuntimeError
        assert [len(part._forward_pre_hooks) for part in attentions(again)] == before


def test_an_attention_that_reads_no_cache_is_named_with_versions_and_time(fresh, monkeypatch, caplog):
    monkeypatch.setattr(kv_cache, "READ_BY_BRIDGES", ("cache",))
    with handed_on_as(fresh, "keys_and_values"):
        with pytest.raises(ModelError, match=r"do not reach 4 of 4 attentions, first blocks\.0\.self_attn"):
            Handover.of(fresh.bridge)
        slow = HookedModel.from_bridge(fresh.bridge, fresh.tokenizer)
    assert not slow.grows
    told = re.search(
        r"do not reach 4 of 4 attentions.*transformers (\S+), transformer-lens (\S+); the newest versions "
        r"that brewlens is tested with are transformers (\S+), transformer-lens (\S+)\)\. Patching a prompt "
        r"of \d+ tokens takes about \d+ times as long",
        slow.check.refused,
    )
    assert told, slow.check.refused
    installed = [version(name) for name in TESTED]
    assert list(told.groups()) == [*installed, *TESTED.values()]
    assert slow.check.refused in caplog.text


def test_the_tested_versions_are_those_of_the_constraints():
    constraints = (Path(__file__).parent.parent / "constraints.txt").read_text("utf-8")
    for name, tested in TESTED.items():
        assert re.search(rf"^{name}==(\S+)", constraints, re.MULTILINE).group(1) == tested


def test_a_model_takes_its_cache_under_any_name():
    class Renamed(torch.nn.Module):
        def forward(self, tokens, memory: "DynamicCache | None" = None, use_cache: bool = False):
            pass

    class Untyped(torch.nn.Module):
        def forward(self, tokens, past_key_values=None):
            pass

    assert kv_cache._argument(Renamed()) == "memory"
    assert kv_cache._argument(Untyped()) == "past_key_values"
