"""What a run prints: tables for a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from brewlens.lifecycle.claims import CONTRADICTED, NOT_DISTINGUISHABLE, SUPPORTED
from brewlens.study.cautions import cautions
from brewlens.study.summary import share_of
from brewlens.tasks import ItemSet, assign_folds

_HEADS = {
    "resolved": "resolved",
    "overprocessed": "over-\nprocessed",
    "misresolved": "mis-\nresolved",
    "unresolved": "un-\nresolved",
    "bypassed": "by-\npassed",
}
_NOTE = (
    "no brew: no FPCL, % of all n. format miss: the first choice of the whole vocabulary is no answer "
    "class, % of all n. probe, context-stripped: at their best layer (L), chosen on the other folds. "
    "surface: 1-3-grams of the text. beyond: probe minus surface, paired by sample, in points; * where the "
    "surface alone reaches 90 %: decodable from text. majority: the configuration's most frequent answer in "
    "the other folds; below chance where answers are balanced. Intervals: 95 %, clustered by shape."
)


def _interval(share: Mapping[str, Any] | None, between: str = "\n") -> str:
    """``70.8`` and, on the next line, its interval."""
    if share is None:
        return "-"
    low, high = 100 * share["low"], 100 * share["high"]
    return f"{100 * share['value']:.1f}{between}[dim]{low:.0f}-{high:.0f}[/dim]"


def _percent(share: Mapping[str, Any] | None) -> str:
    return "-" if share is None else f"{100 * share['value']:.1f}"


def _table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> Table:
    """One row per family and a last one for all of them."""
    table = Table(
        title=title, box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, title_justify="left"
    )
    table.add_column("family", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for name, cells in rows.items():
        if name == "overall":
            table.add_section()
        table.add_row(name, *cells)
    return table


def outcome_table(groups: Mapping[str, Any]) -> Table:
    """Outcome shares per family, by the repaired rule."""
    return _table(
        f"Outcomes, % of the samples with an FPCL, 95 % intervals below; {_detectable(groups)}",
        ["n", *_HEADS.values(), "no\nbrew"],
        {
            name: [
                str(group["n"]),
                *(_interval(group["outcomes"][outcome]) for outcome in _HEADS),
                _percent(group["no_brewing"]),
            ]
            for name, group in groups.items()
        },
    )


def _detectable(groups: Mapping[str, Any]) -> str:
    """The largest difference between two of a table's families that could go unseen."""
    found = [
        share["detectable"]
        for name, group in groups.items()
        if name != "overall"
        for share in group["outcomes"].values()
        if share is not None and share["detectable"] is not None
    ]
    return f"differences from {100 * max(found):.0f} points on are detectable" if found else ""


def accuracy_table(groups: Mapping[str, Any], control: Sequence[Mapping[str, Any]]) -> Table:
    """The model, the decoders at their best layer, and what the text alone gives, per family."""
    beyond = {row["family"]: row for row in control}
    return _table(
        "Right answers, %, 95 % intervals below",
        [
            "model",
            "format\nmiss",
            "probe",
            "context-\nstripped",
            "surface",
            "beyond",
            "major-\nity",
        ],
        {
            name: [
                _interval(group["accuracy"]),
                _percent(group["format_miss"]),
                _at_layer(group["probe_best"]),
                _at_layer(group["context_stripped_best"]),
                _interval(group["surface"]),
                _beyond(beyond.get(name)),
                _percent(group["majority"]),
            ]
            for name, group in groups.items()
        },
    )


def _beyond(row: Mapping[str, Any] | None) -> str:
    """Probe minus surface in points; a star where the text alone decodes the answer."""
    if row is None:
        return "-"
    mark = "*" if row["decodable"] else ""
    low, high = row["low"], row["high"]
    interval = "" if low is None else f"\n[dim]{100 * low:.0f}-{100 * high:.0f}[/dim]"
    return f"{100 * row['difference']:+.1f}{mark}{interval}"


def _at_layer(share: Mapping[str, Any]) -> str:
    """The same with the layer that it is of."""
    return _interval(share).replace("[/dim]", f" L{share['layer']}[/dim]")


_COLORS = {SUPPORTED: "green", CONTRADICTED: "red", NOT_DISTINGUISHABLE: "dim"}


