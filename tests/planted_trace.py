"""A trace of a planted model: its residuals and the exact readouts, so that no probe has to be fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from brewlens.decoding import context_stripped, own_suffixes
from brewlens.lifecycle import lifecycle
from brewlens.planted import plant
from brewlens.residuals import Residuals
from brewlens.results import Trace


def planted_trace(truth, *, answers=None, hit=1.0, seed=0):
    """A planted model, its space, and its trace.

    Args:
        truth: What is planted.
        answers: Right answers instead of the planted ones, for random labels.
        hit: See :func:`brewlens.planted.plant`.
        seed: Of the noise.
    """
    planted = plant(truth, hit=hit, seed=seed)
    items, model = planted.items, planted.model
    if answers is not None:
        changed = tuple(replace(item, answer=a) for item, a in zip(items, answers, strict=True))
        items = replace(items, items=changed)
    space = model.answer_space(items.prompts)
    passed = model.forward(items.prompts, space)
    residuals = Residuals.of(passed.residuals, items.ids, passed.tokens, model.name)
    ready, raw = context_stripped(model, residuals, own_suffixes(items), space)
    probe = replace(planted.simulated.readouts["probe"], item_ids=items.ids)
    life = lifecycle(
        probe,
        ready,
        families=[item.family for item in items],
        answers=items.answers,
        output=passed.output.predicted.numpy(),
        format_miss=np.zeros(len(items), dtype=bool),
    )
    readouts = {"probe": probe, "context_stripped": ready, "context_stripped_raw": raw}
    trace = Trace(items, np.arange(len(items)) % 5, readouts, life, model.name, residuals)
    return model, space, trace


def say(model, space, prompt, layer=None, state=None):
    """Class that the model says of one prompt, with a state written at its last token by a plain hook."""

    def write(x, hook):
        x = x.clone()
        x[0, -1] = state.to(x)
        return x

    pairs = [] if layer is None else [(model.block_output(layer), write)]
    with torch.no_grad(), model.hooks(pairs):
        return int(model.run(model.batch(model.ids([prompt])), space).predicted[0])
