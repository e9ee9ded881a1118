"""Injection of every sample at every layer, five ways on the same work, beside the machine's limit.

The limit is what the blocks' matrix products take at the measured peak: a sample written at block ``l``
passes ``L - 1 - l`` blocks, so ``N`` samples need ``N L (L - 1) / 2`` evaluations of a block on one token, in
whatever way. Attention over positions, norms, the read-out and the target's own run are left out of it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import models
from benchmarks.clock import race, threads
from benchmarks.machine import gemm_peak
from benchmarks.records import Record
from benchmarks.settings import Settings
from brewlens.answers import AnswerSpace
from brewlens.model import HookedModel

THREADS = 1
OWN = "brewlens"
ROWS = "rows of full prompts"
LOOP = "naive loop of hooks (TransformerLens)"
BARE = "naive loop of hooks (bare Hugging Face)"
TRACED = "nnsight, one trace per sample and layer"
LIMIT = "the blocks' matrix products at the GEMM peak"

Answers = Float[Tensor, "sample layer class"]


@dataclass(frozen=True)
class Work:
    """Residuals to be written at the last token of a target prompt, at every layer.

    Attributes:
        residuals: ``[sample, layer, d_model]``, on the CPU.
        target: Token ids of the target prompt.
        space: The answers whose logits are read.
    """

    residuals: Float[Tensor, "sample layer d_model"]
    target: tuple[int, ...]
    space: AnswerSpace

    def first(self, samples: int) -> Work:
        """The same for the first samples."""
        return Work(self.residuals[:samples], self.target, self.space)

    def __len__(self) -> int:
        return len(self.residuals)


def work_for(model: HookedModel, settings: Settings, samples: int) -> Work:
    """Random residuals of the model's depth and width, and a target of the length asked for."""
    generator = torch.Generator().manual_seed(1)
    residuals = torch.randn(samples, model.n_layers, model.d_model, generator=generator)
    target = '# The value of it is "'[-settings.target :]
    return Work(residuals, model.token_ids(target), model.answer_space([target]))


def growing(model: HookedModel, work: Work) -> Answers:
    """brewlens as it is called."""
    return model.inject(work.residuals, [work.target] * len(work), work.space).logits


def full_prompts(model: HookedModel, work: Work) -> Answers:
    """One row per sample and layer, each the whole target prompt: brewlens' way for any causal model."""
    grows, model.grows = model.grows, False
    try:
        return growing(model, work)
    finally:
        model.grows = grows


def naive(model: HookedModel, work: Work) -> Answers:
    """One forward per sample and layer, with a TransformerLens hook on the block."""
    batch, rows = model.batch([work.target]), []
    for sample in work.residuals:
        for layer, value in enumerate(sample):

            def write(x: Tensor, hook: Any, value: Tensor = value) -> Tensor:
                return batch.replace(x, value[None].to(x))

            with model.hooks([(model.block_output(layer), write)]):
                rows.append(model.run(batch, work.space).logits)
    return torch.cat(rows).reshape(*work.residuals.shape[:2], -1)


@torch.no_grad()
def naive_bare(network: PreTrainedModel, work: Work) -> Answers:
    """One forward per sample and layer, with a torch hook on the block."""
    tokens = torch.tensor([work.target], device=network.device)
    last, ids, rows = len(work.target) - 1, list(work.space.token_ids), []
    for sample in work.residuals:
        for layer, value in enumerate(sample):

            def write(block: Any, inputs: Any, x: Tensor, value: Tensor = value) -> Tensor:
                x = x.clone()
                x[:, last] = value.to(x)
                return x

            handle = network.model.layers[layer].register_forward_hook(write)
            rows.append(network(tokens).logits[:, last, ids].float().cpu())
            handle.remove()
    return torch.cat(rows).reshape(*work.residuals.shape[:2], -1)


