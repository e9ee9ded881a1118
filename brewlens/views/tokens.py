"""A sample's prompt token by token: what its counterfactual twin changes, and where the last token looks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from brewlens.figures.lifecycle import row_of
from brewlens.pieces import pieces
from brewlens.views.patterns import attention_at, chosen_layers, token_texts
from brewlens.views.view import View

if TYPE_CHECKING:
    from brewlens.model import HookedModel
    from brewlens.results import Trace

TWIN = "counterfactual"


def tokens(
    trace: Trace,
    sample: int | str,
    *,
    model: HookedModel | None = None,
    layers: Sequence[int] | None = None,
) -> View:
    """The prompt's tokens, coloured by a quantity chosen by its name; hover over a token for all of them.

    From the trace alone: which tokens the sample's counterfactual twin changes (1) or not (0), that is, on
    what the right answer hangs. With the model, besides: how much the last token, where the answer is read,
    takes from each token at the sample's landmark layers, as mean and as greatest over heads. Attention is
    not attribution: it says where heads read, not what of it counts; the first token is where heads look that
    have nothing to do.

    Args:
        trace: The trace.
        sample: Row or id.
        model: The model that was traced, if attention is to be shown.
        layers: Blocks (0-based); by default those of the sample's FPCL, FCC and FJC. Only with a model.

    Raises:
        ValueError: If the sample or a layer is unknown, the model is not the one of the trace, or there is
            nothing to show: no twin and no model, or no table of tokens.
        ModelError: If the model does not say its attention.
    """
    row, life = row_of(trace, sample), trace.lifecycle
    item = trace.items[row]
    columns: dict[str, np.ndarray] = {}
    notes: tuple[str, ...] = ()
    if model is None:
        if layers is not None:
            raise ValueError(f"asked for attention at layers {list(layers)} and gave no model; give model=")
        texts = _stored(trace, row)
    else:
        prompt, texts = token_texts(model, trace, row)
        named, notes = chosen_layers(trace, row, layers)
        for layer, found in attention_at(model, prompt, list(named), last=True).items():
            columns[f"{named[layer]}, mean"] = found[:, 0].mean(axis=0)
            columns[f"{named[layer]}, greatest"] = found[:, 0].max(axis=0)
        notes = (
            *notes,
            "Attention of the last token; the first token is where heads look that have nothing to do.",
        )
    twin = trace.items.twin(item, TWIN)
    if twin is not None:
        columns["changed in the twin"] = changed(item.prompt, twin.prompt, texts).astype(float)
        notes = (*notes, f"The counterfactual twin's answer is {twin.answer}.")
    if not columns:
        raise ValueError(
            f"asked for the tokens of {item.id}; it has no counterfactual twin, so the trace alone says "
            "nothing about them: give model= for attention"
        )
    values = np.stack(list(columns.values()), axis=1)
    return View(
        f"{item.id}: {life.outcome[row].replace('_', ' ')}, right answer {life.answers[row]}, "
        f"model's answer {life.output[row]}",
        "ColoredTokensMulti",
        # This element takes tokens as HTML, in which "<s>" or "a<b" would not be seen.
        {
            "tokens": [escape(text, quote=False) for text in texts],
            "values": np.round(values.astype(float), 4).tolist(),
            "labels": list(columns),
        },
        notes,
    )


def changed(prompt: str, other: str, texts: Sequence[str]) -> Bool[np.ndarray, "token"]:
    """Which tokens of a prompt reach into the stretch of it that another prompt writes differently.

    The stretch is what is left when the longest common beginning and end are taken off. A token that stands
    for no character of the prompt is never changed.
    """
    least = min(len(prompt), len(other))
    start = next((k for k in range(least) if prompt[k] != other[k]), least)
    end = next((k for k in range(least - start) if prompt[-1 - k] != other[-1 - k]), least - start)
    stop = max(len(prompt) - end, start + 1)
    flags, at = [], 0
    for text in texts:
        here = at + len(text) if prompt.startswith(text, at) else at
        flags.append(here > at and at < stop and here > start and prompt != other)
        at = here
    return np.array(flags)


def _stored(trace: Trace, row: int) -> list[str]:
    if "tokens" not in trace.tables:
        raise ValueError(
            "asked for tokens without a model, found no table of tokens in the trace: trace or run again, or "
            "give model="
        )
    item, table = trace.items[row], trace.tables["tokens"]
    ends = table.loc[table["id"] == item.id, "ends"]
    if ends.empty:
        raise ValueError(f"the table of tokens has no row for {item.id}; it has {len(table)} others")
    return pieces(item.prompt, [int(end) for end in ends.iloc[0]])
