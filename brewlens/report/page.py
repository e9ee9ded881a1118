"""The report: one self-contained HTML page of a run, readable offline."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from markupsafe import Markup, escape

from brewlens.figures import plates, save, theme
from brewlens.figures.lifecycle import LANDMARKS, decoders_of
from brewlens.files import replacing
from brewlens.lifecycle.landmarks import NEVER
from brewlens.lifecycle.outcomes import OUTCOMES, RESOLUTION
from brewlens.report.causal import causal
from brewlens.report.warnings import percent, warnings_of

if TYPE_CHECKING:
    from brewlens.figures import Plate
    from brewlens.results import Trace

_SUMMARY = (
    *("n", "n_layers", "classes", "families", "overall", "configurations", "first_hit_chance", "short"),
    *("claims", "nulls", "surface_control"),
)
_FAMILY = (
    *("n", "accuracy", "format_miss", "no_brewing", "outcomes", "outcomes_paper", "surface", "majority"),
    *("probe_best", "context_stripped_best", "landmarks"),
)
_MODEL = ("name", "revision", "weights_hash", "tokenizer_hash", "dtype", "device", "d_model")
_THEMED = {
    theme.INK: "var(--ink)",
    theme.MUTED: "var(--muted)",
    theme.GRID: "var(--grid)",
    theme.FILL: "var(--fill)",
    theme.PAPER: "var(--paper)",
    theme.DECODERS["probe"].color: "var(--blue)",  # too dark on a dark page
}
_DRAWN = tuple(o for o in OUTCOMES if o != "no_brewing")


def build(folder: str | Path, trace: Trace, summary: Mapping, manifest: Mapping) -> Path:
    """Write ``report.html``, and the figures that it shows and links to into ``figures/``.

    The page loads nothing: style and figures are inside. It is written whole or not at all. The same
    trace, summary and manifest give the same bytes.

    Args:
        folder: The run folder.
        trace: The run's trace.
        summary: The content of ``summary.json``: every number that the page states.
        manifest: The content of ``manifest.json``; what it lacks is left out of the page.

    Returns:
        The path of the page.

    Raises:
        ValueError: If the summary lacks a key.
    """
    _check(summary)
    folder = Path(folder)
    shown = {plate.name: (plate, _inline(plate, folder)) for plate in plates(trace)}
    page = _environment().get_template("template.html").render(_context(trace, summary, manifest, shown))
    path = folder / "report.html"
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return path


def _check(summary: Mapping) -> None:
    missing = [key for key in _SUMMARY if key not in summary]
    groups = {**summary.get("families", {}), "overall": summary.get("overall", {})}
    missing += [f"{name}.{key}" for name, group in groups.items() for key in _FAMILY if key not in group]
    if missing:
        raise ValueError(f"the report needs a whole summary; found none of {', '.join(missing[:8])}")


def _environment() -> jinja2.Environment:
    loader = jinja2.FunctionLoader(lambda name: files("brewlens.report").joinpath(name).read_text("utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        percent=percent, number=_number, plain=_plain, pvalue=_pvalue, seconds=_seconds
    )
    return environment


def _context(trace: Trace, summary: Mapping, manifest: Mapping, shown: Mapping) -> dict[str, object]:
    groups = [(name, group) for name, group in summary["families"].items()]
    figures = {name: svg for name, (_, svg) in shown.items()}
    model = {**dict.fromkeys(_MODEL), **(manifest.get("model") or {})}
    return {
        "css": Markup(files("brewlens.report").joinpath("style.css").read_text("utf-8")),
        "model_name": model["name"] or trace.model,
        "model": model,
        "manifest": {key: manifest.get(key) or {} for key in ("items", "seeds", "versions", "wall_seconds")},
        "version": (manifest.get("versions") or {}).get("brewlens"),
        "plan": list(_flat(manifest.get("plan") or {})),
        "summary": summary,
        "overall": summary["overall"],
        "groups": groups,
        "rows": [*groups, *([("overall", summary["overall"])] if len(groups) > 1 else [])],
        "labellings": [
            ("outcomes", "repaired rule", _DRAWN),
            ("outcomes_paper", "paper’s rule", RESOLUTION),
        ],
        "colors": {name: _THEMED.get(color, color) for name, color in theme.OUTCOME_COLORS.items()},
        "names": theme.OUTCOME_NAMES,
        "warnings": warnings_of(summary),
        "figures": figures,
        "causal": causal(trace, figures),
        "samples": [_sample(trace, plate, svg) for plate, svg in shown.values() if plate.row is not None],
        "outcome_count": {o: int((trace.lifecycle.outcome == o).sum()) for o in OUTCOMES},
        "onset_rows": _onset_rows(summary.get("onsets", [])),
        "grids": [_grid(name, summary["configurations"]) for name, _ in groups],
        "roles": [(r.decoder, theme.decoder(r.decoder).name) for r in decoders_of(trace)],
        "decoders": [theme.decoder(name).name for name in trace.readouts],
        "folds": len(set(trace.folds.tolist())),
        "settings": trace.lifecycle.settings,
    }


def _sample(trace: Trace, plate: Plate, svg: Markup) -> dict[str, object]:
    life, row = trace.lifecycle, plate.row
    item = trace.items[row]
    marks = {name: int(getattr(life.landmarks, name)[row]) for name in (*LANDMARKS, "brewing")}
    return {
        "name": plate.name,
        "svg": svg,
        "item": item,
        "program": item.prompt,
        "output": life.output[row],
        "correct": bool(life.output_correct[row]),
        "format_miss": bool(life.format_miss[row]),
        "outcome": str(life.outcome[row]),
        "outcome_paper": str(life.outcome_paper[row]),
        "landmarks": {name: None if layer == NEVER else layer for name, layer in marks.items()},
        "onsets": _sample_onsets(trace, row),
        "tail": (life.tail_class[row], float(life.tail_confidence[row])),
    }


def _sample_onsets(trace: Trace, row: int) -> dict[str, int | None]:
    """Onsets of one sample by name, None where it has none; empty without onsets."""
    if not trace.onsets:
        return {}
    available, ready = trace.onsets["available"], trace.onsets["ready"]
    layers = {
        "available from": available.onset[row],
        "ready from": ready.onset[row],
        "ready until": ready.end[row],
    }
    return {name: None if layer == NEVER else int(layer) for name, layer in layers.items()}


def _onset_rows(rows: list[Mapping]) -> dict[str, dict[str, Mapping]]:
    """Family -> quantity -> row."""
    found: dict[str, dict[str, Mapping]] = {}
    for row in rows:
        found.setdefault(row["family"], {})[row["quantity"]] = row
    return found


def _grid(family: str, configurations: list[Mapping]) -> dict[str, object]:
    """A family's configurations as a matrix: the last factor in columns, the others in rows."""
    cells = [c for c in configurations if c["family"] == family]
    factors = list(dict.fromkeys(name for c in cells for name in c["factors"]))
    *down, across = factors or ["configuration"]

    def level(cell: Mapping, name: str) -> str:
        return str(cell["factors"].get(name, "–" if factors else "all"))

    table: dict[tuple[str, ...], dict[str, Mapping | None]] = {}
    for cell in cells:
        row = tuple(level(cell, name) for name in down)
        table.setdefault(row, {})[level(cell, across)] = cell["accuracy"]
    columns = list(dict.fromkeys(level(c, across) for c in cells))
    return {
        "family": family,
        "down": down,
        "across": across,
        "columns": columns,
        "rows": table,
        "n": len(cells),
    }


