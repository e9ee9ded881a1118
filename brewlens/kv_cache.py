"""Keys and values of prompt prefixes: how a model is handed them, and how many rows share them.

A Hugging Face model makes masks and positions from a cache and hands it on to the attention of each block.
There TransformerLens' bridge takes it up, from a keyword. The two do not always agree on that keyword: since
transformers 5.24 blocks hand on ``cache``, and TransformerLens 4.3 reads ``past_key_values`` or
``layer_past``. A cache under a keyword that nobody reads is lost without an error. So :class:`Handover`
relies on no keyword: it watches which attentions read the cache that the model is given, and gives it to the
others.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import DynamicCache

from brewlens.errors import ModelError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

READ_BY_BRIDGES = ("past_key_values", "layer_past", "cache")
"""Keywords from which attention bridges of TransformerLens read a cache, or may come to."""


class PrefixCache(DynamicCache):
    """Keys and values of prefixes, each shown to any number of rows and never written to.

    Args:
        filled: Keys and values of a batch of prefixes of one length.
        owner: ``[row]`` which of them each row of the growing batch reads.
    """

    def __init__(self, filled: DynamicCache, owner: Int[Tensor, "row"]) -> None:
        super().__init__()
        self.layers = filled.layers
        self.owner = owner
        self.one = bool((owner == owner[0]).all())

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        layer: Any = self.layers[layer_idx]
        return self._behind(layer.keys, key_states), self._behind(layer.values, value_states)

    def _behind(self, prefix: Tensor, new: Tensor) -> Tensor:
        if self.one:  # a view, where picking rows would copy
            first = int(self.owner[0])
            prefix = prefix[first : first + 1].expand(len(new), -1, -1, -1)
        else:
            prefix = prefix[self.owner[: len(new)].to(prefix.device)]
        return torch.cat([prefix, new], dim=-2)


@dataclass(frozen=True)
class Handover:
    """The way of a cache into every attention of one bridge.

    Attributes:
        argument: The keyword under which the model takes its cache.
        keywords: The keyword of each attention that would not get the cache from its block.
    """

    argument: str
    keywords: Mapping[nn.Module, str]

    @classmethod
    def of(cls, bridge: TransformerBridge) -> Handover:
        """Watch a forward of two tokens, and find for each attention a way that works.

        Raises:
            ModelError: If an attention reads no cache, under whatever keyword.
        """
        attentions = _attentions(bridge)
        way = cls(_argument(bridge.original_model), {})
        reading = way._readers(bridge)
        for keyword in READ_BY_BRIDGES:
            missed = {part: keyword for part in attentions if part not in reading}
            tried = cls(way.argument, {**way.keywords, **missed})
            reading = tried._readers(bridge) if missed else reading
            way = cls(way.argument, {part: word for part, word in tried.keywords.items() if part in reading})
        if lost := [name for part, name in attentions.items() if part not in reading]:
            raise ModelError(
                f"the keys and values of a prefix do not reach {len(lost)} of {len(attentions)} attentions, "
                f"first {lost[0]}"
            )
        return way

    @contextmanager
    def given(self, cache: DynamicCache) -> Iterator[dict[str, Any]]:
        """Keywords for the bridge's forward; inside, every attention is handed the cache."""
        with ExitStack() as stack:
            for part, keyword in self.keywords.items():
                hook = _giver(cache, keyword)
                stack.callback(part.register_forward_pre_hook(hook, with_kwargs=True).remove)
            yield {self.argument: cache}

    @torch.no_grad()
    def _readers(self, bridge: TransformerBridge) -> set[nn.Module]:
        """The attentions that read a cache which is handed over in this way."""
        entered: list[nn.Module] = []
        readers: set[nn.Module] = set()

        class Watched(DynamicCache):
            def update(self, *args: Any, **kwargs: Any) -> Any:
                readers.update(entered[-1:])
                return super().update(*args, **kwargs)

        network: Any = bridge.original_model
        tokens = torch.zeros(1, 2, dtype=torch.long, device=next(network.parameters()).device)
        with ExitStack() as stack:
            for part in _attentions(bridge):
                handle = part.register_forward_pre_hook(lambda module, _: entered.append(module))
                stack.callback(handle.remove)
            inputs = stack.enter_context(self.given(Watched(config=network.config)))
            bridge(tokens, use_cache=False, output_attentions=False, **inputs)
        return readers


def _attentions(bridge: TransformerBridge) -> dict[nn.Module, str]:
    """The attentions of a bridge, with their names in it."""
    from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge

    return {
        part: name.replace("_original_component.", "")
        for name, part in bridge.named_modules()
        if isinstance(part, AttentionBridge)
    }


def _argument(network: nn.Module) -> str:
    """The keyword under which a model takes its cache: by its annotation, or one of the usual names."""
    parameters = inspect.signature(network.forward).parameters
    typed = [name for name, p in parameters.items() if "Cache" in str(p.annotation)]
    named = [name for name in reversed(READ_BY_BRIDGES) if name in parameters]
    return next(iter([*typed, *named]), "past_key_values")


def _giver(cache: DynamicCache, keyword: str) -> Any:
    def give(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        others = {name: value for name, value in kwargs.items() if value is not cache}
        return args, {**others, keyword: cache}

    return give
