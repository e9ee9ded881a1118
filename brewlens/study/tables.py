"""Item sets, readouts and residuals as files of a run folder, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from brewlens.decoding.readout import Readout
from brewlens.files import write_tensors
from brewlens.lifecycle.onsets import Onsets
from brewlens.study.store import write_table
from brewlens.tasks.item import Item, ItemSet

if TYPE_CHECKING:
    import pandas as pd


_PLAIN = ("id", "family", "code", "suffix", "prompt", "answer", "skeleton", "shape")
_FIXED = (*_PLAIN, "twins", "fold")


INTERVENTIONS = "interventions"
EFFECTS = "effects"
EFFECTS_FILE = f"{EFFECTS}.parquet"
TOKENS = "tokens"
TOKENS_FILE = f"{TOKENS}.parquet"


def items_frame(items: Iterable[Item], folds: np.ndarray | None = None) -> pd.DataFrame:
    """One row per item; each factor is a column of its own, empty for families that lack it."""
    import pandas as pd

    items = list(items)
    factors = list(dict.fromkeys(name for item in items for name in item.factors))
    columns: dict[str, object] = {name: [getattr(item, name) for item in items] for name in ("id", "family")}
    for name in factors:
        levels = [item.factors.get(name) for item in items]
        if len({type(level) for level in levels if level is not None}) > 1:
            levels = [None if level is None else str(level) for level in levels]
        columns[name] = pd.array(levels, dtype="Int64" if _whole(levels) else "string")
    for name in ("answer", "skeleton", "shape"):
        columns[name] = [getattr(item, name) for item in items]
    if folds is not None:
        columns["fold"] = np.asarray(folds)
    columns["twins"] = [json.dumps(dict(item.twins), sort_keys=True) for item in items]
    for name in ("suffix", "code", "prompt"):
        columns[name] = [getattr(item, name) for item in items]
    return pd.DataFrame(columns)


def _whole(levels: Sequence[object]) -> bool:
    return all(level is None or type(level) is int for level in levels)


def items_from_frame(frame: pd.DataFrame) -> list[Item]:
    import pandas as pd

    names = [name for name in frame.columns if name not in _FIXED]
    rows = frame.to_dict("records")
    return [
        Item(
            **{name: row[name] for name in _PLAIN},
            factors={n: _level(row[n]) for n in names if not pd.isna(row[n])},
            twins=json.loads(row["twins"]),
        )
        for row in rows
    ]


def _level(value: object) -> str | int:
    return value if isinstance(value, str) else int(value)  # type: ignore[call-overload]


def write_items(folder: Path, items: ItemSet, folds: np.ndarray) -> list[str]:
    """``items.parquet``, and ``twins.parquet`` when the items have twins that are not items themselves."""
    write_table(folder / "items.parquet", items_frame(items, folds))
    if not items.partners:
        return ["items.parquet"]
    write_table(folder / "twins.parquet", items_frame(items.partners.values()))
    return ["items.parquet", "twins.parquet"]


def read_items(folder: Path, provenance: Mapping[str, object]) -> tuple[ItemSet, np.ndarray]:
    """The items of a run folder and the fold of each."""
    import pandas as pd

    frame = pd.read_parquet(folder / "items.parquet")
    twins = folder / "twins.parquet"
    partners = items_from_frame(pd.read_parquet(twins)) if twins.exists() else []
    items = ItemSet(tuple(items_from_frame(frame)), {item.id: item for item in partners}, provenance)
    return items, frame["fold"].to_numpy()


def write_readouts(path: Path, readouts: Mapping[str, Readout]) -> None:
    """One float32 tensor per decoder, ``[sample, layer, class]``, and its ``.other_mass`` where known."""
    tensors: dict[str, torch.Tensor] = {}
    for name, readout in readouts.items():
        tensors[name] = torch.tensor(readout.logits, dtype=torch.float32)
        if readout.other_mass is not None:
            tensors[f"{name}.other_mass"] = torch.tensor(readout.other_mass, dtype=torch.float32)
    classes = next(iter(readouts.values())).classes
    write_tensors(path, tensors, {"classes": classes, "decoders": list(readouts)})


def read_readouts(path: Path, ids: Sequence[str]) -> dict[str, Readout]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = json.loads(file.metadata()["brewlens"])
        names, classes = metadata["decoders"], tuple(metadata["classes"])
        stored = set(file.keys())
        return {
            name: Readout(
                file.get_tensor(name).numpy(),
                classes,
                name,
                tuple(ids),
                file.get_tensor(f"{name}.other_mass").numpy() if f"{name}.other_mass" in stored else None,
            )
            for name in names
        }


def write_onsets(path: Path, onsets: Mapping[str, Onsets]) -> None:
    """Posteriors over onsets by name, ``[sample, L + 1]`` float64, and ``.until`` over their ends."""
    tensors: dict[str, torch.Tensor] = {}
    for name, found in onsets.items():
        tensors[name] = torch.tensor(found.posterior)
        if found.until is not None:
            tensors[f"{name}.until"] = torch.tensor(found.until)
    write_tensors(path, tensors, {"onsets": list(onsets)})


def read_onsets(path: Path) -> dict[str, Onsets]:
    """What :func:`write_onsets` wrote; the fitted parameters are in ``tables/onset_fits.parquet``."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        stored = set(file.keys())
        found = {}
        for name in json.loads(file.metadata()["brewlens"])["onsets"]:
            posterior = file.get_tensor(name).numpy()
            until = file.get_tensor(f"{name}.until").numpy() if f"{name}.until" in stored else None
            found[name] = Onsets(posterior.shape[1] - 1, posterior, until)
    return found


def read_tables(folder: Path, manifest: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """What decoders, analysis and interventions wrote into ``tables``, by name."""
    import pandas as pd

    there = [name for name in ("readouts", "analysis", INTERVENTIONS) if name in manifest["stages"]]
    stages = [manifest["stages"][name] for name in there]
    names = [f for stage in stages for f in stage["files"] if f.startswith("tables/")]
    return {Path(name).stem: pd.read_parquet(folder / name) for name in names}