def _inline(plate: Plate, folder: Path) -> Markup:
    """Save a figure's files, and give its SVG for use inside the page, in the colours of the page's theme.

    Identifiers get the figure's name in front, so that two figures on one page do not share one.
    """
    svg = save(plate.figure, folder / "figures" / plate.name, plate.data)[1].read_text("utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', head)[1]
    body = _without_repeated_ids(body)
    body = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{plate.name}-", body)
    for color, variable in _THEMED.items():
        body = body.replace(color, variable)
    # A hundredth of a point is finer than any screen.
    body = re.sub(r'\bd="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), body)
    return Markup(f'<svg class="plot" role="img" aria-label="{escape(plate.alt)}" viewBox="{box}">{body}')


def _without_repeated_ids(body: str) -> str:
    """Artists of one name in several panels: none of them keeps it, since nothing can refer to it."""
    ids = re.findall(r' id="([^"]*)"', body)
    repeated = {i for i in ids if ids.count(i) > 1}
    return re.sub(r' id="([^"]*)"', lambda m: "" if m[1] in repeated else m[0], body)


def _flat(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Leaves of nested mappings as (dotted name, value)."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _plain(value: object) -> str:
    """A value from the manifest as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in _flat(value))
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "none" if value is None else str(value)


def _number(value: float | None, digits: int = 3) -> str:
    """A number with a fixed count of decimals; a dash where there is none."""
    return "–" if value is None or value != value else f"{round(value, digits) + 0.0:.{digits}f}"


def _pvalue(p: float | None) -> str:
    """A p-value with three decimals."""
    return "–" if p is None else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _seconds(value: float) -> str:
    """A duration as seconds, or as minutes and seconds."""
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{value:.1f} s"
