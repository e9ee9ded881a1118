"""What several tables share: columns, notes, units, and frames of a summary's shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from brewlens.paper.column import Column

if TYPE_CHECKING:
    import pandas as pd

INTERVALS = "Intervals: 95 %, clustered by program shape."
FAMILY = Column("family", "family", "text")
LAYER = Column("layer", "layer", "count")
SAMPLES, SHAPES, SHARE, DEPTH = "samples", "shapes", "share of samples", "share of depth"
ZERO_BASED = "0-based"
_COUNTS = {"n": SAMPLES, "n_shapes": SHAPES, "n_clusters": SHAPES, "clusters": SHAPES, "count": SAMPLES}
_NUMBERS = ("value", "mean", "median", "low", "high", "detectable")


def percent(head: str, where: Mapping[str, object] | None = None) -> Column:
    """A share in percent with its interval, of a frame of shares."""
    return Column(head, "value", "percent", "low", "high", where=where or {})


def shares(rows: Iterable[tuple[str, str, Mapping[str, Any] | None]]) -> pd.DataFrame:
    """Shares of a summary, one row each: family, quantity, value, interval, count, n, n_shapes."""
    return frame_of({"family": f, "quantity": q, **share_row(share)} for f, q, share in rows)


def share_row(share: Mapping[str, Any] | None) -> dict[str, Any]:
    """A share of a summary as columns; of no sample where it is None."""
    found = share or {}
    row = {name: found.get(name) for name in ("value", "low", "high")}
    row |= {"count": found.get("count", 0), "n": found.get("n", 0), "n_shapes": found.get("shapes", 0)}
    if "layer" in found:
        row["layer"] = found["layer"]
    return row | {"detectable": found.get("detectable")}


def frame_of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A frame whose numbers are numbers, also where all are missing."""
    import pandas as pd

    frame = pd.DataFrame(list(rows))
    frame = frame.astype({name: float for name in _NUMBERS if name in frame})
    return frame.astype({"layer": "Int64"}) if "layer" in frame else frame


def counts(frame: pd.DataFrame) -> dict[str, str]:
    """The units of a frame's counts and layers."""
    units = {name: unit for name, unit in _COUNTS.items() if name in frame}
    return units | ({"layer": ZERO_BASED} if "layer" in frame else {})


def share_units(frame: pd.DataFrame) -> dict[str, str]:
    """The units of a frame of shares."""
    return counts(frame) | dict.fromkeys(("value", "low", "high", "detectable"), SHARE)
