"""The line from residuals to a trace: the decoders by name, and what is made of their readouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from jaxtyping import Int
from torch import Tensor

from brewlens.answers import DIGITS, AnswerSpace, Scoring
from brewlens.brief import brief
from brewlens.capturing import capture
from brewlens.decoding import (
    BUNDLED,
    CONSTANT,
    OWN,
    FitOptions,
    NearOOD,
    answer_shares,
    audit_bias,
    calibration,
    class_calibration,
    context_stripped,
    fit_probes,
    logit_lens,
    own_suffixes,
    prior_logits,
    readiness,
    reliability,
    resolve,
    surface,
    tuned_lens_out_of_fold,
)
from brewlens.decoding.fold_fit import Kind
from brewlens.decoding.probes import Probes
from brewlens.decoding.readout import Readout
from brewlens.lifecycle import Lifecycle, lifecycle
from brewlens.pieces import token_table
from brewlens.residuals import Residuals
from brewlens.results import Trace
from brewlens.study.analysis import CONSTANT_PROMPT, RESAMPLES, analyse
from brewlens.tasks import ItemSet, assign_folds, near_ood

if TYPE_CHECKING:
    from brewlens.model import HookedModel

PROBES = "probes.safetensors"
Prompts = Literal["own", "bundled"]


@dataclass(frozen=True)
class Options:
    """What decides how residuals are decoded.

    Attributes:
        probe: ``logistic``, ``ridge`` or ``mlp``.
        probe_c: Inverse strength of the probe's L2 penalty; None chooses it inside the folds.
        prompts: ``own`` reads readiness with each sample's own question; ``bundled`` with nine prompts more
            besides, and measures how far they agree.
        tuned_lens: Train and read a tuned lens too, out of fold.
        seed: Seed of the tuned lens.
        compat: ``paper`` reads readiness with the constant target prompt of the published recipe too.
    """

    probe: Kind = "logistic"
    probe_c: float | None = None
    prompts: Prompts = "bundled"
    tuned_lens: bool = False
    seed: int = 0
    compat: Literal["paper"] | None = None


@dataclass(frozen=True)
class Inputs:
    """What a decoder may look at."""

    model: HookedModel
    items: ItemSet
    folds: Int[np.ndarray, "sample"]
    residuals: Residuals
    space: AnswerSpace
    options: Options
    near_ood: NearOOD | None
    progress: bool

    __repr__ = brief


@dataclass(frozen=True)
class Decoded:
    """What a decoder gives: readouts, tables about them, and files that it can write."""

    readouts: tuple[Readout, ...]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    files: Mapping[str, Callable[[Path], object]] = field(default_factory=dict)
    probes: Probes | None = None

    __repr__ = brief


Decoder = Callable[[Inputs], Decoded | Readout]

_CALIBRATION = {
    "calibration": calibration,
    "class_calibration": class_calibration,
    "reliability": reliability,
}


def _probe(inputs: Inputs) -> Decoded:
    fit = fit_probes(
        inputs.residuals,
        inputs.items,
        inputs.folds,
        inputs.space.classes,
        options=FitOptions(kind=inputs.options.probe, C=inputs.options.probe_c),
        other=inputs.near_ood,
        device=inputs.model.device,
        progress=inputs.progress,
    )
    tables = {} if fit.near_ood is None else {"near_ood_recognised": fit.recognised()}
    if inputs.options.probe != "ridge":  # whose scores are no probabilities
        for name, tell in _CALIBRATION.items():
            tables[name] = tell(fit.readout, inputs.items.answers)
    return Decoded((fit.readout,), tables, {PROBES: fit.probes.save}, fit.probes)


def _logit_lens(inputs: Inputs) -> Decoded:
    return Decoded((logit_lens(inputs.model, inputs.residuals, inputs.space),))


def _tuned_lens(inputs: Inputs) -> Decoded:
    readout, trainings = tuned_lens_out_of_fold(
        inputs.model,
        inputs.residuals,
        inputs.items,
        inputs.folds,
        inputs.space,
        seed=inputs.options.seed,
        progress=inputs.progress,
    )
    frames = [training.to_frame().assign(fold=fold) for fold, training in enumerate(trainings)]
    return Decoded((readout,), {"tuned_lens": pd.concat(frames, ignore_index=True)})


def _context_stripped(inputs: Inputs) -> Decoded:
    """Each sample's own question for the lifecycle; the other prompts for its spread and the audit."""
    model, residuals, items, space = inputs.model, inputs.residuals, inputs.items, inputs.space
    subtracted, raw = context_stripped(model, residuals, own_suffixes(items), space, progress=inputs.progress)
    readouts = {("own", "subtracted"): subtracted, ("own", "raw"): raw}
    priors = {"own": prior_logits(subtracted, raw)}
    tables = {}
    if inputs.options.prompts == "bundled":
        others = [target for target in BUNDLED if target is not OWN]
        several = readiness(
            *(model, residuals, items, space, [OWN, *others]),
            keep_logits=False,
            unusable="leave_out",
            progress=inputs.progress,
        )
        readouts |= {("pooled", "subtracted"): several.pooled, ("pooled", "raw"): several.pooled_raw}
        priors |= {name: prior for name, prior in zip(several.names, several.prior, strict=True)}
        tables = {
            "prompts": several.to_frame(),
            "prompt_spread": pd.concat(
                [several.spread("subtracted"), several.spread("raw")], ignore_index=True
            ),
            "prompts_left_out": pd.DataFrame(
                {"prompt": list(several.left_out), "reason": list(several.left_out.values())}, dtype="string"
            ),
        }
    tables["bias"] = audit_bias(readouts, priors, expected=_expected(items.answers, space)).table
    kept = [r for (prompt, version), r in readouts.items() if prompt == "own" or version == "subtracted"]
    return Decoded(tuple(kept), tables)


