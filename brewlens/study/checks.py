"""Checks: what the decoders' tables say about how far a run's numbers hold, as plain data for its summary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from brewlens.results import Trace


def checks(trace: Trace) -> dict[str, Any]:
    """Agreement of target prompts, per-answer bias, and calibration; None for what was not asked for.

    The probe is looked at in its best layer over all samples.
    """
    correct = trace.readouts["probe"].correct(trace.items.answers)
    layer = int(correct.mean(axis=0).argmax())
    found = {"target_prompts": _target_prompts(trace), "bias": _bias(trace)}
    for name, table in (("calibration", "calibration"), ("near_ood", "near_ood_recognised")):
        frame = trace.tables.get(table)
        found[name] = None if frame is None else plain_rows(frame[frame["layer"] == layer])[0]
    return found


def _target_prompts(trace: Trace) -> dict[str, Any] | None:
    """How far the target prompts agree in the layer where most samples are ready."""
    spread = trace.tables.get("prompt_spread")
    if spread is None:
        return None
    hits: Any = spread[(spread["measure"] == "hit") & (spread["version"] == "subtracted")]
    left_out = trace.tables["prompts_left_out"]
    return {
        **plain_rows(hits.iloc[[hits["mean"].to_numpy().argmax()]])[0],
        "left_out": dict(zip(left_out["prompt"], left_out["reason"], strict=True)),
    }


def _bias(trace: Trace) -> dict[str, Any] | None:
    table = trace.tables.get("bias")
    if table is None:
        return None
    priors = table[table["where"] == "prior"]
    layers = table[(table["where"] != "prior") & (table["prompt"] == "own")]
    return {
        "priors": plain_rows(priors),
        "early_layers": plain_rows(layers),
    }


def plain_rows(frame: Any) -> list[dict[str, Any]]:
    """The rows of a table as JSON knows them."""
    return [{str(n): plain(v) for n, v in row.items()} for row in frame.to_dict("records")]


def plain(value: Any) -> Any:
    """A number as JSON knows it; None for what is missing or not finite."""
    if isinstance(value, str | bool | np.bool_):
        return bool(value) if isinstance(value, np.bool_) else value
    if pd.isna(value) or not np.isfinite(value):
        return None
    return int(value) if isinstance(value, int | np.integer) else float(value)
