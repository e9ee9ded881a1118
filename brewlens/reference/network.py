"""The reference model as it is trained: the Qwen2 computation over weights stacked by layer.

Equal to ``transformers.Qwen2ForCausalLM`` (a test holds the logits to 1e-5), with what costs time on a
processor taken out: no attention mask is built (right padding is exact by causality), the blocks are
one function that is compiled once, and weights of all layers lie in one tensor, so that the optimiser
treats them in one batched product.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import Qwen2Config

_MATRICES = {
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
_VECTORS = {
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "norm1": "input_layernorm.weight",
    "norm2": "post_attention_layernorm.weight",
}


class StackedQwen2(nn.Module):
    """Qwen2 with tied embeddings, each kind of weight one tensor ``[layer, ...]``.

    Args:
        config: A ``Qwen2Config`` with tied embeddings and full attention.
        seed: Seed of the initial weights; the global random state is left alone.

    Raises:
        ValueError: If the embeddings are not tied.
    """

    q: nn.Parameter
    k: nn.Parameter
    v: nn.Parameter
    o: nn.Parameter
    gate: nn.Parameter
    up: nn.Parameter
    down: nn.Parameter
    q_bias: nn.Parameter
    k_bias: nn.Parameter
    v_bias: nn.Parameter
    norm1: nn.Parameter
    norm2: nn.Parameter

    def __init__(self, config: Qwen2Config, seed: int = 0) -> None:
        super().__init__()
        if not config.tie_word_embeddings:
            raise ValueError("the reference model ties its embeddings; set tie_word_embeddings=True")
        self.config = config
        self.heads, self.kv_heads = (
            config.num_attention_heads,
            config.num_key_value_heads or config.num_attention_heads,
        )
        self.layers, width, ff = config.num_hidden_layers, config.hidden_size, config.intermediate_size
        self.head_dim = width // self.heads
        self.eps = config.rms_norm_eps
        kv = self.kv_heads * self.head_dim
        shapes = {
            "q": (width, width),
            "k": (kv, width),
            "v": (kv, width),
            "o": (width, width),
            "gate": (ff, width),
            "up": (ff, width),
            "down": (width, ff),
        }
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator) * config.initializer_range)

        self.embed = normal(config.vocab_size, width)
        self.norm = nn.Parameter(torch.ones(width))
        for name, shape in shapes.items():
            setattr(self, name, normal(self.layers, *shape))
        for name, size in {"q_bias": width, "k_bias": kv, "v_bias": kv}.items():
            setattr(self, name, nn.Parameter(torch.zeros(self.layers, size)))
        for name in ("norm1", "norm2"):
            setattr(self, name, nn.Parameter(torch.ones(self.layers, width)))
        self._block: Callable[..., Tensor] = _block
        self._loss: Callable[..., tuple[Tensor, Tensor]] = _weighted_loss

    def compile_blocks(self) -> None:
        """Compile one block and the loss, for every sequence length at once."""
        self._block = torch.compile(_block, dynamic=True)
        self._loss = torch.compile(_weighted_loss, dynamic=True)

    def matrices(self) -> list[nn.Parameter]:
        """The weight matrices inside the blocks, each ``[layer, out, in]``."""
        return [getattr(self, name) for name in _MATRICES]

    def others(self) -> list[nn.Parameter]:
        """Embedding, norms and biases."""
        return [self.embed, self.norm, *(getattr(self, name) for name in _VECTORS)]

    def hidden(
        self, tokens: Int[Tensor, "batch position"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "batch position d_model"]:
        """Final normed residual at every position; matrix products in ``dtype``, sums in float32."""
        steps = tokens.shape[1]
        cos, sin = self._rotary(steps, tokens.device, dtype)
        mask = torch.full((steps, steps), -math.inf, device=tokens.device, dtype=dtype).triu(1)
        scale = self.head_dim**-0.5  # of the attention scores, taken up by the queries
        qkv = torch.cat([self.q * scale, self.k, self.v], dim=1).to(dtype).unbind()
        bias = torch.cat([self.q_bias * scale, self.k_bias, self.v_bias], dim=1).to(dtype).unbind()
        gate_up = torch.cat([self.gate, self.up], dim=1).to(dtype).unbind()
        o, down = self.o.to(dtype).unbind(), self.down.to(dtype).unbind()
        norm1, norm2 = self.norm1.unbind(), self.norm2.unbind()
        x = F.embedding(tokens, self.embed)
        for layer in range(self.layers):
            x = self._block(
                x, cos, sin, mask, norm1[layer], qkv[layer], bias[layer], o[layer], norm2[layer],
                gate_up[layer], down[layer], self.heads, self.kv_heads, self.eps,
            )  # fmt: skip
        return F.rms_norm(x, (x.shape[-1],), self.norm, self.eps)

    def logits(
        self, tokens: Int[Tensor, "batch position"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "batch position token"]:
        """Next-token logits at every position."""
        return (self.hidden(tokens, dtype).to(dtype) @ self.embed.to(dtype).T).float()

    def loss(
        self,
        tokens: Int[Tensor, "batch position"],
        weights: Float[Tensor, "batch target"],
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "batch target"]]:
        """Weighted next-token cross-entropy, in nats.

        Args:
            tokens: Token ids, right-padded.
            weights: Weight of predicting token ``t + 1`` from position ``t``; zero on padding.
            dtype: Precision of the matrix products.

        Returns:
            The weighted sum divided by the number of programs, and the loss of every target (for the log).
        """
        hidden = self.hidden(tokens[:, :-1], dtype)
        return self._loss(hidden, self.embed, tokens[:, 1:], weights, dtype)

    def _rotary(self, steps: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        rope: dict[str, Any] = dict(self.config.rope_parameters or {})
        half = torch.arange(0, self.head_dim, 2, device=device, dtype=torch.float32) / self.head_dim
        angle = torch.arange(steps, device=device)[:, None] / rope["rope_theta"] ** half
        angle = torch.cat([angle, angle], dim=-1)
        return angle.cos().to(dtype), angle.sin().to(dtype)

    def hf_state(self) -> dict[str, Tensor]:
        """Copies of the weights under the names of ``Qwen2ForCausalLM``, float32."""
        state = {"model.embed_tokens.weight": self.embed, "model.norm.weight": self.norm}
        for name, theirs in (_MATRICES | _VECTORS).items():
            for layer, weight in enumerate(getattr(self, name).unbind()):
                state[f"model.layers.{layer}.{theirs}"] = weight
        return {key: value.detach().float().cpu().clone().contiguous() for key, value in state.items()}


def _block(
    x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, norm1: Tensor, qkv: Tensor, bias: Tensor, o: Tensor,
    norm2: Tensor, gate_up: Tensor, down: Tensor, heads: int, kv_heads: int, eps: float,
) -> Tensor:  # fmt: skip
    """One pre-norm block: grouped causal attention, then SwiGLU; the residual stays float32."""
    batch, steps, _ = x.shape
    dtype = qkv.dtype
    y = F.linear(_rms(x, norm1, eps).to(dtype), qkv, bias)
    y = rearrange(y, "batch step (head width) -> batch head step width", head=heads + 2 * kv_heads)
    qk, v = y.split([heads + kv_heads, kv_heads], dim=1)
    first, second = qk.chunk(2, dim=-1)
    q, k = (qk * cos + torch.cat([-second, first], dim=-1) * sin).split([heads, kv_heads], dim=1)
    # Heads that share a key and value are one matrix product.
    q = rearrange(q, "batch (kv group) step width -> (batch kv) (group step) width", kv=kv_heads)
    k, v = (rearrange(z, "batch kv step width -> (batch kv) step width") for z in (k, v))
    scores = torch.bmm(q, k.mT)
    scores = rearrange(scores, "pair (group step) key -> pair group step key", step=steps).add_(mask)
    pattern = rearrange(scores.softmax(-1), "pair group step key -> pair (group step) key")
    z = torch.bmm(pattern, v)
    merged = "(batch kv) (group step) width -> batch step (kv group width)"
    x = x + F.linear(rearrange(z, merged, batch=batch, step=steps), o)
    gate, up = F.linear(_rms(x, norm2, eps).to(dtype), gate_up).chunk(2, dim=-1)
    return x + F.linear(F.silu(gate) * up, down)


def _rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def _weighted_loss(
    hidden: Tensor, embed: Tensor, targets: Tensor, weights: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    logits = F.linear(hidden.to(dtype), embed.to(dtype)).float()
    each = torch.logsumexp(logits, -1) - logits.gather(-1, targets[..., None]).squeeze(-1)
    return (each * weights).sum() / len(weights), each.detach()
