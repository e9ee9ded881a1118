"""Injection, three ways, on the same work: the naive loop, rows of full prompts, and the growing batch.

    python benchmarks/injection.py --samples 64 --layers 16 --width 256

A random Qwen2 of that size reads a target of eight tokens; every sample is injected at every layer. The
naive loop, one forward per sample and layer, is timed on a part of the samples and scaled up; all three are
compared there.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from brewlens import load_model
from brewlens.answer_logits import AnswerLogits


def random_model(layers: int, width: int, folder: Path) -> Path:
    """A random Qwen2 with one token per byte, saved as a Hugging Face folder."""
    config = Qwen2Config(
        vocab_size=260,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 64,
        architectures=["Qwen2ForCausalLM"],
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(["<pad>", *alphabet])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>").save_pretrained(folder)
    return folder


def naive(model, residuals, targets, space) -> AnswerLogits:
    """One forward per sample and layer, with a hook on the block."""
    rows = []
    for values, target in zip(residuals, targets, strict=True):
        batch = model.encode([target])
        for layer, value in enumerate(values):
            with model.hooks(
                [
                    (
                        model.block_output(layer),
                        lambda x, hook, v=value, b=batch: b.replace(x, v[None].to(x.dtype)),
                    )
                ]
            ):
                rows.append(model.run(batch, space))
    return AnswerLogits.concatenate(rows).reshape(*residuals.shape[:2])


def timed(call):
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--naive-samples", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(random_model(options.layers, options.width, Path(folder)), device="cpu")
    space = model.answer_space(['x = "'])
    generator = torch.Generator().manual_seed(0)
    residuals = torch.randn(options.samples, options.layers, options.width, generator=generator)
    targets = ['# it is "'[-8:]] * options.samples
    few = slice(0, options.naive_samples)
    model.inject(residuals[few], targets[few], space)  # warm-up
    grown, growing_s = timed(lambda: model.inject(residuals, targets, space))
    model.grows = False
    rows, rows_s = timed(lambda: model.inject(residuals, targets, space))
    loop, loop_s = timed(lambda: naive(model, residuals[few], targets[few], space))
    loop_s *= options.samples / options.naive_samples
    scale = loop.logits.abs().max()
    print(
        f"{options.samples} samples x {options.layers} layers, d = {options.width}, "
        f"{options.threads} thread(s)"
    )
    print(f"{'way':34} {'seconds':>9} {'ratio':>7} {'largest relative difference':>28}")
    for name, seconds, result in (
        (f"naive loop (from {options.naive_samples} samples)", loop_s, loop),
        ("rows of full prompts", rows_s, rows),
        ("growing batch", growing_s, grown),
    ):
        difference = (result.logits[few] - loop.logits).abs().max() / scale
        print(f"{name:34} {seconds:9.2f} {loop_s / seconds:7.1f} {difference:28.1e}")


if __name__ == "__main__":
    main()
