"""The report: one self-contained HTML page of a run, readable offline."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from markupsafe import Markup

from brewlens.figures import plates, theme
from brewlens.figures.lifecycle import LANDMARKS, decoders_of
from brewlens.files import replacing
from brewlens.lifecycle.landmarks import NEVER
from brewlens.lifecycle.outcomes import OUTCOMES, RESOLUTION
from brewlens.report.audit import audit
from brewlens.report.browser import BUDGET, Embedded, embedded
from brewlens.report.causal import causal
from brewlens.report.components import components
from brewlens.report.formats import FILTERS, flat
from brewlens.report.inline import THEMED, definitions, inline, numbers
from brewlens.report.placing import placed
from brewlens.report.warnings import warnings_of

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
_MODEL = ("name", "revision", "weights_hash", "tokenizer_hash", "dtype", "device", "d_model", "check")
_DRAWN = tuple(o for o in OUTCOMES if o != "no_brewing")


MOST_PAGE = 10_000_000
"""Bytes of a page; what is left beside its figures and tables is the samples'."""


def build(
    folder: str | Path, trace: Trace, summary: Mapping, manifest: Mapping, *, budget: int = BUDGET
) -> Path:
    """Write ``report.html``, and the figures that it shows and links to into ``figures/``.

    The page loads nothing: style, script, figures and the data of single samples are inside. It is written
    whole or not at all. The same trace, summary and manifest give the same bytes.

    Args:
        folder: The run folder.
        trace: The run's trace.
        summary: The content of ``summary.json``: every number that the page states.
        manifest: The content of ``manifest.json``; what it lacks is left out of the page.
        budget: Characters that the data of single samples may take. With more samples than fit, the page
            has some of each family and outcome, and says how many.

    Returns:
        The path of the page.

    Raises:
        ValueError: If the summary lacks a key.
    """
    _check(summary)
    folder = Path(folder)
    glyphs: dict[str, str] = {}
    shown = {plate.name: (plate, inline(plate, folder, glyphs)) for plate in plates(trace)}
    context = _context(trace, summary, manifest, shown) | {"glyphs": definitions(glyphs)}
    template = _environment().get_template("template.html")
    bare = len(template.render(context, browser=Embedded("", len(trace), len(trace))).encode())
    samples = embedded(trace, min(budget, MOST_PAGE - bare))
    page = template.render(context, browser=samples)
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
    loader = jinja2.FunctionLoader(_read)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(FILTERS)
    return environment


def _read(name: str) -> str:
    return files("brewlens.report").joinpath(name).read_text("utf-8")


def _context(trace: Trace, summary: Mapping, manifest: Mapping, shown: Mapping) -> dict[str, object]:
    groups = [(name, group) for name, group in summary["families"].items()]
    figures = {name: svg for name, (_, svg) in shown.items()}
    script = _read("browser.js")
    model = {**dict.fromkeys(_MODEL), **(manifest.get("model") or {})}
    return {
        "css": Markup(_read("style.css")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "model_name": model["name"] or trace.model,
        "model": model,
        "manifest": {key: manifest.get(key) or {} for key in ("items", "seeds", "versions", "wall_seconds")},
        "version": (manifest.get("versions") or {}).get("brewlens"),
        "plan": list(flat(_without_paths(manifest.get("plan") or {}, model["name"] or trace.model))),
        "summary": summary,
        "overall": summary["overall"],
        "groups": groups,
        "rows": [*groups, *([("overall", summary["overall"])] if len(groups) > 1 else [])],
        "labellings": [
            ("outcomes", "repaired rule", _DRAWN),
            ("outcomes_paper", "paper’s rule", RESOLUTION),
        ],
        "colors": {name: THEMED.get(color, color) for name, color in theme.OUTCOME_COLORS.items()},
        "names": theme.OUTCOME_NAMES,
        "warnings": warnings_of(summary),
        "verdicts": Counter(claim["verdict"] for claim in summary["claims"]),
        "figures": figures,
        "numbers": {name: numbers(plate) for name, (plate, _) in shown.items()},
        "placed": placed(shown),
        "causal": causal(trace, figures),
        "components": components(trace, figures),
        "audit": audit(trace, summary),
        "samples": [_sample(trace, plate, svg) for plate, svg in shown.values() if plate.row is not None],
        "outcome_count": {o: int((trace.lifecycle.outcome == o).sum()) for o in OUTCOMES},
        "onset_rows": _onset_rows(summary.get("onsets", [])),
        "grids": [_grid(name, summary["configurations"]) for name, _ in groups],
        "roles": [(r.decoder, theme.decoder(r.decoder).name) for r in decoders_of(trace)],
        "decoders": [theme.decoder(name).name for name in trace.readouts],
        "folds": len(set(trace.folds.tolist())),
        "settings": trace.lifecycle.settings,
    }


def _without_paths(plan: Mapping, model: str) -> dict[str, object]:
    """The plan with the model and the items file by name, not by where they lie on a disk."""
    items = plan.get("items")
    shown = {"model": model, "items": None if items is None else Path(items).name}
    return {key: shown.get(key, value) for key, value in plan.items()}


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
