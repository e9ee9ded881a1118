"""What the page says of interventions: verdicts in words, the published experiments, the cost of rescues."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from brewlens.decoding.surface_control import OVERALL
from brewlens.figures import verdict_table
from brewlens.figures.causal_use import ALL, EXPERIMENT, edit_name
from brewlens.lifecycle.outcomes import OUTCOMES

if TYPE_CHECKING:
    import pandas as pd

    from brewlens.results import Trace

TABLES = ("causal_verdicts", "effects", "rescue")
READINGS = {"follows": "of outputs follow the twin", "changed": "of outputs change"}
ALPHA = 0.05
"""Level of the verdicts."""
EXPERIMENTS = {
    "fjc_patching": (
        "Patching around the FJC",
        "The state of a layer around the FJC is written at the same layer of another prompt: a question "
        "without a program, or the counterfactual twin’s. An output is right that is the sample’s answer.",
    ),
    "layer_skipping": (
        "Layer skipping",
        "The sample’s own state at its FJC is written at a later layer of its own prompt: rescued among the "
        "overprocessed, harmed among the resolved.",
    ),
    "reinjection": (
        "Re-injection",
        "The sample’s own state at its FPCL is written at one of the last layers of its own prompt.",
    ),
    "transplant": (
        "Transplant",
        "What an MLP adds in a loop program is put in its place in the exact unrolled twin, and the other "
        "way round.",
    ),
}
"""Title and what is done, of the experiments beside causal use."""
_COUNTED = {
    "right": "right outputs",
    "follows": "outputs that follow the donor, beyond chance",
    "unchanged": "outputs that stay as they are",
    "logit_difference": "move of the logits, 0 as without edit, 1 as the donor",
}
_FIGURES = {
    "causal_use_availability": "Exchange with the counterfactual twin, all families, by layer relative to "
    "the one from which on the answer is available (the first layer of the brewing stretch).",
    "causal_use_readiness": "The same, relative to the layer from which on the answer is ready (the first "
    "one behind the brewing stretch).",
}


def causal(trace: Trace, figures: Mapping[str, object]) -> dict[str, Any] | None:
    """What ``causal.html`` shows; None for a trace without interventions.

    Args:
        trace: The trace.
        figures: The page's figures by name.
    """
    if not any(len(trace.tables.get(name, ())) for name in TABLES):
        return None
    verdicts = trace.tables.get("causal_verdicts")
    effects = trace.tables.get("effects")
    groups = {} if verdicts is None or not len(verdicts) else _verdicts(trace, verdicts)
    return {
        "verdicts": groups,
        "said": _said(groups.get(ALL, [])),
        "figures": _shown(figures),
        "experiments": [] if effects is None else list(_experiments(effects)),
        "rescue": plain_rows(trace.tables["rescue"]) if "rescue" in trace.tables else [],
        "edit_name": edit_name,
        "readings": READINGS,
    }


def verdict_sentence(row: Mapping[str, Any]) -> str:
    """A verdict with the numbers that it rests on, as one sentence without its subject.

    Args:
        row: A row of :func:`brewlens.figures.verdict_table`, None where a number is missing.
    """
    reading, n = READINGS[row["measure"]], f"n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{row['n']}"
    effect = f"{_estimate(row['net'], row['low'], row['high'])} {reading}"
    placebo = ""
    if row["placebo"] is not None:
        ends = (row[f"placebo_{end}"] for end in ("net", "low", "high"))
        placebo = f"strongest placebo {_estimate(*ends)}"
    if row["verdict"] == "used":
        start = "" if row["used_from"] is None else f", from layer {row['used_from']} on"
        return f"used{start} ({'; '.join(part for part in (effect, placebo, n) if part)})"
    if row["verdict"] == "not used":
        logits = f"{_number(max(0.0, row['logit_high']))} of the logit difference"
        return f"not used: at most {_number(max(0.0, row['high']))} {reading}, and {logits} ({n})"
    if row["nil"]:
        reason = f"as good as no edit (cosine {row['cosine']:.3f})"
    elif placebo and row["net"] > 0 and row["p_adjusted"] is not None and row["p_adjusted"] < ALPHA:
        reason = f"{effect}, but not more than with every placebo ({placebo})"
    elif row["high"] is not None and row["high"] < row["margin"]:
        logits = _estimate(row["logit_difference"], row["logit_low"], row["logit_high"])
        reason = f"{effect}, but the logits move by {logits} of the difference"
    else:
        reason = effect
    return f"cannot tell: {reason} ({n})"


def _verdicts(trace: Trace, verdicts: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Outcome -> rows, all samples first."""
    present = set(verdicts["outcome"])
    outcomes = [name for name in (ALL, *OUTCOMES) if name in present]
    return {outcome: plain_rows(verdict_table(trace, outcome)) for outcome in outcomes}


def _said(rows: Sequence[Mapping]) -> dict[str, list[tuple[str, str, str]]]:
    """Family -> edit, verdict and sentence; all families together first."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for row in sorted(rows, key=lambda r: r["family"] != OVERALL):
        name = edit_name(row["edit"])
        sentence = verdict_sentence(row)
        found.setdefault(row["family"], []).append((name, row["verdict"], sentence))
    return found


def _shown(figures: Mapping[str, object]) -> list[tuple[str, str]]:
    """The figures of effects along the depth, with captions."""
    by_edit = {
        f"causal_use_{edit}": f"{edit_name(edit).capitalize()}, by family, relative to availability."
        for edit in (name.removeprefix("causal_use_") for name in figures if name.startswith("causal_use_"))
        if f"causal_use_{edit}" not in _FIGURES
    }
    return [(name, text) for name, text in (_FIGURES | by_edit).items() if name in figures]


def _experiments(effects: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for name, rows in effects[effects["experiment"] != EXPERIMENT].groupby("experiment", sort=False):
        title, text = EXPERIMENTS.get(name, (name.replace("_", " ").capitalize(), ""))
        measures = list(dict.fromkeys(rows["measure"]))
        measure = "right" if "right" in measures else measures[0]
        rows = rows[rows["measure"] == measure]
        if OVERALL in set(rows["family"]):
            rows = rows[rows["family"] == OVERALL]
        yield {
            "title": title,
            "text": text,
            "counted": _COUNTED[measure],
            "donors": rows.loc[~rows["control"], "donor"].nunique(),
            "rows": _beside_placebos(rows),
        }


_CELL = ("family", "outcome", "edit", "site", "aligned", "at")


def _beside_placebos(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The treatments of an experiment, each with the placebos of the same cell."""
    placebos: dict[tuple, list[dict[str, Any]]] = {}
    for row in plain_rows(rows[rows["control"]]):
        placebos.setdefault(tuple(row[name] for name in _CELL), []).append(row)
    return [
        {**row, "where": _where(row["aligned"], row["at"]), "placebos": placebos.get(cell, [])}
        for row in plain_rows(rows[~rows["control"]])
        for cell in [tuple(row[name] for name in _CELL)]
    ]


def _where(aligned: str, at: int | None) -> str:
    if at is None:
        return "brewing stretch"
    if aligned == "layer":
        return f"layer {at}"
    mark = aligned.upper()
    return f"{mark} {'+' if at > 0 else '−'} {abs(at)}" if at else mark


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as mappings, None where something is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _estimate(value: float, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"{_number(value)} (no interval: one shape)"
    return f"{_number(value)} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")
