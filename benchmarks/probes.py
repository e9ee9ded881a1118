"""Out-of-fold probes of every layer, beside scikit-learn fold by fold and a plain Adam loop.

The data are planted: residuals with a steep spectrum and a few outlier dimensions, as those of real models
have, and a class signal of low rank that grows over the layers.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from benchmarks.clock import Timed, race, threads
from benchmarks.injection import OWN
from benchmarks.records import Record
from brewlens.answers import DIGITS
from brewlens.decoding import Readout, probe
from brewlens.residuals import Residuals
from brewlens.tasks import Item, ItemSet

# scikit-learn's own defaults, and the same regularisation ten times as strong run to convergence.
REGULARISATION = ((1.0, 100), (0.1, 1000))
LEARNING_RATE, PATIENCE = 1e-3, 35
RANK, OUTLIERS = 6, 4
STRENGTH = (4.0, 7.5)  # of the signal at the first and the last layer, in deviations of the noise
ADAM = f"plain Adam loop (rate {LEARNING_RATE:g}, patience {PATIENCE})"
CHOSEN = f"{OWN}, C chosen inside the folds"


@dataclass(frozen=True)
class Planted:
    """Residuals with a class signal in them.

    Attributes:
        residuals: Of the items.
        items: One skeleton each.
        folds: Fold of each item.
        target: Class of each item.
    """

    residuals: Residuals
    items: ItemSet
    folds: Int[np.ndarray, "sample"]
    target: Int[np.ndarray, "sample"]


def plant(layers: int, items: int, width: int, folds: int, seed: int = 0) -> Planted:
    """Draw residuals whose linear decodability grows from the first to the last layer."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    target = torch.randint(len(DIGITS), (items,), generator=generator)
    deviation = (1 + torch.arange(width)) ** -0.7
    basis = torch.linalg.qr(normal(width, width))[0]
    values = torch.empty(items, layers, width)
    for layer in range(layers):
        # Means that differ where the noise is wide too, or the last of its directions would give all away.
        means = normal(len(DIGITS), RANK) @ normal(RANK, width) / (RANK * width) ** 0.5
        strength = STRENGTH[0] + (STRENGTH[1] - STRENGTH[0]) * layer / max(1, layers - 1)
        white = normal(items, width) + strength * means[target]
        values[:, layer] = (white * deviation[torch.randperm(width, generator=generator)]) @ basis
        outliers = torch.randperm(width, generator=generator)[:OUTLIERS]
        values[:, layer, outliers] = 40 + 30 * values[:, layer, outliers]
    names = [f"planted-{k}" for k in range(items)]
    planted = [
        Item(name, "planted", {}, "", "", name, DIGITS[label], f"{k:016x}", "0")
        for k, (name, label) in enumerate(zip(names, target.tolist(), strict=True))
    ]
    fold = torch.randperm(items, generator=generator) % folds
    residuals = Residuals.of(values, names, [(1,)] * items, "planted")
    return Planted(residuals, ItemSet(tuple(planted)), fold.numpy(), target.numpy())


def together(data: Planted, C: float | None, device: str) -> Readout:
    """brewlens as it is called: every layer and fold."""
    return probe(data.residuals, data.items, data.folds, C=C, device=device)


