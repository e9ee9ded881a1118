"""Every figure of the README and the docs, from stored results alone: ``make figures``.

``docs/run`` is a run of the bundled model, without its residuals and probes; the rest are numbers that the
benchmarks left. The same inputs and versions (``versions.json``) give the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from benchmarks.output import stored_scaling
from benchmarks.truth.output import draw as draw_onset_errors
from brewlens.figures import save
from brewlens.figures.plates import makers
from brewlens.files import write_json
from brewlens.study import load_run

ROOT = Path(__file__).parents[1]
RUN = ROOT / "docs" / "run"
FIGURES = ROOT / "docs" / "figures"
RESULTS = ROOT / "benchmarks" / "results"
ERRORS = "onset_errors"
SCALING = "scaling"


def draw(figures: Path = FIGURES, results: Path = RESULTS, names: tuple[str, ...] = ()) -> Iterator[Path]:
    """Draw the figures, or those named, and give their paths; that of the benchmarks goes to ``results``."""
    for name, make in makers(load_run(RUN)).items():
        if not names or name in names:
            plate = make()
            yield from save(plate.figure, figures / name, plate.data)
    if not names or ERRORS in names:
        errors = pd.read_csv(FIGURES / f"{ERRORS}.csv")
        yield from save(draw_onset_errors(errors), figures / ERRORS, errors)
    if not names or SCALING in names:
        figure, points = stored_scaling(RESULTS / "results.json")
        yield from save(figure, results / SCALING, points)
    write_json(figures / "versions.json", versions())


def versions() -> dict[str, str]:
    """Of what the bytes of a figure depend on."""
    return {name: version(name) for name in ("matplotlib", "numpy", "pandas", "fonttools")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="another folder for all of them")
    out = parser.parse_args().out
    for path in draw(*([out, out] if out else [])):
        sys.stdout.write(f"{path}\n")
