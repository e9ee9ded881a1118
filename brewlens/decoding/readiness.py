"""Readiness as an estimate: context-stripped decoding with several target prompts, and how far they agree.

Every residual goes into every target prompt (:data:`brewlens.decoding.targets.BUNDLED`). Per prompt this
gives two readouts, with and without the prompt's prior. Pooled over prompts it is their mixture: the mean of
the probabilities, each prompt with the same weight. The spread is that of a two-way random-effects model
without replication, ``value = mean + sample + prompt + rest``: what a sample adds whatever the wording, what
a wording adds to all samples, and the rest, in which their interaction cannot be told from noise. From the
same mean squares come the intraclass correlations for absolute agreement: ICC(A,1), how well one prompt's
value stands for another's, and ICC(A,k), how reliable the mean over the k prompts is (Shrout and Fleiss
1979, ICC(2,1) and ICC(2,k); McGraw and Wong 1996, tables 4 and 7).

What it does not show: an intraclass correlation is relative to how much samples differ. Where nearly all are
ready, or nearly none, it is near 0 even if prompts hardly differ; read it beside the variances. Intervals
take samples and prompts as drawn independently and values as normal; for hits (0 or 1) they are approximate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Int
from scipy.special import log_softmax

from brewlens import html
from brewlens.answers import AnswerSpace
from brewlens.brief import brief
from brewlens.decoding.bias import BiasAudit, audit_bias
from brewlens.decoding.context_stripped import patched_blocks
from brewlens.decoding.readout import Readout
from brewlens.decoding.targets import BUNDLED, Target, resolve_all
from brewlens.residuals import Residuals
from brewlens.stats import share, two_way
from brewlens.tasks.item import ItemSet

if TYPE_CHECKING:
    from brewlens.model import HookedModel

Version = Literal["subtracted", "raw"]
"""With the prompt's prior subtracted, or without."""


@dataclass(frozen=True)
class PromptScores:
    """What each target prompt gives the right answer.

    Attributes:
        hit: Whether the arg max over the classes is the right answer.
        p_answer: Probability of the right answer, over the classes.
    """

    hit: Bool[np.ndarray, "prompt sample layer"]
    p_answer: Float[np.ndarray, "prompt sample layer"]

    __repr__ = brief