def one_by_one(
    data: Planted, layers: Sequence[int], folds: Sequence[int], C: float, max_iter: int, count: int
) -> tuple[Int[np.ndarray, "sample layer"], int]:
    """scikit-learn, layer by layer and fold by fold, with so many threads.

    Returns:
        Predictions, -1 outside ``folds``, and how many fits were stopped before they converged.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    predicted = np.full((len(data.items), len(layers)), -1, dtype=np.int64)
    stopped = 0
    with threads(count):
        for at, layer in enumerate(layers):
            x = data.residuals.layer(layer).numpy()
            for fold in folds:
                train, score = data.folds != fold, data.folds == fold
                fitted = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=max_iter))
                with warnings.catch_warnings(record=True) as found:
                    warnings.simplefilter("always", ConvergenceWarning)
                    fitted.fit(x[train], data.target[train])
                stopped += any(issubclass(w.category, ConvergenceWarning) for w in found)
                predicted[score, at] = fitted.predict(x[score])
    return predicted, stopped


def adam(data: Planted, layer: int, epochs: int, device: str) -> Int[np.ndarray, "sample 1"]:
    """A linear layer trained by Adam on whole batches, stopped on a tenth of the training rows."""
    x = data.residuals.layer(layer).to(device)
    target = torch.as_tensor(data.target, device=device)
    predicted = np.empty((len(data.items), 1), dtype=np.int64)
    for fold in np.unique(data.folds):
        rows = torch.as_tensor(np.flatnonzero(data.folds != fold))
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(int(fold)))]
        stop, train = rows[: len(rows) // 10].to(device), rows[len(rows) // 10 :].to(device)
        z = (x - x[train].mean(0)) / x[train].std(0)
        linear = _train(z[train], target[train], z[stop], target[stop], epochs)
        score = np.flatnonzero(data.folds == fold)
        with torch.no_grad():
            predicted[score, 0] = linear(z[torch.as_tensor(score, device=device)]).argmax(1).cpu()
    return predicted


def _train(x: Tensor, y: Tensor, x_stop: Tensor, y_stop: Tensor, epochs: int) -> torch.nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        linear = torch.nn.Linear(x.shape[1], len(DIGITS)).to(x.device)
    optimizer = torch.optim.Adam(linear.parameters(), lr=LEARNING_RATE)
    loss_of = torch.nn.CrossEntropyLoss()
    least, best, waited = float("inf"), linear, 0
    for _ in range(epochs):
        optimizer.zero_grad()
        loss_of(linear(x), y).backward()
        optimizer.step()
        with torch.no_grad():
            loss = float(loss_of(linear(x_stop), y_stop))
        if loss < least:
            least, best, waited = loss, copy.deepcopy(linear), 0
        elif (waited := waited + 1) >= PATIENCE:
            break
    return best


def measure(record: Record, folder: Path) -> None:
    """Time the probes, and compare accuracy and predictions."""
    settings, n_layers = record.settings, record.settings.probe_layers
    data = plant(n_layers, settings.items, settings.probe_width, settings.folds)
    fitted = np.linspace(0, n_layers - 1, settings.fitted_layers).round().astype(int).tolist()
    every = range(settings.folds)
    with threads(settings.cores):
        together(plant(2, 100, 8, settings.folds), 1.0, settings.device)  # warm-up
        counts = {1, settings.cores}
        tried = race({str(n): partial(one_by_one, data, [0], [0], 1.0, 20, n) for n in counts}, 2)
        count = min(counts, key=lambda n: tried[str(n)].best)
        calls: dict[str, Callable[[], Any]] = {}
        for C, max_iter in REGULARISATION:
            calls[_own(C)] = partial(together, data, C, settings.device)
            calls[_theirs(C)] = partial(one_by_one, data, fitted, every, C, max_iter, count)
        times = race(calls, settings.probe_repeats, settings.device)
        loop = partial(adam, data, fitted[len(fitted) // 2], settings.epochs, settings.device)
        slow = race({ADAM: loop, CHOSEN: partial(together, _some(data, fitted), None, settings.device)}, 1)
    size = f"{n_layers} layers, {settings.items} items, width {settings.probe_width}, {settings.folds} folds"
    for C, max_iter in REGULARISATION:
        own, theirs = times[_own(C)], times[_theirs(C)]
        record.time("probes", _own(C), own, own, note=size)
        note = (
            f"layers {fitted} of {n_layers}, scaled; threads: {count}, the faster of 1 and {settings.cores}"
        )
        record.time("probes", _theirs(C), theirs, own, scale=n_layers / len(fitted), note=note)
        predicted, stopped = theirs.result
        note = f"layers {fitted}; scikit-learn stopped {stopped} of {len(fitted) * settings.folds} fits at "
        _lines(record, data, C, own, predicted, fitted, f"{note}{max_iter} iterations")
    own, loop = times[_own(REGULARISATION[0][0])], slow[ADAM]
    note = f"up to {settings.epochs} epochs; 1 of {n_layers} layers, scaled; "
    note += f"accuracy {100 * (loop.result[:, 0] == data.target).mean():.1f} %"
    slower = record.time("probes", ADAM, loop, own, scale=n_layers, note=note)
    record.line("probes.adam", f"probes over a {ADAM}", slower.ratio, "times", note)
    note = f"layers {fitted} of {n_layers}, scaled"
    record.time("probes", CHOSEN, slow[CHOSEN], own, scale=n_layers / len(fitted), note=note)


def _lines(
    record: Record,
    data: Planted,
    C: float,
    own: Timed,
    theirs: Int[np.ndarray, "sample layer"],
    fitted: Sequence[int],
    note: str,
) -> None:
    settings, ratio = record.settings, record.timings[-1].ratio
    where = f"{settings.cores} threads" if settings.device == "cpu" else f"on {settings.device}"
    size = f"{settings.probe_layers} layers, {settings.items} items, width {settings.probe_width}"
    record.line(f"probes.seconds_{C:g}", f"probes at C = {C:g}: {size}", own.best, "s", where)
    record.line(f"probes.ratio_{C:g}", f"probes over {_theirs(C)}", ratio, "times", where)
    mine = own.result.predicted[:, fitted]
    accuracy = [100 * float((p == data.target[:, None]).mean()) for p in (mine, theirs)]
    record.line(
        f"probes.accuracy_{C:g}",
        f"mean accuracy less that of {_theirs(C)}",
        accuracy[0] - accuracy[1],
        "points",
        f"{accuracy[0]:.1f} and {accuracy[1]:.1f} %; {note}",
    )
    same = 100 * float((mine == theirs).mean())
    record.line(f"probes.agreement_{C:g}", f"items predicted as by {_theirs(C)}", same, "%", note)


def _own(C: float) -> str:
    return f"{OWN}, C = {C:g}"


def _theirs(C: float) -> str:
    return f"scikit-learn, C = {C:g}, up to {dict(REGULARISATION)[C]} iterations"


def _some(data: Planted, layers: Sequence[int]) -> Planted:
    values = torch.stack([data.residuals.layer(layer) for layer in layers], 1)
    residuals = Residuals.of(values, data.items.ids, data.residuals.tokens, "planted")
    return replace(data, residuals=residuals)
