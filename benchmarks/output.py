"""What a run leaves: JSON with everything, a table to be read, one to be computed with, and the figure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import injection, scaling
from benchmarks.records import Fit, Record
from brewlens.figures import theme
from brewlens.figures.export import save
from brewlens.files import replacing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# How each way is drawn: name, colour, marker, dashes.
_DRAWN = {
    injection.LOOP: (
        f"naive loop of hooks (scaled from {scaling.LOOP_SAMPLES} samples)",
        *("#d55e00", "s", (0, (3, 1.5))),
    ),
    injection.OWN: ("brewlens", "#0072b2", "o", "-"),
    injection.LIMIT: ("matrix products at the GEMM peak", "#5c6670", "", (0, (1, 1.5))),
}


def write(record: Record, machine: Mapping[str, object], folder: Path) -> list[Path]:
    """Write ``results.json``, ``.md`` and ``.csv``, and the scaling figure if it was measured.

    Returns:
        The paths.
    """

    content = {
        "machine": dict(machine),
        "settings": asdict(record.settings),
        "lines": [{**asdict(line), "asked": line.asked, "met": line.met} for line in record.lines],
        "timings": [asdict(timing) for timing in record.timings],
        "points": record.points,
        "fits": {axis: asdict(fit) for axis, fit in record.fits.items()},
    }
    texts = {
        "results.json": json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "results.md": table(record, machine),
        "results.csv": frame(record).to_csv(index=False, lineterminator="\n"),
    }
    paths = []
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        paths.append(folder / name)
    if record.fits:
        settings = record.settings
        figure = scaling_figure(
            record.point_frame(), record.fits, settings.shape.layers, settings.scaling_layers_samples
        )
        paths += save(figure, folder / "scaling", record.point_frame())
    return paths


def stored_scaling(path: Path) -> tuple[Figure, pd.DataFrame]:
    """The scaling figure of an earlier run, from its ``results.json``, and its points."""
    import pandas as pd

    content = json.loads(path.read_text("utf-8"))
    fits = {axis: Fit(**fit) for axis, fit in content["fits"].items()}
    points, settings = pd.DataFrame(content["points"]), content["settings"]
    layers, samples = settings["shape"]["layers"], settings["scaling_layers_samples"]
    return scaling_figure(points, fits, layers, samples), points


def frame(record: Record) -> pd.DataFrame:
    """Tidy: part, what, measured, unit, ratio, difference, asked, met, note; lines first, then times."""
    import pandas as pd

    lines = [
        {
            "part": line.key.partition(".")[0],
            **{name: getattr(line, name) for name in ("what", "measured", "unit", "asked", "met", "note")},
        }
        for line in record.lines
    ]
    times = [
        {
            **{name: getattr(timing, name) for name in ("part", "ratio", "note")},
            "what": timing.way,
            "measured": timing.seconds,
            "unit": "s",
            "difference": timing.error,
        }
        for timing in record.timings
    ]
    columns = ["part", "what", "measured", "unit", "ratio", "difference", "asked", "met", "note"]
    return pd.DataFrame([*lines, *times], columns=columns)


def table(record: Record, machine: Mapping[str, object]) -> str:
    """Markdown: the machine, every line with what was asked, every way with its time."""
    settings = record.settings
    versions = machine.get("versions")
    listed = ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, Mapping) else ""
    text = [
        "# Benchmarks",
        "",
        f"{machine['accelerator'] or machine['processor']}, {machine['cores']} cores, {settings.dtype}; "
        f"{machine['date']}. {machine['system']}, Python {machine['python']}, {listed}.",
        "",
    ]
    if settings.name == "quick":
        text += ["**Toy sizes: these numbers mean nothing.**", ""]
    text += ["| what | measured | asked | | how |", "|---|---|---|---|---|"]
    for line in record.lines:
        met = {True: "met", False: "**missed**", None: ""}[line.met]
        measured = f"{number(line.measured)} {line.unit}".strip()
        text.append(f"| {line.what} | {measured} | {line.asked} | {met} | {line.note} |")
    text += [
        "",
        "Seconds are those of the best repeat, ways timed in turns; where a part was run, scaled to the "
        "whole. Times is the way's seconds over brewlens' own. Difference is the largest from the naive "
        "results, relative to the largest of them.",
        "",
        "| part | way | seconds | median | times | difference | what was run |",
        "|---|---|---|---|---|---|---|",
    ]
    for t in record.timings:
        error = "" if t.error is None else f"{t.error:.1e}"
        text.append(
            f"| {t.part} | {t.way} | {number(t.seconds)} | {number(t.median)} | {number(t.ratio)} | {error} "
            f"| {t.note} |"
        )
    return "\n".join(text) + "\n"


def number(value: float) -> str:
    """Three digits that count, without an exponent where that can be read."""
    if math.isnan(value):
        return "not measured"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


def scaling_figure(points: pd.DataFrame, fits: Mapping[str, Fit], layers: int, samples: int) -> Figure:
    """Seconds of an injection against samples and against layers, with the fitted exponents.

    Args:
        points: axis, value, way, seconds.
        fits: By axis.
        layers: Of the model whose samples vary.
        samples: Of the models whose layers vary.
    """
    points = points.sort_values("value")
    labels = {"samples": f"samples $N$, at {layers} layers", "layers": f"layers $L$, at {samples} samples"}
    with theme.context():
        figure = theme.blank(theme.two_columns(), 2.9)
        panels = figure.subplots(1, 2, sharey=True)
        for ax, (axis, fit) in zip(panels, fits.items(), strict=True):
            _panel(ax, points.loc[points["axis"] == axis], fit)
            ax.set_xlabel(labels[axis])
            ax.set_title(f"time ~ ${labels[axis].split('$')[1]}^{{{fit.slope:.2f} \\pm {fit.error:.2f}}}$")
        panels[0].set_ylabel("seconds")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _panel(ax: Axes, points: pd.DataFrame, fit: Fit) -> None:
    for way, (name, color, marker, dashes) in _DRAWN.items():
        here = points.loc[points["way"] == way]
        own = way == injection.OWN
        ax.plot(
            here["value"],
            here["seconds"],
            color=color,
            marker=marker,
            markersize=4,
            linestyle="none" if own else dashes,
            label=name,
            zorder=3 if own else 2,
        )
    values = np.unique(points["value"])
    ax.plot(values, fit.factor * values**fit.slope, color=_DRAWN[injection.OWN][1], zorder=2)
    ax.set(xscale="log", yscale="log", xticks=values, xticklabels=values)
    ax.minorticks_off()
    ax.grid(axis="y", color=theme.GRID, linewidth=0.5)


def _plain(value: Any) -> Any:
    """JSON has no NaN: it becomes null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
