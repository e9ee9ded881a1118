"""A trace that has every table that a run can have, without a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from synthetic import synthetic_trace
from synthetic_effects import with_effects

from brewlens import tasks
from brewlens.decoding import audit_bias, calibration, class_calibration, reliability
from brewlens.results import Trace
from brewlens.study.analysis import CONSTANT_PROMPT, analyse
from brewlens.tasks.item import ItemSet

FAMILIES = ("computing", "loop")
LAYERS = 5
PROMPTS = {"own": "own", "equals": "paraphrase", "few_shot_words": "few_shot"}


def every_table(names: dict[str, str] | None = None, n: int = 30) -> Trace:
    """A trace of two families; ``names`` renames them."""
    items = tasks.generate(FAMILIES, n=n, seed=0)
    if names:
        renamed = tuple(replace(item, family=names.get(item.family, item.family)) for item in items)
        items = ItemSet(renamed, items.partners, items.provenance)
    trace = synthetic_trace(n_layers=LAYERS, items=items)
    constant = replace(trace.readouts["context_stripped"], decoder=CONSTANT_PROMPT)
    trace = replace(trace, readouts={**trace.readouts, CONSTANT_PROMPT: constant})
    trace = with_effects(analyse(trace, resamples=49))
    return trace.with_tables(**decoder_tables(trace), learned_subspace=learned())


def decoder_tables(trace: Trace) -> dict[str, pd.DataFrame]:
    probe, stripped, answers = (
        trace.readouts["probe"],
        trace.readouts["context_stripped"],
        trace.items.answers,
    )
    prior = np.zeros((len(trace), len(stripped.classes)))
    return {
        "calibration": calibration(probe, answers),
        "class_calibration": class_calibration(probe, answers),
        "reliability": reliability(probe, answers),
        "bias": audit_bias({("own", "subtracted"): stripped}, {"own": prior}).table,
        "near_ood_recognised": near_ood(),
        "prompts": prompts(len(trace)),
        "prompt_spread": spread(len(trace)),
        "prompts_left_out": pd.DataFrame({"prompt": ["holds"], "reason": ["no class in one_token"]}),
        "tuned_lens": tuned_lens(),
        "tokens": pd.DataFrame({"id": ["a"], "token_ids": [[1]], "ends": [[1]]}),
    }


def near_ood() -> pd.DataFrame:
    layer = np.arange(LAYERS)
    numbers = {"recognised": 0.4 + layer / 20, "low": 0.3, "high": 0.9}
    alarms = {"false_alarms": 0.04, "false_low": 0.02, "false_high": 0.07}
    return pd.DataFrame({"layer": layer, "n": 20, **numbers, "n_items": 60, **alarms})


def prompts(n: int) -> pd.DataFrame:
    rows = [
        {
            **{"prompt": prompt, "kind": kind, "version": version, "layer": layer, "n": n},
            "accuracy": accuracy,
            **{"accuracy_low": accuracy - 0.1, "accuracy_high": accuracy + 0.1},
            **{"p_answer": 0.5, "other_mass": 0.01},
        }
        for at, (prompt, kind) in enumerate(PROMPTS.items())
        for version in ("subtracted", "raw")
        for layer in range(LAYERS)
        for accuracy in [0.3 + 0.1 * layer + 0.01 * at + 0.005 * (version == "raw")]
    ]
    return pd.DataFrame(rows)


def spread(n: int) -> pd.DataFrame:
    rows = [
        {
            **{"layer": layer, "measure": measure, "version": version, "n_samples": n, "n_prompts": 3},
            **{"least": 0.3, "least_prompt": "few_shot_words", "greatest": 0.6, "greatest_prompt": "equals"},
            **{"mean": 0.4 + layer / 50, "mean_low": 0.35, "mean_high": 0.55},
            **{"icc_single": 0.5, "icc_single_low": 0.4, "icc_single_high": 0.6},
            **{"icc_pooled": 0.8, "icc_pooled_low": np.nan, "icc_pooled_high": np.nan, "reason": ""},
        }
        for layer in range(LAYERS)
        for measure in ("hit", "p_answer")
        for version in ("subtracted", "raw")
    ]
    return pd.DataFrame(rows)


def tuned_lens() -> pd.DataFrame:
    rows = [
        (layer, 12, 2.0, 1.5, 0.5, 0.2, 0.8, 25, fold) for fold in range(2) for layer in range(LAYERS - 1)
    ]
    names = ["layer", "n", "kl_logit", "kl_tuned", "saved", "low", "high", "best_step", "fold"]
    return pd.DataFrame(rows, columns=names)


def learned() -> pd.DataFrame:
    rows = [(half, layer, 9, 100, 1.25, 40, 30, 0.5, 0.4, 0.6) for half in (0, 1) for layer in range(LAYERS)]
    names = ["group", "layer", "rank", "n_trained", "loss", "n", "n_shapes", "follows", "low", "high"]
    return pd.DataFrame(rows, columns=names)
