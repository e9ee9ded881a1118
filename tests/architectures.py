"""Tiny random models of many architectures, of the sizes and with the tokenizer of :mod:`tiny`.

Each is drawn so that what is special about it reaches the logits: large weights, perturbed norms and biases,
windows of :data:`WINDOW` tokens, which the prompts exceed, soft caps far below the scores' scale, and rope
scalings that begin within the prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny
import torch
import transformers as hf
from tiny import LAYERS, VOCABULARY, WIDTH

WINDOW = 12
_IDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}
_OLD: dict[str, Any] = {"vocab_size": VOCABULARY, "n_layer": LAYERS, "n_head": 4, **_IDS}
_HEADS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
    **_IDS,
}
_GROUPED = {**_HEADS, "num_key_value_heads": 2}
_ALTERNATING = ["sliding_attention", "full_attention"] * (LAYERS // 2)


def _rope(kind: str = "default", theta: float = 10_000.0, **more: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": theta, **more}


CONFIGS: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "qwen2": lambda: hf.Qwen2Config(**_GROUPED),
    # Per-head norms of queries and keys, and heads wider than d_model / n_heads.
    "qwen3": lambda: hf.Qwen3Config(**_GROUPED, head_dim=16),
    "llama2": lambda: hf.LlamaConfig(**_HEADS),
    "llama2_linear": lambda: hf.LlamaConfig(**_HEADS, rope_parameters=_rope("linear", factor=4.0)),
    "llama3": lambda: hf.LlamaConfig(
        **_GROUPED,
        rope_parameters=_rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=16,
        ),
    ),
    "mistral": lambda: hf.MistralConfig(**_GROUPED, sliding_window=WINDOW),
    "gemma2": lambda: hf.Gemma2Config(
        **_GROUPED,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=WINDOW,
        layer_types=_ALTERNATING,
        final_logit_softcapping=2.0,
        attn_logit_softcapping=5.0,
    ),
    "gemma3": lambda: hf.Gemma3TextConfig(
        **_GROUPED,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=WINDOW,
        layer_types=_ALTERNATING,
        rope_parameters={
            "sliding_attention": _rope(theta=100.0),
            "full_attention": _rope("linear", factor=4.0),
        },
    ),
    "gpt2": lambda: hf.GPT2Config(**_OLD, n_embd=WIDTH, n_positions=1024),
    "pythia": lambda: hf.GPTNeoXConfig(**_HEADS, rope_parameters=_rope(partial_rotary_factor=0.5)),
    "starcoder2": lambda: hf.Starcoder2Config(**_GROUPED, sliding_window=WINDOW),
    "olmo2": lambda: hf.Olmo2Config(**_GROUPED),
    "phi3": lambda: hf.Phi3Config(**_GROUPED, sliding_window=WINDOW),
    "gptj": lambda: hf.GPTJConfig(**_OLD, n_embd=WIDTH, n_positions=1024, rotary_dim=4),
    "mixtral": lambda: hf.MixtralConfig(
        **_GROUPED, num_local_experts=4, num_experts_per_tok=2, sliding_window=WINDOW
    ),
    # Latent attention: per head, queries and keys are 8 + 4 wide (the 4 rotated), values 6.
    "deepseek_v2": lambda: hf.DeepseekV2Config(
        **_HEADS,
        first_k_dense_replace=1,
        q_lora_rank=24,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=4,
        v_head_dim=6,
        n_routed_experts=4,
        n_shared_experts=1,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        n_group=1,
        topk_group=1,
    ),
    "bloom": lambda: hf.BloomConfig(**_OLD, hidden_size=WIDTH),
    "recurrent_gemma": lambda: hf.RecurrentGemmaConfig(
        **_HEADS,
        num_key_value_heads=1,
        attention_window_size=WINDOW,
        block_types=["recurrent", "attention"],
        logits_soft_cap=2.0,
        w_init_variance_scale=1.0,
    ),
    "qwen3_next": lambda: hf.Qwen3NextConfig(
        **_GROUPED,
        head_dim=8,
        layer_types=["linear_attention", "full_attention"] * (LAYERS // 2),
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    ),
    "jamba": lambda: hf.JambaConfig(
        **_GROUPED,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=2,
        mamba_d_state=8,
        mamba_dt_rank=4,
    ),
}
# One for each attention bridge of TransformerLens that those above leave out.
FURTHER: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    # Its attention is Hugging Face's own, called as it is.
    "opt": lambda: hf.OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        word_embed_proj_dim=WIDTH,
        ffn_dim=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=1024,
        init_std=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "gpt_bigcode": lambda: hf.GPTBigCodeConfig(**_OLD, n_embd=WIDTH, n_positions=1024, multi_query=True),
    "falcon_alibi": lambda: hf.FalconConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        multi_query=False,
        parallel_attn=False,
        alibi=True,
        **_IDS,
    ),
    "mpt": lambda: hf.MptConfig(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        n_heads=4,
        n_layers=LAYERS,
        expansion_ratio=2,
        max_seq_len=1024,
        **_IDS,
    ),
    "cohere2": lambda: hf.Cohere2Config(**_GROUPED, sliding_window=WINDOW),
    "smollm3": lambda: hf.SmolLM3Config(**_GROUPED),
    "exaone4": lambda: hf.Exaone4Config(**_GROUPED, sliding_window=WINDOW, layer_types=_ALTERNATING),
    "bitnet": lambda: hf.BitNetConfig(**_GROUPED),
    "jetmoe": lambda: hf.JetMoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_key_value_heads=2,
        kv_channels=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        **_IDS,
    ),
}
CONFIGS |= FURTHER
_BOS = ("llama2", "llama2_linear", "llama3", "mistral", "gemma2", "gemma3", "mixtral", "deepseek_v2")


def network(architecture: str, seed: int = 0, **changes: Any) -> hf.PreTrainedModel:
    """A random causal language model of one architecture, in eval mode, float32.

    Args:
        architecture: One of :data:`CONFIGS`.
        seed: Of the weights.
        changes: Settings that the configuration gets instead of its own.
    """
    config = CONFIGS[architecture]()
    config.update(changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        for name, parameter in model.named_parameters():
            if "norm" in name or ".ln_" in name or name.endswith("bias"):
                # Fresh norms and biases are ones and zeros; then leaving them out would not show.
                parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def build(architecture: str, folder: Path, seed: int = 0) -> Path:
    """Save a tiny random model with its tokenizer to ``folder``; some tokenizers add a BOS."""
    network(architecture, seed).save_pretrained(folder)
    tiny.tokenizer(bos=architecture in _BOS).save_pretrained(folder)
    return folder
