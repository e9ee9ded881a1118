"""Peak memory above what was there before, each in a process of its own.

    python -m benchmarks.memory injection cpu full

prints one JSON object. Resident memory is read from the kernel about every half millisecond (Linux); on a
CUDA device, torch's own count of what it allocated. Memory that only maps files, which the kernel may take
back at any time, is left out where shards are read: *anonymous* is what the process itself holds.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks import capture as capturing
from benchmarks import injection, models
from benchmarks.clock import threads
from benchmarks.records import Record
from benchmarks.settings import Settings, settings_for
from brewlens.capturing import read_shards
from brewlens.decoding import context_stripped

STATM = Path("/proc/self/statm")
MEGABYTE = 1e6
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Peak:
    """Most memory inside a block above what was there before it, in bytes; NaN where it cannot be read.

    Attributes:
        resident: Of the process.
        anonymous: The same without mapped files.
        device: Allocated on the CUDA device.
        results: What the results themselves take; they are part of the others.
        seconds: That the block took.
    """

    resident: float
    anonymous: float
    device: float
    results: float
    seconds: float


class Watch:
    """Samples this process's memory in a thread, in a ``with`` block.

    Args:
        device: Where torch's count is read too, if it is not the processor.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._stop = threading.Event()
        self._most = (0, 0)

    def __enter__(self) -> Watch:
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # else what was freed before would hide what is taken now
        self._before = _held()
        self._most = self._before
        if self._device != "cpu":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._on_device = torch.cuda.memory_allocated(self._device)
        self._start = time.perf_counter()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._seconds = time.perf_counter() - self._start
        self._stop.set()
        self._thread.join()
        self._look()

    def _sample(self) -> None:
        while not self._stop.wait(0.0005):
            self._look()

    def _look(self) -> None:
        resident, anonymous = _held()
        self._most = (max(self._most[0], resident), max(self._most[1], anonymous))

    def peak(self, results: int = 0) -> Peak:
        """What was found; ``results`` in bytes."""
        there = STATM.is_file()
        resident, anonymous = (
            (most - before if there else float("nan"))
            for most, before in zip(self._most, self._before, strict=True)
        )
        on_device = float("nan")
        if self._device != "cpu":
            on_device = torch.cuda.max_memory_allocated(self._device) - self._on_device
        return Peak(resident, anonymous, on_device, results, self._seconds)


def _held() -> tuple[int, int]:
    """Resident and anonymous bytes of this process."""
    if not STATM.is_file():
        return 0, 0
    fields = [int(f) * os.sysconf("SC_PAGE_SIZE") for f in STATM.read_text().split()[1:3]]
    return fields[0], fields[0] - fields[1]


def of_injection(settings: Settings, folder: Path) -> Peak:
    """Of one injection of all samples at every layer, with the default cap."""
    model = models.hooked(settings.shape, folder, settings.device, getattr(torch, settings.dtype))
    work = injection.work_for(model, settings, settings.samples)
    with threads(injection.THREADS):
        injection.growing(model, work.first(1))  # warm-up
        with Watch(settings.device) as watch:
            found = injection.growing(model, work)
    return watch.peak(found.nbytes)


def of_capture(settings: Settings, folder: Path) -> Peak:
    """Of one capture into shards on disk."""
    model = models.hooked(settings.shape, folder, settings.device, getattr(torch, settings.dtype))
    prompts = models.random_prompts(settings.whole_prompts, settings.tokens)
    with threads(settings.cores):
        capturing.to_disk(model, prompts[:1], folder)  # warm-up
        with Watch(settings.device) as watch:
            capturing.to_disk(model, prompts, folder)
    return watch.peak()


def of_stripped(settings: Settings, folder: Path, items: int) -> Peak:
    """Of context-stripped decoding of so many items, read from the shards in ``folder``."""
    model = models.hooked(settings.stripped_shape, folder, settings.device, getattr(torch, settings.dtype))
    paths = sorted((folder / f"items{items}").glob("*.safetensors"))
    residuals = next(iter(read_shards(paths)[0].values()))
    targets = [f'# {chr(97 + k % 26)} is "' for k in range(items)]
    space = model.answer_space(targets[:8])
    with threads(settings.cores):
        injection.growing(model, injection.work_for(model, settings, 1))  # warm-up
        with Watch(settings.device) as watch:
            readouts = context_stripped(model, residuals, targets, space)
    masses = {id(r.other_mass): r.other_mass.nbytes for r in readouts if r.other_mass is not None}
    return watch.peak(sum(r.logits.nbytes for r in readouts) + sum(masses.values()))


def shards(settings: Settings, folder: Path, items: int) -> None:
    """Capture the residuals that :func:`of_stripped` reads."""
    from brewlens import capture

    model = models.hooked(settings.stripped_shape, folder, settings.device, getattr(torch, settings.dtype))
    prompts = models.random_prompts(items, (6, 8))
    with threads(settings.cores):
        capture(model, prompts, [str(k) for k in range(items)], folder=folder / f"items{items}")


def watched(what: str, settings: Settings, folder: Path) -> Peak:
    """The peak of ``injection``, ``capture`` or ``stripped-N`` for N items.

    Raises:
        ValueError: If there is no such measurement.
    """
    kind, _, items = what.partition("-")
    match kind:
        case "injection":
            return of_injection(settings, folder)
        case "capture":
            return of_capture(settings, folder)
        case "stripped":
            return of_stripped(settings, folder, int(items))
    raise ValueError(f"asked for the memory of {what!r}, there are injection, capture and stripped-N")


def apart(what: str, settings: Settings, folder: Path) -> Peak:
    """:func:`watched` in a new process."""
    size = "quick" if settings.name == "quick" else "full"
    command = [sys.executable, "-m", "benchmarks.memory", what, settings.device, size, str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def measure(record: Record, folder: Path) -> None:
    """Measure each peak apart."""
    settings = record.settings
    on_device = settings.device != "cpu"

    def taken(peak: Peak) -> float:
        return (peak.device if on_device else peak.resident) / MEGABYTE

    kind = "on the device" if on_device else "resident, sampled"
    peak = apart("injection", settings, folder)
    record.line("injection.memory", "extra memory of an injection, default cap", taken(peak), "MB", kind)
    peak = apart("capture", settings, folder)
    what = f"capture of {settings.whole_prompts} prompts into shards"
    if not on_device:
        kind += f"; anonymous {peak.anonymous / MEGABYTE:.0f} MB"
    record.line("capture.memory", f"extra memory of a {what}", taken(peak), "MB", kind)
    record.line("capture.seconds", what, peak.seconds, "s", f"watched; {settings.dtype}")
    above = []
    kind = "on the device" if on_device else "anonymous, sampled"
    for items in settings.stripped_items:
        shards(settings, folder, items)
        peak = apart(f"stripped-{items}", settings, folder)
        found = peak.device if on_device else peak.anonymous - peak.results
        above.append(found / MEGABYTE)
        record.line(
            f"stripped.memory_{items}",
            f"extra memory of context-stripped decoding of {items} items",
            above[-1],
            "MB",
            f"{kind}; results of {peak.results / MEGABYTE:.1f} MB and mapped shards apart",
        )
    few, many = settings.stripped_items
    record.line(
        "stripped.growth",
        f"that memory at {many} items over that at {few}",
        above[1] / above[0],
        "",
        f"{settings.stripped_shape.layers} layers, width {settings.stripped_shape.width}",
    )


def main(what: str, device: str, size: str, folder: str) -> None:
    """One measurement, as a process of its own."""
    print(json.dumps(asdict(watched(what, settings_for(device, size == "quick"), Path(folder)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
