"""Loading: a finished run folder as a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from brewlens.answer_logits import AnswerLogits
from brewlens.capturing import read_shards
from brewlens.decoding.probes import Probes
from brewlens.residuals import RESID_POST, Residuals
from brewlens.results import Trace
from brewlens.study import tables
from brewlens.study.pipeline import PROBES, lifecycles
from brewlens.study.store import RunFolderError, read_manifest


def load_run(folder: str | Path) -> Trace:
    """Read a finished run folder.

    A folder without its residuals or probes, by far its largest files, is read without them.

    Raises:
        RunFolderError: If it is not a run folder, or the run did not finish.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    stages = manifest["stages"]
    if missing := [name for name in ("items", "readouts", "analysis", "tables") if name not in stages]:
        raise RunFolderError(
            f"{folder}: the run did not finish (no {', '.join(missing)}); the command that began it goes on"
        )
    plan = manifest["plan"]
    items, folds = tables.read_items(folder, manifest["items"])
    readouts = tables.read_readouts(folder / "readouts.safetensors", items.ids)
    shards = sorted(name for name in stages if name.startswith("residuals/") and "near_ood" not in name)
    paths = [folder / s for s in shards]
    residuals = read_captured(paths)[0] if all(path.exists() for path in paths) else None
    import pandas as pd

    samples = pd.read_parquet(folder / "samples.parquet")
    life = lifecycles(
        items,
        readouts,
        readouts["probe"].target_index(samples["output"].tolist()),
        samples["format_miss"].to_numpy(dtype=bool),
        tail_start=plan["tail_start"],
        confident=plan["confident"],
    )
    name = manifest["model"]["name"]
    trace = Trace(items, np.asarray(folds), readouts, life, name, residuals, manifest)
    return with_analysis(trace, folder, manifest)


def with_analysis(trace: Trace, folder: Path, manifest: Mapping[str, Any]) -> Trace:
    """A trace with the onsets and all tables of its run folder."""
    import pandas as pd

    found = tables.read_tables(folder, manifest)
    if tables.INTERVENTIONS in manifest["stages"]:
        found[tables.EFFECTS] = pd.read_parquet(folder / tables.EFFECTS_FILE)
    if tables.TOKENS in manifest["stages"]:
        found[tables.TOKENS] = pd.read_parquet(folder / tables.TOKENS_FILE)
    return replace(
        trace,
        tables=found,
        onsets=tables.read_onsets(folder / "onsets.safetensors"),
        probes=Probes.load(folder / PROBES) if (folder / PROBES).exists() else None,
    )


def read_captured(paths: Sequence[Path]) -> tuple[Residuals, AnswerLogits]:
    """Memory-mapped residuals of a run, and the model's own answers."""
    taps, output = read_shards(paths)
    if output is None:
        raise RunFolderError(f"{paths[0]} holds no answers; remove it and run again")
    return taps[RESID_POST], output
