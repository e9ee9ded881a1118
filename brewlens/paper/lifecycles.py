"""What a summary states of every family: outcomes by both rules, accuracy, first hits, configurations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from brewlens.decoding.surface_control import OVERALL
from brewlens.paper.column import Column
from brewlens.paper.parts import (
    DEPTH,
    FAMILY,
    INTERVALS,
    counts,
    frame_of,
    percent,
    share_row,
    share_units,
    shares,
)
from brewlens.paper.table import PaperTable
from brewlens.study.summary import share_of
from brewlens.tasks.difficulty import difficulty_levels

if TYPE_CHECKING:
    from brewlens.results import Trace

LANDMARKS = {"fpcl": "FPCL", "fcc": "FCC", "fjc": "FJC", "brewing": "FJC − FPCL"}
_RULES = {"outcomes": "repaired", "outcomes_paper": "published"}
_FACTOR = "factor "
_MOST_LEVELS = 5  # of a factor that columns may stand for


def summary_tables(trace: Trace, summary: Mapping[str, Any]) -> Iterator[PaperTable]:
    """Outcomes, accuracy, landmarks, configurations and difficulty."""
    groups = dict(summary["families"])
    if len(groups) > 1:
        groups[OVERALL] = summary["overall"]
    for key, rule in _RULES.items():
        yield _outcomes(groups, key, rule)
    yield _left_out(groups)
    yield _accuracy(groups)
    yield _landmarks(groups)
    for family in summary["families"]:
        cells = [cell for cell in summary["configurations"] if cell["family"] == family]
        if cells and cells[0]["factors"]:
            yield _configurations(family, cells)
    yield from _difficulty(trace)


def _outcomes(groups: Mapping[str, Mapping], key: str, rule: str) -> PaperTable:
    frame = shares((family, name, share) for family, g in groups.items() for name, share in g[key].items())
    outcomes = list(dict.fromkeys(frame["quantity"]))
    frame = frame.rename(columns={"quantity": "outcome"})
    frame.insert(1, "rule", rule)
    note = f"{INTERVALS} FPCL: first layer at which the probe is right. Samples without one are left out."
    note += {
        "repaired": " Bypassed: a right output, and no layer at which both decoders are right.",
        "published": " The published rule (arXiv 2606.17648) counts a right output without a layer at which "
        "both decoders are right as misresolved or unresolved, and a format miss as a wrong output.",
    }[rule]
    return PaperTable(
        "outcomes" if rule == "repaired" else "outcomes_published_rule",
        frame,
        f"How samples end, by the {rule} rule: share of the n samples with an FPCL, in %.",
        note,
        (FAMILY,),
        (
            Column("n", "n", "count", where={"outcome": outcomes[0]}),
            *(percent(outcome, {"outcome": outcome}) for outcome in outcomes),
        ),
        stacked=True,
        units=share_units(frame),
    )


def _left_out(groups: Mapping[str, Mapping]) -> PaperTable:
    names = {"no_brewing": "no brewing", "format_miss": "format miss"}
    frame = shares((family, name, g[name]) for family, g in groups.items() for name in names)
    return PaperTable(
        "left_out",
        frame,
        "Samples that stand beside the outcomes: share of all n samples, in %.",
        f"{INTERVALS} No brewing: the probe is right at no layer. Format miss: the model’s first choice "
        "over its whole vocabulary is no answer class.",
        (FAMILY,),
        (
            Column("n", "n", "count", where={"quantity": "no_brewing"}),
            *(percent(head, {"quantity": name}) for name, head in names.items()),
        ),
        units=share_units(frame),
    )


def _accuracy(groups: Mapping[str, Mapping]) -> PaperTable:
    heads = {
        "accuracy": "model",
        "probe_best": "probe",
        "context_stripped_best": "context-\nstripped",
        "surface": "text\nonly",
        "majority": "majority",
    }
    frame = shares((family, name, g[name]) for family, g in groups.items() for name in heads)
    columns = [Column("n", "n", "count", where={"quantity": "accuracy"})]
    for name, head in heads.items():
        columns.append(percent(head, {"quantity": name}))
        if name.endswith("_best"):
            columns.append(Column("at", "layer", "count", where={"quantity": name}))
    return PaperTable(
        "accuracy",
        frame,
        "Right answers, in %: the model, the decoders at their best layer, and what the text alone gives.",
        f"{INTERVALS} At: the best layer over all folds; scored is, for each fold, the best of the other "
        "folds. Text only: logistic regression on 1- to 3-grams of the prompt, on the same folds. "
        "Majority: the most frequent answer of the configuration in the other folds.",
        (FAMILY,),
        tuple(columns),
        stacked=True,
        units=share_units(frame),
    )


def _landmarks(groups: Mapping[str, Mapping]) -> PaperTable:
    names = ("n", "mean", "low", "high", "median", "detectable")
    frame = frame_of(
        {"family": family, "landmark": landmark, **{name: found[name] for name in names}}
        for family, group in groups.items()
        for landmark, found in group["landmarks"].items()
    )
    return PaperTable(
        "landmarks",
        frame,
        "First hits as a share of the depth L, over the n samples that have one.",
        f"{INTERVALS} FPCL: first layer at which the probe is right; FCC: context-stripped decoding; FJC: "
        "both. A first hit is the least of L tries, and mere guesses have one, too.",
        (FAMILY, Column("first hit", "landmark", "text", names=LANDMARKS)),
        (
            Column("n", "n", "count"),
            Column("mean / L", "mean", "share", "low", "high", digits=3),
            Column("median / L", "median", "share", digits=3),
        ),
        grouped=True,
        units=counts(frame) | dict.fromkeys(names[1:], DEPTH),
    )


def _configurations(family: str, cells: list[Mapping[str, Any]]) -> PaperTable:
    """A matrix with the last factor in columns; a list where that has many levels."""
    factors = list(dict.fromkeys(name for cell in cells for name in cell["factors"]))
    frame = frame_of(
        {
            "family": family,
            **{_FACTOR + name: str(cell["factors"].get(name, "–")) for name in factors},
            **share_row(cell["accuracy"]),
        }
        for cell in cells
    )
    keys = [Column(name.replace("_", " "), _FACTOR + name, "text") for name in factors]
    levels = list(dict.fromkeys(frame[_FACTOR + factors[-1]]))
    least, most = int(frame["n"].to_numpy().min()), int(frame["n"].to_numpy().max())
    sizes = f"n = {least} in each" if least == most else f"n = {least} to {most}, beneath"
    matrix = len(keys) > 1 and len(levels) <= _MOST_LEVELS
    columns = [Column("n", "n", "count"), percent("right")]
    if matrix:
        last = keys.pop()
        beneath = "" if least == most else "n"
        cell = replace(percent(""), beneath=beneath, beneath_as="n = {}")
        columns = [replace(cell, head=f"{last.head}\n{v}", where={last.value: v}) for v in levels]
    return PaperTable(
        f"configurations_{family}",
        frame,
        f"Accuracy of the model on {family} by configuration, in %" + (f"; {sizes}." if matrix else "."),
        INTERVALS,
        tuple(keys),
        tuple(columns),
        grouped=len(keys) > 1,
        stacked=matrix and least != most,
        units=share_units(frame),
    )


def _difficulty(trace: Trace) -> Iterator[PaperTable]:
    life, items, records = trace.lifecycle, trace.items, []
    brewed = life.outcome != "no_brewing"
    for family in items.families:
        here = [row for row, item in enumerate(items) if item.family == family]
        for factor, levels in difficulty_levels(items[row] for row in here).items():
            for level in levels:
                rows = [row for row in here if items[row].factors.get(factor) == level]
                kept = [row for row in rows if brewed[row]]
                cell = {"family": family, "factor": factor, "level": str(level)}
                right = share_of(life.output_correct[rows], trace.shapes[rows])
                resolved = share_of(life.outcome[kept] == "resolved", trace.shapes[kept])
                records.append({**cell, "quantity": "right", **share_row(right)})
                records.append({**cell, "quantity": "resolved", **share_row(resolved)})
    if not records:
        return
    frame = frame_of(records)
    right_here, resolved_here = {"quantity": "right"}, {"quantity": "resolved"}
    yield PaperTable(
        "difficulty",
        frame,
        "Right answers, and resolved samples, by the factors that make programs harder, in %.",
        f"{INTERVALS} Levels from the easiest on. Resolved: of the samples with an FPCL, by the repaired "
        "rule.",
        (FAMILY, Column("factor", "factor", "words"), Column("level", "level", "words")),
        (
            Column("n", "n", "count", where=right_here),
            percent("right", right_here),
            Column("n with\nFPCL", "n", "count", where=resolved_here),
            percent("resolved", resolved_here),
        ),
        grouped=True,
        units=share_units(frame),
    )
