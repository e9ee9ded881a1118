"""Injection by a batch that grows from block to block: the fast way.

The targets' prefixes run once, and their keys and values are kept. Then the tokens from the first written
position on run as a batch of one, which the rows join: a row that is written at the output of block ``l``
enters there; one that is written inside block ``l`` (``attn_out``, ``mlp_out``, ``z``) enters at the block's
input, with its target's own state, and is written on the way. So a row passes only the blocks that its edit
can change, and only those tokens of it. Each row reads the prefix of its own target; rotary embeddings, masks
and windows come from the model's own forward and broadcast over the rows.

Row 0 is a target itself, un-written: what the model says there must be what a plain forward of that target
says, and this is checked once in every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from brewlens import budget
from brewlens.answer_logits import AnswerLogits
from brewlens.answers import AnswerSpace
from brewlens.batching import fitted
from brewlens.errors import ModelError
from brewlens.followed import Followed
from brewlens.kv_cache import PrefixCache
from brewlens.residuals import RESID_POST
from brewlens.rows import Rows

if TYPE_CHECKING:
    from brewlens.model import HookedModel

Found = Iterator[tuple[Int[Tensor, "row"], tuple[AnswerLogits, ...]]]
States = dict[int, Float[Tensor, "prompt _ d_model"]]
Path = tuple[int, ...]


@torch.no_grad()
def growing(model: HookedModel, rows: Rows, memory: int) -> Found:
    """Inject every row; targets of one length run together.

    Args:
        model: The model.
        rows: What is written where.
        memory: Bytes that one forward may take.

    Yields:
        Row numbers, and what the model says there; the logit lens behind the next block, if asked for.

    Raises:
        ModelError: If the un-written row does not say what a plain forward says.
    """
    unchecked = True
    steps = rows.depth + max(map(len, rows.space.continuations))
    for prompts, here in _groups(model, rows, steps, memory):
        group = _Group.of(model, rows, prompts)
        left = memory - budget.cache_bytes(model, group.prefix) * len(prompts)
        for chunk in _chunks(rows, here, max(1, left // budget.row_bytes(model, group.prefix, steps))):
            lead, outputs, carrier = group.run(chunk)
            if unchecked:
                _compare(model, rows.prompts[lead], carrier, rows.space)
                unchecked = False
            yield chunk, outputs


def _groups(
    model: HookedModel, rows: Rows, steps: int, memory: int
) -> Iterator[tuple[list[int], Int[Tensor, "row"]]]:
    """Prompts of one length, as many as have room together, and their rows, prompt by prompt."""
    by_length: dict[int, list[int]] = {}
    for number, ids in enumerate(rows.prompts):
        by_length.setdefault(len(ids), []).append(number)
    counts = torch.bincount(rows.target, minlength=len(rows.prompts)).tolist()
    of_prompt = torch.argsort(rows.target, stable=True).split(counts)
    # Longest first: what does not fit in memory fails at once.
    for length in sorted(by_length, reverse=True):
        most = budget.targets_at_once(model, length - rows.depth, steps, memory)
        for start in range(0, len(by_length[length]), most):
            prompts = by_length[length][start : start + most]
            yield prompts, torch.cat([of_prompt[p] for p in prompts])


def _chunks(rows: Rows, here: Int[Tensor, "row"], most: int) -> Iterator[Int[Tensor, "row"]]:
    """At most ``most`` rows at a time, sorted by layer; a prompt's rows stay together if they can."""
    chunk: list[Tensor] = []
    for mine in here.split(torch.unique_consecutive(rows.target[here], return_counts=True)[1].tolist()):
        for part in mine.tensor_split(-(-len(mine) // most)):
            if chunk and sum(map(len, chunk)) + len(part) > most:
                yield _by_layer(rows, chunk)
                chunk = []
            chunk.append(part)
    yield _by_layer(rows, chunk)


def _by_layer(rows: Rows, parts: Sequence[Int[Tensor, "_"]]) -> Int[Tensor, "row"]:
    chunk = torch.cat(list(parts))
    return chunk[torch.argsort(rows.layers[chunk], stable=True)]


@dataclass(frozen=True)
class _Group:
    """Prompts of one length, as far as they have run.

    Attributes:
        model: The model.
        rows: Of all prompts.
        place: Number of a prompt among all -> its place here.
        prefix: Number of tokens before the first written one.
        filled: Keys and values of the prefixes; None if there is no token before.
        tails: What stands behind the answer -> each prompt's tokens from the first written one on, and it.
        own: For each of them, what rows enter with, before they are written; nothing where all is written.
    """

    model: HookedModel
    rows: Rows
    place: Int[Tensor, "every_prompt"]
    prefix: int
    filled: DynamicCache | None
    tails: dict[Path, list[Path]]
    own: dict[Path, States]

    @classmethod
    def of(cls, model: HookedModel, rows: Rows, prompts: Sequence[int]) -> _Group:
        place = torch.zeros(len(rows.prompts), dtype=torch.long)
        place[list(prompts)] = torch.arange(len(prompts))
        ids = [rows.prompts[p] for p in prompts]
        prefix = len(ids[0]) - rows.depth
        filled = model.prefix_cache(model.batch([one[:prefix] for one in ids])) if prefix else None
        tails = {path: [(*one[prefix:], *path) for one in ids] for path in rows.space.continuations}
        own = {path: _own_states(model, rows, filled, tail) for path, tail in tails.items()}
        return cls(model, rows, place, prefix, filled, tails, own)

    def run(self, chunk: Int[Tensor, "row"]) -> tuple[int, tuple[AnswerLogits, ...], AnswerLogits]:
        """Of rows sorted by layer: the prompt that travels un-written, their answers, and its own."""
        lead = int(self.rows.target[chunk[0]])
        owner = self.place[torch.cat([torch.tensor([lead]), self.rows.target[chunk]])]
        cache = None if self.filled is None else PrefixCache(self.filled, owner)
        scores, carrier = self.model.scores(self.rows.space), self.model.scores(self.rows.space)
        last = self.rows.depth - 1
        followed = Followed(self.model, self.rows.layers[chunk]) if self.rows.followed else None
        for path, tails in self.tails.items():
            pairs = self._entries(chunk, owner, path)
            if followed is not None:
                pairs += followed.hooks(lambda x, here: x[1 + here.to(x.device), last])
            with self.model.hooks(pairs):
                batch = self.model.batch([tails[int(owner[0])]])
                states = self.model.read_from(batch, lambda x, hook: x, cache)
            scores.add(path, states[1:, last:])
            carrier.add(path, states[:1, last:])
        read = () if followed is None else (followed.read_out(self.rows.space),)
        return lead, (scores.result(), *read), carrier.result()

    def _entries(
        self, chunk: Int[Tensor, "row"], owner: Int[Tensor, "row_and_carrier"], path: Path
    ) -> list[tuple[str, Callable[..., Tensor | None]]]:
        """Hooks that let the rows of each layer in, and write them."""
        rows, own = self.rows, self.own[path]
        at = [rows.depth + position for position in rows.positions]
        pairs: list[tuple[str, Callable[..., Tensor | None]]] = []
        for layer in rows.layers[chunk].unique().tolist():
            here = (rows.layers[chunk] == layer).nonzero().squeeze(1)
            values = rows.values[chunk[here]]
            if layer in own:
                joined = own[layer][owner[1 + here].to(own[layer].device)]
            else:
                joined = torch.empty_like(values)
            if rows.tap == RESID_POST:
                joined[:, at] = values.to(joined)
                pairs.append((self.model.block_output(layer), _joiner(joined)))
            else:
                pairs.append((self.model.tap("resid_pre", layer), _joiner(joined)))
                pairs.append((self.model.tap(rows.tap, layer), _newest_writer(values, at)))
        return pairs


def _own_states(model: HookedModel, rows: Rows, filled: DynamicCache | None, tails: Sequence[Path]) -> States:
    """What rows of each layer enter with: the states of the targets' own run, of all their tails."""
    if rows.tap == RESID_POST and len(tails[0]) == len(rows.positions):
        return {}
    states: States = {}

    def keeper(layer: int) -> Callable[..., None]:
        def keep(x: Tensor, hook: Any) -> None:
            states[layer] = x.clone()

        return keep

    entered = RESID_POST if rows.tap == RESID_POST else "resid_pre"
    pairs = [(model.tap(entered, layer), keeper(layer)) for layer in rows.layers.unique().tolist()]
    cache = None if filled is None else PrefixCache(filled, torch.arange(len(tails)))
    with model.hooks(pairs):
        model.read_from(model.batch(tails), lambda x, hook: x[:1, :1], cache)
    return states


def _compare(model: HookedModel, target: Path, found: AnswerLogits, space: AnswerSpace) -> None:
    from brewlens.selfcheck import TOLERANCE, difference

    plain = model.run(model.batch([target]), space)
    error = difference(found, plain)
    # A slip, not rounding, is looked for: rounding was measured when the model was loaded. Not "error >
    # tolerance": a NaN must fail too.
    if not error <= 10 * TOLERANCE.get(model.dtype, 5e-5):
        raise ModelError(
            f"{model.name}: the un-written row of an injection differs from a plain forward by {error:.2g}; "
            "hooks of your own that count rows, or a cache that this model shares, would do that. Take them "
            "off, or set model.grows = False for the slower way"
        )


def _joiner(values: Float[Tensor, "row step d_model"]) -> Callable[..., Tensor]:
    def join(x: Tensor, hook: Any) -> Tensor:
        return torch.cat([x, values.to(x)])

    return join


def _newest_writer(values: Float[Tensor, "some position width"], at: Sequence[int]) -> Callable[..., Tensor]:
    """Overwrites steps of the rows that joined last."""

    def write(x: Tensor, hook: Any) -> Tensor:
        x = x.clone()
        x[len(x) - len(values) :, at] = fitted(values, x)
        return x

    return write
