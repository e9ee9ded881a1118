"""What the tests of the lenses share: the read-out written by hand, and residuals made up."""

from __future__ import annotations

import torch

from brewlens.decoding.tuned_lens import TunedLens, unembedding_hash
from brewlens.residuals import Residuals

PROMPT = 'x = 3\n# The value of x is "'


def by_hand(model, h):
    """Final norm, unembedding and Gemma-2's soft cap, by the network's own modules; of ``[row, d_model]``."""
    network = model.bridge.original_model
    norm = network.transformer.ln_f if hasattr(network, "transformer") else network.model.norm
    logits = network.lm_head(norm(h))
    cap = getattr(network.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def divergence(final, read):
    """KL(final || read) of logits ``[row, vocabulary]``, in nats per row."""
    p, q = final.double().softmax(-1), read.double().softmax(-1)
    return (p * (p.log() - q.log())).sum(-1)


def made(model, values):
    """Residuals of made-up samples."""
    ids = tuple(f"s{row}" for row in range(len(values)))
    return Residuals.of(values, ids, ((1,),) * len(ids), model.name)


def noise(model, samples, seed=0):
    """Residuals of which no layer knows anything of another."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, model.n_layers, model.d_model, generator=generator)


def planted(model, samples, seed=0):
    """Residuals of which every layer is an affine function of the last, so that a lens can undo it."""
    generator = torch.Generator().manual_seed(seed)
    values = noise(model, samples, seed + 1)
    last = values[:, model.n_layers - 1].clone()
    for layer in range(model.n_layers - 1):
        rotation = torch.linalg.qr(torch.randn(model.d_model, model.d_model, generator=generator))[0]
        offset = torch.randn(model.d_model, generator=generator)
        values[:, layer] = (2.0 + layer) * last @ rotation + 3 * offset
    return values


def random_lens(model, seed=0):
    """A lens whose translators differ from layer to layer."""
    generator = torch.Generator().manual_seed(seed)
    shape = (model.n_layers - 1, model.d_model)
    return TunedLens(
        0.3 * torch.randn(*shape, model.d_model, generator=generator),
        torch.randn(*shape, generator=generator),
        model.name,
        unembedding_hash(model),
    )
