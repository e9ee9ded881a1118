"""Figures as files: PDF, SVG, PNG and the numbers behind them, the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from brewlens.figures import style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# What matplotlib would otherwise write: the time, and its own version.
_METADATA = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": "brewlens"},
    "svg": {"Date": None, "Creator": "brewlens"},
    "png": {"Software": "brewlens"},
}


def save(figure: Figure, path_stem: str | Path, data: pd.DataFrame) -> list[Path]:
    """Write ``<stem>.pdf``, ``.svg``, ``.png`` and ``.csv``.

    The same figure and data give the same bytes. Each file is written under a temporary name and
    renamed, so that a reader never meets half a file; a file that fails leaves nothing behind.

    Args:
        figure: The figure. It keeps its layout: it is settled once, before the first file.
        path_stem: Folder and name without suffix; the folder is made.
        data: The exact numbers that the figure draws.

    Returns:
        The four paths, in the order above.

    Raises:
        ValueError: If ``data`` has no rows.
        OSError: If a file cannot be written.
    """
    if not len(data):
        raise ValueError(
            f"a figure is saved with the numbers behind it; found an empty table for {path_stem}"
        )
    stem = Path(path_stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    with style.context():
        layout = figure.get_layout_engine()
        figure.draw_without_rendering()
        # Constrained layout starts from where it last ended; run again, it could move things by a hair.
        figure.set_layout_engine("none")
        try:
            for kind, metadata in _METADATA.items():

                def write(path: Path, kind: str = kind, metadata: dict = metadata) -> None:
                    figure.savefig(path, format=kind, metadata=metadata)

                paths.append(_replace(stem.with_name(f"{stem.name}.{kind}"), write))
        finally:
            figure.set_layout_engine(layout)
    csv = stem.with_name(f"{stem.name}.csv")
    paths.append(_replace(csv, lambda path: data.to_csv(path, index=False, lineterminator="\n")))
    return paths


def _replace(path: Path, write: Callable[[Path], None]) -> Path:
    """Write under a temporary name beside ``path``, then rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
