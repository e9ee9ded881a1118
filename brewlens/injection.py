"""Two ways to put residuals into target prompts; the self-check decides which one a model gets.

*Growing*: the targets' prefixes run once, and their keys and values are kept. Then the tokens from the first
written position on run as a batch of one; the output of block ``l`` is joined by the rows to be written
there, so a row only passes the blocks behind its own layer, and only those tokens of it. Each row reads the
prefix of its own target; rotary embeddings, masks and windows come from the model's own forward and
broadcast over the rows. Row 0 stays the first target itself, un-written: what the model says there must be
what a plain forward of that target says, and this is checked once in every call.

*Padded*: every row runs its whole target prompt. Slower, and right for any causal model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache

from brewlens import budget
from brewlens.answer_logits import AnswerLogits
from brewlens.answers import AnswerSpace
from brewlens.batching import Batch
from brewlens.passes import reordered

if TYPE_CHECKING:
    from brewlens.model import HookedModel

Found = Iterator[tuple[Int[Tensor, "row"], AnswerLogits]]


@dataclass(frozen=True)
class Rows:
    """What is written where; one row is one run of a target prompt.

    Attributes:
        values: ``[row, position, d_model]`` what is written.
        targets: Token ids of each row's target prompt.
        layers: ``[row]`` block (0-based) at whose output the row is written.
        positions: Where, counted from the target's end: -1 is its last token.
        space: The answer classes that are read at the target's last token.
    """

    values: Float[Tensor, "row position d_model"]
    targets: Sequence[tuple[int, ...]]
    layers: Int[Tensor, "row"]
    positions: tuple[int, ...]
    space: AnswerSpace

    @property
    def depth(self) -> int:
        """Number of target tokens from the first written one on."""
        return -min(self.positions)


class PrefixCache(DynamicCache):
    """Keys and values of prefixes, each shown to any number of rows and never written to.

    Args:
        filled: Of a batch of prefixes of one length.
        owner: ``[row]`` which of them each row of the growing batch reads.
    """

    def __init__(self, filled: DynamicCache, owner: Int[Tensor, "row"]) -> None:
        super().__init__()
        self.layers = filled.layers
        self.owner = owner

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        layer: Any = self.layers[layer_idx]
        return self._behind(layer.keys, key_states), self._behind(layer.values, value_states)

    def _behind(self, prefix: Tensor, new: Tensor) -> Tensor:
        if len(prefix) == 1:  # a view, where picking rows would copy
            return torch.cat([prefix.expand(len(new), -1, -1, -1), new], dim=-2)
        return torch.cat([prefix[self.owner[: len(new)].to(prefix.device)], new], dim=-2)


def inject(
    model: HookedModel,
    residuals: Float[Tensor, "sample layer *position d_model"],
    targets: Sequence[tuple[int, ...]],
    space: AnswerSpace,
    layers: Sequence[int] | Int[Tensor, "*sample layer"] | None,
    positions: Sequence[int],
    memory: int | None,
    progress: bool,
) -> AnswerLogits:
    """See :meth:`brewlens.model.HookedModel.inject`."""
    where = _placed(model, residuals, targets, layers, positions)
    samples, depth = where.shape
    rows = Rows(
        residuals.reshape(samples * depth, len(positions), model.d_model),
        [target for target in targets for _ in range(depth)],
        where.reshape(-1),
        tuple(positions),
        space,
    )
    if memory is None:
        memory = budget.ROWS[budget.kind(model)]
    engine = growing if model.grows else padded
    found, parts = [], []
    with tqdm(total=where.numel(), disable=not progress, unit="row", desc=model.name) as bar:
        for chunk, output in engine(model, rows, memory):
            found.append(chunk)
            parts.append(output)
            bar.update(len(chunk))
    return reordered(parts, found).reshape(samples, depth)


def _placed(
    model: HookedModel,
    residuals: Tensor,
    targets: Sequence[tuple[int, ...]],
    layers: Sequence[int] | Tensor | None,
    positions: Sequence[int],
) -> Int[Tensor, "sample layer"]:
    where = torch.as_tensor(range(model.n_layers) if layers is None else layers)
    samples, shortest = len(targets), min(map(len, targets))
    several = () if residuals.ndim == 3 and len(positions) == 1 else (len(positions),)
    expected = (samples, where.shape[-1], *several, model.d_model)
    if tuple(residuals.shape) != expected or 0 in expected or where.shape[:-1] not in ((), (samples,)):
        raise ValueError(
            f"inject needs residuals {list(expected)} for {samples} targets, layers "
            f"{list(where.shape)} and positions {list(positions)}, found {list(residuals.shape)}"
        )
    if where.min() < 0 or where.max() >= model.n_layers:
        raise ValueError(f"layers run from 0 to {model.n_layers - 1}, found {where.unique().tolist()}")
    if not all(-shortest <= at < 0 for at in positions) or len(set(positions)) != len(positions):
        raise ValueError(
            f"positions count from the target's end, -1 to {-shortest} here, each once; found "
            f"{list(positions)}"
        )
    return where.expand(expected[:2])


@torch.no_grad()
def growing(model: HookedModel, rows: Rows, memory: int) -> Found:
    """Inject every row; targets of one length run together.

    Args:
        model: The model.
        rows: What is written where.
        memory: Bytes that one forward may take.

    Yields:
        Row numbers, and what the model says there.

    Raises:
        ModelError: If the un-written row does not say what a plain forward says.
    """
    unchecked, prefixes, filled = True, None, None
    for chunk in _chunks(model, rows, memory):
        targets = list(dict.fromkeys(rows.targets[r] for r in chunk.tolist()))
        number = {ids: k for k, ids in enumerate(targets)}
        chunk = chunk[torch.argsort(rows.layers[chunk], stable=True)]
        owner = torch.tensor([0, *(number[rows.targets[r]] for r in chunk.tolist())])
        needed = [ids[: len(ids) - rows.depth] for ids in targets]
        if needed != prefixes:  # a target with more rows than fit one chunk is read once
            prefixes = needed
            filled = model.prefix_cache(model.batch(needed)) if needed[0] else None
        scores, carrier = model.scores(rows.space), model.scores(rows.space)
        for path in rows.space.continuations:
            tails = [(*ids[len(ids) - rows.depth :], *path) for ids in targets]
            states = _grow(model, rows, chunk, owner, filled, tails)[:, -1 - len(path) :]
            scores.add(path, states[1:])
            carrier.add(path, states[:1])
        if unchecked:
            _compare(model, targets[0], carrier.result(), rows.space)
            unchecked = False
        yield chunk, scores.result()


def _grow(
    model: HookedModel,
    rows: Rows,
    chunk: Int[Tensor, "row"],
    owner: Int[Tensor, "row_and_carrier"],
    filled: DynamicCache | None,
    tails: Sequence[tuple[int, ...]],
) -> Float[Tensor, "row_and_carrier step width"]:
    """One forward of the first target's tail, joined by the rows of a chunk, which are sorted by layer."""
    layers = rows.layers[chunk]
    # Where a row keeps tokens of its target, they are what the target's own run has there.
    kept = len(tails[0]) > len(rows.positions)
    states = _tail_states(model, tails, filled, layers.unique().tolist()) if kept else {}
    at = [rows.depth + position for position in rows.positions]
    pairs = []
    for layer in layers.unique().tolist():
        here = (layers == layer).nonzero().squeeze(1)
        values = rows.values[chunk[here]]
        if kept:
            joined = states[layer][owner[1 + here].to(states[layer].device)]
            joined[:, at] = values.to(joined)
        else:
            joined = torch.empty_like(values)
            joined[:, at] = values
        pairs.append((model.block_output(layer), _joiner(joined)))
    cache = None if filled is None else PrefixCache(filled, owner)
    with model.hooks(pairs):
        return model.read_from(model.batch(tails[:1]), lambda x, hook: x, past_key_values=cache)


