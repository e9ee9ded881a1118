"""What the page says of the measuring itself: calibration, target prompts, answers favoured beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from brewlens.report.causal import plain_rows

if TYPE_CHECKING:
    from brewlens.results import Trace


def audit(trace: Trace, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What ``audit.html`` shows; each part is empty or None where the run has no numbers of it.

    Args:
        trace: The trace.
        summary: The content of ``summary.json``.
    """
    checks = summary.get("checks") or {}
    calibration, near = (trace.tables.get(name) for name in ("calibration", "near_ood_recognised"))
    return {
        "best": checks.get("calibration"),
        "calibration": [] if calibration is None else plain_rows(calibration),
        "near_ood": {} if near is None else {row["layer"]: row for row in plain_rows(near)},
        "spread": checks.get("target_prompts"),
        "prompts": _prompts(trace, checks),
        "bias": (checks.get("bias") or {}).get("early_layers", []),
        "identity": summary.get("last_layer_identity"),
    }


def _prompts(trace: Trace, checks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every target prompt at the layer where most samples are ready, with what it favours beforehand."""
    table, spread = trace.tables.get("prompts"), checks.get("target_prompts")
    if table is None or spread is None:
        return []
    priors = {prior["prompt"]: prior for prior in (checks.get("bias") or {}).get("priors", [])}
    found: dict[str, dict[str, Any]] = {}
    for row in plain_rows(table[table["layer"] == spread["layer"]]):
        prompt = found.setdefault(
            row["prompt"], {"prompt": row["prompt"], "kind": row["kind"], "n": row["n"]}
        )
        prompt[row["version"]] = row
        prompt["prior"] = priors.get(row["prompt"])
    return list(found.values())
