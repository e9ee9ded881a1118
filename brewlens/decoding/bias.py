"""Audit of per-answer bias: does a target prompt favour an answer before the residual has said anything?

A decoder that likes one digit is right about that digit for free, and its first hits come too early there.
Two places show it: the prior, which is what the target prompt alone says; and the earliest layers of the
readout, where few answers can be known yet. At each, the probability given to every class is added up over
samples and compared with what is expected without bias, by Pearson's chi-square and its effect size, Cohen's
w (Statistical Power Analysis, 1988, chapter 7):

    w = sqrt(sum over classes of (share - expected)^2 / expected),    chi2 = n w^2

w = 0.1 is Cohen's small effect; with ten classes expected alike, it is one of them at 13 % in place of 10.

What n stands for. The p-value is that of n samples each of which draws one answer from its distribution; as
the mass is added up, not drawn, it errs on the side of silence. A prior has no sampling error at all: all
samples of one target prompt have the same one (``distinct`` counts them). There n says how many answers the
bias would colour, and the effect size is the number to read.

What it does not show: that answers are right or wrong. A task whose answers are not uniform gives late layers
a "bias" that is knowledge; pass ``expected=answer_shares(items.answers, classes)`` there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float
from scipy.special import softmax
from scipy.stats import chisquare

from brewlens import html
from brewlens.decoding.context_stripped import prior_logits
from brewlens.decoding.readout import Readout

if TYPE_CHECKING:
    import pandas as pd

Measure = Literal["mass", "predicted"]
"""What is added up: the probability of each class, or one for the class with the largest."""

ALPHA = 0.01
SMALL_EFFECT = 0.1


@dataclass(frozen=True)
class BiasAudit:
    """Result of an audit.

    Attributes:
        table: One row per audited distribution: ``prompt``; ``where`` (``prior``, ``raw``, ``subtracted``);
            ``layer`` (none for a prior); ``n`` samples; ``distinct`` distributions among them (to four
            decimals); ``chi2`` and
            ``df``; ``p`` and ``p_adjusted`` (Bonferroni over the table); ``w``; the most and the least
            favoured class with their share of the mass, both relative to what is expected, and the ``ratio``
            of the two; ``flagged``.
        measure: What was added up.
        alpha: A row is flagged if ``p_adjusted < alpha`` and ``w > small_effect``.
        small_effect: See ``alpha``.
    """

    table: pd.DataFrame
    measure: Measure
    alpha: float
    small_effect: float

    @property
    def flagged(self) -> bool:
        """Whether any row is: significant after Bonferroni, and more than a small effect."""
        return bool(self.table["flagged"].any())

    def flagged_in(self, where: str) -> bool:
        """Whether any row of the priors, of the raw or of the subtracted layers is flagged.

        Raises:
            ValueError: If nothing there was audited.
        """
        rows = self.table[self.table["where"] == where]
        if rows.empty:
            raise ValueError(f"nothing audited in {where!r}; there is {sorted(set(self.table['where']))}")
        return bool(rows["flagged"].any())

    def __repr__(self) -> str:
        flagged = self.table["flagged"]
        worst = self.table.iloc[int(self.table["w"].to_numpy().argmax())]
        return (
            f"BiasAudit({np.count_nonzero(flagged)} of {len(flagged)} flagged; largest w {worst['w']:.2f}, "
            f"for {worst['favoured']!r} in {worst['where']} of {worst['prompt']})"
        )

    def _repr_html_(self) -> str:
        """The distributions that favour a class most."""
        columns = ["prompt", "where", "layer", "n", "favoured", "w", "p_adjusted", "flagged"]
        worst = self.table.sort_values("w", ascending=False, kind="stable").head(8)
        rows = [
            dict(zip(columns, row, strict=True)) for row in zip(*(worst[c] for c in columns), strict=True)
        ]
        return html.card(repr(self), html.table(rows), html.note("The eight largest effects w."))


def audit_bias(
    readouts: Mapping[tuple[str, str], Readout],
    priors: Mapping[str, Float[np.ndarray, "sample class"]],
    *,
    layers: Sequence[int] | None = None,
    expected: Float[np.ndarray, "class"] | None = None,
    measure: Measure = "mass",
    alpha: float = ALPHA,
    small_effect: float = SMALL_EFFECT,
) -> BiasAudit:
    """Audit priors, and early layers of readouts.

    Args:
        readouts: By prompt name and version (``raw`` or ``subtracted``).
        priors: Logits of each sample's un-patched target prompt, by prompt name; may be empty.
        layers: Entries of the layer axis. Default: the first quarter, at least one.
        expected: Share of each class without bias, positive. Default: all alike.
        measure: Add up probabilities; or count arg maxes, which is what first hits go by, and which a bias of
            any size, however small, can fill.
        alpha: Flag below this p-value, after Bonferroni over all that is audited here.
        small_effect: Flag above this effect size only.

    Raises:
        ValueError: If nothing is given, classes differ, or ``expected`` or a layer does not fit.
    """
    import pandas as pd

    if not readouts:
        raise ValueError("nothing to audit: give at least one readout")
    if measure not in ("mass", "predicted"):
        raise ValueError(f"measure is 'mass' or 'predicted', found {measure!r}")
    classes = next(iter(readouts.values())).classes
    if any(r.classes != classes for r in readouts.values()):
        raise ValueError("the readouts to audit must have the same classes in the same order")
    share = _expected(expected, classes)
    rows = [
        {"prompt": name, "where": "prior", "layer": None, **_test(logits, share, classes, measure)}
        for name, logits in priors.items()
    ]
    for (name, version), readout in readouts.items():
        chosen = range(max(1, readout.n_layers // 4)) if layers is None else layers
        if outside := [layer for layer in chosen if not 0 <= layer < readout.n_layers]:
            raise ValueError(f"layers run from 0 to {readout.n_layers - 1}, asked for {outside}")
        for layer in chosen:
            found = _test(readout.logits[:, layer], share, classes, measure)
            rows.append({"prompt": name, "where": version, "layer": layer, **found})
    table = pd.DataFrame(rows)
    table["layer"] = table["layer"].astype("Int64")
    table["p_adjusted"] = np.minimum(1.0, table["p"] * len(table))
    table["flagged"] = (table["p_adjusted"] < alpha) & (table["w"] > small_effect)
    return BiasAudit(table, measure, alpha, small_effect)


def audit_context_stripped(
    subtracted: Readout,
    raw: Readout,
    prompt: str = "own",
    *,
    layers: Sequence[int] | None = None,
    expected: Float[np.ndarray, "class"] | None = None,
    measure: Measure = "mass",
    alpha: float = ALPHA,
    small_effect: float = SMALL_EFFECT,
) -> BiasAudit:
    """Audit what :func:`brewlens.decoding.context_stripped` returned for one prompt.

    Arguments and errors as in :func:`audit_bias`; the prior is the difference of the two readouts.
    """
    return audit_bias(
        {(prompt, "raw"): raw, (prompt, "subtracted"): subtracted},
        {prompt: prior_logits(subtracted, raw)},
        layers=layers,
        expected=expected,
        measure=measure,
        alpha=alpha,
        small_effect=small_effect,
    )


def answer_shares(answers: Sequence[str], classes: Sequence[str]) -> Float[np.ndarray, "class"]:
    """Share of each class among the right answers, to be expected of a decoder that is always right.

    Raises:
        ValueError: If an answer is not a class, or a class is never the answer.
    """
    counts = {c: 0 for c in classes}
    for answer in answers:
        if answer not in counts:
            raise ValueError(f"answer {answer!r} is not one of the classes {list(classes)}")
        counts[answer] += 1
    if never := [c for c, count in counts.items() if not count]:
        raise ValueError(f"classes {never} are never the answer; every class needs a positive share")
    return np.array(list(counts.values())) / len(answers)


def _expected(share: Float[np.ndarray, "class"] | None, classes: Sequence[str]) -> np.ndarray:
    if share is None:
        return np.full(len(classes), 1 / len(classes))
    share = np.asarray(share, dtype=np.float64)
    if share.shape != (len(classes),) or not (share > 0).all() or not np.isclose(share.sum(), 1, atol=1e-6):
        raise ValueError(
            f"expected is one positive share for each of {len(classes)} classes, with sum 1; found {share}"
        )
    return share / share.sum()


def _test(
    logits: Float[np.ndarray, "sample class"], expected: np.ndarray, classes: Sequence[str], measure: Measure
) -> dict[str, object]:
    n = len(logits)
    p_class = softmax(logits.astype(np.float64), axis=-1)
    if measure == "mass":
        mass = p_class.sum(axis=0)
    else:
        mass = np.bincount(logits.argmax(axis=-1), minlength=len(classes)).astype(np.float64)
    mass *= n / mass.sum()  # float64 sums of rows differ from 1 in the last digits
    statistic, p = chisquare(mass, n * expected)
    share = mass / n
    relative = share / expected
    most, least = int(relative.argmax()), int(relative.argmin())
    return {
        "n": n,
        "distinct": len(np.unique(p_class.round(4), axis=0)),
        "chi2": float(statistic),
        "df": len(classes) - 1,
        "p": float(p),
        "w": float(np.sqrt(statistic / n)),
        "favoured": classes[most],
        "favoured_share": float(share[most]),
        "disfavoured": classes[least],
        "disfavoured_share": float(share[least]),
        "ratio": float(relative[most] / relative[least]) if relative[least] > 0 else np.inf,
    }
