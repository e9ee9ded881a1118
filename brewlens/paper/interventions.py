"""Whether the brewed answer is used: verdicts, learned subspaces, and the effects of every experiment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from brewlens.figures import verdict_table
from brewlens.figures.causal_use import ALL, EDITS, EXPERIMENT, pooled
from brewlens.lifecycle.outcomes import OUTCOMES
from brewlens.paper.column import Column
from brewlens.paper.logits import component_tables
from brewlens.paper.parts import FAMILY, INTERVALS, LAYER, SAMPLES, counts
from brewlens.paper.rescues import rescue_table
from brewlens.paper.table import PaperTable
from brewlens.report.causal import EXPERIMENTS

if TYPE_CHECKING:
    import pandas as pd

    from brewlens.results import Trace

_COUNTED = {
    "right": "share of right outputs",
    "follows": "share of outputs that follow the donor, beyond chance",
    "unchanged": "share of outputs that stay as they are",
    "logit_difference": "move of the logits, 0 as without edit, 1 as the donor",
}
_EDITS = EDITS | {"erase": "probe’s erased"}
_SHORT = {
    "whole": "whole state",
    "probe_subspace": "probe’s",
    "learned_subspace": "learned",
    "erase": "erased",
}
_HEADS = {
    "whole": "whole\nstate",
    "probe_subspace": "probe’s\nsubspace",
    "learned_subspace": "learned\nsubspace",
    "erase": "probe’s\nerased",
}
_WHAT = "Edits: the whole state; the probe’s or a learned subspace of it; the probe’s subspace erased."
_CELL = ["family", "outcome", "edit", "site", "aligned", "at", "measure"]
_ENDS = ("net", "low", "high")
_STRETCH = "mean over the layers where the answer is available and not yet ready"
_OUTPUTS, _LOGITS = "share of outputs", "0 without edit, 1 as the donor"


def intervention_tables(trace: Trace) -> Iterator[PaperTable]:
    """Tables of interventions, as far as the trace has them."""
    tables = trace.tables
    if len(tables.get("causal_verdicts", ())):
        yield from _verdicts(trace)
    if len(tables.get("learned_subspace", ())):
        yield _learned(tables["learned_subspace"])
    if len(tables.get("effects", ())):
        effects: Any = tables["effects"]
        along_depth = (effects["experiment"] == EXPERIMENT) & (effects["aligned"] != "stretch")
        for experiment, rows in effects[~along_depth].groupby("experiment", sort=False):
            yield _effects(str(experiment), _beside_placebos(rows))
    yield from component_tables(tables)
    if len(tables.get("rescue", ())):
        yield rescue_table(tables["rescue"])


def _verdicts(trace: Trace) -> Iterator[PaperTable]:
    present = set(trace.tables["causal_verdicts"]["outcome"])
    for outcome in [name for name in (ALL, *OUTCOMES) if name in present]:
        frame = verdict_table(trace, outcome)
        margins = [f"{frame[name].iloc[0]:g}" for name in ("margin", "logit_margin")]
        note = (
            f"{INTERVALS} Effect: share of outputs that follow the counterfactual twin beyond chance "
            f"(erased: that change), net of no edit, {_STRETCH}. Used: more than without the edit (p "
            "adjusted over all verdicts, Benjamini and Hochberg) and than with every placebo. Not used: "
            f"certainly below {margins[0]} of outputs and {margins[1]} of the logit difference. "
        )
        if outcome == ALL:
            yield _verdicts_in_short(frame, note)
        yield _verdicts_in_full(outcome, frame, note)


def _verdicts_in_short(frame: Any, note: str) -> PaperTable:
    layer = frame["used_from"].astype("string")
    said = frame["verdict"] + (", L" + layer).fillna("")
    if several := bool(frame.groupby("family")["n"].nunique().gt(1).any()):
        said += ", n = " + frame["n"].astype("string")
    kept = ["family", "edit", "measure", "n", "n_shapes", *_ENDS, "p_adjusted", "verdict", "used_from"]
    edits = dict.fromkeys(frame["edit"])
    heads = {edit: _HEADS.get(edit) or edit.replace("_", "\n", 1) for edit in edits}
    columns = [
        Column(head, "net", "share", "low", "high", "said", {"edit": edit}) for edit, head in heads.items()
    ]
    if not several:
        columns.insert(0, Column("n", "n", "count", where={"edit": next(iter(edits))}))
    return PaperTable(
        "causal_use",
        frame[kept].assign(said=said),
        "Is the brewed answer used? Effect of exchanging it at the last token, by edit.",
        f"{note}L: first layer with an effect.",
        (FAMILY,),
        tuple(columns),
        stacked=True,
        units=counts(frame) | dict.fromkeys(_ENDS, _OUTPUTS) | {"used_from": "0-based layer"},
    )


def _verdicts_in_full(outcome: str, frame: pd.DataFrame, note: str) -> PaperTable:
    everyone = outcome == ALL
    estimates = {
        "effect": _ENDS,
        "placebo": ("placebo_net", "placebo_low", "placebo_high"),
        "beyond": ("beyond", "beyond_low", "beyond_high"),
        "logits": ("logit_difference", "logit_low", "logit_high"),
    }
    effect, *others = [Column(head, ends[0], "share", *ends[1:]) for head, ends in estimates.items()]
    units = {
        end: _LOGITS if head == "logits" else _OUTPUTS for head, ends in estimates.items() for end in ends
    }
    return PaperTable(
        "causal_verdicts" if everyone else f"causal_verdicts_{outcome}",
        frame,
        "Is the brewed answer used? Every edit beside its strongest placebo."
        + ("" if everyone else f" Samples that end {outcome.replace('_', ' ')}."),
        f"{note}{_WHAT} Beyond: effect minus strongest placebo, paired. Logits: the move between those "
        "without edit (0) and those of the twin (1). From: first layer with an effect.",
        (Column("edit", "edit", "words", names=_SHORT),),
        (
            Column("n", "n", "count"),
            effect,
            Column("p", "p_adjusted", "p"),
            *others,
            Column("from", "used_from", "count"),
            Column("verdict", "verdict", "text"),
        ),
        over=(FAMILY,),
        stacked=True,
        units=counts(frame) | units | {"used_from": "0-based layer"},
    )


def _learned(frame: pd.DataFrame) -> PaperTable:
    groups = {part: rows.iloc[0] for part, rows in frame.groupby("group", sort=False)}
    sizes = "; ".join(
        f"{part}: trained on {int(row['n_trained'])}, n = {int(row['n'])}" for part, row in groups.items()
    )
    columns: list[Column] = []
    for part in groups:
        here = {"group": part}
        columns.append(Column(f"group {part}, follows", "follows", "share", "low", "high", where=here))
        columns.append(Column("loss", "loss", where=here))
    return PaperTable(
        "learned_subspace",
        frame,
        f"Subspaces of rank {frame['rank'].iloc[0]} learned to carry the answer: share of outputs that "
        "follow the donor on programs of other shapes.",
        f"{INTERVALS} Each group of shapes is measured with the directions learned on the others (group "
        f"{sizes}). Loss: cross entropy at the end of training, in nats.",
        (LAYER,),
        tuple(columns),
        units=counts(frame)
        | {"n_trained": SAMPLES, "loss": "nats"}
        | dict.fromkeys(("follows", "low", "high"), _OUTPUTS),
    )


def _effects(experiment: str, frame: Any) -> PaperTable:
    """Treatments beside their placebos: all families, and the measure that the report shows."""
    own, several = {"control": False}, frame.groupby(_CELL, dropna=False)["treatment"].nunique().gt(1).any()
    measures, beneath = list(dict.fromkeys(frame["measure"])), "treatment" if several else ""
    shown: dict[str, object] = {"family": pooled(frame)}
    edit = Column("edit", "edit", "words", beneath=beneath, names=_EDITS)
    more = [Column("before", "before", "share", where=own), Column("cosine", "cosine", "share", where=own)]
    if experiment == EXPERIMENT:
        title, text = "Exchange of the brewed answer", f"Each effect is a {_STRETCH}."
        shown |= {"outcome": ALL}
        over, more = (Column("measure", "measure", "words", names=_COUNTED),), []
        key = replace(edit, names=_SHORT)
        note = f"{_WHAT} {text} Net of no edit, paired by sample. Along the depth it is a figure."
    else:
        title, text = EXPERIMENTS.get(experiment, (experiment.replace("_", " ").capitalize(), ""))
        shown["measure"] = measure = "right" if "right" in measures else measures[0]
        over = (Column("outcome", "outcome", "words", names={ALL: "all samples"}), edit)
        key = Column("where", "where", "text", beneath=beneath)
        before = f"Before: {_COUNTED.get(measure, measure)}, without edit; net: its change, paired by sample."
        note = f"{text} {before} Cosine: of the state before and after the edit.".strip()
    placebos = [
        Column(donor.replace("_", "\n", 1).replace("_", " "), "net", "share", "low", "high",
               where={"control": True, "donor": donor})
        for donor in dict.fromkeys(frame.loc[frame["control"], "donor"])
    ]  # fmt: skip
    return PaperTable(
        f"effects_{experiment}",
        frame,
        f"{title}: net effect of every edit beside its placebos. All families.",
        f"{note} {INTERVALS} p: adjusted over the experiment (Benjamini and Hochberg). The last "
        f"{len(placebos)} columns are net effects of placebos, named after their donor. Families, and all "
        "measures, are in the CSV.",
        (key,),
        (
            Column("n", "n", "count", where=own),
            *more[:1],
            Column("net", "net", "share", "low", "high", where=own),
            Column("p", "p_adjusted", "p", where=own),
            *more[1:],
            *placebos,
        ),
        shown,
        over,
        stacked=True,
        units=counts(frame)
        | {"at": "layers", "kl": "nats", "change": "of the state’s length"}
        | dict.fromkeys(("before", "after", *_ENDS, "detectable"), "see measure"),
    )


def _beside_placebos(frame: Any) -> pd.DataFrame:
    """Rows with the donor of their treatment and their place in words; a placebo of two is beside each."""
    import pandas as pd

    treated = frame.loc[~frame["control"], [*_CELL, "donor"]].rename(columns={"donor": "treatment"})
    own = frame[~frame["control"]].assign(treatment=lambda rows: rows["donor"])
    placebos = frame[frame["control"]].merge(treated, on=_CELL, how="left")
    joined = pd.concat([own, placebos], ignore_index=True)
    where = [
        place(str(aligned), None if pd.isna(at) else int(at))
        for aligned, at in zip(joined["aligned"], joined["at"], strict=True)
    ]
    if len(set(joined["site"])) > 1:
        where = [f"{at}, {site}" for at, site in zip(where, joined["site"], strict=True)]
    return joined.assign(where=where)


def place(aligned: str, at: int | None) -> str:
    """Where an edit was made: a layer, a distance from a landmark, or the brewing stretch."""
    if at is None:
        return "brewing stretch"
    if aligned == "layer":
        return f"layer {at}"
    return f"{aligned.upper()} {'+' if at > 0 else '−'} {abs(at)}" if at else aligned.upper()