def _constant_prompt(inputs: Inputs) -> Decoded:
    """Readiness with the one target prompt of the published recipe."""
    model, items, space = inputs.model, inputs.items, inputs.space
    targets = resolve(CONSTANT, model, items, space)
    subtracted, _ = context_stripped(model, inputs.residuals, targets, space, progress=inputs.progress)
    return Decoded((replace(subtracted, decoder=CONSTANT_PROMPT),))


def _expected(answers: Sequence[str], space: AnswerSpace) -> np.ndarray | None:
    """The answers' own shares, or none where a class never is the answer."""
    return answer_shares(answers, space.classes) if set(answers) == set(space.classes) else None


def _surface(inputs: Inputs) -> Decoded:
    return Decoded((surface(inputs.items, inputs.folds, inputs.space.classes),))


DECODERS: dict[str, Callable[[Inputs], Decoded]] = {
    "surface": _surface,
    "logit_lens": _logit_lens,
    "tuned_lens": _tuned_lens,
    "context_stripped": _context_stripped,
    CONSTANT_PROMPT: _constant_prompt,
    "probe": _probe,
}


def decoders(options: Options) -> dict[str, Callable[[Inputs], Decoded]]:
    """The decoders that the options ask for, in order."""
    left_out = set()
    if not options.tuned_lens:
        left_out.add("tuned_lens")
    if options.compat != "paper":
        left_out.add(CONSTANT_PROMPT)
    return {name: decode for name, decode in DECODERS.items() if name not in left_out}


def own_decoders(extra: Mapping[str, Decoder]) -> dict[str, Callable[[Inputs], Decoded]]:
    """A caller's own decoders by name, such that what they give is checked.

    Raises:
        ValueError: If a name is one of brewlens' own.
    """
    if taken := sorted(set(extra) & set(DECODERS)):
        raise ValueError(
            f"{taken[0]!r} is a decoder of brewlens, {', '.join(DECODERS)}; name yours otherwise"
        )
    return {name: partial(_own, name, decode) for name, decode in extra.items()}


def _own(name: str, decode: Decoder, inputs: Inputs) -> Decoded:
    """What a caller's decoder gives; a bare readout is called as the decoder is."""
    made = decode(inputs)
    made = Decoded((replace(made, decoder=name),)) if isinstance(made, Readout) else made
    layers, classes = inputs.residuals.n_layers, inputs.space.classes
    for readout in made.readouts:
        fits = readout.n_layers in (1, layers) and readout.classes == classes
        if not fits or readout.item_ids != inputs.items.ids or np.isnan(readout.logits).any():
            raise ValueError(
                f"decoder {name!r} must give a number for each of the {len(inputs.items)} items, in order, "
                f"the {layers} layers (or one entry, where it reads no residual) and the classes "
                f"{list(classes)}; found {readout!r} with classes {list(readout.classes)} and "
                f"{int(np.isnan(readout.logits).sum())} NaN"
            )
    return made


def _together(decoded: Sequence[Decoded]) -> tuple[dict[str, Readout], dict[str, pd.DataFrame]]:
    """All readouts and all tables by name.

    Raises:
        ValueError: If two decoders give one name.
    """
    named = [(r.decoder, r) for d in decoded for r in d.readouts]
    tables = [pair for d in decoded for pair in d.tables.items()]
    for what, pairs in (("readout", named), ("table", tables)):
        names = [name for name, _ in pairs]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two decoders give a {what} named {twice!r}; name that of yours otherwise")
    return dict(named), dict(tables)


