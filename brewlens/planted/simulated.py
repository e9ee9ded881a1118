"""Readouts with a known truth and no model: scores of signal and noise, for whole simulations in seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from brewlens.answers import DIGITS
from brewlens.brief import brief
from brewlens.decoding.readout import Readout
from brewlens.lifecycle.landmarks import NEVER
from brewlens.planted.truth import Truth

NOISE = {"low": 0.95, "medium": 0.8, "high": 0.6}
"""Hit rate of a decoder after an onset, by the name of the noise."""
SCALE = 8.0
"""Logit of a noiseless answer; the others have 0."""


@lru_cache
def distance(hit: float, classes: int = 10) -> float:
    """Signal over noise at which the right one of ``classes`` normal scores is the largest in a share
    ``hit``.

    Raises:
        ValueError: If ``hit`` does not lie between chance and 1.
    """
    if not 1 / classes < hit < 1:
        raise ValueError(f"a hit rate lies between chance, {1 / classes:.2f}, and 1; found {hit}")

    def share(d: float) -> float:
        return quad(lambda x: norm.pdf(x - d) * norm.cdf(x) ** (classes - 1), -8, d + 8)[0]

    return float(brentq(lambda d: share(d) - hit, 1e-6, 12))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Simulated:
    """Readouts of both decoders, the model's answers, and the truth behind them.

    Attributes:
        truth: What is so.
        readouts: ``probe`` and ``context_stripped``.
        answers: Right answers.
        output: Class index of the model's own answer.
    """

    truth: Truth
    readouts: dict[str, Readout]
    answers: tuple[str, ...]
    output: Int[np.ndarray, "sample"]

    @property
    def available(self) -> Bool[np.ndarray, "sample layer"]:
        """Whether the probe is right."""
        return self.readouts["probe"].correct(self.answers)

    @property
    def ready(self) -> Bool[np.ndarray, "sample layer"]:
        """Whether context-stripped decoding is right."""
        return self.readouts["context_stripped"].correct(self.answers)

    __repr__ = brief


def correlated_noise(
    rng: np.random.Generator,
    n: int,
    layers: int,
    classes: int,
    correlation: float | Float[np.ndarray, "sample"],
) -> Float[np.ndarray, "sample layer class"]:
    """Standard normal noise; that of neighbouring layers has the given correlation (AR(1) along depth)."""
    noise = rng.standard_normal((n, layers, classes))
    kept = np.broadcast_to(np.asarray(correlation, dtype=float), n)[:, None]
    for layer in range(1, layers):
        noise[:, layer] = kept * noise[:, layer - 1] + np.sqrt(1 - kept**2) * noise[:, layer]
    return noise


def simulate(
    truth: Truth,
    *,
    hit: float = 0.95,
    correlation: float | Float[np.ndarray, "sample"] = 0.0,
    seed: int = 0,
) -> Simulated:
    """Readouts of what is planted.

    A decoder's scores are 1 at the answer from its onset on, 0 elsewhere, plus normal noise; an overwritten
    answer stays at 1 and the wrong digit goes to 2. The last context-stripped layer, which is the
    model's own answer, has no noise where the truth says what the model says: an answer is a fact.

    Args:
        truth: From :func:`draw_truth`.
        hit: Share of the layers from an onset on at which the decoder is right, where difficulty is 1.
        correlation: Of the noise of neighbouring layers, for all samples or for each.
        seed: Of the noise.
    """
    rng = np.random.default_rng(seed)
    n, layers, classes = len(truth), truth.n_layers, len(DIGITS)
    sigma = truth.difficulty[:, None, None] / distance(hit, classes)
    layer, rows = np.arange(layers), np.arange(n)

    def since(onset: Int[np.ndarray, "sample"]) -> Bool[np.ndarray, "sample layer"]:
        return (onset[:, None] != NEVER) & (layer >= onset[:, None])

    probe = sigma * correlated_noise(rng, n, layers, classes, correlation)
    probe[rows, :, truth.answer] += since(truth.available_from)
    stripped = sigma * correlated_noise(rng, n, layers, classes, correlation)
    known = truth.says != NEVER
    stripped[known, -1] = 0
    stripped[rows, :, truth.answer] += since(truth.ready_from)
    stripped[rows, :, truth.wrong] += since(np.where(truth.kind == "misresolved", truth.written, NEVER))
    stripped[rows, :, truth.wrong] += 2 * since(truth.ready_until)
    ids = tuple(f"planted-{row:05d}" for row in rows)
    readouts = {
        name: Readout((SCALE * scores).astype(np.float32), DIGITS, name, ids)
        for name, scores in (("probe", probe), ("context_stripped", stripped))
    }
    answers = tuple(DIGITS[k] for k in truth.answer)
    return Simulated(truth, readouts, answers, readouts["context_stripped"].predicted[:, -1])


def nothing(truth: Truth) -> Truth:
    """The same samples with nothing planted in them: readouts of it are noise at every layer."""
    never = np.full(len(truth), NEVER)
    return replace(
        truth,
        kind=np.full(len(truth), "no_brewing"),
        available_from=never,
        ready_from=never,
        ready_until=never,
        written=never,
    )
