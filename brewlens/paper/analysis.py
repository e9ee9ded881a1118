"""What the analysis finds: onsets, first hits beside nulls, claims, the text-only control, the recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from brewlens.lifecycle.claims import CONTRADICTED, NOT_DISTINGUISHABLE, SUPPORTED
from brewlens.lifecycle.nulls import ALL, PERMUTED, SHIFTED
from brewlens.lifecycle.outcomes import OUTCOMES, RESOLUTION
from brewlens.paper.column import Column
from brewlens.paper.lifecycles import LANDMARKS
from brewlens.paper.parts import DEPTH, FAMILY, INTERVALS, LAYER, SAMPLES, SHARE, counts
from brewlens.paper.table import PaperTable

if TYPE_CHECKING:
    import pandas as pd

_ONSETS = {
    "available_share": Column("ever\navailable, %", "value", "percent", "low", "high"),
    "available_from": Column("available\nfrom / L", "value", "share", "low", "high", digits=3),
    "ready_share": Column("ever\nready, %", "value", "percent", "low", "high"),
    "ready_from": Column("ready\nfrom / L", "value", "share", "low", "high", digits=3),
    "ready_minus_available": Column("ready −\navailable / L", "value", "share", "low", "high", digits=3),
}
_STATISTICS = {
    **{f"{mark}_share": f"samples with an {mark.upper()}" for mark in ("fpcl", "fcc", "fjc")},
    **{mark: f"{mark.upper()} / L" for mark in ("fpcl", "fcc", "fjc")},
    "brewing": "(FJC − FPCL) / L, of those with an FJC",
    "brewing_restricted": "(FJC − FPCL) / L",
    "area_available": "probe right, mean",
    "area_ready": "context-stripped right, mean",
    "slope_available": "probe right, slope",
    "slope_ready": "context-stripped right, slope",
    "outcome_no_brewing": "no brewing, of all",
    **{f"outcome_{name}": f"{name}, repaired rule" for name in OUTCOMES if name != "no_brewing"},
    **{f"outcome_paper_{name}": f"{name}, published rule" for name in RESOLUTION},
}
_NULLS = {
    PERMUTED: (
        "nulls_answers_permuted",
        "Statistics beside those of the same readouts when answers change places within cells of "
        "configuration and fold. All samples.",
        " Outcomes add up to one: where most samples are resolved, the others are fewer than among "
        "permuted answers.",
    ),
    SHIFTED: (
        "nulls_depth_shifted",
        "Statistics beside those of the same trajectories shifted along depth. All samples.",
        " A shift keeps rates and correlations, not the place. Slopes are over the whole depth.",
    ),
}
_QUANTITIES = {
    **{name: f"{head} / L" for name, head in LANDMARKS.items()},
    **{f"onset_{name}": f"{name.replace('_', ' ')}, by onsets" for name in OUTCOMES},
    "rho": "ρ",
}
_ADJUSTED = "Benjamini and Hochberg"


def analysis_tables(tables: Mapping[str, pd.DataFrame]) -> Iterator[PaperTable]:
    """Tables of the analysis, as far as they are there."""
    if "onsets" in tables:
        yield _onsets(tables["onsets"])
    if "nulls" in tables:
        yield from _nulls(tables["nulls"])
    if "claims" in tables:
        yield _claims(tables["claims"])
    if "surface_control" in tables:
        yield _surface_control(tables["surface_control"])
    if "onset_fits" in tables:
        yield _onset_fits(tables["onset_fits"])
    if "paper" in tables:
        yield _recipe(tables["paper"])


def _onsets(frame: pd.DataFrame) -> PaperTable:
    shares = frame["quantity"].str.endswith("_share")
    return PaperTable(
        "onsets",
        frame.assign(unit=shares.map({True: SHARE, False: DEPTH})),
        "Onsets of availability (probe) and readiness (context-stripped decoding).",
        f"{INTERVALS} An onset is the layer from which on a decoder is right, estimated from all L layers "
        "of a sample together. Means are over all n samples; a sample without the onset counts as 1.",
        (FAMILY,),
        (
            Column("n", "n", "count", where={"quantity": "available_share"}),
            *(replace(column, where={"quantity": name}) for name, column in _ONSETS.items()),
        ),
        stacked=True,
        units=counts(frame) | dict.fromkeys(("value", "low", "high", "detectable"), "see unit"),
    )


def _nulls(table: Any) -> Iterator[PaperTable]:
    families = [f for f in dict.fromkeys(table["family"]) if f != ALL]
    columns = (
        Column("n", "n", "count"),
        Column("observed", "observed", "share", digits=3),
        Column("null", "null_mean", "share", digits=3),
        Column("excess", "excess", "share", "low", "high", digits=3, signed=True),
        Column("p", "p_adjusted", "p"),
    )
    note = (
        f"{INTERVALS} Excess: observed minus null. p: two-sided, adjusted over all families and statistics "
        f"({_ADJUSTED}). First hits are shares of the depth L, never counted as 1."
    )
    measured = ("observed", "null_mean", "excess", "low", "high", "detectable")
    units = counts(table) | dict.fromkeys(measured, "share of samples or of depth")
    for null, (name, caption, more) in _NULLS.items():
        frame = table[table["null"] == null].reset_index(drop=True)
        if len(frame):
            statistic = Column("statistic", "statistic", "words", names=_STATISTICS)
            shown = {"family": ALL}
            yield PaperTable(*(name, frame, caption, note + more, (statistic,), columns, shown), units=units)
    if len(families) > 1:
        hits = LANDMARKS | {"brewing_restricted": LANDMARKS["brewing"]}
        yield PaperTable(
            "landmark_nulls",
            table[table["null"] == PERMUTED].reset_index(drop=True),
            "First hits of each family beside those with answers permuted within configuration and fold.",
            note,
            (FAMILY, Column("first hit / L", "statistic", "text", names=hits)),
            columns,
            {"statistic": ("fpcl", "fcc", "fjc", "brewing_restricted"), "family": tuple(families)},
            grouped=True,
            units=units,
        )


def _claims(frame: pd.DataFrame) -> PaperTable:
    order = {verdict: rank for rank, verdict in enumerate((SUPPORTED, NOT_DISTINGUISHABLE, CONTRADICTED))}
    frame = frame.sort_values("verdict", key=lambda v: v.map(order), kind="stable").reset_index(drop=True)
    return PaperTable(
        "claims",
        frame,
        "Published claims, and whether this run bears them out.",
        f"{INTERVALS} p: adjusted over the table ({_ADJUSTED}). Effects are shares of the depth, of "
        "samples, or of samples per level; units and least detectable effects are in the CSV.",
        (
            Column("statement", "statement", "text", width="3.6cm"),
            Column("scope", "scope", "text", width="3.3cm"),
        ),
        (
            Column("n", "n", "count"),
            Column("effect", "effect", "share", "low", "high", digits=3),
            Column("p", "p_adjusted", "p"),
        ),
        over=(Column("verdict", "verdict", "text"),),
        grouped=True,
        units=counts(frame) | dict.fromkeys(("effect", "low", "high", "detectable"), "see unit"),
    )


def _surface_control(frame: pd.DataFrame) -> PaperTable:
    return PaperTable(
        "surface_control",
        frame,
        "The probe at its best layer minus the text-only baseline, paired by sample, in points.",
        f"{INTERVALS} The best layer is chosen for each fold on the other folds. p: adjusted over the "
        f"families ({_ADJUSTED}). Decodable: the text alone gives 90 % or more.",
        (FAMILY,),
        (
            Column("n", "n", "count"),
            LAYER,
            Column("probe, %", "probe", "percent"),
            Column("text, %", "surface", "percent"),
            Column("beyond text", "difference", "points", "low", "high"),
            Column("p", "p_adjusted", "p"),
            Column("decodable", "decodable", "mark"),
        ),
        units=counts(frame)
        | {"probe": SHARE, "surface": SHARE}
        | dict.fromkeys(("difference", "low", "high", "detectable"), "difference of shares"),
    )


def _onset_fits(frame: pd.DataFrame) -> PaperTable:
    rates = {"guess": "guess", "hit": "hit", "ended": "ended"}
    return PaperTable(
        "onset_fits",
        frame,
        "What was fitted for the onsets of each family.",
        "Present: the evidence for onsets exceeds what fitting makes of noise. Gain: log likelihood of "
        "onsets over that of none, in nats per sample, and the least that would do. Guess, hit, ended: "
        "share of right layers before the onset, after it, and after the end of readiness.",
        (FAMILY, Column("onset", "onset", "text")),
        (
            Column("n", "n", "count"),
            Column("present", "present", "mark"),
            Column("gain", "gain"),
            Column("least", "least_gain"),
            *(Column(head, name, "share", digits=3) for name, head in rates.items()),
            Column("converged", "converged", "mark"),
        ),
        grouped=True,
        units=counts(frame)
        | dict.fromkeys(("gain", "least_gain"), "nats per sample")
        | dict.fromkeys(rates, "share of layers"),
    )


def _recipe(frame: pd.DataFrame) -> PaperTable:
    sides = {"paper": "published", "brewlens": "brewlens", "difference": "difference"}
    columns = {
        name: Column(head, name, "share", f"{name}_low", f"{name}_high", digits=3)
        for name, head in sides.items()
    }
    return PaperTable(
        "published_recipe",
        frame,
        "The published recipe (arXiv 2606.17648) beside brewlens, on the same readouts. All samples.",
        f"{INTERVALS} Published: one constant target prompt, first hits, means over the samples that have "
        "the landmark. brewlens: each sample’s own question, onsets, means over all samples; without the "
        "onset a sample counts as 1. The difference is paired by sample. Depths are shares of L; h, hp, d, "
        "a, ρ: label-free signals of the tail. The CSV says what each number is.",
        (Column("quantity", "quantity", "words", names=_QUANTITIES),),
        (
            Column("n", "paper_n", "count"),
            columns["paper"],
            Column("n", "brewlens_n", "count"),
            columns["brewlens"],
            columns["difference"],
        ),
        {"family": ALL},
        stacked=True,
        units={"paper_n": SAMPLES, "brewlens_n": SAMPLES},
    )