def _tail_states(
    model: HookedModel,
    tails: Sequence[tuple[int, ...]],
    filled: DynamicCache | None,
    layers: Sequence[int],
) -> dict[int, Float[Tensor, "target step d_model"]]:
    """Block outputs of every target's tail in the target's own run."""
    states: dict[int, Tensor] = {}

    def keeper(layer: int) -> Callable[..., None]:
        def keep(x: Tensor, hook: Any) -> None:
            states[layer] = x.clone()

        return keep

    cache = None if filled is None else PrefixCache(filled, torch.arange(len(tails)))
    with model.hooks([(model.block_output(layer), keeper(layer)) for layer in layers]):
        model.read_from(model.batch(tails), lambda x, hook: x[:1, :1], past_key_values=cache)
    return states


def padded(model: HookedModel, rows: Rows, memory: int) -> Found:
    """Inject every row into a target prompt of its own; arguments and results as in :func:`growing`."""
    for chunk, batch in model.id_batches(rows.targets, max(1, memory // budget.row_bytes(model, 0, 1))):
        pairs = []
        for layer in rows.layers[chunk].unique().tolist():
            here = (rows.layers[chunk] == layer).nonzero().squeeze(1)
            for k, position in enumerate(rows.positions):
                write = _writer(batch, rows.values[chunk[here], k], here, position)
                pairs.append((model.block_output(layer), write))
        # Not yielded inside the block: while a generator waits there, its hooks stay attached.
        with model.hooks(pairs):
            output = model.run(batch, rows.space)
        yield chunk, output


def _chunks(model: HookedModel, rows: Rows, memory: int) -> Iterator[Int[Tensor, "row"]]:
    """Rows whose targets have one length, target by target, as many as fit."""
    number = {ids: k for k, ids in enumerate(dict.fromkeys(rows.targets))}
    lengths = {ids: len(ids) for ids in number}
    steps = rows.depth + max(map(len, rows.space.continuations))
    for length in sorted(set(lengths.values()), reverse=True):
        here = torch.tensor([r for r, ids in enumerate(rows.targets) if len(ids) == length])
        order = torch.argsort(torch.tensor([number[rows.targets[r]] for r in here.tolist()]), stable=True)
        targets = sum(1 for n in lengths.values() if n == length)
        prefix = length - rows.depth
        each = budget.row_bytes(model, prefix, steps) + budget.cache_bytes(model, prefix) * targets // len(
            here
        )
        most = max(1, memory // each)
        yield from here[order].tensor_split(-(-len(here) // most))


def _compare(model: HookedModel, target: tuple[int, ...], found: AnswerLogits, space: AnswerSpace) -> None:
    from brewlens.model import ModelError
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


def _writer(
    batch: Batch, values: Float[Tensor, "some d_model"], rows: Int[Tensor, "some"], position: int
) -> Callable[..., Tensor]:
    def write(x: Tensor, hook: Any) -> Tensor:
        return batch.replace(x, values, rows, position)

    return write
