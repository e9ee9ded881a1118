"""Capture."""

from __future__ import annotations

from collections.abc import Sequence

from brewlens.residuals import Residuals


def capture(model, prompts: Sequence[str], item_ids: Sequence[str], progress: bool = False) -> Residuals:
    values, tokens = model.last_residuals(prompts, progress=progress)
    return Residuals.of(values, item_ids, tokens, model.name)
