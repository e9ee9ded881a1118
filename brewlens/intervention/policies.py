"""Policies: one rule of what is written where, applied to any sample without asking how it will end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from brewlens.brief import brief
from brewlens.intervention.anchors import Anchors
from brewlens.intervention.earlier_state import MODES
from brewlens.intervention.edits import Edit, Where
from brewlens.intervention.grid import VALUES, dose
from brewlens.intervention.samples import Samples
from brewlens.lifecycle.landmarks import NEVER
from brewlens.progress import bar

if TYPE_CHECKING:
    from brewlens.model import HookedModel


@dataclass(frozen=True, eq=False)
class Policy:
    """The state of one layer, written at a later one.

    Attributes:
        source: The layer that is read, or ``fpcl`` or ``fjc``, which differ from sample to sample and take
            its right answer to know.
        layer: The layer that is written. Where it is not behind the source nothing is.
        edit: How it is written.
    """

    source: int | str
    layer: int
    edit: Edit

    @property
    def oracle(self) -> bool:
        """Whether it takes the right answer to apply it."""
        return isinstance(self.source, str)

    def reads(self, found: Anchors) -> Int[np.ndarray, "sample"]:
        """Layer that is read from each sample, ``NEVER`` where nothing is written."""
        layers = {"fpcl": found.fpcl, "fjc": found.fjc}.get(str(self.source))
        if layers is None:
            layers = np.full(len(found), self.source)
        return np.where(layers < self.layer, layers, NEVER)

    def __str__(self) -> str:
        source = f"layer {self.source}" if isinstance(self.source, int) else f"the {self.source.upper()}"
        return f"{source} at layer {self.layer}, {self.edit.name}"

    __repr__ = brief


def candidates(n_layers: int, edits: Sequence[Edit] = MODES, every: int = 1) -> list[Policy]:
    """All policies between every k-th layer, the last one always included; oracles last.

    Raises:
        ValueError: If ``every`` is below 1.
    """
    if every < 1:
        raise ValueError(f"candidates are made of every k-th layer, k at least 1; found every={every}")
    layers = sorted({*range(0, n_layers, every), n_layers - 1})
    sources: list[tuple[int | str, int]] = [(a, b) for b in layers for a in layers if a < b]
    sources += [(landmark, b) for landmark in ("fpcl", "fjc") for b in layers[1:]]
    return [Policy(source, layer, edit) for source, layer in sources for edit in edits]


@dataclass(frozen=True, eq=False)
class Applied:
    """What policies do.

    Attributes:
        before: ``[sample]`` whether the output is right with the sample's own state written back.
        after: ``[policy, sample]`` whether it is right under a policy.
        cosine: ``[policy, sample]`` of what is written to what was there; 1 where nothing is written.
        change: ``[policy, sample]`` length of the difference over that of what was there.
    """

    before: Bool[np.ndarray, "sample"]
    after: Bool[np.ndarray, "policy sample"]
    cosine: Float[np.ndarray, "policy sample"]
    change: Float[np.ndarray, "policy sample"]

    __repr__ = brief


def apply(
    model: HookedModel,
    samples: Samples,
    found: Anchors,
    policies: Sequence[Policy],
    *,
    progress: bool = False,
) -> Applied:
    """Run every sample's prompt under every policy, and once with nothing changed.

    Args:
        model: The model.
        samples: The samples.
        found: Their landmarks.
        policies: The policies.
        progress: Show a progress bar.
    """
    n, written = len(samples), torch.tensor([policy.layer for policy in policies], dtype=torch.long)
    reads = torch.empty(n, len(policies), dtype=torch.long)
    for slot, policy in enumerate(policies):
        reads[:, slot] = torch.from_numpy(policy.reads(found))
    # Written back at the last layer: any would do.
    layers = torch.cat([written, torch.tensor([model.n_layers - 1])])
    right = torch.empty(n, len(layers), dtype=torch.bool)
    cosine, change = torch.empty(n, len(policies)), torch.empty(n, len(policies))
    ids = model.ids(samples.items.prompts)
    # Prompts of one length run together, so they are best in one chunk.
    order = torch.argsort(torch.tensor([len(tokens) for tokens in ids]), descending=True, stable=True)
    each = samples.own[0, 0].numel() * samples.own.element_size() * len(layers)
    with bar(total=n, shown=progress, unit="sample", work="policies") as done:
        for rows in order.split(max(1, VALUES // each)):
            own = samples.own[rows.unsqueeze(1), layers]
            values = own.clone()
            for slot, policy in enumerate(policies):
                here = slice(slot, slot + 1)
                source = reads[rows, here]
                donor = samples.own[rows.unsqueeze(1), source.clamp_min(0)]
                where = Where(rows, written[here].expand(len(rows), 1))
                new = policy.edit(own[:, here], donor, where)
                values[:, here] = torch.where((source != NEVER)[..., None, None], new, own[:, here])
            output = model.inject(values, [ids[r] for r in rows.tolist()], samples.space, layers=layers)
            right[rows] = output.predicted == samples.targets[rows].unsqueeze(1)
            cosine[rows], change[rows] = dose(values[:, :-1], own[:, :-1])
            done.update(len(rows))
    return Applied(right[:, -1].numpy(), right[:, :-1].T.numpy(), cosine.T.numpy(), change.T.numpy())
