"""Estimate: what a run would take, from timing a few of its own items on this machine."""

from __future__ import annotations

import time

import numpy as np
from threadpoolctl import threadpool_limits

from brewlens.answers import DIGITS
from brewlens.decoding import own_suffixes
from brewlens.decoding.probe import fit_logits, threads_for
from brewlens.study.pipeline import DECODERS
from brewlens.study.plan import Plan
from brewlens.study.run import disk_bytes, load_items

_TIMED = 64


def estimate(plan: Plan) -> dict[str, str]:
    """Cells, memory, disk and time of a run, as text.

    The model is loaded and reads up to 64 of the items; one probe is fitted. Nothing is written.

    Raises:
        As :func:`brewlens.study.run.run`.
    """
    from brewlens.loading import load_model

    items = load_items(plan)
    model = load_model(plan.model, device=plan.torch_device, dtype=plan.dtype)
    n, layers, width = len(items), model.n_layers, model.d_model
    families = items.families
    few = items.select(np.linspace(0, n - 1, min(n, _TIMED)).astype(int).tolist())
    space = model.answer_space(items.prompts, DIGITS)

    def seconds_each(call) -> float:
        call()
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) / len(few)

    passed = model.forward(few.prompts, space)
    forward = seconds_each(lambda: model.forward(few.prompts, space))
    stripped = seconds_each(lambda: model.inject(passed.residuals, own_suffixes(few), space))
    train = max(2, int(n / len(families) * (1 - 1 / plan.folds)))
    rng = np.random.default_rng(0)
    noise, target = rng.normal(size=(train, width)).astype(np.float32), np.arange(train) % len(DIGITS)

    def fit() -> float:
        start = time.perf_counter()
        fit_logits(noise, target, noise[:10], len(DIGITS), C=plan.probe_c)
        return time.perf_counter() - start

    with threadpool_limits(threads_for(n, width)):
        probe = min(fit(), fit()) * layers * plan.folds * len(families)
    item_bytes = layers * width * 4
    weights = sum(p.numel() * p.element_size() for p in model.bridge.original_model.parameters())
    total = n * (forward + stripped) + probe
    return {
        "model": repr(model),
        "items": f"{n} in {len(families)} families",
        "cells": f"{n * layers * len(DECODERS)} = {n} items x {layers} layers x {len(DECODERS)} decoders",
        "memory": f"about {(weights + 2 * n * item_bytes) / 1e9 + 1.0:.1f} GB",
        "disk": f"about {disk_bytes(n, layers, width, plan.dtype) / 1e6:.0f} MB",
        "time": (
            f"about {total:.0f} s on {model.device}: residuals {n * forward:.0f} s, context-stripped "
            f"{n * stripped:.0f} s, probes {probe:.0f} s (from timing {len(few)} items and one probe)"
        ),
    }
