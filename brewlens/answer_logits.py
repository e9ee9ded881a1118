"""AnswerLogits: what a model says, reduced to the answer classes, so that no vocabulary axis is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from brewlens.answers import AnswerSpace


@dataclass(frozen=True)
class AnswerLogits:
    """What the model says, seen from the answer classes; on the CPU, float32.

    Attributes:
        logits: ``[*rows, class]`` logits of the class tokens, after the architecture's soft cap or scale.
        log_other: ``[*rows]`` logsumexp of the logits of every other token.
        top_id: ``[*rows]`` vocabulary id of the largest logit of all.
    """

    logits: Float[Tensor, "*rows class"]
    log_other: Float[Tensor, "*rows"]
    top_id: Int[Tensor, "*rows"]

    @property
    def other_mass(self) -> Float[Tensor, "*rows"]:
        """Probability outside the classes, under the full vocabulary."""
        return torch.sigmoid(self.log_other - self.logits.logsumexp(-1))

    @property
    def predicted(self) -> Int[Tensor, "*rows"]:
        """Class index of the largest class logit; the lowest index wins a tie."""
        return self.logits.argmax(-1)

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, rows: Any) -> AnswerLogits:
        """The same, indexed on the leading axis."""
        return AnswerLogits(self.logits[rows], self.log_other[rows], self.top_id[rows])

    def reshape(self, *rows: int) -> AnswerLogits:
        """The same rows under other leading axes."""
        return AnswerLogits(
            self.logits.reshape(*rows, self.logits.shape[-1]),
            self.log_other.reshape(rows),
            self.top_id.reshape(rows),
        )

    @staticmethod
    def concatenate(parts: Sequence[AnswerLogits]) -> AnswerLogits:
        """Join along the leading axis."""
        return AnswerLogits(
            torch.cat([p.logits for p in parts]),
            torch.cat([p.log_other for p in parts]),
            torch.cat([p.top_id for p in parts]),
        )

    @staticmethod
    def of(logits: Float[Tensor, "row vocabulary"], space: AnswerSpace, chunk: int = 256) -> AnswerLogits:
        """Reduce full logits, ``chunk`` rows at a time."""
        ids = torch.tensor(space.token_ids, device=logits.device)
        parts = []
        for rows in logits.split(chunk):
            rows = rows.float()
            other = rows.index_fill(-1, ids, -torch.inf).logsumexp(-1)
            parts.append(AnswerLogits(rows[:, ids].cpu(), other.cpu(), rows.argmax(-1).cpu()))
        return AnswerLogits.concatenate(parts)

    def __repr__(self) -> str:
        *rows, classes = self.logits.shape
        return f"AnswerLogits({' x '.join(map(str, rows))} rows, {classes} classes)"