def claim_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the paper says, by whether the run bears it out."""
    lines = ["Claims: effect [95 % interval, clustered by shape], n, p adjusted over all of them"]
    for verdict, color in _COLORS.items():
        lines.append(f"[{color}]{verdict}[/{color}]")
        for row in (found := [row for row in rows if row["verdict"] == verdict]):
            effect = (
                "nothing to measure it on" if row["effect"] is None else f"{row['effect']:+.3f}{_ends(row)}"
            )
            lines.append(f"  {row['statement']} ({row['scope']})")
            lines.append(f"    {effect} {row['unit']}, n {row['n']}, p {p_value(row['p_adjusted'])}")
        if not found:
            lines[-1] += ": none"
    return lines


def _ends(row: Mapping[str, Any]) -> str:
    return "" if row["low"] is None else f" \\[{row['low']:+.3f}, {row['high']:+.3f}]"


def p_value(p: float | None) -> str:
    """A p-value with three decimals."""
    return "-" if p is None else "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def summary_tables(folder: Path, console: Console | None = None) -> None:
    """Outcomes of a finished run, baselines beside the probe, warnings, and where the report is."""
    console = console or Console()
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    groups = {**summary["families"], "overall": summary["overall"]}
    console.print(outcome_table(groups))
    console.print(accuracy_table(groups, summary.get("surface_control", [])))
    if summary.get("claims"):
        for line in claim_lines(summary["claims"]):
            console.print(line, highlight=False)
    _interventions(summary, console)
    if (same := summary["last_layer_identity"]) is not None:
        console.print(
            f"check: raw context-stripped decoding at the last layer is the model's own answer "
            f"for {same['count']} of {same['n']} samples",
            highlight=False,
        )
    for line in check_lines(summary["checks"]):
        console.print(line, highlight=False)
    console.print(_NOTE, style="dim", highlight=False)
    caution_lines(cautions(folder), console)
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)


def caution_lines(texts: Sequence[str], console: Console) -> None:
    """Print warnings, one a line."""
    for text in texts:
        console.print(f"[yellow]warning:[/yellow] {escape(text)}", highlight=False)


def _interventions(summary: Mapping[str, Any], console: Console) -> None:
    if not (summary.get("causal_verdicts") or summary.get("rescue")):
        return
    from brewlens.study.show_interventions import causal_note, causal_table, rescue_lines

    verdicts = summary.get("causal_verdicts", [])
    if (table := causal_table(verdicts)) is not None:
        console.print(table)
        console.print(causal_note(verdicts), style="dim", highlight=False)
    for line in rescue_lines(summary.get("rescue", [])):
        console.print(line, highlight=False)


def check_lines(checks: Mapping[str, Any]) -> list[str]:
    """How far target prompts agree, which are biased, and how well the probe is calibrated."""
    lines = []
    if (spread := checks["target_prompts"]) is not None:
        low, high = spread["icc_single_low"], spread["icc_single_high"]
        icc = "-" if low is None else f"{spread['icc_single']:.2f} [{low:.2f}, {high:.2f}]"
        lines.append(
            f"target prompts: {spread['n_prompts']}, at layer {spread['layer']} right in "
            f"{100 * spread['least']:.0f} % ({spread['least_prompt']}) to {100 * spread['greatest']:.0f} % "
            f"({spread['greatest_prompt']}), mean {100 * spread['mean']:.0f} % "
            f"[{100 * spread['mean_low']:.0f}, {100 * spread['mean_high']:.0f}]; agreement on a sample "
            f"ICC(A,1) {icc}"
        )
        lines += [f"left out: target prompt {name}: {why}" for name, why in spread["left_out"].items()]
    if checks["bias"] is not None:
        own, *others = checks["bias"]["priors"]
        biased = [f"{p['prompt']} ({p['w']:.1f})" for p in others if p["flagged"]]
        lines.append(
            f"prior of the own question: {'uneven' if own['flagged'] else 'even'} over the answers, "
            f"Cohen's w {own['w']:.2f}, n {own['n']}" + (f"; uneven: {', '.join(biased)}" if biased else "")
        )
    if (probe := checks["calibration"]) is not None:
        lines.append(
            f"probe at layer {probe['layer']}: calibration error (ECE) {probe['ece_debiased']:.3f}, Brier "
            f"{probe['brier']:.3f}, n {probe['n']}"
        )
    if (near := checks["near_ood"]) is not None:
        lines.append(
            f"near-OOD programs there: {100 * near['recognised']:.0f} % recognised as other "
            f"[{100 * near['low']:.0f}, {100 * near['high']:.0f}], n {near['n']}; false alarms "
            f"{100 * near['false_alarms']:.0f} % "
            f"[{100 * near['false_low']:.0f}, {100 * near['false_high']:.0f}], n {near['n_items']}"
        )
    return lines


def _short(short: Mapping[str, str], console: Console) -> None:
    for cell, made in short.items():
        console.print(f"[yellow]{cell}: {made} programs; it has no more distinct ones")


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
    rows_of: dict[str, list[str]] = {}
    folds = assign_folds(items, 5)
    grams, most = surface(items, folds), majority(items, folds)
    for family in items.families:
        rows = [row for row, item in enumerate(items) if item.family == family]
        answers = [items[row].answer for row in rows]
        rows_of[family] = [
            str(len(rows)),
            str(len({items[row].shape for row in rows})),
            _interval(share_of(grams.select(rows).correct(answers)[:, 0])),
            _interval(share_of(most.select(rows).correct(answers)[:, 0])),
        ]
        for row in rows[:: max(1, len(rows) // examples)][:examples] if examples else []:
            item = items[row]
            levels = "/".join(str(level) for level in item.factors.values())
            console.rule(f"{item.id} {levels}", align="left")
            console.print(escape(item.prompt) + f"[bold green]{item.answer}", highlight=False)
    title = "Items, and what their text alone gives away:\n% right in five folds, 95 % Wilson intervals below"
    console.print(_table(title, ["items", "shapes", "1-3-grams", "majority"], rows_of))
    _short(items.provenance.get("short", {}), console)  # type: ignore[arg-type]
