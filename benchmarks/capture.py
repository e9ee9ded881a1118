"""Capture of every block's last-token output, beside a bare forward of the same batches.

The bare forward keeps nothing and leaves the LM head out: the least that any capture has to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import models
from benchmarks.clock import race, threads
from benchmarks.injection import OWN
from benchmarks.records import Record
from brewlens import capture
from brewlens.batching import Batch
from brewlens.model import HookedModel
from brewlens.residuals import Residuals

CHECKED = 4


@torch.no_grad()
def bare_forward(network: PreTrainedModel, batches: Sequence[Batch], attention: str) -> None:
    """Every batch through the blocks, and nothing kept."""
    network.set_attn_implementation(attention)
    for batch in batches:
        network.model(batch.tokens, use_cache=False)


def batches_of(model: HookedModel, prompts: Sequence[str]) -> list[Batch]:
    """Those that a capture of these prompts runs."""
    ids = model.ids(prompts)
    return [batch for _, batch in model.id_batches(ids)]


@torch.no_grad()
def one_by_one(
    network: PreTrainedModel, ids: Sequence[tuple[int, ...]]
) -> Float[Tensor, "prompt layer d_model"]:
    """Block outputs at the last token of each prompt, run alone with torch hooks."""
    seen: list[Tensor] = []

    def keep(block: Any, inputs: Any, x: Tensor) -> None:
        seen.append(x[0, x.shape[1] - 1].float().cpu())

    handles = [block.register_forward_hook(keep) for block in network.model.layers]
    for tokens in ids:
        network.model(torch.tensor([tokens], device=network.device), use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.stack(seen).unflatten(0, (len(ids), -1))


def to_disk(model: HookedModel, prompts: Sequence[str], folder: Path) -> Residuals:
    """Capture into shards in a new folder, so that none is found there."""
    number = next(n for n in count() if not (folder / f"shards{n}").exists())
    ids = [str(k) for k in range(len(prompts))]
    return capture(model, prompts, ids, folder=folder / f"shards{number}")


def measure(record: Record, folder: Path) -> None:
    """Time capture and bare forwards, and compare a few residuals with prompts run one by one."""
    settings, dtype = record.settings, getattr(torch, record.settings.dtype)
    model = models.hooked(settings.shape, folder, settings.device, dtype)
    bare = models.network(settings.shape, settings.device, dtype)
    prompts = models.random_prompts(settings.prompts, settings.tokens)
    batches = batches_of(model, prompts)
    _ = model.weights_hash  # once per model, and part of no capture's time
    ways = {name: f"bare Hugging Face forward, {name} attention" for name in ("sdpa", "eager")}
    with threads(settings.cores):
        to_disk(model, prompts[:CHECKED], folder)  # warm-up
        bare_forward(bare, batches[-1:], "sdpa")
        calls: dict[str, Callable[[], Any]] = {OWN: lambda: to_disk(model, prompts, folder)}
        for name, way in ways.items():
            calls[way] = lambda name=name: bare_forward(bare, batches, name)
        times = race(calls, settings.repeats, settings.device)
        residuals = times[OWN].result
        bare.set_attn_implementation("eager")  # TransformerLens' own
        alone = one_by_one(bare, model.ids(prompts[:CHECKED]))
    error = float((residuals.select(range(CHECKED)).values.float() - alone).abs().max() / alone.abs().max())
    own = times[OWN]
    least, most = settings.tokens
    note = f"{len(prompts)} prompts of {least} to {most} tokens, {len(batches)} batches"
    record.time("capture", OWN, own, own, error=error, note=f"{note}, into shards on disk")
    for name in ways.values():
        record.time("capture", name, times[name], own, note=note)
    for name, way in ways.items():
        key = "capture.ratio" if name == "sdpa" else "capture.ratio_eager"
        note = f"{settings.cores} threads" if settings.device == "cpu" else settings.dtype
        record.line(key, f"capture over a {way}", own.best / times[way].best, "times", note)
    record.line(
        "capture.error",
        "largest relative difference from prompts run one by one",
        error,
        "",
        f"{CHECKED} prompts",
    )
