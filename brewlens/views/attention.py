"""Attention of every head at the layers of a sample's landmarks, by CircuitsVis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from brewlens.figures.lifecycle import row_of
from brewlens.views.patterns import attention_at, chosen_layers, token_texts
from brewlens.views.view import View

if TYPE_CHECKING:
    from brewlens.model import HookedModel
    from brewlens.results import Trace

MOST = 1_000_000
"""Most numbers of one view. CircuitsVis draws each as a cell: 100,000 take a browser a few seconds."""


def attention(
    model: HookedModel,
    trace: Trace,
    sample: int | str,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> View:
    """Attention patterns of one sample, a small picture per head; click one to see it large.

    Rows are the tokens that look, columns the tokens that are looked at. Everything that the landmarks speak
    of happens in the last row. Attention says where a head reads, not what it does with it: a head that
    looks at the first token mostly does nothing there.

    The forward keeps the layers asked for and no other.

    Args:
        model: The model that was traced.
        trace: Its trace.
        sample: Row or id.
        layers: Blocks (0-based); by default those of the sample's FPCL, FCC and FJC.
        heads: Heads (0-based) of each layer; all by default.

    Raises:
        ValueError: If the sample, a layer or a head is unknown, the model is not the one of the trace, or
            there would be more than ``MOST`` numbers.
        ModelError: If the model does not say its attention.
    """
    named, notes = chosen_layers(trace, sample, layers)
    prompt, texts = token_texts(model, trace, sample)
    count = int(model.bridge.cfg.n_heads)
    shown = range(count) if heads is None else heads
    if not len(shown) or any(not 0 <= head < count for head in shown):
        raise ValueError(f"asked for heads {list(shown)}; {model.name} has heads 0 to {count - 1}")
    each = len(texts) ** 2
    if (size := len(named) * len(shown) * each) > MOST:
        raise ValueError(
            f"asked for {len(named)} layers x {len(shown)} heads x {len(texts)} tokens squared, {size:,} "
            f"numbers, more than {MOST:,}: give fewer layers= or heads=; {MOST // each} heads in all would do"
        )
    found = attention_at(model, prompt, list(named))
    values = np.concatenate([found[layer][list(shown)] for layer in named])
    names = [f"L{layer} H{head}" for layer in named for head in shown]
    row, life = row_of(trace, sample), trace.lifecycle
    return View(
        f"Attention of {model.name} in {life.item_ids[row]}: {life.outcome[row].replace('_', ' ')}, "
        f"right answer {life.answers[row]}, model's answer {life.output[row]}",
        "AttentionHeads",
        {
            "tokens": texts,
            "attention": np.round(values.astype(float), 4).tolist(),
            "attentionHeadNames": names,
            "maxValue": 1,
            "minValue": -1,
            "positiveColor": "#0072b2",
            "maskUpperTri": True,
        },
        (*notes, "Rows look at columns; the answer is read at the last token."),
    )