@torch.no_grad()
def traced(network: PreTrainedModel, work: Work) -> Answers:
    """One nnsight trace per sample and layer, as its documentation teaches to overwrite a layer's output."""
    from nnsight import NNsight  # pyright: ignore[reportMissingImports]

    model = NNsight(network)
    tokens = torch.tensor([work.target], device=network.device)
    last, ids, rows = len(work.target) - 1, list(work.space.token_ids), []
    for sample in work.residuals.to(network.device, network.dtype):
        for layer, value in enumerate(sample):
            with model.trace(tokens):
                model.model.layers[layer].output[:, last] = value
                logits = model.output.logits[:, last].save()
            rows.append(logits[:, ids].float().cpu())
    return torch.cat(rows).reshape(*work.residuals.shape[:2], -1)


def difference(found: Answers, reference: Answers) -> float:
    """Largest difference on the samples that both have, relative to the largest logit."""
    n = min(len(found), len(reference))
    return float((found[:n] - reference[:n]).abs().max() / reference[:n].abs().max())


def measure(record: Record, folder: Path) -> None:
    """Time the ways of injection, and compare what they give."""
    settings, dtype = record.settings, getattr(torch, record.settings.dtype)
    model = models.hooked(settings.shape, folder, settings.device, dtype)
    # The attention that TransformerLens uses too: another one rounds otherwise, which bfloat16 shows.
    bare = models.network(settings.shape, settings.device, dtype, "eager")
    work = work_for(model, settings, settings.samples)
    ways: dict[str, tuple[Callable[..., Answers], Any, int]] = {
        OWN: (growing, model, settings.samples),
        ROWS: (full_prompts, model, settings.row_samples),
        LOOP: (naive, model, settings.naive_samples),
        BARE: (naive_bare, bare, settings.naive_samples),
    }
    if importlib.util.find_spec("nnsight") is not None:
        ways[TRACED] = (traced, bare, settings.naive_samples)
    with threads(THREADS):
        for way, what, _ in ways.values():
            way(what, work.first(1))
        first_peak = gemm_peak(settings.gemm, dtype, settings.device)
        calls = {name: partial(way, what, work.first(n)) for name, (way, what, n) in ways.items()}
        times = race(calls, settings.repeats, settings.device)
        peak = max(first_peak, gemm_peak(settings.gemm, dtype, settings.device))
    own, reference = times[OWN], times[BARE].result
    for name, (_, _, n) in ways.items():
        record.time(
            *("injection", name, times[name], own),
            scale=settings.samples / n,
            error=difference(times[name].result, reference),
            note="" if n == settings.samples else f"{n} of {settings.samples} samples, scaled",
        )
    limit = settings.shape.injection_flops(settings.samples) / peak
    record.bound("injection", LIMIT, limit, own, f"peak {peak / 1e9:.4g} GFLOP/s, before and after")
    if TRACED not in ways:
        record.absent("injection", TRACED, "not installed: pip install nnsight")
    _lines(record, limit / own.best)


def _lines(record: Record, reached: float) -> None:
    settings = record.settings
    here = {timing.way: timing for timing in record.timings if timing.part == "injection"}
    where = "one thread" if settings.device == "cpu" else "one device"
    record.line(
        "injection.seconds",
        f"injection of {settings.samples} samples at {settings.shape.layers} layers, width "
        f"{settings.shape.width}, target of {settings.target} tokens",
        here[OWN].seconds,
        "s",
        f"{settings.dtype}, {where}; context-stripped decoding is this and a subtraction",
    )
    for key, way in (("naive", LOOP), ("naive_bare", BARE), ("rows", ROWS), ("nnsight", TRACED)):
        record.line(f"injection.{key}", f"over {way}", here[way].ratio, "times", here[way].note)
    record.line("injection.peak", "share of the GEMM peak reached", reached, "", "block matrices only")
    worst = max(t.error for t in here.values() if t.error is not None)
    record.line("injection.error", "largest relative difference between the ways", worst, "")
