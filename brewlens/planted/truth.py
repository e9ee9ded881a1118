"""What is planted: for every sample the layers at which its answer becomes available, ready, and is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Int

from brewlens import html
from brewlens.answers import DIGITS
from brewlens.brief import brief
from brewlens.lifecycle.landmarks import NEVER

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("resolved", "overprocessed", "misresolved", "unresolved", "no_brewing", "false_friend")
MIX: Mapping[str, float] = {
    "resolved": 0.4,
    "overprocessed": 0.2,
    "misresolved": 0.15,
    "unresolved": 0.15,
    "no_brewing": 0.1,
}
LATEST = 0.7
"""No answer becomes ready after this share of the layers, so that a misresolved tail is confident."""


@dataclass(frozen=True)
class Truth:
    """What is so by construction, one entry per sample; layers are 0-based, ``NEVER`` where there is none.

    Attributes:
        kind: One of ``KINDS``. ``resolved``: available, then ready, and said. ``overprocessed``: ready, then
            overwritten by a wrong digit. ``misresolved``: available, but all that is ever made ready is a
            wrong digit. ``unresolved``: available, and nothing is made ready. ``no_brewing``: nothing is
            there. ``false_friend``: looks resolved, but the answer that is said came from elsewhere; the
            available one is not used.
        answer: Index of the right answer.
        wrong: Index of the digit that overprocessed and misresolved samples say instead.
        available_from: First layer at which the answer is available.
        ready_from: First layer at which it is ready.
        ready_until: First layer at which it is ready no longer.
        written: Layer at which a digit, right or wrong, is first made ready.
        difficulty: Factor of the sample's noise; 1 where samples do not differ.
        n_layers: L.
    """

    kind: np.ndarray
    answer: Int[np.ndarray, "sample"]
    wrong: Int[np.ndarray, "sample"]
    available_from: Int[np.ndarray, "sample"]
    ready_from: Int[np.ndarray, "sample"]
    ready_until: Int[np.ndarray, "sample"]
    written: Int[np.ndarray, "sample"]
    difficulty: np.ndarray
    n_layers: int

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def outcome(self) -> np.ndarray:
        """The resolution outcome, by the names of ``brewlens.lifecycle.OUTCOMES``."""
        return np.where(self.kind == "false_friend", "resolved", self.kind)

    @property
    def used(self) -> Bool[np.ndarray, "sample"]:
        """Whether what the model says was made from the answer that was available at the last token."""
        return np.isin(self.kind, ("resolved", "overprocessed"))

    @property
    def says(self) -> Int[np.ndarray, "sample"]:
        """Index of the digit that the model says, ``NEVER`` where it says any."""
        says = np.where(np.isin(self.kind, ("resolved", "false_friend")), self.answer, NEVER)
        return np.where(np.isin(self.kind, ("overprocessed", "misresolved")), self.wrong, says)

    def counterfactual(self, seed: int = 0) -> Truth:
        """What is so of counterfactual twins: the same, about other digits.

        The four digits of a sample and its twin, right and wrong, all differ: an answer tells whose it is.

        Args:
            seed: Of the digits.
        """
        # Of two numbers, as draw_truth seeds with one: the digits are not of the stream that drew the truth.
        order = np.random.default_rng((seed, 1)).random((len(self), len(DIGITS)))
        rows = np.arange(len(self))
        order[rows, self.answer] = order[rows, self.wrong] = 2
        answer, wrong = np.argsort(order, axis=1)[:, :2].T
        return replace(self, answer=answer, wrong=wrong)

    def to_frame(self) -> pd.DataFrame:
        """One row per sample; layers are nullable integers."""
        import pandas as pd

        columns: dict[str, object] = {
            "kind": self.kind,
            "outcome": self.outcome,
            "answer": [DIGITS[k] for k in self.answer],
            "used": self.used,
            "difficulty": self.difficulty,
        }
        for name in ("available_from", "ready_from", "ready_until", "written"):
            values = getattr(self, name)
            columns[name] = pd.array(values, dtype="Int64")
        frame = pd.DataFrame(columns)
        for name in ("available_from", "ready_from", "ready_until", "written"):
            frame[name] = frame[name].mask(frame[name] == NEVER)
        return frame

    __repr__ = brief

    def _repr_html_(self) -> str:
        """One row per kind: how many, and from which layers on they are available and ready."""
        rows = []
        for kind in dict.fromkeys(self.kind.tolist()):
            here = self.kind == kind
            row: dict[str, object] = {"kind": str(kind).replace("_", " "), "n": int(here.sum())}
            for name in ("available_from", "ready_from", "ready_until"):
                layers = getattr(self, name)[here]
                counts = np.bincount(layers[layers != NEVER], minlength=self.n_layers)
                drawn = html.sparkline(counts, f"{kind}: samples, {name}", low=0)
                row[name.replace("_", " ")] = drawn if counts.any() else None
            rows.append(row)
        return html.card(f"Truth({len(self)} samples x {self.n_layers} layers)", html.table(rows))


def draw_truth(
    n: int,
    n_layers: int,
    *,
    mix: Mapping[str, float] = MIX,
    available: int | Literal["spread"] = "spread",
    ready: int | Literal["spread"] = "spread",
    lost: int | Literal["spread"] = "spread",
    difficulty: float = 0.0,
    seed: int = 0,
) -> Truth:
    """Draw what to plant.

    Args:
        n: Samples.
        n_layers: L, at least 6.
        mix: Share of each kind, of ``KINDS``.
        available: Layer at which answers become available, or ``spread`` evenly over those before ``ready``.
        ready: Layer at which they become ready, at most ``LATEST`` of the depth, or ``spread`` evenly.
        lost: Layer at which those of overprocessed samples are overwritten, or ``spread`` evenly over those
            from the second after ``ready`` to the last but one.
        difficulty: Standard deviation of the logarithm of each sample's noise factor.
        seed: Of everything drawn.

    Raises:
        ValueError: If the layers are not in order or a kind is unknown.
    """
    if unknown := set(mix) - set(KINDS):
        raise ValueError(f"unknown kinds {sorted(unknown)}; there are {', '.join(KINDS)}")
    latest = int(LATEST * n_layers)
    if n_layers < 6:
        raise ValueError(f"a lifecycle needs 6 layers at least, found {n_layers}")
    rng = np.random.default_rng(seed)
    share = np.array(list(mix.values()), dtype=float)
    kind = rng.permutation(np.repeat(list(mix), _counts(n, share / share.sum())))
    answer = rng.integers(0, len(DIGITS), n)
    wrong = (answer + rng.integers(1, len(DIGITS), n)) % len(DIGITS)
    least = 1 if available == "spread" else available + 1
    written = rng.integers(least, latest + 1, n) if ready == "spread" else np.full(n, ready)
    onset = rng.integers(0, written) if available == "spread" else np.full(n, available)
    soonest = np.minimum(written + 2, n_layers - 1)
    overwritten = rng.integers(soonest, np.maximum(soonest + 1, n_layers - 1))
    if lost != "spread":
        overwritten = np.full(n, lost)
    if not (
        (onset >= 0).all()
        and (onset < written).all()
        and (written <= latest).all()
        and (overwritten > written).all()
        and (overwritten < n_layers).all()
    ):
        raise ValueError(
            f"layers must be 0 <= available < ready <= {latest}, ready < lost < {n_layers}; found available "
            f"{available}, ready {ready}, lost {lost}"
        )
    becomes_ready = np.isin(kind, ("resolved", "overprocessed", "false_friend"))
    speaks = becomes_ready | (kind == "misresolved")
    return Truth(
        kind=kind,
        answer=answer,
        wrong=wrong,
        available_from=np.where(kind == "no_brewing", NEVER, onset),
        ready_from=np.where(becomes_ready, written, NEVER),
        ready_until=np.where(kind == "overprocessed", overwritten, NEVER),
        written=np.where(speaks, written, NEVER),
        difficulty=np.exp(difficulty * rng.standard_normal(n)),
        n_layers=n_layers,
    )


def _counts(n: int, share: np.ndarray) -> np.ndarray:
    """Whole numbers that add up to ``n``, as near to the shares as can be."""
    counts = np.floor(n * share).astype(int)
    rest = np.argsort(counts - n * share)[: n - counts.sum()]
    counts[rest] += 1
    return counts
