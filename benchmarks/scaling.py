"""Time of an injection against the number of samples and against the number of layers.

The work is ``N L (L - 1) / 2`` evaluations of a block: linear in samples, and in layers quadratic but for the
``- 1``, which makes the exponent of the work itself a little more than two over a finite range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import injection, models
from benchmarks.clock import race, threads
from benchmarks.machine import gemm_peak
from benchmarks.records import Fit, Record
from brewlens.model import HookedModel

LOOP_SAMPLES = 2


def exponent(x: Sequence[float], y: Sequence[float]) -> Fit:
    """Least-squares line through ``log y`` against ``log x``.

    Raises:
        ValueError: If there are fewer than three points, or one is not positive.
    """
    from scipy.stats import linregress

    if len(x) < 3 or min(*x, *y) <= 0:
        raise ValueError(f"an exponent needs three points or more, all positive; found {x} and {y}")
    fit: Any = linregress(np.log(x), np.log(y))
    return Fit(float(fit.slope), float(fit.stderr), float(np.exp(fit.intercept)))


def measure(record: Record, folder: Path) -> None:
    """Time injection over both ranges, and fit an exponent to each."""
    settings, dtype = record.settings, getattr(torch, record.settings.dtype)
    with threads(injection.THREADS):
        first_peak = gemm_peak(settings.gemm, dtype, settings.device)
        model = models.hooked(settings.shape, folder, settings.device, dtype)
        for samples in settings.scaling_samples:
            _point(record, model, samples, "samples", samples)
        for layers in settings.scaling_layers:
            shape = replace(settings.shape, layers=layers)
            model = models.hooked(shape, folder, settings.device, dtype)
            _point(record, model, settings.scaling_layers_samples, "layers", layers)
        peak = max(first_peak, gemm_peak(settings.gemm, dtype, settings.device))
    _limit(record, peak)
    frame = record.point_frame()
    at = {
        "samples": f"{settings.shape.layers} layers",
        "layers": f"{settings.scaling_layers_samples} samples",
    }
    for axis, where in at.items():
        own = frame[(frame["axis"] == axis) & (frame["way"] == injection.OWN)]
        bound = frame[(frame["axis"] == axis) & (frame["way"] == injection.LIMIT)]
        fit = record.fits[axis] = exponent(own["value"].tolist(), own["seconds"].tolist())
        work = exponent(bound["value"].tolist(), bound["seconds"].tolist()).slope
        values = own["value"].tolist()
        record.line(
            f"scaling.{axis}",
            f"exponent of the time in {axis}",
            fit.slope,
            "",
            f"standard error {fit.error:.2g}; {values[0]} to {values[-1]} {axis}, {where}; that of the work "
            f"is {work:.2f}",
        )


def _point(record: Record, model: HookedModel, samples: int, axis: str, value: int) -> None:
    settings = record.settings
    work = injection.work_for(model, settings, samples)
    injection.growing(model, work.first(LOOP_SAMPLES))  # warm-up
    calls = {
        injection.OWN: lambda: injection.growing(model, work),
        injection.LOOP: lambda: injection.naive(model, work.first(LOOP_SAMPLES)),
    }
    times = race(calls, settings.repeats, settings.device)
    seconds = {
        injection.OWN: times[injection.OWN].best,
        injection.LOOP: times[injection.LOOP].best * samples / LOOP_SAMPLES,
    }
    for way, found in seconds.items():
        record.point(axis, value, way, found)
    print(f"  {value:6d} {axis:8} {seconds[injection.OWN]:10.4f} s", flush=True)


def _limit(record: Record, peak: float) -> None:
    settings = record.settings
    for samples in settings.scaling_samples:
        seconds = settings.shape.injection_flops(samples) / peak
        record.point("samples", samples, injection.LIMIT, seconds)
    for layers in settings.scaling_layers:
        shape = replace(settings.shape, layers=layers)
        seconds = shape.injection_flops(settings.scaling_layers_samples) / peak
        record.point("layers", layers, injection.LIMIT, seconds)
