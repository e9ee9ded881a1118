"""All tables of a trace by name, and as files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewlens.decoding import majority
from brewlens.files import replacing
from brewlens.paper.analysis import analysis_tables
from brewlens.paper.decoders import decoder_tables
from brewlens.paper.interventions import intervention_tables
from brewlens.paper.latex import slug
from brewlens.paper.lifecycles import summary_tables
from brewlens.paper.seeds import seed_tables
from brewlens.paper.table import PaperTable

if TYPE_CHECKING:
    from brewlens.results import Trace
    from brewlens.study.seeds import Seeds

SHOWN_IN = {
    "bias": "bias",
    "calibration": "calibration",
    "causal_verdicts": "causal_*",
    "claims": "claims",
    "class_calibration": "class_calibration",
    "components": "components",
    "effects": "effects_*",
    "learned_subspace": "learned_subspace",
    "near_ood_recognised": "near_ood",
    "nulls": "nulls_*",
    "onset_fits": "onset_fits",
    "onsets": "onsets",
    "overtakes": "overtakes",
    "paper": "published_recipe",
    "prompt_spread": "target_prompt_spread",
    "prompts": "target_prompts",
    "prompts_left_out": "target_prompts_left_out",
    "rescue": "rescue",
    "surface_control": "surface_control",
    "tuned_lens": "tuned_lens",
}
"""Table of a trace -> the paper tables that show it."""
DATA_ONLY = {
    "onset_curves": "a number per layer, drawn as a figure",
    "reliability": "bins of the reliability diagram",
    "signals": "a row per sample",
    "tokens": "a row per sample",
}
"""Tables of a trace that no paper prints -> why."""


def paper_tables(trace: Trace, summary: Mapping[str, Any] | None = None) -> dict[str, PaperTable]:
    """Every table of a paper that a trace has the numbers for, by name.

    Args:
        trace: The trace.
        summary: The content of its ``summary.json``; made anew where it is not given.

    Returns:
        Outcomes by both rules, accuracy, first hits and their nulls, onsets, claims, configurations, what the
        decoders tell, and what interventions found: name -> table. What was not run is not there.
    """
    if summary is None:
        from brewlens.study.summary import summarise

        classes = next(iter(trace.readouts.values())).classes
        summary = summarise(trace, majority(trace.items, trace.folds, classes))
    made = [
        *summary_tables(trace, summary),
        *analysis_tables(trace.tables),
        *decoder_tables(trace.tables),
        *intervention_tables(trace),
    ]
    return _named(made)


def write_tables(
    results: Trace | Seeds | Mapping[str, PaperTable],
    folder: str | Path,
    *,
    summary: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write ``NAME.tex`` and ``NAME.csv`` of every table; each file is whole or absent.

    The same results give the same bytes.

    Args:
        results: A trace, several seeds, or tables.
        folder: Where to; it is made.
        summary: As in :func:`paper_tables`.

    Returns:
        The paths, and last ``preview.tex``, a document of all of them.

    Raises:
        OSError: If a file cannot be written.
    """
    from brewlens.results import Trace

    folder = Path(folder)
    if isinstance(results, Trace):
        tables = paper_tables(results, summary)
    else:
        tables = dict(results) if isinstance(results, Mapping) else seed_tables(results)
    paths = []
    for name, table in tables.items():
        for suffix, text in ((".tex", table.to_latex()), (".csv", table.to_csv())):
            paths.append(_write(folder / f"{name}{suffix}", text))
    return [*paths, _write(folder / "preview.tex", preview(tables))]


def write_run(run: str | Path, out: str | Path | None = None) -> list[Path]:
    """Write the tables of a finished run folder, or of the folder of several seeds.

    Args:
        run: The folder.
        out: Where to; by default its folder ``paper``.

    Returns:
        The paths, as :func:`write_tables`.

    Raises:
        RunFolderError: If it is no run folder, the run did not finish, or ``out`` is a file.
        OSError: If a file cannot be written.
    """
    from brewlens.study.loading import load_run
    from brewlens.study.seeds import SPREAD, load_seeds
    from brewlens.study.store import RunFolderError

    run = Path(run)
    folder = run / "paper" if out is None else Path(out)
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder} is a file; choose a folder with --out")
    if (run / SPREAD).is_file():
        return write_tables(load_seeds(run), folder)
    trace = load_run(run)
    return write_tables(trace, folder, summary=json.loads((run / "summary.json").read_text("utf-8")))


def preview(names: Iterable[str]) -> str:
    """A document that shows the tables, page by page."""
    shown = "\n".join(rf"\input{{{name}}}\clearpage" for name in names)
    return "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage{booktabs}",
            r"\begin{document}",
            shown,
            r"\end{document}",
            "",
        ]
    )


def _write(path: Path, text: str) -> Path:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


def _named(tables: list[PaperTable]) -> dict[str, PaperTable]:
    """By names that files may have; two that would have one, such as two families, are told apart."""
    named: dict[str, PaperTable] = {}
    for table in tables:
        name = stem = slug(table.name)
        number = 1
        while name in named:
            number += 1
            name = f"{stem}_{number}"
        named[name] = replace(table, name=name)
    return named
