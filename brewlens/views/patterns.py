"""What the views read from a model: its tokens as text, and attention at a few layers of one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from brewlens.errors import ModelError
from brewlens.figures.lifecycle import LANDMARKS, row_of
from brewlens.lifecycle.landmarks import NEVER
from brewlens.pieces import pieces, token_ends

if TYPE_CHECKING:
    from brewlens.model import HookedModel
    from brewlens.results import Trace


def landmark_layers(trace: Trace, sample: int | str) -> dict[int, str]:
    """Layers that carry a landmark of the sample -> its name, such as ``FPCL = FCC``; none may be empty."""
    row, found = row_of(trace, sample), {}
    for name in LANDMARKS:
        layer = int(getattr(trace.lifecycle.landmarks, name)[row])
        if layer != NEVER:
            found.setdefault(layer, []).append(name.upper())
    return {layer: " = ".join(found[layer]) for layer in sorted(found)}


def chosen_layers(
    trace: Trace, sample: int | str, layers: Sequence[int] | None
) -> tuple[dict[int, str], tuple[str, ...]]:
    """The layers to show with their names, and what has to be said about the choice.

    Without ``layers`` those of the landmarks; a sample that has none is shown in the middle and at the end.

    Raises:
        ValueError: If a layer is not one of the trace, or none is asked for.
    """
    marks = landmark_layers(trace, sample)
    places = ", ".join(f"{name} at layer {layer}" for layer, name in marks.items())
    said = (f"First hits: {places}.",) if marks else ("This sample has no landmark.",)
    if layers is None:
        layers = list(marks)
        if not layers:
            layers = sorted({trace.n_layers // 2, trace.n_layers - 1})
            said = (f"{said[0]} Shown are layers {' and '.join(map(str, layers))}.",)
    if not layers or any(not 0 <= layer < trace.n_layers for layer in layers):
        raise ValueError(
            f"asked for layers {list(layers)}; give one or more of 0 to {trace.n_layers - 1}, or leave them "
            "out for those of the landmarks"
        )
    names = {layer: f"L{layer}" + (f" {marks[layer]}" if layer in marks else "") for layer in layers}
    return names, said


def token_texts(model: HookedModel, trace: Trace, sample: int | str) -> tuple[str, list[str]]:
    """Prompt of a sample and the text of each token that the model reads.

    A token without characters of its own is shown by its name, such as ``<s>``.

    Raises:
        ValueError: If the model cannot be the one of the trace: other tokens, or another number of layers.
    """
    item = trace.items[row_of(trace, sample)]
    ids, ends = token_ends(model.tokenizer, item.prompt)
    if model.n_layers != trace.n_layers:
        raise ValueError(
            f"asked to look at {item.id} with {model.name}, which has {model.n_layers} layers; the trace is "
            f"of {trace.model} with {trace.n_layers}: give the model that was traced"
        )
    if "tokens" in trace.tables:
        table = trace.tables["tokens"]
        stored = table.loc[table["id"] == item.id, "token_ids"]
        if len(stored) and tuple(map(int, stored.iloc[0])) != ids:
            raise ValueError(
                f"{model.name} reads other tokens of {item.id} than {trace.model} did: give the model that "
                "was traced, with its tokenizer"
            )
    names = (
        text or model.decode([token]) for text, token in zip(pieces(item.prompt, ends), ids, strict=True)
    )
    return item.prompt, list(names)


def attention_at(
    model: HookedModel, prompt: str, layers: Sequence[int], *, last: bool = False
) -> dict[int, Float[np.ndarray, "head to from"]]:
    """Attention of every head at chosen layers, in one forward that keeps no other layer.

    Args:
        model: The model.
        prompt: One prompt.
        layers: Blocks (0-based).
        last: Keep only the row of the last token.

    Returns:
        Layer -> ``[head, to, from]`` float32: how much a token takes from each earlier one. Rows sum to 1,
        but for models whose heads may look nowhere.

    Raises:
        ModelError: If the model does not say its attention.
    """
    batch = model.encode([prompt])
    seen: dict[int, np.ndarray] = {}

    def keep(layer: int) -> Any:
        def hook(x: Tensor, hook: Any) -> None:
            rows = x[0, :, -1:] if last else x[0]
            seen[layer] = rows.detach().float().cpu().numpy()

        return hook

    with model.hooks([(f"blocks.{layer}.attn.hook_pattern", keep(layer)) for layer in layers]):
        model.read_from(batch, lambda x, hook: x[:1, :1])
    n = batch.tokens.shape[1]
    for layer in layers:
        found = seen.get(layer)
        shape = "nothing" if found is None else list(found.shape)
        if found is None or found.ndim != 3 or found.shape[1:] != (1 if last else n, n):
            raise ModelError(
                f"{model.name}: asked for attention [head, {n}, {n}] at layer {layer}, found {shape}. Fused "
                "attention never makes these numbers; load the model with brewlens.load_model, which asks "
                "for attn_implementation='eager', or boot the bridge with it"
            )
    return seen
