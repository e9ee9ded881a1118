"""Estimate: what a run would take, from timing a few of its own items on this machine."""

from __future__ import annotations

import logging
import time

import numpy as np
import torch

from brewlens.decoding import BUNDLED, FitOptions, fit_probes, own_suffixes
from brewlens.devices import usable
from brewlens.model_source import shown_name
from brewlens.residuals import Residuals
from brewlens.study.keys import options_of
from brewlens.study.pipeline import decoders
from brewlens.study.plan import Plan
from brewlens.study.planned import classes_of, disk_bytes, load_items, load_planned
from brewlens.tasks import assign_folds

log = logging.getLogger("brewlens")

_TIMED = 64


def estimate(plan: Plan) -> dict[str, str]:
    """Cells, memory, disk and time of a run, as text.

    The model is loaded and reads up to 64 of the items; one probe is fitted. Nothing is written.

    Raises:
        As :func:`brewlens.study.run.run`.
    """
    usable(plan.torch_device)
    log.info("reading items")
    items = load_items(plan)
    log.info("loading %s", shown_name(plan.model))
    model, _ = load_planned(plan)
    n, layers, width = len(items), model.n_layers, model.d_model
    families = items.families
    few = items.select(np.linspace(0, n - 1, min(n, _TIMED)).astype(int).tolist())
    classes = classes_of(plan, items)
    space = model.answer_space(items.prompts, classes, scoring=plan.scoring, end=plan.end)

    def seconds_each(call) -> float:
        call()
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) / len(few)

    log.info("timing %d forward passes on %s", len(few), model.device)
    passed = model.forward(few.prompts, space)
    forward = seconds_each(lambda: model.forward(few.prompts, space))
    log.info("timing context-stripped decoding of %d items", len(few))
    stripped = seconds_each(lambda: model.inject(passed.residuals, own_suffixes(few), space))
    # One layer of one family, with noise of the residuals' size; real ones take about as long.
    family = items.family(families[0])
    noise = np.random.default_rng(0).normal(size=(len(family), 1, width)).astype(np.float32)
    stand_in = Residuals.of(torch.from_numpy(noise), family.ids, [(0,)] * len(family), model.name)
    fold = assign_folds(family, plan.folds, plan.seed)
    log.info("timing one layer of probes")
    start = time.perf_counter()
    fit_probes(
        *(stand_in, family, fold, classes),
        options=FitOptions(kind=plan.probe, C=plan.probe_c),
        device=model.device,
    )
    probe = (time.perf_counter() - start) * layers * n / len(family)
    prompts = 1 + (len(BUNDLED) if plan.prompts == "bundled" else 0)
    stripped *= prompts
    weights = sum(p.numel() * p.element_size() for p in model.bridge.original_model.parameters())
    total = n * (forward + stripped) + probe
    asked = decoders(options_of(plan))
    return {
        "model": repr(model),
        "items": f"{n} in {len(families)} {'family' if len(families) == 1 else 'families'}",
        "cells": f"{n * layers * len(asked)} = {n} items x {layers} layers x {len(asked)} decoders",
        "memory": f"about {(weights + 8 * n * width * 4) / 1e9 + 1.0:.1f} GB",
        "disk": f"about {disk_bytes(n, layers, width, plan.dtype) / 1e6:.0f} MB",
        "time": (
            f"about {total:.0f} s on {model.device}: residuals {n * forward:.0f} s, context-stripped "
            f"{n * stripped:.0f} s, probes {probe:.0f} s (from timing {len(few)} items and one layer of "
            "probes)"
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
