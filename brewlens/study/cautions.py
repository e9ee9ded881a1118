"""Cautions: what a reader must know of a finished run, the same in the terminal as in the report."""

from __future__ import annotations

import json
from pathlib import Path

from brewlens.report.warnings import warnings_of
from brewlens.study.store import read_manifest


def cautions(folder: Path) -> list[str]:
    """Warnings of the report, experiments that were left out with the reason, and a slower injection."""
    manifest = read_manifest(folder)
    model = manifest.get("model") or {}
    left_out = [f"{name} was left out: {why}" for name, why in (manifest.get("left_out") or {}).items()]
    slower = (
        [f"{model['name']}: injection runs padded, the slower way: {model['refused']}"]
        if model.get("refused")
        else []
    )
    return [*warnings_of(json.loads((folder / "summary.json").read_text("utf-8"))), *left_out, *slower]
