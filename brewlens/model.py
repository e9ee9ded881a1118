"""The one door to TransformerLens, with ``loading``: encode, capture residuals, inject, read out, edit.

A residual is the residual stream at the output of a block (``resid_post``, layers 0-based) at the last
prompt token, before the final norm, for every block including the last. Weights are the raw ones: the
bridge's compatibility mode, which rewrites them, is never used.

Prompts run right-padded without a mask (see :class:`brewlens.batching.Batch`), and every logit comes from
the model's own blocks. The unembedding is shown only the last token of each prompt, a bounded number of rows
at a time, so that no tensor ``[row, position, vocabulary]`` ever exists.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from brewlens import budget, html, passes
from brewlens.answer_logits import AnswerLogits, Scores
from brewlens.answers import DIGITS, AnswerSpace, Scoring
from brewlens.batching import Batch, length_sorted
from brewlens.errors import ModelError
from brewlens.identity import context, tokenizer_hash, weights_hash
from brewlens.model_source import shown_name
from brewlens.passes import ForwardPass, Swept
from brewlens.progress import bar
from brewlens.residuals import RESID_POST
from brewlens.rows import Rows, Z, check_positions

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import DynamicCache, PreTrainedTokenizerBase

    from brewlens.kv_cache import Handover
    from brewlens.selfcheck import ModelCheck, TapCheck

log = logging.getLogger("brewlens")

Hook = Callable[[Tensor, Any], Tensor | None]
Prompt = str | tuple[int, ...]
"""A text, or the token ids of one."""
_P = TypeVar("_P", str, Prompt)


class HookedModel:
    """A causal language model with hooks on its residual stream. Made by :func:`load_model`.

    Attributes:
        name: A bundled name, a hub id, or the last part of a folder.
        revision: Commit hash on the hub, or None for a folder.
        bridge: The TransformerLens bridge, in evaluation mode, with raw weights.
        tokenizer: The Hugging Face tokenizer; its settings are not touched.
        check: What the self-check at loading measured.
        grows: Whether injection lets one batch grow from block to block, which is fast, or runs every
            row's whole target prompt, which is right for any model. The self-check decides.
    """

    name: str
    revision: str | None
    bridge: TransformerBridge
    tokenizer: PreTrainedTokenizerBase
    check: ModelCheck
    grows: bool = False
    _taps: dict[str, TapCheck]

    @classmethod
    def from_bridge(
        cls,
        bridge: TransformerBridge,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        name: str | None = None,
        revision: str | None = None,
        check_prompts: Sequence[str] | None = None,
    ) -> HookedModel:
        """Wrap a bridge that is already there, and check it.

        Args:
            bridge: With raw weights (not in compatibility mode) and in evaluation mode.
            tokenizer: Default: the bridge's own, which may add a BOS that yours does not.
            name: Default: the bridge's model name, of a folder its last part.
            revision: Commit hash on the hub, if any.
            check_prompts: Prompts of the self-check, which end where a digit must follow.

        Raises:
            ModelError: If the bridge is not usable or fails the self-check.
        """
        from brewlens.selfcheck import check

        model = cls()
        model._taps = {}
        model.bridge = bridge
        model.name = shown_name(bridge.cfg.model_name) if name is None else name
        model.revision = revision
        tokenizer = bridge.tokenizer if tokenizer is None else tokenizer
        if tokenizer is None:
            raise ModelError(f"{model.name}: the bridge has no tokenizer; pass tokenizer=")
        model.tokenizer = tokenizer
        if bridge.compatibility_mode:
            raise ModelError(
                f"{model.name}: asked for raw weights, found a bridge in compatibility mode, which has "
                "rewritten them; boot it again without enable_compatibility_mode()"
            )
        if any(m.training for m in bridge.original_model.modules()):
            raise ModelError(f"{model.name}: the model is in training mode; call bridge.eval() first")
        model.check = check(model, check_prompts)
        model.grows = model.check.grows
        if not model.grows:
            log.warning("%s: injection runs padded, the slower way: %s", model.name, model.check.refused)
        return model

    @property
    def n_layers(self) -> int:
        """Number of blocks, L."""
        return int(self.bridge.cfg.n_layers)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.bridge.cfg.d_model)

    @property
    def d_vocab(self) -> int:
        """Size of the vocabulary."""
        return int(self.bridge.cfg.d_vocab)

    @property
    def n_params(self) -> int:
        """Number of parameters, shared ones counted once."""
        return sum(p.numel() for p in self.bridge.original_model.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are; of a model on several devices, the first."""
        return next(self.bridge.original_model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.bridge.original_model.parameters()).dtype

    @cached_property
    def weights_hash(self) -> str:
        """blake2b over names, types, shapes and bytes of the weights, in the order of the names."""
        return weights_hash(self.bridge.state_dict())

    @cached_property
    def tokenizer_hash(self) -> str:
        """blake2b over the tokenizer's definition: vocabulary, rules and special tokens."""
        return tokenizer_hash(self.tokenizer)

    def __repr__(self) -> str:
        return (
            f"HookedModel({self.name}: {self.n_layers} layers x {self.d_model}, vocabulary {self.d_vocab}, "
            f"{str(self.dtype).removeprefix('torch.')} on {self.device})"
        )

    def _repr_html_(self) -> str:
        """What model it is, and what the self-check found."""
        row = {"architecture": type(self.bridge.original_model).__name__, "parameters": self.n_params}
        row |= {"layers": self.n_layers, "d_model": self.d_model, "vocabulary": self.d_vocab}
        row |= {"context": self.context, "revision": self.revision}
        return html.card(repr(self), html.table([row]), html.note(self.check))

    # Text and tokens

    def token_ids(self, prompt: str) -> tuple[int, ...]:
        """The ids that the model reads for ``prompt``, special tokens included as the tokenizer adds them.

        Raises:
            ValueError: If there is no token, or the prompt is longer than the model's context.
        """
        ids = tuple(self.tokenizer(prompt)["input_ids"])
        self._check_length(ids, repr(prompt[-40:]))
        if max(ids) >= self.d_vocab:
            raise ModelError(
                f"{self.name}: token {max(ids)} of {prompt[-40:]!r} is outside the model's vocabulary of "
                f"{self.d_vocab}; the tokenizer belongs to another model"
            )
        return ids

    @cached_property
    def context(self) -> int | None:
        """Most tokens that the model reads; None if it does not say."""
        return context(self.bridge.original_model.config, getattr(self.bridge.cfg, "n_ctx", None))

    def _check_length(self, ids: Sequence[int], what: str) -> None:
        if not ids or (self.context and len(ids) > self.context):
            raise ValueError(
                f"prompt {what} has {len(ids)} tokens; {self.name} reads 1 to {self.context}. "
                "Leave the prompt out or shorten it"
            )

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, unchanged: no clean-up, special tokens shown."""
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def encode(self, prompts: Sequence[str]) -> Batch:
        """All prompts in one batch, on the model's device.

        Raises:
            ValueError: If there is no prompt, or one is empty or too long.
        """
        return self.batch([self.token_ids(p) for p in _listed(prompts)])

    def answer_space(
        self,
        prompts: Sequence[str],
        classes: Sequence[str] = DIGITS,
        *,
        scoring: Scoring = "token",
        end: str = "",
    ) -> AnswerSpace:
        """The tokens of each class behind up to eight of the prompts, those with different endings.

        Arguments and errors as in :meth:`AnswerSpace.derive`.
        """
        endings = {prompt[-24:]: prompt for prompt in _listed(prompts)}
        contexts = list(endings.values())[:8]
        return AnswerSpace.derive(self.token_ids, self.decode, contexts, classes, scoring=scoring, end=end)

    # Hooks

    @contextmanager
    def hooks(self, pairs: Sequence[tuple[str, Hook]]) -> Iterator[HookedModel]:
        """Attach forward hooks, and take them off again whatever happens.

        Args:
            pairs: Hook point name, and ``f(tensor, hook)`` that returns a new tensor or None. Bind what
                the function needs (the layer, for one) in its closure; a hook point can have two names.

        Raises:
            ModelError: If a name is unknown; no hook is attached then.
        """
        known = self.bridge.hook_dict
        if unknown := [name for name, _ in pairs if name not in known]:
            near = [n for n in known if n.rpartition(".")[2] == unknown[0].rpartition(".")[2]][:3]
            raise ModelError(
                f"{self.name} has no hook point {unknown[0]!r}; it has {len(known)}, for example "
                f"{near or list(known)[:3]} (all of them: model.bridge.hook_dict)"
            )
        with self.bridge.hooks(fwd_hooks=list(pairs)):
            yield self

    def block_output(self, layer: int) -> str:
        """Name of the hook point at the output of a block (0-based): the residual stream after it."""
        return f"blocks.{layer}.hook_out"

    def tap(self, name: str, layer: int) -> str:
        """Hook point of a tap: ``resid_post`` (the block output), ``resid_pre``, ``attn_out``, ``z``, ..."""
        if name == RESID_POST:
            return self.block_output(layer)
        return f"blocks.{layer}.{'attn.' if name == Z else ''}hook_{name}"

    # Passes

    def batches(
        self,
        prompts: Sequence[str],
        *,
        batch_tokens: int | None = None,
        progress: bool = False,
    ) -> Iterator[tuple[Int[Tensor, "row"], Batch]]:
        """Length-sorted batches: which prompts, and their batch on the model's device.

        Together with :meth:`hooks` and :meth:`run` this is all that an intervention needs.
        """
        yield from self.id_batches(self.ids(prompts), batch_tokens, progress)

    @torch.no_grad()
    def run(self, batch: Batch, space: AnswerSpace) -> AnswerLogits:
        """The model's answer logits at the last token of each row, under the hooks in force."""
        scores = self.scores(space)
        for path in space.continuations:
            longer, steps = batch.followed_by(path), 1 + len(path)
            scores.add(path, self.read_from(longer, lambda x, hook, n=steps: batch.gather_from(x, n)))
        return scores.result()

    def forward(
        self,
        prompts: Sequence[str],
        space: AnswerSpace,
        *,
        batch_tokens: int | None = None,
        dtype: torch.dtype = torch.float32,
        progress: bool = False,
    ) -> ForwardPass:
        """Residuals and the model's own answer, in one pass.

        Args:
            prompts: In any order and number; results keep their order.
            space: The answer classes.
            batch_tokens: Most tokens in one forward; by default what fits 48 MiB on a processor, 2 GiB on a
                GPU.
            dtype: Of the residuals that are returned.
            progress: Show a progress bar.

        Raises:
            ValueError: If there is no prompt, or one is empty or too long.
        """
        ids = self.ids(prompts)
        taps, output = passes.collect(self, ids, (RESID_POST,), None, space, batch_tokens, dtype, progress)
        return ForwardPass(taps[RESID_POST], tuple(ids), output)

    def states(
        self,
        prompts: Sequence[Prompt],
        *,
        tap: str = RESID_POST,
        positions: Sequence[int] = (-1,),
        layers: Sequence[int] | None = None,
        batch_tokens: int | None = None,
        progress: bool = False,
    ) -> Float[Tensor, "sample layer position width"]:
        """What the model holds at chosen tokens of prompts; on the CPU, float32.

        Args:
            prompts: Texts or token ids, in any order and number; results keep their order.
            tap: ``resid_post``, ``resid_pre``, ``resid_mid``, ``attn_out``, ``mlp_out``; ``z`` for what the
                heads give before the output projection, one head behind the other.
            positions: Counted from each prompt's end: -1 is its last token.
            layers: Blocks (0-based); all by default.
            batch_tokens: Most tokens in one forward; by default what fits 48 MiB on a processor, 2 GiB on a
                GPU.
            progress: Show a progress bar.

        Raises:
            ValueError: If there is no prompt, or one is empty, too long, or shorter than the positions.
            ModelError: If the model has no such tap.
        """
        ids = self.ids(prompts)
        check_positions(positions, min(map(len, ids)))
        taps, _ = passes.collect(
            self, ids, (tap,), layers, None, batch_tokens, torch.float32, progress, positions
        )
        return taps[tap]

    def last_residuals(
        self,
        prompts: Sequence[Prompt],
        *,
        batch_tokens: int | None = None,
        dtype: torch.dtype = torch.float32,
        progress: bool = False,
    ) -> tuple[Float[Tensor, "sample layer d_model"], tuple[tuple[int, ...], ...]]:
        """Residual stream at every block output at the last prompt token, and the token ids read.

        Arguments and errors as in :meth:`forward`; the unembedding is skipped.
        """
        ids = self.ids(prompts)
        taps, _ = passes.collect(self, ids, (RESID_POST,), None, None, batch_tokens, dtype, progress)
        return taps[RESID_POST], tuple(ids)

    def answer_logits(
        self,
        prompts: Sequence[Prompt],
        space: AnswerSpace,
        *,
        batch_tokens: int | None = None,
        progress: bool = False,
    ) -> AnswerLogits:
        """The model's own answer to each prompt, rows ``[sample]``. Errors as in :meth:`forward`."""
        ids = self.ids(prompts)
        return passes.collect(self, ids, (), None, space, batch_tokens, torch.float32, progress)[1]

    def base_logits(self, targets: Sequence[Prompt], space: AnswerSpace, **options: Any) -> AnswerLogits:
        """:meth:`answer_logits` of prompts that repeat: each distinct one is run once."""
        distinct = {t: row for row, t in enumerate(dict.fromkeys(_listed(targets)))}
        return self.answer_logits(list(distinct), space, **options)[[distinct[t] for t in targets]]

    def sweep(
        self,
        ids: Sequence[tuple[int, ...]],
        *,
        taps: Sequence[str] = (RESID_POST,),
        layers: Sequence[int] | None = None,
        space: AnswerSpace | None = None,
        batch_tokens: int | None = None,
        progress: bool = False,
    ) -> Iterator[Swept]:
        """Run prompts batch by batch and keep what is asked for at the last token, and nothing else.

        Args:
            ids: Token ids of the prompts; batches come longest first.
            taps: ``resid_post``, ``resid_pre``, ``resid_mid``, ``attn_out``, ``mlp_out``.
            layers: Blocks (0-based) that are tapped; all by default.
            space: Read the model's own answer too.
            batch_tokens: Most tokens in one forward; by default what fits 48 MiB on a processor, 2 GiB on a
                GPU.
            progress: Show a progress bar.

        Raises:
            ModelError: If the model has no such tap.
        """
        yield from passes.sweep(self, ids, taps, layers, space, batch_tokens, progress)

    @property
    def unembedding(self) -> Float[Tensor, "vocabulary d_model"]:
        """The unembedding matrix as the model holds it."""
        network: Any = self.bridge.original_model
        return network.get_output_embeddings().weight

    def normed(self, rows: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        """The final norm."""
        # The row axis stands where the norm expects the position axis.
        return self.bridge.ln_final(rows.to(self.device, self.dtype).unsqueeze(0)).squeeze(0)

    def unembed(self, rows: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows vocabulary"]:
        """Logits, after the architecture's soft cap or scale, of what :meth:`read_from` gave.

        Hooks on the unembedding's output see them; hooks on its input have been there before.
        """
        unembedding = self.bridge.unembed
        logits = unembedding.hook_out(unembedding.original_component(rows))
        return self.bridge.adapter.apply_output_logits_transform(logits)

    def vocabulary_logits(self, rows: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocabulary"]:
        """Final norm and unembedding, after the soft cap or scale; can be differentiated.

        For what must see the whole vocabulary, in small chunks; :meth:`read_out` keeps the answers only.
        """
        normed = self.bridge.unembed(self.normed(rows).unsqueeze(0))
        return self.bridge.adapter.apply_output_logits_transform(normed).squeeze(0)

    def scores(self, space: AnswerSpace) -> Scores:
        """Where answers are gathered from what :meth:`read_from` gives, some rows at a time."""
        return Scores(space, self.unembed, budget.logit_rows(self))

    @torch.no_grad()
    def read_out(
        self, residuals: Float[Tensor, "*rows d_model"], space: AnswerSpace, chunk: int = 1024
    ) -> AnswerLogits:
        """Final norm and unembedding of residuals, ``chunk`` rows at a time.

        At the last layer this is the model's own answer; at an earlier one, the logit lens. Classes of
        several tokens need residuals behind the prompt too: see :mod:`brewlens.decoding.logit_lens`.

        Raises:
            ValueError: If the last axis is not ``d_model``, there is no row, or a class has several tokens.
        """
        if residuals.shape[-1] != self.d_model or residuals.numel() == 0:
            raise ValueError(
                f"read_out takes rows of width {self.d_model}, found shape {tuple(residuals.shape)}"
            )
        if not space.single:
            raise ValueError("read_out reads one position, found classes of several tokens; use logit_lens")
        chunk = min(chunk, budget.logit_rows(self))
        parts = [
            AnswerLogits.of(self.vocabulary_logits(rows), space)
            for rows in residuals.reshape(-1, self.d_model).split(chunk)
        ]
        return AnswerLogits.concatenate(parts).reshape(*residuals.shape[:-1])

    def inject(
        self,
        values: Float[Tensor, "sample layer *position width"],
        targets: Sequence[Prompt],
        space: AnswerSpace,
        *,
        layers: Sequence[int] | Int[Tensor, "*sample layer"] | None = None,
        positions: Sequence[int] = (-1,),
        tap: str = RESID_POST,
        memory: int | None = None,
        progress: bool = False,
    ) -> AnswerLogits:
        """Write states into prompts and let the later blocks run.

        For every sample ``s`` and entry ``k`` of the layer axis: run ``targets[s]``, overwrite ``tap`` of
        block ``layers[k]`` at its last token by ``values[s, k]``, and read the answer at the last token.
        Any grid of patches is this call: what is written (a donor's state, a blend, a projection) is in
        ``values``, where it is written in ``layers`` and ``positions``, and a target may repeat.

        Args:
            values: What is written, ``[sample, layer, width]``; where several positions are written at
                once, ``[sample, layer, position, width]``.
            targets: One target prompt per sample: a text, or token ids.
            space: The answer classes.
            layers: Block (0-based) of each entry of the layer axis, in any order and as often as wanted;
                one row per sample if samples differ. Default: ``0 .. n_layers - 1``.
            positions: Where, counted from the target's end: -1 is its last token, -3 two before it.
            tap: ``resid_post``, the block's output; ``attn_out`` or ``mlp_out``, what attention or the MLP
                adds to the stream; ``z``, what the heads give before the output projection, one head
                behind the other. Widths are those of :meth:`states`.
            memory: Bytes that one forward may take beside the model, about. Default: 64 MiB on a
                processor, 2 GiB on a GPU.
            progress: Show a progress bar.

        Returns:
            Rows ``[sample, layer]``.

        Raises:
            ValueError: If shapes, targets, layers and positions do not fit together.
            ModelError: If the model has no such tap, or the un-written row does not say what a plain
                forward says.
        """
        rows = Rows.of(*(self, values, self.ids(targets), space), layers=layers, positions=positions, tap=tap)
        return self._injected(rows, len(targets), memory, progress)[0]

    def inject_followed(
        self,
        values: Float[Tensor, "sample layer *position width"],
        targets: Sequence[Prompt],
        space: AnswerSpace,
        *,
        layers: Sequence[int] | Int[Tensor, "*sample layer"] | None = None,
        positions: Sequence[int] = (-1,),
        tap: str = RESID_POST,
        memory: int | None = None,
        progress: bool = False,
    ) -> tuple[AnswerLogits, AnswerLogits]:
        """:meth:`inject`, and what the edited run says one block later.

        The second is the logit lens (final norm and unembedding) at the last token of the output of block
        ``min(l + 1, n_layers - 1)``, where ``l`` is the block written, in the same run. Arguments and errors
        as in :meth:`inject`.

        Raises:
            ValueError: Also if a class has several tokens.
        """
        rows = Rows.of(
            *(self, values, self.ids(targets), space),
            layers=layers,
            positions=positions,
            tap=tap,
            followed=True,
        )
        output, next_block = self._injected(rows, len(targets), memory, progress)
        return output, next_block

    def _injected(
        self, rows: Rows, samples: int, memory: int | None, progress: bool
    ) -> tuple[AnswerLogits, ...]:
        from brewlens.injection import run

        outputs = run(self, rows, grows=self.grows_at(rows.tap), memory=memory, progress=progress)
        return tuple(output.reshape(samples, len(rows) // samples) for output in outputs)

    def grows_at(self, tap: str) -> bool:
        """Whether injection at a tap lets one batch grow.

        Inside blocks this is checked when a tap is first written, and kept.

        Raises:
            ModelError: If the model has no such tap, or what is written there does not reach the answer.
        """
        from brewlens.selfcheck import check_tap

        if tap == RESID_POST:
            return self.grows
        if tap not in self._taps:
            self._taps[tap] = check_tap(self, tap)
            if self.grows and not self._taps[tap].grows:
                reason = self._taps[tap].refused
                log.warning("%s: injection at %s runs padded, the slower way: %s", self.name, tap, reason)
        return self.grows and self._taps[tap].grows

    # What the passes are made of

    def batch(self, ids: Sequence[Sequence[int]]) -> Batch:
        """Token ids as one batch on the model's device."""
        return Batch.of(ids, device=self.device)

    def id_batches(
        self, ids: Sequence[Sequence[int]], batch_tokens: int | None = None, progress: bool = False
    ) -> Iterator[tuple[Int[Tensor, "row"], Batch]]:
        """Length-sorted batches of token ids; as :meth:`batches`."""
        if batch_tokens is None:
            batch_tokens = budget.tokens_at_once(self, max(map(len, ids)))
        with bar(total=len(ids), shown=progress, unit="row", work="reading prompts") as done:
            for rows in length_sorted([len(i) for i in ids], batch_tokens):
                yield rows, self.batch([ids[r] for r in rows.tolist()])
                done.update(len(rows))

    @torch.no_grad()
    def read_from(
        self, batch: Batch, shorten: Hook, cache: DynamicCache | None = None
    ) -> Float[Tensor, "row step width"]:
        """One forward: ``shorten(x)`` of the unembedding's input, of which the forward itself reads one.

        Args:
            batch: Prompts, or what stands behind the prefixes in ``cache``.
            shorten: Keeps a part of ``[row, position, width]``; None keeps all.
            cache: Keys and values of prefixes. Those of the batch are added to it.
        """
        kept: list[Tensor] = []

        def keep(x: Tensor, hook: Any) -> Tensor:
            shortened = shorten(x, hook)
            kept.append(x if shortened is None else shortened)
            return x[:1, :1]

        # Not at the last block's output: some models restore the shape [row, position, d_model] after
        # the final norm.
        with self.hooks([("unembed.hook_in", keep)]), self.handing(cache) as inputs:
            self.bridge(batch.tokens, use_cache=False, output_attentions=False, **inputs)
        return kept[0]

    @contextmanager
    def handing(self, cache: DynamicCache | None) -> Iterator[dict[str, Any]]:
        """Keywords by which the bridge's forward is given a cache; None gives none.

        Raises:
            ModelError: If an attention of the model reads no cache.
        """
        if cache is None:
            yield {}
            return
        with self._handover.given(cache) as inputs:
            yield inputs

    @cached_property
    def _handover(self) -> Handover:
        from brewlens.kv_cache import Handover

        return Handover.of(self.bridge)

    def prefix_cache(self, batch: Batch) -> DynamicCache:
        """Keys and values of prompts.

        Raises:
            ModelError: If an attention of the model reads no cache.
        """
        from transformers import DynamicCache

        network: Any = self.bridge.original_model
        filled = DynamicCache(config=network.config)
        self.read_from(batch, lambda x, hook: x[:1, :1], filled)
        return filled

    def ids(self, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        """Token ids of prompts, each distinct text encoded once.

        Raises:
            ValueError: If there is no prompt, or one is empty, too long or outside the vocabulary.
        """
        texts = {p: self.token_ids(p) for p in dict.fromkeys(_listed(prompts)) if isinstance(p, str)}
        ids = [texts[p] if isinstance(p, str) else tuple(p) for p in prompts]
        for tokens in ids:
            self._check_length(tokens, str(list(tokens[:8])))
            if not 0 <= min(tokens) <= max(tokens) < self.d_vocab:
                raise ValueError(f"token ids run from 0 to {self.d_vocab - 1}, found {list(tokens)}")
        return ids


def _listed(prompts: Sequence[_P]) -> Sequence[_P]:
    if isinstance(prompts, str) or not len(prompts):
        raise ValueError(f"give a list of at least one prompt, found {prompts!r}")
    return prompts
