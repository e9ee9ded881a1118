"""Tiny random models, built in code and saved as Hugging Face folders; no network, no downloads."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

SPECIAL = ("<pad>", "<s>", "</s>")
VOCABULARY = 256 + len(SPECIAL)
LAYERS = 4
WIDTH = 32
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_ROTARY = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    # Large weights: at 0.02 a random model is nearly linear and hides mistakes.
    "initializer_range": 0.2,
    **_IDS,
}

ARCHITECTURES = ("qwen2", "llama", "gpt2", "gemma2")


def tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    """One token per byte, so each digit is one token; ``bos`` puts ``<s>`` in front of every text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *alphabet))}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def network(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A random causal language model of one architecture, in eval mode, float32."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        match architecture:
            case "qwen2":
                model = Qwen2ForCausalLM(Qwen2Config(**_ROTARY))
            case "llama":
                model = LlamaForCausalLM(LlamaConfig(**_ROTARY))
            case "gemma2":
                # The soft caps are far below the logits' scale, so that a read-out without them shows.
                model = Gemma2ForCausalLM(
                    Gemma2Config(
                        **_ROTARY,
                        head_dim=8,
                        query_pre_attn_scalar=8,
                        sliding_window=16,
                        final_logit_softcapping=2.0,
                        attn_logit_softcapping=5.0,
                    )
                )
            case "gpt2":
                model = GPT2LMHeadModel(
                    GPT2Config(
                        vocab_size=VOCABULARY,
                        n_embd=WIDTH,
                        n_layer=LAYERS,
                        n_head=4,
                        n_positions=1024,
                        initializer_range=0.2,
                        **_IDS,
                    )
                )
            case _:
                raise ValueError(f"unknown architecture {architecture!r}; there are {ARCHITECTURES}")
        for name, parameter in model.named_parameters():
            if "norm" in name or ".ln_" in name or name.endswith("bias"):
                # Fresh norms and biases are ones and zeros; then leaving them out would not show.
                parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def build(architecture: str, folder: Path, seed: int = 0) -> Path:
    """Save a tiny random model with its tokenizer to ``folder``; Llama and Gemma-2 add a BOS."""
    network(architecture, seed).save_pretrained(folder)
    tokenizer(bos=architecture in ("llama", "gemma2")).save_pretrained(folder)
    return folder