def lifecycles(
    items: ItemSet,
    readouts: Mapping[str, Readout],
    output: Int[Tensor, "sample"] | np.ndarray,
    format_miss: np.ndarray,
    *,
    tail_start: float = 0.75,
    confident: float = 0.5,
) -> Lifecycle:
    """Landmarks and outcomes, with the probe for availability and context-stripped decoding for readiness."""
    return lifecycle(
        readouts["probe"],
        readouts["context_stripped"],
        families=[item.family for item in items],
        answers=items.answers,
        output=np.asarray(output),
        format_miss=format_miss,
        tail_start=tail_start,
        confident=confident,
    )


def missed_format(top_id: Tensor, space: AnswerSpace) -> np.ndarray:
    """Whether the first choice over the full vocabulary is not the (first) token of a class."""
    return ~np.isin(top_id.numpy(), space.token_ids)


def trace(
    model: HookedModel,
    items: ItemSet,
    *,
    folds: int = 5,
    seed: int = 0,
    classes: Sequence[str] = DIGITS,
    scoring: Scoring = "token",
    end: str = "",
    probe: Kind = "logistic",
    probe_c: float | None = None,
    near_ood_items: int = 0,
    prompts: Prompts = "own",
    tuned_lens: bool = False,
    tail_start: float = 0.75,
    confident: float = 0.5,
    compat: Literal["paper"] | None = None,
    extra: Mapping[str, Decoder] | None = None,
    resamples: int = RESAMPLES,
    progress: bool = True,
) -> Trace:
    """Run a model over items and trace every sample's lifecycle, in memory.

    Args:
        model: The model.
        items: The items, generated or read from a file.
        folds: Folds of the probe and the surface baseline.
        seed: Seed of the folds.
        classes: The answers that are told apart.
        scoring: ``token`` where every class is one token; ``first`` goes by the first token of each;
            ``sequence`` by the log-probability of the whole answer.
        end: What follows an answer, for ``sequence``: it tells ``4`` from the beginning of ``42``.
        probe: ``logistic``, ``ridge`` or ``mlp``.
        probe_c: Inverse strength of the probe's L2 penalty; None chooses it inside the folds.
        near_ood_items: Near-OOD programs per family that the probe learns as ``other``; generated families
            only.
        prompts: ``own``, or ``bundled``: readiness with ten target prompts and its spread.
        tuned_lens: Train and read a tuned lens too.
        tail_start: The tail is every layer ``l >= floor(tail_start * L)``.
        confident: The least tail confidence of a misresolved sample.
        compat: ``paper`` scores the items by the published recipe too (table ``paper``).
        extra: Your own decoders by name. Each is called with :class:`Inputs` (the model, items, folds,
            residuals and answer classes) and returns a :class:`~brewlens.decoding.Readout`, or
            :class:`Decoded` for several and tables about them. They stand beside the others in the trace
            and its figures; landmarks go on being read by ``probe`` and ``context_stripped``. A decoder that
            learns from answers must score each fold by what it learned on the others: nothing checks that.
        resamples: Permutations and shifts behind every null.
        progress: Show progress bars.

    Returns:
        The trace with its onsets and all tables, ``claims`` among them.

    Raises:
        ValueError: If the model cannot say the answer classes in one token each, or items are too few; if
            an own decoder has a name that is taken, or gives something else than one number per item, layer
            and class.
    """
    own = own_decoders(extra or {})
    space = model.answer_space(items.prompts, classes, scoring=scoring, end=end)
    fold = assign_folds(items, folds, seed)
    passed = model.forward(items.prompts, space, progress=progress)
    residuals = Residuals.of(passed.residuals, items.ids, passed.tokens, model.name)
    other = None
    if near_ood_items:
        unanswerable = near_ood(items, near_ood_items, seed=seed)
        read = capture(model, unanswerable.prompts, unanswerable.ids, progress=progress)
        other = NearOOD.beside(read, unanswerable, items, fold)
    options = Options(probe, probe_c, prompts, tuned_lens, seed, compat)
    inputs = Inputs(model, items, fold, residuals, space, options, other, progress)
    decoded = [decode(inputs) for decode in (*decoders(options).values(), *own.values())]
    readouts, tables = _together(decoded)
    life = lifecycles(
        items,
        readouts,
        passed.output.predicted,
        missed_format(passed.output.top_id, space),
        tail_start=tail_start,
        confident=confident,
    )
    tables["tokens"] = token_table(model, items)
    probes = next((d.probes for d in decoded if d.probes is not None), None)
    made = Trace(items, fold, readouts, life, model.name, residuals, tables=tables, probes=probes)
    return analyse(made, resamples=resamples, seed=seed)
