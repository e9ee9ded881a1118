"""AnswerLogits: what a model says, reduced to the answer classes, so that no vocabulary axis is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from brewlens import html
from brewlens.answers import AnswerSpace


@dataclass(frozen=True)
class AnswerLogits:
    """What the model says, seen from the answer classes; on the CPU, float32.

    Attributes:
        logits: ``[*rows, class]``. Where every class is one token, the logits of the class tokens, after
            the architecture's soft cap or scale; else the log-probability of each class's token sequence.
        log_other: ``[*rows]`` what everything else has, on the same scale: logsumexp of the logits of the
            other tokens, or the log of the probability that is left.
        top_id: ``[*rows]`` vocabulary id of the largest logit of all, at the answer's first token.
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
    def of(logits: Float[Tensor, "row vocabulary"], space: AnswerSpace) -> AnswerLogits:
        """Reduce full logits of one-token classes."""
        ids, rows = torch.tensor(space.token_ids, device=logits.device), logits.float()
        other = rows.index_fill(-1, ids, -torch.inf).logsumexp(-1)
        return AnswerLogits(rows[:, ids].cpu(), other.cpu(), rows.argmax(-1).cpu())

    def __repr__(self) -> str:
        *rows, classes = self.logits.shape
        return f"AnswerLogits({' x '.join(map(str, rows))} rows, {classes} classes)"

    def _repr_html_(self) -> str:
        """How often each class is the answer."""
        counts = self.predicted.flatten().bincount(minlength=self.logits.shape[-1]).tolist()
        other = float(self.other_mass.mean()) if self.other_mass.numel() else None
        drawn = html.sparkline(counts, "rows that say it", axis="class", low=0)
        row = {"rows": sum(counts), "mass outside the classes": other, "rows by class said": drawn}
        return html.card(repr(self), html.table([row]))


class Scores:
    """Answer logits of one set of rows, gathered one continuation of the prompt after the other.

    A class of several tokens is scored by the sum of the log-probabilities of its tokens, each given the
    ones before it. A class of one token, where all are, is scored by its raw logit.

    Args:
        space: The answer classes.
        unembed: From what the unembedding reads to logits, ``[row, width]`` to ``[row, vocabulary]``.
        rows: Rows of which logits may exist at a time.
    """

    def __init__(self, space: AnswerSpace, unembed: Callable[[Tensor], Tensor], rows: int) -> None:
        self._space = space
        self._unembed = unembed
        self._rows = rows
        self._seen: set[tuple[int, ...]] = set()
        self._sum: Float[Tensor, "row class"] | None = None
        self._single: AnswerLogits | None = None
        self._top: Int[Tensor, "row"] | None = None

    def add(self, continuation: Sequence[int], states: Float[Tensor, "row step width"]) -> None:
        """What the unembedding reads at the prompt's last token and at each token of a continuation of it."""
        if self._space.single:
            self._single = AnswerLogits.concatenate(
                [AnswerLogits.of(logits, self._space) for logits in self._logits(states[:, 0])]
            )
            return
        for step in range(len(continuation) + 1):
            begun = tuple(continuation[:step])
            if begun not in self._seen:
                self._seen.add(begun)
                self._add_step(begun, states[:, step])

    def _logits(self, states: Float[Tensor, "row width"]) -> Iterator[Float[Tensor, "some vocabulary"]]:
        for rows in states.split(self._rows):
            # The row axis stands where the unembedding expects the position axis.
            yield self._unembed(rows.unsqueeze(0)).squeeze(0).float()

    def _add_step(self, begun: tuple[int, ...], states: Float[Tensor, "row width"]) -> None:
        here = [
            (k, ids[len(begun)])
            for k, ids in enumerate(self._space.sequences)
            if ids[: len(begun)] == begun and len(ids) > len(begun)
        ]
        classes, tokens = torch.tensor(here).T
        picked, top = [], []
        for logits in self._logits(states):
            chosen = logits[:, tokens.to(logits.device)] - logits.logsumexp(-1, keepdim=True)
            picked.append(chosen.cpu())
            top.append(logits.argmax(-1).cpu())
        if self._sum is None:
            self._sum = torch.zeros(len(states), len(self._space))
        self._sum[:, classes] += torch.cat(picked)
        if not begun:
            self._top = torch.cat(top)

    def result(self) -> AnswerLogits:
        """The answer logits, once every continuation of the space was added.

        Raises:
            ValueError: If one is missing.
        """
        if self._single is not None:
            return self._single
        if self._sum is None or self._top is None or not self._seen.issuperset(self._space.continuations):
            raise ValueError(f"continuations {self._space.continuations} are needed, found {self._seen}")
        inside = self._sum.double().logsumexp(-1).clamp(max=-torch.finfo(torch.float32).eps)
        return AnswerLogits(self._sum, torch.log(-torch.expm1(inside)).float(), self._top)