@dataclass(frozen=True)
class Readiness:
    """Context-stripped decoding with several target prompts.

    Attributes:
        targets: The prompts, in the order of every prompt axis.
        subtracted: Scores with each prompt's prior subtracted.
        raw: Scores without.
        pooled: Mean over prompts of the subtracted probabilities, ``context_stripped_pooled``; its logits are
            their logarithm, its ``other_mass`` the mean over prompts.
        pooled_raw: The same without subtraction, ``context_stripped_raw_pooled``.
        prior: Logits of each sample's un-patched target prompt.
        other_mass: Probability outside the classes under the full vocabulary, in the patched run.
        logits: Un-subtracted logits of every prompt, from which :meth:`readout` is made; None if not kept.
        left_out: Name -> reason of the prompts that the model's tokenizer does not allow.
    """

    targets: tuple[Target, ...]
    subtracted: PromptScores
    raw: PromptScores
    pooled: Readout
    pooled_raw: Readout
    prior: Float[np.ndarray, "prompt sample class"]
    other_mass: Float[np.ndarray, "prompt sample layer"]
    logits: Float[np.ndarray, "prompt sample layer class"] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pooled)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the target prompts."""
        return tuple(target.name for target in self.targets)

    def scores(self, version: Version = "subtracted") -> PromptScores:
        """The scores of one version.

        Raises:
            ValueError: If there is no such version.
        """
        if version not in ("subtracted", "raw"):
            raise ValueError(f"version is 'subtracted' or 'raw', found {version!r}")
        return self.subtracted if version == "subtracted" else self.raw

    def readout(self, name: str, version: Version = "subtracted") -> Readout:
        """One prompt's readout; ``decoder`` is as in :func:`brewlens.decoding.context_stripped`.

        Raises:
            ValueError: If the prompt is unknown, or the logits were not kept.
        """
        self.scores(version)
        k = self._number(name)
        if self.logits is None:
            raise ValueError(f"the logits of {name!r} were not kept; call readiness(..., keep_logits=True)")
        logits, decoder = self.logits[k], "context_stripped_raw"
        if version == "subtracted":
            logits, decoder = logits - self.prior[k, :, None], "context_stripped"
        return Readout(logits, self.pooled.classes, decoder, self.pooled.item_ids, self.other_mass[k])

    def select(self, rows: Sequence[int] | Int[np.ndarray, "row"]) -> Readiness:
        """The samples at ``rows``, in that order."""
        rows = np.asarray(rows)

        def picked(scores: PromptScores) -> PromptScores:
            return PromptScores(scores.hit[:, rows], scores.p_answer[:, rows])

        return Readiness(
            self.targets,
            picked(self.subtracted),
            picked(self.raw),
            self.pooled.select(rows),
            self.pooled_raw.select(rows),
            self.prior[:, rows],
            self.other_mass[:, rows],
            None if self.logits is None else self.logits[:, rows],
            self.left_out,
        )

    def spread(
        self, version: Version = "subtracted", *, prompts: Sequence[str] | None = None, level: float = 0.95
    ):
        """How far the prompts agree: one row per layer and measure (``hit`` and ``p_answer``).

        Columns: the grand mean with its interval over samples and prompts; the least and the greatest mean of
        a prompt, with its name; the variances of samples, of prompts and of the rest (ANOVA estimates, which
        may be below 0); ICC(A,1) and ICC(A,k) with F intervals; why the latter are NaN, where they are.

        Args:
            version: With the prior subtracted, or without.
            prompts: Names of the prompts to compare. Default: all.
            level: Confidence of the intervals.

        Raises:
            ValueError: If a prompt or the version is unknown, or there is none to compare.
        """
        import pandas as pd

        scores = self.scores(version)
        names = np.array(self.names if prompts is None else prompts)
        chosen = [self._number(name) for name in names]
        if not chosen:
            raise ValueError(f"name at least one prompt, of {list(self.names)}; found none")
        tables = []
        for measure, every in (("hit", scores.hit), ("p_answer", scores.p_answer)):
            values = every[chosen]
            mean = values.mean(axis=1, dtype=np.float64)
            found = two_way(rearrange(values, "prompt sample layer -> layer sample prompt"), level)
            for end in ("mean_low", "mean_high"):
                found[end] = found[end].clip(0, 1)
            tables.append(
                pd.DataFrame(
                    {
                        "layer": np.arange(values.shape[2]),
                        "measure": measure,
                        "version": version,
                        "n_samples": values.shape[1],
                        "n_prompts": values.shape[0],
                        "least": mean.min(axis=0),
                        "least_prompt": names[mean.argmin(axis=0)],
                        "greatest": mean.max(axis=0),
                        "greatest_prompt": names[mean.argmax(axis=0)],
                        **found,
                    }
                )
            )
        return pd.concat(tables, ignore_index=True)

    def to_frame(self, *, level: float = 0.95):
        """One row per prompt, version and layer: accuracy (Wilson interval), mean p_answer and other_mass."""
        import pandas as pd

        rows = []
        cells = product(enumerate(self.targets), ("subtracted", "raw"), range(self.pooled.n_layers))
        for (k, target), version, layer in cells:
            hit, p_answer = self.scores(version).hit[k, :, layer], self.scores(version).p_answer[k, :, layer]
            hits = share(int(hit.sum()), len(self), level)
            row = {"prompt": target.name, "kind": target.kind, "version": version, "layer": layer}
            row |= {"n": len(self), "accuracy": hit.mean(), "accuracy_low": np.nan, "accuracy_high": np.nan}
            if hits is not None:
                row |= {"accuracy_low": hits.low, "accuracy_high": hits.high}
            other = self.other_mass[k, :, layer].mean()
            rows.append(row | {"p_answer": p_answer.mean(), "other_mass": other})
        return pd.DataFrame(rows)

    def audit_bias(self, **options: Any) -> BiasAudit:
        """Audit every prompt's prior, and early layers of every prompt and of the pool, raw and subtracted.

        Without kept logits, only the priors and the pool.

        Args:
            options: As in :func:`brewlens.decoding.audit_bias`.
        """
        readouts = {("pooled", "raw"): self.pooled_raw, ("pooled", "subtracted"): self.pooled}
        if self.logits is not None:
            for name, version in product(self.names, ("raw", "subtracted")):
                readouts[name, version] = self.readout(name, version)
        return audit_bias(readouts, dict(zip(self.names, self.prior, strict=True)), **options)

    def _number(self, name: str) -> int:
        if name not in self.names:
            raise ValueError(f"no target prompt {name!r}; {self!r} has {list(self.names)}")
        return self.names.index(name)

    def __repr__(self) -> str:
        shape = f"{len(self.targets)} prompts x {len(self)} samples x {self.pooled.n_layers} layers"
        return f"Readiness({shape}; left out: {', '.join(self.left_out) or 'none'})"

    def _repr_html_(self) -> str:
        """One row per prompt: accuracy at its best layer with Wilson's interval, and by layer."""
        rows = []
        for k, target in enumerate(self.targets):
            accuracy = self.subtracted.hit[k].mean(axis=0)
            best, raw = int(accuracy.argmax()), self.raw.hit[k].mean(axis=0)
            found = share(int(self.subtracted.hit[k][:, best].sum()), len(self))
            rows.append(
                {
                    "prompt": target.name,
                    "n": len(self),
                    "best layer": best,
                    "right there": None
                    if found is None
                    else html.interval(found.value, found.low, found.high),
                    "by layer": html.sparkline(accuracy, f"{target.name}: share right", low=0, high=1),
                    "without subtraction": html.sparkline(raw, f"{target.name}: share right", low=0, high=1),
                }
            )
        said = "Intervals take samples as independent. spread() tells how far the prompts agree."
        return html.card(repr(self), html.table(rows), html.note(said))


