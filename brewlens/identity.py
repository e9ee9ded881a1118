"""What a model and its tokenizer are, told from their content, not from their names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """blake2b over names, types, shapes and bytes of the weights, in the order of the names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """blake2b over a tokenizer's definition: vocabulary, rules and special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.dumps(tokenizer.get_vocab(), sort_keys=True) if backend is None else backend.to_str()
    special = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    return hashlib.blake2b(f"{rules}\n{special}".encode(), digest_size=16).hexdigest()


def context(config: Any, declared: int | None) -> int | None:
    """Most tokens that a model reads; None if it does not say.

    A model with longrope embeddings switches them for a whole batch as soon as one prompt is longer than it
    was first trained for, so there it ends.

    Args:
        config: The Hugging Face configuration.
        declared: What TransformerLens took from it.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    limits = [declared]
    for part in (rope, *(v for v in rope.values() if isinstance(v, dict))):
        if part.get("rope_type") == "longrope":
            limits += [part.get("original_max_position_embeddings")]
            limits += [getattr(config, "original_max_position_embeddings", None)]
    return min((limit for limit in limits if limit), default=None)
