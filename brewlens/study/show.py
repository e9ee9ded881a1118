"""What a run prints: tables for a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from brewlens.lifecycle import OUTCOMES
from brewlens.study.summary import share_of
from brewlens.tasks import ItemSet, assign_folds

_OUTCOMES = tuple(name for name in OUTCOMES if name != "no_brewing")


def _interval(share: Mapping[str, Any] | None) -> str:
    if share is None:
        return "-"
    return f"{100 * share['value']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def _percent(share: Mapping[str, Any] | None) -> str:
    return "-" if share is None else f"{100 * share['value']:.1f}"


def summary_tables(folder: Path, console: Console | None = None) -> None:
    """The outcome table of a finished run, the baselines beside the probe, and where the report is."""
    console = console or Console(width=None)
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    groups = {**summary["families"], "overall": summary["overall"]}
    outcomes = Table(
        title="Outcomes: % of the samples with an FPCL, 95 % Wilson interval",
        caption="no_brewing and format_miss: % of all n",
    )
    outcomes.add_column("family", no_wrap=True)
    for name in ("n", *_OUTCOMES, "no_brewing", "format_miss"):
        outcomes.add_column(name, justify="right")
    for name, group in groups.items():
        if name == "overall":
            outcomes.add_section()
        outcomes.add_row(
            name,
            str(group["n"]),
            *(_interval(group["outcomes"][o]) for o in _OUTCOMES),
            _percent(group["no_brewing"]),
            _percent(group["format_miss"]),
        )
    console.print(outcomes)
    accuracy = Table(
        title="Accuracy: % right, 95 % Wilson interval; probe and context-stripped at their best layer",
        caption="best layers are chosen on the samples they are scored on; surface = 1-3-grams of the text",
    )
    accuracy.add_column("family", no_wrap=True)
    for name in ("model", "probe", "layer", "context-stripped", "layer", "surface", "majority"):
        accuracy.add_column(name, justify="right")
    for name, group in groups.items():
        if name == "overall":
            accuracy.add_section()
        accuracy.add_row(
            name,
            _interval(group["accuracy"]),
            _interval(group["probe_best"]),
            str(group["probe_best"]["layer"]),
            _interval(group["context_stripped_best"]),
            str(group["context_stripped_best"]["layer"]),
            _interval(group["surface"]),
            _percent(group["majority"]),
        )
    console.print(accuracy)
    for name, group in summary["families"].items():
        if group["surface"] is not None and group["surface"]["value"] >= 0.9:
            console.print(
                f"[yellow]{name} is decodable from text: surface baseline {_interval(group['surface'])}"
            )
    for cell, made in summary["short"].items():
        console.print(f"[yellow]{cell}: {made} distinct programs")
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)


def estimate_table(found: Mapping[str, str], folder: Path, console: Console | None = None) -> None:
    """What a run would take."""
    console = console or Console()
    table = Table(title="What this run would take", show_header=False)
    for name, value in {**found, "folder": str(folder)}.items():
        table.add_row(name, value)
    console.print(table)


def tasks_table(items: ItemSet, examples: int, console: Console | None = None) -> None:
    """Examples, counts and the text-only baselines of a set, out of five folds."""
    from brewlens.decoding import majority, surface

    console = console or Console()
    table = Table(title="Items and what their text alone gives away: % right, 95 % Wilson interval")
    for name in ("family", "items", "shapes", "1-3-grams", "majority"):
        table.add_column(name, justify="left" if name == "family" else "right")
    folds = assign_folds(items, 5)
    grams, most = surface(items, folds), majority(items, folds)
    for family in items.families:
        rows = [row for row, item in enumerate(items) if item.family == family]
        answers = [items[row].answer for row in rows]
        table.add_row(
            family,
            str(len(rows)),
            str(len({items[row].shape for row in rows})),
            _interval(share_of(grams.select(rows).correct(answers)[:, 0])),
            _interval(share_of(most.select(rows).correct(answers)[:, 0])),
        )
        for row in rows[:: max(1, len(rows) // examples)][:examples] if examples else []:
            item = items[row]
            console.rule(f"{item.id}  {dict(item.factors)}", align="left")
            console.print(f"{item.prompt}[bold green]{item.answer}", highlight=False)
    console.print(table)
    for cell, made in items.provenance.get("short", {}).items():  # type: ignore[attr-defined]
        console.print(f"[yellow]{cell}: {made} distinct programs")
