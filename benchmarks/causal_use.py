"""The grid of causal use: four edits with five donors each, in every layer of each sample's own prompt.

On the bundled reference model, as the grid is made of whole programs. Directions are random: what they mean
costs nothing. Beside it, what one would write first: every cell of the grid edited by itself, and one forward
of the whole prompt with a hook.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.clock import race, threads
from benchmarks.records import Record
from brewlens.answers import DIGITS, AnswerSpace
from brewlens.batching import Batch
from brewlens.intervention.donors import Donor, counterfactual
from brewlens.intervention.edits import Subspace, Where
from brewlens.intervention.exchanges import LEARNED, PROBE, exchanges
from brewlens.intervention.grid import Arm, run_grid
from brewlens.intervention.samples import Samples
from brewlens.intervention.sites import states
from brewlens.intervention.stretches import Cases
from brewlens.model import HookedModel
from brewlens.tasks import FAMILIES, ItemSet, generate

THREADS = 1
OWN = "brewlens"
LOOP = "naive loop: one edit and one forward per cell"
RANK = len(DIGITS) - 1

Logits = Float[np.ndarray, "arm sample layer class"]


@dataclass(frozen=True, eq=False)
class Work:
    """A grid to be run.

    Attributes:
        prompts: ``[sample]``.
        own: ``[sample, layer, 1, width]`` un-edited states at the last token.
        arms: What is written.
        space: The answers whose logits are read.
    """

    prompts: tuple[str, ...]
    own: Float[Tensor, "sample layer 1 width"]
    arms: list[Arm]
    space: AnswerSpace

    @property
    def cells(self) -> int:
        """Edited runs: arms, the no-op among them, times samples times layers."""
        return (1 + len(self.arms)) * len(self.prompts) * self.own.shape[1]


def work_for(model: HookedModel, samples: int) -> Work:
    """Programs of all families, their counterfactual twins, and the arms of causal use.

    Args:
        model: The model.
        samples: How many.
    """
    items = generate(n=-(-samples // len(FAMILIES)), seed=1)
    items = items.select(np.linspace(0, len(items) - 1, samples).astype(int).tolist())
    space = model.answer_space(items.prompts)
    own, donor = states(model, items.prompts), counterfactual(model, items, space)
    generator = torch.Generator().manual_seed(2)
    subspaces = {}
    for name in (PROBE, LEARNED):
        basis = torch.linalg.qr(torch.randn(model.d_model, RANK, generator=generator))[0]
        subspaces[name] = Subspace.fixed(name, basis, model.n_layers, samples)
    mean = own.mean(0).squeeze(1).unsqueeze(0)
    arms = exchanges(_cases(items, own, donor, space), subspaces, mean)
    return Work(items.prompts, own, arms, space)


def _cases(
    items: ItemSet, own: Float[Tensor, "sample layer 1 width"], donor: Donor, space: AnswerSpace
) -> Cases:
    n, layers = own.shape[:2]
    families = np.array([item.family for item in items])
    classes = np.array([space.index(answer) for answer in items.answers])
    rows = np.arange(n)
    samples = Samples(rows, items, families, families, rows, classes, own, space)
    everywhere = np.ones((n, layers), dtype=bool)
    expected = np.full((n, len(space)), 1 / len(space))
    return Cases(samples, rows * 0, rows * 0 + layers, donor, everywhere, everywhere, expected)


def grid(model: HookedModel, work: Work) -> Logits:
    """brewlens as it is called; the dose (cosine, length, divergence one block later) is in the time."""
    return run_grid(model, work.prompts, work.own, work.arms, work.space).logits


def naive(model: HookedModel, work: Work, samples: int) -> Logits:
    """One edit and one forward for every cell of the first samples."""
    layers = work.own.shape[1]
    found = np.empty((1 + len(work.arms), samples, layers, len(work.space)), dtype=np.float32)
    for row in range(samples):
        batch = model.batch([model.token_ids(work.prompts[row])])
        for layer in range(layers):
            where = Where(torch.tensor([row]), torch.tensor([[layer]]))
            own = work.own[row : row + 1, layer : layer + 1]
            edited = [own, *(_edited(arm, own, where) for arm in work.arms)]
            for number, value in enumerate(edited):

                def write(x: Tensor, hook: Any, batch: Batch = batch, value: Tensor = value) -> Tensor:
                    return batch.replace(x, value[0, 0].to(x))

                with model.hooks([(model.block_output(layer), write)]):
                    found[number, row, layer] = model.run(batch, work.space).logits[0]
    return found


def _edited(arm: Arm, own: Tensor, where: Where) -> Tensor:
    if arm.source is None:
        return arm.apply(own, own, where)
    if not bool(arm.source.there[where.samples]):  # a sample without a donor keeps what it has
        return own
    return arm.apply(own, arm.source.at(where).to(own), where)


def difference(found: Logits, reference: Logits) -> float:
    """Largest difference on the samples that both have, relative to the largest logit."""
    n = min(found.shape[1], reference.shape[1])
    return float(np.abs(found[:, :n] - reference[:, :n]).max() / np.abs(reference[:, :n]).max())


def measure(record: Record, folder: Path) -> None:
    """Time the grid, and the naive loop on a few of its samples.

    Args:
        record: Where to.
        folder: Not used; the model is the bundled one.
    """
    from brewlens import load_model

    settings = record.settings
    model = load_model("reference", device=settings.device, dtype=settings.dtype)
    work = work_for(model, settings.causal_samples)
    few = settings.causal_naive_samples
    with threads(THREADS):
        grid(model, work_for(model, 2))
        ways = {OWN: partial(grid, model, work), LOOP: partial(naive, model, work, few)}
        times = race(ways, settings.repeats, settings.device)
    own, loop = times[OWN], times[LOOP]
    part = f"{few} of {settings.causal_samples} samples, scaled"
    record.time("causal", OWN, own, own, note=f"{work.cells} edited runs")
    error = difference(own.result, loop.result)
    naively = record.time(
        "causal", LOOP, loop, own, scale=settings.causal_samples / few, error=error, note=part
    )
    where = "one thread" if settings.device == "cpu" else "one device"
    arms, (samples, layers) = len(work.arms), work.own.shape[:2]
    record.line(
        "causal.seconds",
        f"causal use: {arms} exchanges and a no-op, {samples} programs, {layers} layers",
        own.best,
        "s",
        f"bundled reference model, {settings.dtype}, {where}; {work.cells} edited runs and their doses",
    )
    record.line("causal.naive", f"over a {LOOP}", naively.ratio, "times", part)
    record.line("causal.error", "largest relative difference from the naive loop", error, "")
