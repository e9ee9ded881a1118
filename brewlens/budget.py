"""Budget: how much goes through a model at a time, so that memory is bounded and, on a processor, the caches
hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brewlens.model import HookedModel

# Bytes of one forward beside the weights. On a processor, more leaves the caches and is slower, not faster.
PROMPTS = {"cpu": 48 * 2**20, "gpu": 2**31}
ROWS = {"cpu": 64 * 2**20, "gpu": 2**31}
LOGITS = {"cpu": 32 * 2**20, "gpu": 2**30}


def kind(model: HookedModel) -> str:
    return "cpu" if model.device.type == "cpu" else "gpu"


def tokens_at_once(model: HookedModel, length: int) -> int:
    """Tokens of whole prompts, the longest of ``length``, that one forward may take."""
    heads = int(model.bridge.cfg.n_heads)
    each = row_bytes(model, 0, 1) + model.dtype.itemsize * 3 * heads * length  # scores, mask, pattern
    return max(1, PROMPTS[kind(model)] // each)


def row_bytes(model: HookedModel, prefix: int, steps: int) -> int:
    """About what one row of a forward takes at its widest: a block's inner activations.

    Args:
        model: The model.
        prefix: Tokens that are read from a cache.
        steps: Tokens that run.
    """
    cfg, width = model.bridge.cfg, model.d_model
    heads = int(cfg.n_heads) * int(cfg.d_head)
    inner = int(getattr(cfg, "d_mlp", None) or 4 * width)
    # Residual, its norm, queries, keys, values, their rotations and the attention's output; the MLP's gate,
    # up, activation and product; the prefix's keys and values, picked for the row and repeated per head.
    return model.dtype.itemsize * (steps * (4 * (width + heads) + 4 * inner) + (prefix + steps) * 4 * heads)


def cache_bytes(model: HookedModel, prefix: int) -> int:
    """About what the keys and values of one prefix take in all layers."""
    cfg = model.bridge.cfg
    heads = int(getattr(cfg, "n_key_value_heads", None) or cfg.n_heads)
    return model.dtype.itemsize * model.n_layers * prefix * 2 * heads * int(cfg.d_head)


def targets_at_once(model: HookedModel, prefix: int, steps: int, memory: int) -> int:
    """Target prompts that may run together and stay, in a quarter of ``memory``.

    Args:
        model: The model.
        prefix: Their first tokens, of which keys and values stay.
        steps: The tokens behind these, of which a state per layer stays.
        memory: In bytes.
    """
    states = model.dtype.itemsize * model.n_layers * steps * model.d_model
    kept = memory // (4 * (cache_bytes(model, prefix) + states))
    longest = max(prefix, steps)
    return max(1, min(kept, tokens_at_once(model, prefix + steps) // longest))


def logit_rows(model: HookedModel) -> int:
    """Rows of the vocabulary's logits, in float32, that may exist at a time."""
    return max(1, LOGITS[kind(model)] // (4 * model.d_vocab))
