"""Random models and random prompts: what they say means nothing, what they cost is that of a real one."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from benchmarks.settings import Shape
from brewlens.model import HookedModel


def random_model(layers: int, width: int, folder: Path) -> Path:
    """A random Qwen2 with one token per byte, saved as a Hugging Face folder."""
    network(Shape.of(layers, width)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def hooked(
    shape: Shape, folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> HookedModel:
    """A random model with hooks, made on its device; its tokenizer and configuration go to ``folder``."""
    from transformer_lens.model_bridge import TransformerBridge

    bare = network(shape, device, dtype, "eager")
    bare.config.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    bridge = TransformerBridge.boot_transformers(
        str(folder),
        hf_model=bare,
        # The bridge changes the settings of the tokenizer that it is given, so it gets one of its own.
        tokenizer=AutoTokenizer.from_pretrained(folder),
        device=device,
        dtype=dtype,
    )
    return HookedModel.from_bridge(
        bridge, AutoTokenizer.from_pretrained(folder), name=f"random {shape.layers} x {shape.width}"
    )


def network(
    shape: Shape, device: str = "cpu", dtype: torch.dtype = torch.float32, attention: str = "sdpa"
) -> PreTrainedModel:
    """A random Qwen2, made on its device; one shape, device and dtype always get the same weights."""
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        architectures=["Qwen2ForCausalLM"],
    )
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(["<pad>", *alphabet])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")


def random_prompts(n: int, tokens: tuple[int, int], seed: int = 0) -> list[str]:
    """Letters, one token each; lengths spread evenly from the least to the most, both included."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(tokens[0], tokens[1] + 1, (n,), generator=generator).tolist()
    return [
        "".join(chr(97 + k) for k in torch.randint(26, (length,), generator=generator).tolist())
        for length in lengths
    ]
