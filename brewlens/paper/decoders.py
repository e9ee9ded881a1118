"""What the decoders tell beside their readouts: calibration, target prompts, bias, near-OOD, tuned lens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from brewlens.paper.column import Column
from brewlens.paper.parts import INTERVALS, LAYER, SAMPLES, SHARE, ZERO_BASED, counts
from brewlens.paper.table import PaperTable

if TYPE_CHECKING:
    import pandas as pd

_MOST_FOLDS = 6  # that columns may stand for
_WILSON = "Intervals: 95 %, Wilson."


def decoder_tables(tables: Mapping[str, pd.DataFrame]) -> Iterator[PaperTable]:
    """Tables of the decoders, as far as they are there."""
    if "calibration" in tables:
        yield _calibration(tables["calibration"])
        if "class_calibration" in tables:
            yield _class_calibration(tables["class_calibration"], _best(tables["calibration"], "accuracy"))
    if "near_ood_recognised" in tables:
        yield _near_ood(tables["near_ood_recognised"])
    if "prompts" in tables and "prompt_spread" in tables:
        spread = tables["prompt_spread"]
        hits: Any = spread[(spread["measure"] == "hit") & (spread["version"] == "subtracted")]
        yield _prompts(tables["prompts"], _best(hits, "mean"))
        yield _spread(spread)
    if len(tables.get("prompts_left_out", ())):
        yield _left_out(tables["prompts_left_out"])
    if "bias" in tables:
        yield _bias(tables["bias"])
    if "tuned_lens" in tables:
        yield _tuned_lens(tables["tuned_lens"])


def _best(frame: pd.DataFrame, column: str) -> int:
    """The layer in which a number is greatest."""
    return int(frame["layer"].to_numpy()[frame[column].to_numpy().argmax()])


def _calibration(frame: pd.DataFrame) -> PaperTable:
    errors = {"ece": "ECE", "ece_debiased": "ECE,\ndebiased", "ece_class": "ECE by\nclass"}
    n = f"n = {frame['n'].iloc[0]} samples"
    return PaperTable(
        "calibration",
        frame,
        f"Calibration of the probe by layer, out of fold; {n}.",
        f"{_WILSON} ECE: expected calibration error in bins of equal mass; debiased: its root mean square, "
        "less what chance makes of it (arXiv 1909.10155); by class: mean over the classes. Brier score: 0 "
        "is perfect, 2 the worst.",
        (LAYER,),
        (
            Column("n", "n", "count"),
            Column("right, %", "accuracy", "percent", "low", "high"),
            Column("confidence, %", "confidence", "percent"),
            Column("Brier", "brier", "share", digits=3),
            *(Column(head, name, "share", digits=3) for name, head in errors.items()),
        ),
        units=counts(frame)
        | dict.fromkeys(("accuracy", "low", "high"), SHARE)
        | dict.fromkeys(("confidence", *errors), "probability")
        | {"brier": "0 to 2"},
    )


def _class_calibration(frame: pd.DataFrame, layer: int) -> PaperTable:
    return PaperTable(
        "class_calibration",
        frame,
        f"Calibration of the probe by answer class, at layer {layer}, where it is most often right.",
        "Probability: mean that the probe gives to the class, over all samples. Share: of samples whose "
        "answer it is; n: their number. ECE: of the class’s probability, over all samples. All layers are "
        "in the CSV.",
        (Column("class", "class", "text"),),
        (
            Column("n", "n", "count"),
            Column("probability, %", "probability", "percent"),
            Column("share, %", "share", "percent"),
            Column("ECE", "ece", "share", digits=3),
            Column("ECE, debiased", "ece_debiased", "share", digits=3),
        ),
        shown={"layer": layer},
        units=counts(frame)
        | {"share": SHARE}
        | dict.fromkeys(("probability", "ece", "ece_debiased"), "probability"),
    )


def _near_ood(frame: pd.DataFrame) -> PaperTable:
    return PaperTable(
        "near_ood",
        frame,
        "Programs without an answer: how often the probe recognises them, by layer, in %.",
        f"{_WILSON} Recognised: near-OOD programs whose favourite class is “other”. False alarms: the same "
        "of programs that have an answer.",
        (LAYER,),
        (
            Column("n", "n", "count"),
            Column("recognised", "recognised", "percent", "low", "high"),
            Column("n items", "n_items", "count"),
            Column("false alarms", "false_alarms", "percent", "false_low", "false_high"),
        ),
        units=counts(frame)
        | {"n": "near-OOD programs", "n_items": SAMPLES}
        | dict.fromkeys(("recognised", "low", "high"), "share of near-OOD programs")
        | dict.fromkeys(("false_alarms", "false_low", "false_high"), SHARE),
    )


def _prompts(frame: pd.DataFrame, layer: int) -> PaperTable:
    ends = ("accuracy_low", "accuracy_high")
    sides = {"subtracted": "prior\nsubtracted, %", "raw": "raw, %"}
    return PaperTable(
        "target_prompts",
        frame,
        f"Right answers of context-stripped decoding by target prompt, at layer {layer}.",
        f"{INTERVALS} The layer is the one at which the prompts are most often right on average. All layers "
        "are in the CSV.",
        (Column("prompt", "prompt", "words"), Column("kind", "kind", "words")),
        (
            Column("n", "n", "count", where={"version": "subtracted"}),
            *(Column(head, "accuracy", "percent", *ends, where={"version": v}) for v, head in sides.items()),
        ),
        shown={"layer": layer},
        units=counts(frame)
        | dict.fromkeys(("accuracy", *ends), SHARE)
        | dict.fromkeys(("p_answer", "other_mass"), "probability"),
    )


def _spread(frame: pd.DataFrame) -> PaperTable:
    n = f"{frame['n_prompts'].iloc[0]} prompts, {frame['n_samples'].iloc[0]} samples"
    return PaperTable(
        "target_prompt_spread",
        frame,
        f"How far target prompts agree on which samples are ready, by layer; {n}.",
        "Intervals: 95 %, of the mean over the prompts. Right: share of samples, in %. ICC(A,1): agreement "
        "of one prompt with another on a sample; ICC(A,k): of the mean of all prompts. Prior subtracted; "
        "the raw readout and the probability of the answer are in the CSV.",
        (LAYER,),
        (
            Column("n", "n_samples", "count"),
            Column("mean", "mean", "percent", "mean_low", "mean_high"),
            Column("least", "least", "percent", beneath="least_prompt"),
            Column("greatest", "greatest", "percent", beneath="greatest_prompt"),
            Column("ICC(A,1)", "icc_single", "share", "icc_single_low", "icc_single_high"),
            Column("ICC(A,k)", "icc_pooled", "share", "icc_pooled_low", "icc_pooled_high"),
        ),
        shown={"measure": "hit", "version": "subtracted"},
        stacked=True,
        units=counts(frame)
        | {"n_samples": SAMPLES, "n_prompts": "prompts"}
        | dict.fromkeys(("least", "greatest", "mean", "mean_low", "mean_high"), "share or probability"),
    )


def _left_out(frame: pd.DataFrame) -> PaperTable:
    return PaperTable(
        "target_prompts_left_out",
        frame,
        "Target prompts that this model could not be asked with.",
        "",
        (Column("prompt", "prompt", "words"),),
        (Column("reason", "reason", "text", width="8cm"),),
    )


def _bias(frame: pd.DataFrame) -> PaperTable:
    places = {"prior": "prior: the target prompt alone", "subtracted": "prior subtracted", "raw": "raw"}
    return PaperTable(
        "bias",
        frame,
        "Audit of per-answer bias of the target prompts.",
        "w: Cohen’s effect size of the probability given to the answers, against what is expected without "
        "bias; 0.1 is small. p: Bonferroni over the table. Most, least: the classes that are most and "
        "least favoured, each with its share of the probability. A prior is the same for all samples of "
        "one prompt: there, w is the number to read.",
        (Column("prompt", "prompt", "words"), LAYER),
        (
            Column("n", "n", "count"),
            Column("w", "w", "number"),
            Column("most", "favoured", "text"),
            Column("%", "favoured_share", "percent"),
            Column("least", "disfavoured", "text"),
            Column("%", "disfavoured_share", "percent"),
            Column("p", "p_adjusted", "p"),
            Column("flagged", "flagged", "mark"),
        ),
        over=(Column("where", "where", "words", names=places),),
        units=counts(frame)
        | {"distinct": "distributions", "ratio": "favoured over disfavoured, relative to expected"}
        | dict.fromkeys(("favoured_share", "disfavoured_share"), "share of probability"),
    )


def _tuned_lens(frame: pd.DataFrame) -> PaperTable:
    folds = list(dict.fromkeys(frame["fold"]))
    sizes = "; ".join(f"fold {fold}: n = {rows['n'].iloc[0]}" for fold, rows in frame.groupby("fold"))
    saved = Column("saved", "saved", "number", "low", "high")
    matrix = len(folds) <= _MOST_FOLDS
    return PaperTable(
        "tuned_lens",
        frame,
        "Training of the tuned lens: divergence from the model’s last layer, in nats, saved by the "
        "translators.",
        "Intervals: 95 %, normal, over the n validation samples of each fold. Saved: KL of the logit lens "
        "minus KL of the tuned lens. Both parts are in the CSV. "
        f"F{sizes[1:]}.",
        (LAYER,) if matrix else (Column("fold", "fold", "text"), LAYER),
        tuple(replace(saved, head=f"fold {fold}", where={"fold": fold}) for fold in folds)
        if matrix
        else (saved,),
        grouped=not matrix,
        stacked=matrix,
        units=counts(frame)
        | {"best_step": "steps", "fold": ZERO_BASED}
        | dict.fromkeys(("kl_logit", "kl_tuned", "saved", "low", "high"), "nats"),
    )
