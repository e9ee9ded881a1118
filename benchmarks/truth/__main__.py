"""``python -m benchmarks.truth``: simulate, print, and write a table, the numbers and a figure."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results"
DOCS = Path(__file__).parents[2] / "docs" / "figures"
PARTS = ("planted", "coverage", "nulls")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for. A target that is missed is no error."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.truth", description="Whether brewlens tells the truth, by simulation."
    )
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see whether it runs")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that work side by side")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the figure")
    options = parser.parse_args(arguments)
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only takes {','.join(PARTS)}, found {','.join(sorted(unknown))}")

    # Every process has one thread; set before torch is loaded.
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", HF_HUB_OFFLINE="1")
    from benchmarks.truth.output import write
    from benchmarks.truth.repeat import repeat

    for found in repeat(parts, quick=options.quick, processes=options.processes):
        page = write(found, options.out, options.docs)
    print(page)


if __name__ == "__main__":
    main()
