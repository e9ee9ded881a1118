"""Grid: every arm, an edit with a donor, at every place of every sample, in one batched run.

The first arm is always the no-op: the recipient's own state, written where it came from. All others are
compared with it, so that what the writing itself changes (nothing, to rounding) is taken off. Beside what the
model says, the grid keeps the *dose*: how much was changed.

* ``cosine`` of the written state to the recipient's own, the least over positions.
* ``change``: length of the difference over the length of the recipient's state, the largest over positions;
  NaN where that state is zero.
* ``kl``: Kullback-Leibler divergence in nats, un-edited against edited, of what the logit lens reads at the
  last token one block later (classes and everything else, eleven outcomes for digits).

An edit with a small dose can have no effect; that it has none says nothing then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from brewlens import html
from brewlens.answer_logits import AnswerLogits
from brewlens.brief import brief
from brewlens.intervention.donors import Donor
from brewlens.intervention.edits import Edit, States, Where, no_op
from brewlens.intervention.sites import LAST, Site
from brewlens.lifecycle.landmarks import NEVER
from brewlens.progress import bar

if TYPE_CHECKING:
    from brewlens.answers import AnswerSpace
    from brewlens.model import HookedModel, Prompt

NO_OP = "no_op"
NIL = 0.995
"""A cosine above this is a dose as good as nil."""
VALUES = 2**28  # bytes of written states in memory at a time


@dataclass(frozen=True, eq=False)
class Arm:
    """One edit with one donor.

    Attributes:
        edit: Name of the edit for tables; a control has the name of the edit that it is a control of.
        donor: Name of the donor for tables.
        apply: What is written.
        source: Where the donated state comes from; None where the edit looks at no donor.
        control: Whether it is a placebo.
    """

    edit: str
    donor: str
    apply: Edit
    source: Donor | None = None
    control: bool = False

    @property
    def name(self) -> str:
        """Edit and donor, as tables name them."""
        return f"{self.edit}/{self.donor}"

    __repr__ = brief


@dataclass(frozen=True, eq=False)
class Grid:
    """What came out.

    Attributes:
        arms: The arms; the first is the no-op.
        site: Where was written.
        layers: ``[sample, slot]`` block that was written, or ``NEVER``.
        written: ``[arm, sample, slot]`` whether there was something to write.
        logits: ``[arm, sample, slot, class]`` of the model's answer.
        cosine: ``[arm, sample, slot]``, NaN where nothing was written, as the next two.
        change: Relative length of the change.
        kl: Nats, one block later; NaN throughout for classes of several tokens.
    """

    arms: tuple[Arm, ...]
    site: Site
    layers: Int[np.ndarray, "sample slot"]
    written: Bool[np.ndarray, "arm sample slot"]
    logits: Float[np.ndarray, "arm sample slot class"]
    cosine: Float[np.ndarray, "arm sample slot"]
    change: Float[np.ndarray, "arm sample slot"]
    kl: Float[np.ndarray, "arm sample slot"]

    @cached_property
    def predicted(self) -> Int[np.ndarray, "arm sample slot"]:
        """Class index of the largest logit."""
        return self.logits.argmax(-1)

    def index(self, edit: str, donor: str) -> int:
        """Number of an arm.

        Raises:
            KeyError: If there is none of that name.
        """
        names = [arm.name for arm in self.arms]
        if (name := f"{edit}/{donor}") not in names:
            raise KeyError(f"asked for arm {name!r}; there are {', '.join(names)}")
        return names.index(name)

    def __repr__(self) -> str:
        arms, samples, slots = self.written.shape
        return f"Grid({arms} arms x {samples} samples x {slots} slots, {self.site.tap})"

    def _repr_html_(self) -> str:
        """One row per arm: how often it was written, and how far it moved the state."""
        rows = []
        for k, arm in enumerate(self.arms):
            there = self.written[k]
            changed = (self.predicted[k] != self.predicted[0]) & there
            share = [c[t].mean() if t.any() else np.nan for c, t in zip(changed.T, there.T, strict=True)]
            said = {name: getattr(self, name)[k][there] for name in ("cosine", "change", "kl")}
            rows.append(
                {
                    "arm": arm.name,
                    "control": arm.control,
                    "written": int(there.sum()),
                    **{name: np.nanmean(v) if np.isfinite(v).any() else None for name, v in said.items()},
                    "answers changed by slot": html.sparkline(
                        share, f"{arm.name}: share of answers changed", axis="slot", low=0, high=1
                    ),
                }
            )
        return html.card(repr(self), html.table(rows, most=24), html.note("Means over what was written."))


def run_grid(
    model: HookedModel,
    targets: Sequence[Prompt],
    own: Float[Tensor, "sample layer position width"],
    arms: Sequence[Arm],
    space: AnswerSpace,
    *,
    layers: Sequence[int] | Int[Tensor, "*sample slot"] | None = None,
    site: Site = LAST,
    memory: int | None = None,
    progress: bool = False,
) -> Grid:
    """Write what every arm says into every target, at every slot, and read the answers.

    Args:
        model: The model.
        targets: ``[sample]`` the recipients' prompts.
        own: What they have at the site, un-edited, in every layer; see ``sites.states``.
        arms: What is written; a no-op is put in front of them.
        space: The answer classes.
        layers: Blocks that are written, the same for all samples, or one row of slots per sample with
            ``NEVER`` where a sample has fewer. Default: all.
        site: Where.
        memory: Bytes that one forward may take beside the model.
        progress: Show a progress bar.

    Raises:
        ValueError: If shapes do not fit together.
    """
    n = len(targets)
    if own.ndim != 4 or own.shape[:3] != (n, model.n_layers, len(site.positions)):
        raise ValueError(
            f"own must be [{n} samples, {model.n_layers} layers, {len(site.positions)} positions, width]; "
            f"found {list(own.shape)}"
        )
    slots = torch.as_tensor(range(model.n_layers) if layers is None else layers)
    slots = slots.expand(n, -1) if slots.ndim == 1 else slots
    arms = (Arm(NO_OP, NO_OP, no_op()), *arms)
    ids, columns = model.ids(targets), site.columns(model)
    written = torch.stack([_there(arm, slots) for arm in arms])
    shape = (len(arms), n, slots.shape[1])
    logits = torch.empty(*shape, len(space))
    doses = {name: torch.full(shape, torch.nan) for name in ("cosine", "change", "kl")}
    each = own[0, 0].numel() * own.element_size() * len(arms) * slots.shape[1]
    # Prompts of one length run together, so they are best in one chunk.
    order = torch.argsort(torch.tensor([len(i) for i in ids]), descending=True, stable=True)
    with bar(total=n, shown=progress, unit="sample", work="interventions") as done:
        for rows in order.split(max(1, VALUES // each)):
            where = Where(rows, slots[rows].clamp_min(0))
            recipient = own[rows.unsqueeze(1), where.layers]
            values = torch.stack([_written(arm, recipient, where, columns) for arm in arms])
            values = torch.where(written[:, rows, :, None, None], values, recipient)
            output, after = _inject(
                model, values, [ids[r] for r in rows.tolist()], space, where, site, memory
            )
            logits[:, rows] = rearrange(output.logits, "sample arm slot answer -> arm sample slot answer")
            doses["cosine"][:, rows], doses["change"][:, rows] = dose(values, recipient)
            if after is not None:
                doses["kl"][:, rows] = rearrange(_divergence(after), "sample arm slot -> arm sample slot")
            done.update(len(rows))
    for values in doses.values():
        values[~written] = torch.nan
    return Grid(
        arms,
        site,
        slots.numpy().copy(),
        written.numpy(),
        logits.numpy(),
        **{name: values.numpy() for name, values in doses.items()},
    )


def _there(arm: Arm, slots: Int[Tensor, "sample slot"]) -> Bool[Tensor, "sample slot"]:
    there = slots != NEVER
    if arm.source is not None:
        there = there & arm.source.there.unsqueeze(1)
        if arm.source.source is not None:
            there = there & (arm.source.source != NEVER)
        if arm.source.where is not None:
            there = there & arm.source.where.gather(1, slots.clamp_min(0))
    return there


def _written(arm: Arm, own: States, where: Where, columns: Int[Tensor, "column"] | None) -> States:
    donor = own if arm.source is None else arm.source.at(where).to(own)
    if columns is None:
        return arm.apply(own, donor, where)
    whole = own.clone()
    whole[..., columns] = arm.apply(own[..., columns], donor[..., columns], where)
    return whole


def _inject(
    model: HookedModel,
    values: Float[Tensor, "arm sample slot position width"],
    targets: Sequence[tuple[int, ...]],
    space: AnswerSpace,
    where: Where,
    site: Site,
    memory: int | None,
) -> tuple[AnswerLogits, AnswerLogits | None]:
    arms, n, slots = values.shape[:3]
    rows = rearrange(values, "arm sample slot position width -> sample (arm slot) position width")
    options = {
        "layers": repeat(where.layers, "sample slot -> sample (arm slot)", arm=arms),
        "positions": site.positions,
        "tap": site.tap,
        "memory": memory,
    }
    if space.single:
        output, after = model.inject_followed(rows, targets, space, **options)
        return output.reshape(n, arms, slots), after.reshape(n, arms, slots)
    return model.inject(rows, targets, space, **options).reshape(n, arms, slots), None


def dose(
    values: Float[Tensor, "*arm sample slot position width"], own: States
) -> tuple[Float[Tensor, "*arm sample slot"], Float[Tensor, "*arm sample slot"]]:
    """Cosine, and relative length of the change, of what is written to what was there.

    Args:
        values: What is written.
        own: What was there.
    """
    moved, length = (values - own).norm(dim=-1), own.norm(dim=-1)
    cosine = torch.cosine_similarity(values, own, dim=-1).where(moved > 0, 1.0)
    change = (moved / length).where(length > 0, torch.nan).where(moved > 0, 0.0)
    return cosine.amin(-1), change.amax(-1)


def _divergence(after: AnswerLogits) -> Float[Tensor, "sample arm slot"]:
    """Of every arm from the no-op, over the classes and everything else."""
    logs = torch.cat([after.logits, after.log_other.unsqueeze(-1)], -1).double().log_softmax(-1)
    plain = logs[:, :1]
    return (plain.exp() * (plain - logs)).sum(-1).clamp_min(0).float()
