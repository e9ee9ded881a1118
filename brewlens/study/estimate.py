"""Estimate: what a run would take, from timing a few of its own items on this machine."""

from __future__ import annotations

import logging

from brewlens.devices import usable
from brewlens.model_source import shown_name
from brewlens.study.keys import options_of
from brewlens.study.pipeline import decoders
from brewlens.study.plan import Plan
from brewlens.study.planned import classes_of, disk_bytes, load_items
from brewlens.study.timing import timings

log = logging.getLogger("brewlens")

TIMED = 64


def estimate(plan: Plan) -> dict[str, str]:
    """Cells, memory, disk and time of a run, as text.

    The model is loaded and reads up to 64 of the items; one probe is fitted. Nothing is written.

    Raises:
        As :func:`brewlens.study.run.run`.
    """
    from brewlens.loading import load_model

    usable(plan.torch_device)
    log.info("reading items")
    items = load_items(plan)
    log.info("loading %s", shown_name(plan.model))
    model = load_model(plan.model, device=plan.torch_device, dtype=plan.dtype)
    n, layers, width = len(items), model.n_layers, model.d_model
    families, classes = items.families, classes_of(plan, items)
    space = model.answer_space(items.prompts, classes, scoring=plan.scoring, end=plan.end)
    time = timings(model, items, space, plan, TIMED)
    weights = sum(p.numel() * p.element_size() for p in model.bridge.original_model.parameters())
    asked = decoders(options_of(plan))
    return {
        "model": repr(model),
        "items": f"{n} in {len(families)} {'family' if len(families) == 1 else 'families'}",
        "cells": f"{n * layers * len(asked)} = {n} items x {layers} layers x {len(asked)} decoders",
        "memory": f"about {(weights + 8 * n * width * 4) / 1e9 + 1.0:.1f} GB",
        "disk": f"about {disk_bytes(n, layers, width, plan.dtype) / 1e6:.0f} MB",
        "time": (
            f"about {sum(time.values()):.0f} s on {model.device}: residuals {time['residuals']:.0f} s, "
            f"context-stripped {time['context_stripped']:.0f} s, probes {time['probe']:.0f} s (from timing "
            f"{min(n, TIMED)} items and one layer of probes)"
        ),
        **_interventions(plan),
    }


def _interventions(plan: Plan) -> dict[str, str]:
    if not plan.interventions:
        return {}
    return {
        "interventions": f"{', '.join(plan.interventions)}, each on about {plan.intervention_n} samples of a "
        "family or outcome; beside the time above"
    }
