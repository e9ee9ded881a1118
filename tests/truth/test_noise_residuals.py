"""Noise in place of residuals, through real probes and a real model's later layers: nothing is claimed."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from brewlens import tasks
from brewlens.decoding import context_stripped, own_suffixes, probe, surface
from brewlens.lifecycle.claims import NOT_DISTINGUISHABLE
from brewlens.residuals import Residuals
from brewlens.results import Trace
from brewlens.study.analysis import analyse
from brewlens.study.pipeline import lifecycles


@pytest.mark.parametrize("seed", [0, 1])
def test_every_claim_is_not_distinguishable_from_null(tiny_model, seed):
    items = tasks.generate(("loop", "loop_unrolled"), n=216, seed=seed)
    folds = tasks.assign_folds(items, seed=seed)
    space = tiny_model.answer_space(items.prompts)
    noise = torch.randn(
        (len(items), tiny_model.n_layers, tiny.WIDTH), generator=torch.Generator().manual_seed(seed)
    )
    tokens = tuple((0,) for _ in items)
    residuals = Residuals.of(noise, items.ids, tokens, tiny_model.name)
    stripped, raw = context_stripped(tiny_model, residuals, own_suffixes(items), space)
    readouts = {
        "probe": probe(residuals, items, folds),
        "context_stripped": stripped,
        "context_stripped_raw": raw,
        "surface": surface(items, folds),
    }
    nothing_missed = np.zeros(len(items), dtype=bool)
    life = lifecycles(items, readouts, raw.predicted[:, -1], nothing_missed)
    found = analyse(Trace(items, folds, readouts, life, "noise"), resamples=499, seed=seed)
    claims = found.tables["claims"]
    assert len(claims) == 12
    assert set(claims["verdict"]) == {NOT_DISTINGUISHABLE}, claims[["statement", "scope", "p_adjusted"]]
    assert all((onsets.onset < 0).mean() > 0.97 for onsets in found.onsets.values())
