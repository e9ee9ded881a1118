"""``python -m benchmarks``: measure, print, and write a table and a figure."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.settings import PARTS, settings_for

RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for. A target that is missed is no error."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="How fast brewlens is, beside what one would use instead."
    )
    parser.add_argument(
        "--device", default="cpu", help="cpu (default), or a CUDA device: a 7B shape in bfloat16"
    )
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see whether it runs")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(arguments)
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only takes {','.join(PARTS)}, found {','.join(sorted(unknown))}")

    # Before torch is loaded: threads that wait by spinning take the cores from those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    if options.device != "cpu" and not (options.device.startswith("cuda") and torch.cuda.is_available()):
        parser.error(f"--device takes cpu, or cuda where torch finds one; found {options.device}")
    from benchmarks import capture, causal_use, injection, machine, memory, output, probes, scaling
    from benchmarks.records import Record

    settings = settings_for(options.device, options.quick)
    facts = machine.facts(options.device)
    record = Record(settings)
    print(f"{facts['accelerator'] or facts['processor']}, {facts['cores']} cores, {settings.name} sizes")
    start = time.perf_counter()
    measures = {
        "injection": injection.measure,
        "scaling": scaling.measure,
        "causal": causal_use.measure,
        "capture": capture.measure,
        "probes": probes.measure,
        "memory": memory.measure,
    }
    for part in PARTS:
        if part in parts:
            print(part, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                measures[part](record, Path(folder))
    for path in output.write(record, facts, options.out):
        print(path)
    print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
