"""A transformer set by hand that does, at its last token, what planted tokens say, each in one block.

The residual stream is cut into named dimensions (:class:`Layout`). At the last token:

* ``available``: the answer, one of ten, where a probe finds it and the unembedding does not.
* ``readout``: what the unembedding reads.
* ``gate`` and ``request``: scratch of one block, empty between blocks.

A planted token carries its layer, its event and a payload. In block ``l`` one attention head per event looks
for a token of that event and layer and writes:

* ``available``: its digit into ``available``.
* ``ready``: 1 into ``gate``. Then the MLP adds ``available``, as it stands at the last token, to
  ``readout``.
* ``write``: its digit into ``readout``, past what is available.
* ``overwrite``: its digit into ``request``. Then the MLP adds twice that to ``readout``.
* ``noise``: its payload to ``available`` and ``readout``: what their noise changes by from the last block to
  this one. So every block output has noise of its own.

Without such a token, as in a target prompt, heads rest on letters, whose payload is zero. The norms have an
epsilon beside which no residual counts, so they are the identity, to the last bit in float32: what is cleared
leaves nothing behind, which a probe would standardise and read. ``one`` is 1 everywhere: the query of every
head and the bias of the MLP. All blocks have the same weights but for the layer that their heads look for.

A last token that is moved a little in any direction stays what it is: no head comes to look at it, as scores
are far apart, and the MLP is bilinear in ``gate`` and ``available``. So a random move as large as an exchange
of answers (a placebo) seldom changes what is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from brewlens.answers import DIGITS
from brewlens.planted.simulated import SCALE
from brewlens.planted.vocabulary import EVENTS

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Architecture = Literal["qwen2", "llama"]
ARCHITECTURES: tuple[Architecture, ...] = ("qwen2", "llama")

EPSILON = 2.0**40  # of the norms; a mean square up to 2**15 vanishes beside it in float32
LOUDEST = 32.0  # height of noise, in answers, whose square vanishes beside EPSILON whatever the rest is
PRIOR = 8.0  # logit of each digit where the readout is empty
ELSEWHERE = -24.0  # logit of all that is no digit
OVERWRITE = 2.0  # share of a request that reaches the readout
MARK = 2.0  # height of what heads look for in a token; an answer is 1 high

# exp(-105) is 0 in float32, so that what a head does not look for adds exactly nothing: a probe would
# standardise the smallest remainder.
_GAP = 128.0
_HEADS = {
    "available": "available",
    "ready": "ready",
    "write": "write",
    "overwrite": "overwrite",
    "noise_available": "noise",
    "noise_readout": "noise",
}
_CONTEXT = 4096


@dataclass(frozen=True)
class Layout:
    """Which dimensions of the residual stream hold what.

    Attributes:
        n_layers: L.
    """

    n_layers: int

    @cached_property
    def _slices(self) -> dict[str, slice]:
        sizes = {
            "one": 1,
            "rest": 1,
            "layer": self.n_layers,
            "event": len(EVENTS),
            "to_available": len(DIGITS),
            "to_readout": len(DIGITS),
            "available": len(DIGITS),
            "readout": len(DIGITS),
            "request": len(DIGITS),
            "gate": 1,
        }
        found, start = {}, 0
        for name, size in sizes.items():
            found[name] = slice(start, start + size)
            start += size
        return found

    @property
    def used(self) -> int:
        """Number of dimensions that hold something."""
        return self._slices["gate"].stop

    @property
    def head_dim(self) -> int:
        """Even, as rotary embeddings need it."""
        least = max(-(-self.used // len(_HEADS)), len(DIGITS) + 1)
        return least + least % 2

    @property
    def d_model(self) -> int:
        return self.head_dim * len(_HEADS)

    @property
    def one(self) -> int:
        return self._slices["one"].start

    @property
    def rest(self) -> int:
        """``MARK`` at letters, where heads rest: not at the quotation mark that ends a question."""
        return self._slices["rest"].start

    @property
    def gate(self) -> int:
        return self._slices["gate"].start

    def layer(self, layer: int) -> int:
        """``MARK`` at planted tokens of this layer."""
        return self._slices["layer"].start + layer

    def event(self, event: str) -> int:
        """``MARK`` at planted tokens of this event."""
        return self._slices["event"].start + EVENTS.index(event)

    @property
    def to_available(self) -> slice:
        """Payload of a planted token."""
        return self._slices["to_available"]

    @property
    def to_readout(self) -> slice:
        """Payload of a planted token."""
        return self._slices["to_readout"]

    @property
    def available(self) -> slice:
        """Where the answer is available, at the last token."""
        return self._slices["available"]

    @property
    def readout(self) -> slice:
        """What the unembedding reads, at the last token."""
        return self._slices["readout"]

    @property
    def request(self) -> slice:
        return self._slices["request"]


def config(architecture: Architecture, layout: Layout, vocabulary: int) -> PretrainedConfig:
    """The Hugging Face configuration.

    Raises:
        ValueError: If the architecture is unknown.
    """
    from transformers import LlamaConfig, Qwen2Config

    if architecture not in ARCHITECTURES:
        raise ValueError(f"asked for architecture {architecture!r}; there are {', '.join(ARCHITECTURES)}")
    kind = Qwen2Config if architecture == "qwen2" else LlamaConfig
    return kind(
        vocab_size=vocabulary,
        hidden_size=layout.d_model,
        intermediate_size=_units(),
        num_hidden_layers=layout.n_layers,
        num_attention_heads=len(_HEADS),
        num_key_value_heads=len(_HEADS),
        hidden_act="relu",
        max_position_embeddings=_CONTEXT,
        rms_norm_eps=EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        architectures=["Qwen2ForCausalLM" if architecture == "qwen2" else "LlamaForCausalLM"],
        dtype="float32",
    )


def weights(
    architecture: Architecture,
    layout: Layout,
    embedding: Float[Tensor, "token d_model"],
    digits: list[int],
) -> dict[str, Tensor]:
    """All weights, by their Hugging Face names.

    Args:
        architecture: ``qwen2`` or ``llama``.
        layout: Where everything is.
        embedding: Of every token; see :class:`Layout`.
        digits: Ids of the ten digits.
    """
    d = layout.d_model
    norm = torch.full((d,), EPSILON**0.5)
    unembedding = torch.zeros_like(embedding)
    unembedding[:, layout.one] = ELSEWHERE
    unembedding[digits, layout.one] = PRIOR
    unembedding[digits, layout.readout] = SCALE * torch.eye(len(DIGITS))
    found = {
        "model.embed_tokens.weight": embedding,
        "model.norm.weight": norm,
        "lm_head.weight": unembedding,
    }
    mlp = _mlp(layout)
    for layer in range(layout.n_layers):
        block = {
            "input_layernorm.weight": norm,
            "post_attention_layernorm.weight": norm,
            **{f"mlp.{name}_proj.weight": value for name, value in mlp.items()},
        }
        for name, value in _attention(layout, layer).items():
            block[f"self_attn.{name}_proj.weight"] = value
            if architecture == "qwen2" and name != "o":
                block[f"self_attn.{name}_proj.bias"] = torch.zeros(d)
        # Copies: a checkpoint may not hold one tensor under two names.
        found |= {f"model.layers.{layer}.{name}": value.clone() for name, value in block.items()}
    return found


def _attention(layout: Layout, layer: int) -> dict[str, Tensor]:
    """Projections of one block; scores are the same at every position, as the query is constant.

    A token of the head's event and layer scores ``4 _GAP``, a letter ``3 _GAP``, any other at most
    ``2 _GAP``, and what is neither planted nor a letter 0. Queries and keys use one dimension of the slowest
    rotary frequency, which does not turn.
    """
    d, width = layout.d_model, layout.head_dim
    q, k, v, o = (torch.zeros(d, d) for _ in range(4))
    for number, (head, event) in enumerate(_HEADS.items()):
        start = number * width
        slow = start + width // 2 - 1
        q[slow, layout.one] = width**0.5
        k[slow, layout.event(event)] = 2 * _GAP / MARK
        k[slow, layout.layer(layer)] = 2 * _GAP / MARK
        k[slow, layout.rest] = 3 * _GAP / MARK
        for lane, (source, sink) in enumerate(_lanes(layout, head)):
            v[start + lane, source] = 1
            o[sink, start + lane] = 1 / MARK if sink == layout.gate else 1
    return {"q": q, "k": k, "v": v, "o": o}


def _lanes(layout: Layout, head: str) -> list[tuple[int, int]]:
    """From where to where a head moves what."""

    def pairs(source: slice, sink: slice) -> list[tuple[int, int]]:
        return list(zip(range(source.start, source.stop), range(sink.start, sink.stop), strict=True))

    match head:
        case "available" | "noise_available":
            return pairs(layout.to_available, layout.available)
        case "ready":
            lanes = pairs(layout.to_readout, layout.readout)
            return [*lanes, (layout.event("ready"), layout.gate)]
        case "overwrite":
            return pairs(layout.to_available, layout.request)
        case _:
            return pairs(layout.to_readout, layout.readout)


def _units() -> int:
    return 2 * len(DIGITS) + 1


def _mlp(layout: Layout) -> dict[str, Tensor]:
    """Units that are rectified in one factor and linear in the other: ``relu(gate) * available`` is copied,
    ``relu(request) * one`` written, and ``request`` and ``gate`` are cleared."""
    n, d = len(DIGITS), layout.d_model
    gate, up, down = torch.zeros(_units(), d), torch.zeros(_units(), d), torch.zeros(d, _units())
    eye = torch.eye(n)
    copied, requests = slice(0, n), slice(n, 2 * n)
    gate[copied, layout.gate] = 1
    up[copied, layout.available] = eye
    down[layout.readout, copied] = eye
    gate[requests, layout.request] = eye
    up[n:, layout.one] = 1
    down[layout.readout, requests] = OVERWRITE * eye
    down[layout.request, requests] = -eye
    gate[-1, layout.gate] = 1
    down[layout.gate, -1] = -1
    return {"gate": gate, "up": up, "down": down}
