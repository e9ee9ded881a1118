"""Figures as files: PDF, SVG, PNG and the numbers behind them, the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from brewlens.figures import theme
from brewlens.files import replacing

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

    The same figure and data give the same bytes. Each file is written whole or not at all.

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
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in (*_METADATA, "csv")]
    with theme.context():
        layout = figure.get_layout_engine()
        figure.draw_without_rendering()
        # Constrained layout starts from where it last ended; run again, it could move things by a hair. And
        # with any engine, "none" too, matplotlib draws twice for every format.
        figure.set_layout_engine(None)
        try:
            for path, (kind, metadata) in zip(paths, _METADATA.items(), strict=False):
                with replacing(path) as temporary:
                    figure.savefig(temporary, format=kind, metadata=metadata)
        finally:
            figure.set_layout_engine(layout)
    with replacing(paths[-1]) as temporary:
        data.to_csv(temporary, index=False, lineterminator="\n")
    return paths
