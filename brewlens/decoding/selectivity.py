"""Selectivity: what a probe reads from right answers beyond what it reads from shuffled ones.

A probe may score by what it learns of the inputs rather than by what the residuals say of the answer. The
control tells: the same probe, at the same C and on the same folds, trained and scored on answers that were
permuted among the items of one family and configuration, so that every configuration keeps its answers and
only their assignment to programs is lost. In the sense of Hewitt & Liang (arXiv 1909.03368, section 3),

    selectivity = accuracy - accuracy on the control.

Their control task gives every word type a random label of its own, which a strong probe can memorise, as
types recur in the test set. Programs do not recur between folds, so no such memory helps here, and the
control's accuracy is what the configuration, and chance, give away. It is near that of ``majority``, or else
something leaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from brewlens import html
from brewlens.answers import DIGITS
from brewlens.decoding.fold_fit import FitOptions
from brewlens.decoding.probe import ProbeTask
from brewlens.residuals import Residuals
from brewlens.stats import share
from brewlens.tasks.item import ItemSet

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Selectivity:
    """Accuracy on the right answers and on shuffled ones, out of fold.

    Attributes:
        correct: ``[sample, layer]`` with the right answers.
        control: ``[shuffle, layer]`` accuracy with each shuffling of them.
        layers: Blocks (0-based) of the layer axis.
    """

    correct: Bool[np.ndarray, "sample layer"]
    control: Float[np.ndarray, "shuffle layer"]
    layers: tuple[int, ...]

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Tidy table, one row per layer.

        Returns:
            layer; n; accuracy with low and high of its Wilson interval; shuffles; control, their mean
            accuracy; control_sd, control_min and control_max over shuffles (sd is NaN of one); selectivity.
        """
        import pandas as pd

        shuffles, n = len(self.control), len(self.correct)
        rows = []
        for at, layer in enumerate(self.layers):
            control = self.control[:, at]
            found = share(int(self.correct[:, at].sum()), n, level)
            if found is None:
                raise ValueError("selectivity needs samples, found none")
            rows.append(
                {
                    "layer": layer,
                    "n": n,
                    "accuracy": found.value,
                    "low": found.low,
                    "high": found.high,
                    "shuffles": shuffles,
                    "control": control.mean(),
                    "control_sd": control.std(ddof=1) if shuffles > 1 else np.nan,
                    "control_min": control.min(),
                    "control_max": control.max(),
                    "selectivity": found.value - control.mean(),
                }
            )
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        best = int(self.correct.mean(axis=0).argmax())
        gap = self.correct[:, best].mean() - self.control[:, best].mean()
        return (
            f"Selectivity({gap:.2f} at layer {self.layers[best]}, the most accurate; "
            f"{len(self.control)} shuffles)"
        )

    def _repr_html_(self) -> str:
        """Accuracy on the right and on shuffled answers, by layer."""
        lines = {"right answers": self.correct.mean(axis=0), "shuffled answers": self.control.mean(axis=0)}
        rows = [
            {
                "labels": name,
                "n": len(self.correct),
                "greatest": values.max(),
                "share right by layer": html.sparkline(values, name, low=0, high=1, labels=self.layers),
            }
            for name, values in lines.items()
        ]
        return html.card(repr(self), html.table(rows))


def selectivity(
    residuals: Residuals,
    items: ItemSet,
    folds: Int[np.ndarray, "sample"],
    classes: Sequence[str] = DIGITS,
    *,
    options: FitOptions | None = None,
    shuffles: int = 5,
    seed: int = 0,
    by_family: bool = True,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Selectivity:
    """Fit probes to the right answers and, in the same solve, to shuffled ones.

    Args:
        residuals: Of these items, in this order.
        items: The items.
        folds: Fold of each item.
        classes: The answer classes.
        options: Kind of probe and regularisation; C is given, or chosen with the right answers, for all
            alike.
        shuffles: Shufflings of the answers within family and configuration.
        seed: Of the shufflings.
        by_family: One set of probes per family, or one for all.
        device: Where to solve.
        progress: Show a progress bar.

    Raises:
        LeakageError: If a fold and the rest share an item, a skeleton or a twin.
        ValueError: As :func:`brewlens.decoding.probe.fit_probes`, or if no shuffle is asked for.
    """
    if shuffles < 1:
        raise ValueError(f"selectivity needs at least one shuffle, asked for {shuffles}")
    task = ProbeTask(residuals, items, np.asarray(folds), tuple(classes), None, by_family)
    target = torch.stack([task.target, *shuffled(items, task.target, shuffles, seed)])
    hit = np.empty((1 + shuffles, len(items), residuals.n_layers), dtype=bool)
    label = "selectivity" if progress else None
    for layers, name, fit in task.run(target, options or FitOptions(), torch.device(device), None, label):
        rows = task.groups[name]
        found = fit.scores.argmax(3).cpu() == target[:, rows, None]
        hit[:, rows, layers] = found.numpy()
    return Selectivity(hit[0], hit[1:].mean(axis=1), residuals.layers)


def shuffled(
    items: ItemSet, target: Int[torch.Tensor, "sample"], shuffles: int, seed: int
) -> list[Int[torch.Tensor, "sample"]]:
    """Targets permuted within family and configuration; each configuration keeps its own."""
    rng = np.random.default_rng(seed)
    cells: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        cells.setdefault(f"{item.family}\t{sorted(item.factors.items())}", []).append(row)
    found = []
    for _ in range(shuffles):
        permuted = target.clone()
        for rows in cells.values():
            permuted[rows] = target[rng.permutation(rows)]
        found.append(permuted)
    return found
