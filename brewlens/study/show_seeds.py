"""What several seeds print: the spread of the main numbers, and how firm the verdicts on the claims are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from brewlens.study.cautions import cautions
from brewlens.study.seeds import SPREAD, Seeds
from brewlens.study.show import caution_lines

_COLUMNS = {
    "accuracy": "model",
    "probe_best": "probe",
    "surface_control: difference": "beyond\nsurface",
    "outcomes.resolved": "resolved",
    "onsets: available_from": "avail-\nable at",
    "onsets: ready_from": "ready\nat",
}
_NOTE = (
    "First line: mean over the seeds ± SD between them; second: 95 % t interval of the mean; third: mean "
    "half-width of one seed's own 95 % interval. beyond surface: probe minus text-only baseline, points. "
    "resolved: % of the samples with an FPCL. available, ready at: mean layer, % of the depth, never counted "
    "as its end. The other numbers: "
)


def seeds_tables(found: Seeds, folder: Path, console: Console | None = None) -> None:
    """Print the spread between seeds, how often each verdict came up, and where the rest is.

    Args:
        found: The seeds.
        folder: Their folder.
        console: Where to print; standard output by default.
    """
    console = console or Console()
    console.print(_spread_table(found))
    if len(found.verdicts):
        console.print(_verdict_table(found))
    console.print(f"{_NOTE}{folder / SPREAD}", style="dim", highlight=False)
    console.print(
        f"programs whose skeleton another seed has too: {100 * found.shared_skeletons:.0f} %", highlight=False
    )
    told: dict[str, list[int]] = {}
    for seed, run in found.folders.items():
        for text in cautions(run):
            told.setdefault(text, []).append(seed)
    caution_lines(
        [
            f"{'seed' if len(s) == 1 else 'seeds'} {', '.join(map(str, s))}: {text}"
            for text, s in told.items()
        ],
        console,
    )
    for run in found.folders.values():
        console.print(f"report: {run / 'report.html'}", soft_wrap=True)


def _spread_table(found: Seeds) -> Table:
    table = _table(f"{len(found.seeds)} seeds ({', '.join(map(str, found.seeds))}), %: {found.redrawn}")
    table.add_column("family", no_wrap=True)
    for column in _COLUMNS.values():
        table.add_column(column, justify="right", no_wrap=True)
    rows = {(row["family"], row["quantity"]): row for row in found.spread.to_dict("records")}
    for family in dict.fromkeys(found.values["family"]):
        if (family, "accuracy") in rows:
            if family == "overall":
                table.add_section()
            table.add_row(family, *(_cell(rows.get((family, quantity))) for quantity in _COLUMNS))
    return table


def _cell(row: Mapping[Any, Any] | None) -> str:
    """Mean ± SD, interval, and a seed's own half-width, in percent."""
    if row is None or not row["seeds"]:
        return "-"
    mean, sd, low, high, within = (100 * row[name] for name in ("mean", "sd", "low", "high", "within"))
    lines = [f"{mean:.1f}±{sd:.1f}", f"{low:.0f} {high:.0f}"] if np.isfinite(sd) else [f"{mean:.1f}", ""]
    lines.append(f"±{within:.1f}" if np.isfinite(within) else "")
    return f"{lines[0]}\n[dim]{lines[1]}\n{lines[2]}[/dim]"


def _verdict_table(found: Seeds) -> Table:
    table = _table("Claims, and the verdicts of the seeds on them")
    table.add_column("statement", ratio=3)
    table.add_column("verdicts", ratio=2)
    for (statement, scope), verdicts in found.verdicts_by_claim().items():
        told = list(verdicts.values())
        counts = [f"{verdict}: {told.count(verdict)} of {len(told)}" for verdict in dict.fromkeys(told)]
        table.add_row(f"{escape(statement)}\n[dim]{escape(scope)}[/dim]", "\n".join(counts))
    return table


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, title_justify="left")
