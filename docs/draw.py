"""Every figure of the README and the docs, from stored results alone: ``make figures``.

``docs/run`` is a run of the bundled model, without its residuals and probes; the rest are the numbers of
``benchmarks/results``. The same inputs and versions give the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from benchmarks.output import stored_scaling
from benchmarks.truth.output import draw as draw_onset_errors
from brewlens.figures import plates, save
from brewlens.study import load_run

ROOT = Path(__file__).parents[1]
RUN = ROOT / "docs" / "run"
FIGURES = ROOT / "docs" / "figures"
RESULTS = ROOT / "benchmarks" / "results"
ONSET_ERRORS = FIGURES / "onset_errors.csv"


def draw(figures: Path = FIGURES, results: Path = RESULTS) -> list[Path]:
    """Draw all of them into ``figures``, and the one of the benchmarks into ``results``; returns the paths."""
    paths = [
        path
        for plate in plates(load_run(RUN))
        for path in save(plate.figure, figures / plate.name, plate.data)
    ]
    errors = pd.read_csv(ONSET_ERRORS)
    paths += save(draw_onset_errors(errors), figures / ONSET_ERRORS.stem, errors)
    figure, points = stored_scaling(RESULTS / "results.json")
    return paths + save(figure, results / "scaling", points)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="another folder for all of them")
    out = parser.parse_args().out
    for path in draw(*([out, out] if out else [])):
        print(path)
