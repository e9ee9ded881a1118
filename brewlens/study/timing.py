"""Timing: how long the stages up to the readouts take, measured on a few items."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from brewlens.answers import AnswerSpace
from brewlens.decoding import BUNDLED, FitOptions, fit_probes, own_suffixes
from brewlens.residuals import Residuals
from brewlens.study.plan import Plan
from brewlens.tasks import ItemSet, assign_folds

if TYPE_CHECKING:
    from brewlens.model import HookedModel

log = logging.getLogger("brewlens")


def timings(
    model: HookedModel, items: ItemSet, space: AnswerSpace, plan: Plan, few: int = 64
) -> dict[str, float]:
    """Seconds of ``residuals``, ``context_stripped`` and ``probe`` over all items.

    The model reads up to ``few`` of the items twice; one layer of one family's probes is fitted, on noise of
    the residuals' size.
    """
    n = len(items)
    some = items.select(np.linspace(0, n - 1, min(n, few)).astype(int).tolist())

    def seconds(call: Callable[[], object]) -> float:
        call()
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * n / len(some)

    log.info("timing %d forward passes on %s", len(some), model.device)
    passed = model.forward(some.prompts, space)
    forward = seconds(lambda: model.forward(some.prompts, space))
    log.info("timing context-stripped decoding of %d items", len(some))
    stripped = seconds(lambda: model.inject(passed.residuals, own_suffixes(some), space))
    log.info("timing one layer of probes")
    family = items.family(items.families[0])
    noise = np.random.default_rng(0).normal(size=(len(family), 1, model.d_model)).astype(np.float32)
    stand_in = Residuals.of(torch.from_numpy(noise), family.ids, [(0,)] * len(family), model.name)
    fold = assign_folds(family, plan.folds, plan.seed)
    start = time.perf_counter()
    fit_probes(
        *(stand_in, family, fold, space.classes),
        options=FitOptions(kind=plan.probe, C=plan.probe_c),
        device=model.device,
    )
    probe = (time.perf_counter() - start) * model.n_layers * n / len(family)
    prompts = 1 + (len(BUNDLED) if plan.prompts == "bundled" else 0)
    return {"residuals": forward, "context_stripped": stripped * prompts, "probe": probe}
