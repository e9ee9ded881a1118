"""What a model says once the state at a prompt's last token is another one, differentiable in that state.

An edit at the last token changes nothing in front of it. So the tokens in front are run once, and their keys
and values kept (:class:`LastToken`); then only the last tokens run, those of many prompts at a time, padded
on the left behind a mask. :class:`WholePrompt` runs all tokens each time: right for any causal model, some
fifty times slower, and what :func:`continuation` falls back to where a model keeps no such cache or reads it
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from brewlens.batching import length_sorted
from brewlens.selfcheck import TOLERANCE

if TYPE_CHECKING:
    from brewlens.answers import AnswerSpace
    from brewlens.model import HookedModel

_CHECKED = 16  # prompts whose un-edited answers are compared with a plain forward


class NoCache(ValueError):
    """A model keeps no key and value of every token of a prompt."""


class Continuation(Protocol):
    """What a model makes of states at the last tokens of prompts."""

    def __call__(
        self, rows: Int[Tensor, "row"], layer: int, states: Float[Tensor, "row d_model"] | None
    ) -> Float[Tensor, "row class"]:
        """Answer logits with the output of block ``layer`` overwritten at the last token; None leaves it.

        Args:
            rows: Which prompts.
            layer: Block (0-based).
            states: What is written; gradients flow back to it.
        """
        ...


class LastToken:
    """Runs last tokens alone; see :class:`Continuation`.

    Args:
        model: Whose self-check let a batch grow, so that it reads a prefix from its cache.
        ids: Token ids of the prompts.
        space: Answers of one token each.
        batch_tokens: Most tokens, those in front included, that one forward attends to.

    Raises:
        NoCache: If the model keeps no keys and values of some token, as with sliding windows.
    """

    def __init__(
        self,
        model: HookedModel,
        ids: Sequence[tuple[int, ...]],
        space: AnswerSpace,
        batch_tokens: int = 4096,
    ) -> None:
        self._model, self._batch_tokens = model, batch_tokens
        self._answers = _answer_head(model, space)
        device = model.device
        self._last = torch.tensor([tokens[-1] for tokens in ids], device=device)
        self._before = torch.tensor([len(tokens) - 1 for tokens in ids], device=device)
        self._start = self._before.cumsum(0) - self._before
        self._total = int(self._before.sum())
        self._keys, self._values = _prefixes(model, [tokens[:-1] for tokens in ids], self._start)

    def __call__(
        self, rows: Int[Tensor, "row"], layer: int, states: Float[Tensor, "row d_model"] | None
    ) -> Float[Tensor, "row class"]:
        rows = rows.to(self._last.device)
        parts, found = [], []
        for part in length_sorted((self._before[rows] + 1).tolist(), self._batch_tokens):
            parts.append(self._run(rows[part], layer, None if states is None else states[part]))
            found.append(part)
        return torch.cat(parts)[torch.argsort(torch.cat(found))]

    def _run(self, rows: Int[Tensor, "row"], layer: int, states: Tensor | None) -> Float[Tensor, "row class"]:
        before = self._before[rows].unsqueeze(1)
        width = int(before.max())
        offset = torch.arange(width, device=rows.device) - (width - before)
        # What stands in padding is masked; it only has to be a token that there is.
        places = (self._start[rows].unsqueeze(1) + offset.clamp_min(0)).clamp_max(self._total - 1)
        mask = torch.cat([offset >= 0, torch.ones_like(before, dtype=torch.bool)], 1).long()
        cache = _LeftPadded(self._keys, self._values, places, -1 if states is None else layer)
        return _written_run(
            self._model,
            self._last[rows].unsqueeze(1),
            layer,
            None if states is None else (lambda x: states.to(x).unsqueeze(1).expand_as(x)),
            lambda x: self._answers(x[:, 0]),
            cache=cache if width else None,
            attention_mask=mask,
        )


class WholePrompt:
    """Runs whole prompts; see :class:`Continuation`. Arguments as of :class:`LastToken`."""

    def __init__(self, model: HookedModel, ids: Sequence[tuple[int, ...]], space: AnswerSpace) -> None:
        self._model, self._ids = model, list(ids)
        self._answers = _answer_head(model, space)

    def __call__(
        self, rows: Int[Tensor, "row"], layer: int, states: Float[Tensor, "row d_model"] | None
    ) -> Float[Tensor, "row class"]:
        parts, found = [], []
        for part, batch in self._model.id_batches([self._ids[row] for row in rows.tolist()]):
            parts.append(
                _written_run(
                    self._model,
                    batch.tokens,
                    layer,
                    None if states is None else (lambda x, b=batch, p=part: b.replace(x, states[p])),
                    lambda x, b=batch: self._answers(b.gather(x)),
                )
            )
            found.append(part)
        return torch.cat(parts)[torch.argsort(torch.cat(found))]


def continuation(model: HookedModel, ids: Sequence[tuple[int, ...]], space: AnswerSpace) -> Continuation:
    """The fast way if it says of un-edited prompts what a plain forward says, else the slow one.

    Args:
        model: The model.
        ids: Token ids of the prompts.
        space: Answers of one token each.

    Raises:
        ValueError: If an answer has several tokens, or neither way says what the model says.
    """
    if not space.single:
        raise ValueError(
            "the state at one token is followed to the answers of one token each, found "
            f"{max(map(len, space.sequences))} tokens; take other classes or scoring='first'"
        )
    rows = torch.arange(min(len(ids), _CHECKED))
    plain = model.answer_logits(ids[:_CHECKED], space).logits
    ways: list[Callable[..., Continuation]] = [LastToken, WholePrompt] if model.grows else [WholePrompt]
    error = float("nan")
    for way in ways:
        try:
            run = way(model, ids, space)
        except NoCache:
            continue
        with torch.no_grad():
            error = float((run(rows, 0, None).cpu() - plain).abs().max() / plain.abs().max())
        # A slip, not rounding, is looked for; not "error > tolerance", as a NaN must fail too.
        if error <= 10 * TOLERANCE.get(model.dtype, 5e-5):
            return run
    raise ValueError(
        f"{model.name}: the answers read at the last token differ from a plain forward by {error:.2g}; hooks "
        "of your own would do that. Take them off"
    )


class _LeftPadded(DynamicCache):
    """Keys and values of prefixes of any length, padded on the left, and never written to.

    Args:
        keys: ``[token, head, width]`` of each layer, all prefixes one behind the other.
        values: Likewise.
        places: ``[row, position]`` which of the tokens each row has in front.
        skipped: Last layer whose output is overwritten, so that anything may be attended to up to it.
    """

    def __init__(
        self,
        keys: Sequence[Float[Tensor, "token head width"]],
        values: Sequence[Float[Tensor, "token head width"]],
        places: Int[Tensor, "row position"],
        skipped: int,
    ) -> None:
        super().__init__()
        self._keys, self._values, self._places, self._skipped = keys, values, places, skipped

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if layer_idx <= self._skipped:
            shape = (-1, -1, self._places.shape[1] + 1, -1)
            return key_states.expand(shape), value_states.expand(shape)
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        return self._behind(keys, key_states), self._behind(values, value_states)

    def _behind(self, prefixes: Tensor, new: Tensor) -> Tensor:
        return torch.cat([prefixes[self._places].transpose(1, 2), new], dim=-2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._places.shape[1]

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self._places.shape[1] + query_length, 0


def _prefixes(
    model: HookedModel, prefixes: Sequence[tuple[int, ...]], start: Int[Tensor, "prompt"]
) -> tuple[list[Float[Tensor, "token head width"]], list[Float[Tensor, "token head width"]]]:
    """Keys and values of every layer, those of prefix ``p`` from ``start[p]`` on."""
    keys: list[Tensor] = []
    values: list[Tensor] = []
    filled = [row for row, tokens in enumerate(prefixes) if tokens]
    total = sum(map(len, prefixes))
    for part, batch in model.id_batches([prefixes[row] for row in filled]) if filled else ():
        width = batch.tokens.shape[1]
        at = torch.arange(width, device=batch.tokens.device)
        real = at < batch.lengths.unsqueeze(1)
        places = (start[torch.tensor(filled)[part].to(start.device)].unsqueeze(1) + at)[real]
        for number, layer in enumerate(cast(list[Any], model.prefix_cache(batch).layers)):
            for store, state in ((keys, layer.keys), (values, layer.values)):
                if state is None or state.ndim != 4 or state.shape[-2] != width:
                    raise NoCache(f"{model.name} keeps no key and value of every token in block {number}")
                if number == len(store):
                    store.append(state.new_empty(total, state.shape[1], state.shape[3]))
                store[number][places.to(state.device)] = state.transpose(1, 2)[real.to(state.device)]
    return keys, values


def _answer_head(model: HookedModel, space: AnswerSpace) -> Callable[[Tensor], Tensor]:
    """From what the unembedding reads to the logits of the answers, after the soft cap or scale."""
    network: Any = model.bridge.original_model
    head = network.get_output_embeddings()
    columns = torch.tensor(space.token_ids, device=head.weight.device)
    weight = head.weight[columns].detach()
    bias = None if getattr(head, "bias", None) is None else head.bias[columns].detach()

    def answers(x: Float[Tensor, "row width"]) -> Float[Tensor, "row class"]:
        logits = torch.nn.functional.linear(x, weight, bias)
        return model.bridge.adapter.apply_output_logits_transform(logits).float()

    return answers


def _written_run(
    model: HookedModel,
    tokens: Int[Tensor, "row position"],
    layer: int,
    write: Callable[[Tensor], Tensor] | None,
    read: Callable[[Tensor], Tensor],
    *,
    cache: DynamicCache | None = None,
    **inputs: Any,
) -> Float[Tensor, "row class"]:
    """One forward, whose full unembedding is shown a single token."""
    kept: list[Tensor] = []

    def keep(x: Tensor, hook: Any) -> Tensor:
        kept.append(read(x))
        return x[:1, :1].detach()

    pairs: list[tuple[str, Any]] = [("unembed.hook_in", keep)]
    if write is not None:
        pairs.append((model.block_output(layer), lambda x, hook: write(x)))
    with model.hooks(pairs), model.handing(cache) as handed:
        model.bridge(tokens, use_cache=False, output_attentions=False, **handed, **inputs)
    return kept[0]