def readiness(
    model: HookedModel,
    residuals: Residuals,
    items: ItemSet,
    space: AnswerSpace,
    targets: Sequence[Target] = BUNDLED,
    *,
    keep_logits: bool = True,
    unusable: Literal["raise", "leave_out"] = "raise",
    progress: bool = False,
) -> Readiness:
    """Context-stripped decoding with several target prompts.

    Residuals are streamed, each block once for all prompts. The result takes 14 bytes per sample, prompt and
    layer, and 4 per class more if logits are kept: 95 MB and 272 MB for 24,300 samples, 10 prompts, 28 layers
    and 10 classes.

    Args:
        model: The model that the residuals come from.
        residuals: Of these items, in this order.
        items: The items; their answers decide what is a hit.
        space: The answer classes.
        targets: The target prompts.
        keep_logits: Keep every prompt's logits, which :meth:`Readiness.readout` needs.
        unusable: What to do with a prompt behind which this tokenizer cuts the answers otherwise than behind
            the items: refuse, or leave it out and say so in ``left_out``.
        progress: Show a progress bar.

    Raises:
        ValueError: If residuals and items do not match, an answer is not a class, or a prompt does not fit.
    """
    if residuals.item_ids != items.ids:
        raise ValueError("residuals and items are not the same samples in the same order")
    prompts, left_out = resolve_all(targets, model, items, space, unusable=unusable)
    answer = np.array([space.index(a) for a in items.answers])
    shape = (len(prompts), len(residuals), residuals.n_layers)
    prior = np.stack([model.base_logits(p, space).logits.numpy() for p in prompts.values()])
    other = np.empty(shape, dtype=np.float32)
    logits = np.empty((*shape, len(space)), dtype=np.float32) if keep_logits else None
    raw, subtracted = _Tally(shape, answer, len(space)), _Tally(shape, answer, len(space))
    for k, rows, patched in patched_blocks(
        model, residuals, list(prompts.values()), space, progress=progress
    ):
        found = patched.logits.numpy()
        other[k, rows] = patched.other_mass.numpy()
        raw.add(k, rows, found)
        subtracted.add(k, rows, found - prior[k, rows, None])
        if logits is not None:
            logits[k, rows] = found
    shared = (items.ids, other.mean(axis=0))
    return Readiness(
        tuple(prompts),
        PromptScores(subtracted.hit, subtracted.p_answer),
        PromptScores(raw.hit, raw.p_answer),
        Readout(subtracted.pooled(), space.classes, "context_stripped_pooled", *shared),
        Readout(raw.pooled(), space.classes, "context_stripped_raw_pooled", *shared),
        prior,
        other,
        logits,
        left_out,
    )


class _Tally:
    """Scores and the mixture over prompts, gathered block by block."""

    def __init__(self, shape: tuple[int, int, int], answer: Int[np.ndarray, "sample"], classes: int) -> None:
        self.hit = np.empty(shape, dtype=bool)
        self.p_answer = np.empty(shape, dtype=np.float32)
        self._answer = answer
        self._log_sum = np.full((*shape[1:], classes), -np.inf, dtype=np.float32)

    def add(self, k: int, rows: slice, logits: Float[np.ndarray, "row layer class"]) -> None:
        answer = self._answer[rows, None]
        log_p = log_softmax(logits, axis=-1)
        self.hit[k, rows] = logits.argmax(axis=-1) == answer
        self.p_answer[k, rows] = np.exp(np.take_along_axis(log_p, answer[..., None], axis=-1)[..., 0])
        self._log_sum[rows] = np.logaddexp(self._log_sum[rows], log_p)

    def pooled(self) -> Float[np.ndarray, "sample layer class"]:
        return self._log_sum - np.float32(np.log(len(self.hit)))
