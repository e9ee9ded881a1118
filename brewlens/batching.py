"""Batches of prompts of different length: the one place that knows about padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids, to be run without an attention mask.

    In a causal model no position sees a later one, so the padding behind a prompt changes nothing at
    its last token: gathering at ``last`` is exact, and no mask or position ids are needed.

    Attributes:
        tokens: ``[row, position]`` vocabulary ids, padded on the right.
        lengths: ``[row]`` number of tokens of each prompt.
        last: ``[row]`` position of each prompt's last token. Tokens of an answer may follow it.
    """

    tokens: Int[Tensor, "row position"]
    lengths: Int[Tensor, "row"]
    last: Int[Tensor, "row"]

    @classmethod
    def of(cls, ids: Sequence[Sequence[int]], pad: int = 0, device: torch.device | str = "cpu") -> Batch:
        """Pad lists of token ids.

        Args:
            ids: One list per row, each with at least one token.
            pad: Any valid vocabulary id; what it is does not matter.
            device: Where the tensors live.

        Raises:
            ValueError: If there is no row, or a row has no token.
        """
        lengths = [len(row) for row in ids]
        if not lengths or min(lengths) == 0:
            raise ValueError(f"a batch needs rows of at least one token, found lengths {lengths[:8]}")
        width = max(lengths)
        tokens = torch.tensor([[*row, *[pad] * (width - len(row))] for row in ids], device=device)
        size = torch.tensor(lengths, device=device)
        return cls(tokens, size, size - 1)

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, x: Float[Tensor, "row position width"]) -> Float[Tensor, "row width"]:
        """What ``x`` holds at each prompt's last token."""
        return x[torch.arange(len(x), device=x.device), self.last.to(x.device)]

    def gather_at(
        self, x: Float[Tensor, "row position *width"], positions: Sequence[int]
    ) -> Float[Tensor, "row read *width"]:
        """What ``x`` holds at ``positions`` counted from each prompt's end: -1 is its last token."""
        at = self.last.to(x.device).unsqueeze(1) + 1 + torch.tensor(positions, device=x.device)
        return x[torch.arange(len(x), device=x.device).unsqueeze(1), at]

    def gather_from(
        self, x: Float[Tensor, "row position width"], steps: int
    ) -> Float[Tensor, "row steps width"]:
        """What ``x`` holds at each prompt's last token and the tokens behind it, ``steps`` in all."""
        at = self.last.to(x.device).unsqueeze(1) + torch.arange(steps, device=x.device)
        return x[torch.arange(len(x), device=x.device).unsqueeze(1), at]

    def replace(
        self,
        x: Float[Tensor, "row position *width"],
        values: Float[Tensor, "some width"],
        rows: Int[Tensor, "some"] | None = None,
        position: int = -1,
    ) -> Float[Tensor, "row position *width"]:
        """A copy of ``x`` with ``values`` at one prompt token of ``rows`` (default: of every row).

        Args:
            x: What the hook was given.
            values: What is written; heads that ``x`` keeps apart stand one behind the other.
            rows: The rows that are written.
            position: Counted from the prompt's end: -1 is its last token.

        Raises:
            ValueError: If the values are not as wide as what they are to replace.
        """
        rows = torch.arange(len(x)) if rows is None else rows
        rows, last = rows.to(x.device), self.last.to(x.device)
        x = x.clone()
        x[rows, last[rows] + 1 + position] = fitted(values, x)
        return x

    def followed_by(self, continuation: Sequence[int]) -> Batch:
        """The same prompts with tokens behind each; ``last`` stays the prompt's own last token."""
        if not len(continuation):
            return self
        tokens = [
            [*row[:length], *continuation]
            for row, length in zip(self.tokens.tolist(), self.lengths.tolist(), strict=True)
        ]
        longer = Batch.of(tokens, device=self.tokens.device)
        return Batch(longer.tokens, longer.lengths, self.last)

    def __repr__(self) -> str:
        return f"Batch({len(self)} rows, {self.tokens.shape[1]} positions)"


def fitted(
    values: Float[Tensor, "*some width"], x: Float[Tensor, "row position ..."]
) -> Float[Tensor, "..."]:
    """Values as a hook's tensor has them: its type, its device, and its heads apart if it keeps them so.

    Raises:
        ValueError: If they are not as wide.
    """
    if values.shape[-1] != x[0, 0].numel():
        raise ValueError(
            f"the model holds {x[0, 0].numel()} numbers per token here, {list(x.shape[2:])}; found values of "
            f"width {values.shape[-1]}"
        )
    return values.to(x).reshape(*values.shape[:-1], *x.shape[2:])


def length_sorted(
    lengths: Sequence[int], batch_tokens: int, max_rows: int | None = None
) -> Iterator[Int[Tensor, "row"]]:
    """Row numbers of batches of similar length, longest first.

    Args:
        lengths: Number of tokens of each row.
        batch_tokens: Most tokens in a batch, padding included; a longer row makes a batch of its own.
        max_rows: Most rows in a batch.

    Raises:
        ValueError: If ``batch_tokens`` is below 1.
    """
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens must be at least 1, found {batch_tokens}")
    # Longest first: a batch that does not fit in memory fails at once, not after an hour.
    order = torch.argsort(torch.tensor(lengths), descending=True, stable=True)
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // lengths[int(order[start])])
        size = size if max_rows is None else min(size, max_rows)
        yield order[start : start + size]
        start += size
