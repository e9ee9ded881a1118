"""Probes: can the answer be read from the residual stream at this layer?

Per layer and, by default, family, on standardised residuals and out of fold: a sample is scored only by a
probe that never saw it, its twins, or a program of its skeleton (arXiv 2606.17648, section 3, with the folds
that the published recipe lacked). Multinomial logistic regression by default; a ridge classifier or a
two-layer probe on request. All layers, folds and label sets are solved at once
(:mod:`brewlens.decoding.multinomial`).

What a probe reads the model need not use; and what a text-only classifier reads as well is no evidence of
reasoning: compare ``surface``. What it would read from shuffled answers is in
:mod:`brewlens.decoding.selectivity`, whether its probabilities mean what they say in
:mod:`brewlens.decoding.calibration`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from brewlens import html
from brewlens.answers import DIGITS
from brewlens.decoding.fold_fit import FitOptions, FoldFit, Kind, fit_layers
from brewlens.decoding.near_ood import NearOOD, check_other, says_other
from brewlens.decoding.out_of_fold import split_folds, threads_for
from brewlens.decoding.probes import OTHER, Probes, readout_of
from brewlens.decoding.readout import Readout
from brewlens.residuals import Residuals
from brewlens.stats import share
from brewlens.tasks.item import ItemSet

if TYPE_CHECKING:
    import pandas as pd

MEMORY = 1 << 28  # bytes of the layers that are solved together on a CPU; more is slower, for the caches
DEVICE_MEMORY = 1 << 34  # the same on any other device


@dataclass(frozen=True, eq=False)
class ProbeFit:
    """Out-of-fold probes.

    Attributes:
        readout: Of the items. Without near-OOD items its ``other_mass`` is None.
        probes: The probes themselves, with the chosen C.
        near_ood: Readout of the near-OOD items, out of fold too, or None.
    """

    readout: Readout
    probes: Probes
    near_ood: Readout | None

    def recognised(self, level: float = 0.95) -> pd.DataFrame:
        """How well near-OOD items are told from the others, per layer.

        Returns:
            Tidy table: layer; n near-OOD items; recognised, the share of them whose arg max over all classes
            is ``other``, with low and high of its Wilson interval; n_items, and false_alarms, the share of
            the answerable items of which the same is said, with its interval false_low to false_high.

        Raises:
            ValueError: If no near-OOD items were trained on.
        """
        import pandas as pd

        if self.near_ood is None:
            raise ValueError("no near-OOD items were trained on; give other=NearOOD(residuals, items, folds)")
        rows = []
        for at, layer in enumerate(self.probes.layers):
            row: dict[str, float] = {"layer": layer}
            for readout, n, names in (
                (self.near_ood, "n", ("recognised", "low", "high")),
                (self.readout, "n_items", ("false_alarms", "false_low", "false_high")),
            ):
                said = says_other(readout)[:, at]
                row[n] = len(said)
                if (found := share(int(said.sum()), len(said), level)) is not None:
                    row |= dict(zip(names, (found.value, found.low, found.high), strict=True))
            rows.append(row)
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return f"ProbeFit({self.readout!r}, {self.probes!r})"

    def _repr_html_(self) -> str:
        """The readout and the probes."""
        parts = [html.Html(part._repr_html_()) for part in (self.readout, self.probes)]
        return html.card("ProbeFit", *parts)


def probe(
    residuals: Residuals,
    items: ItemSet,
    folds: Int[np.ndarray, "sample"],
    classes: Sequence[str] = DIGITS,
    *,
    kind: Kind = "logistic",
    C: float | None = None,
    by_family: bool = True,
    other: NearOOD | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Readout:
    """Out-of-fold probes at every layer; see :func:`fit_probes`, whose readout it is."""
    options = FitOptions(kind=kind, C=C)
    return fit_probes(
        residuals,
        items,
        folds,
        classes,
        options=options,
        by_family=by_family,
        other=other,
        device=device,
        progress=progress,
    ).readout


def fit_probes(
    residuals: Residuals,
    items: ItemSet,
    folds: Int[np.ndarray, "sample"],
    classes: Sequence[str] = DIGITS,
    *,
    options: FitOptions | None = None,
    by_family: bool = True,
    other: NearOOD | None = None,
    device: torch.device | str = "cpu",
    memory: int | None = None,
    progress: bool = False,
) -> ProbeFit:
    """Fit out-of-fold probes at every layer, and keep them.

    Args:
        residuals: Of these items, in this order; read layer by layer.
        items: The items; their answers are the targets.
        folds: Fold of each item, from :func:`brewlens.tasks.assign_folds`.
        classes: The answer classes.
        options: Kind of probe and regularisation. Default: logistic, C chosen inside the folds.
        by_family: Train one set of probes per family, as the paper does, or one for all.
        other: Near-OOD items, trained on as one more class. By family, each family is to have some.
        device: Where to solve. MPS has no float64, which means and deviations need; then the CPU does it.
        memory: Bytes that the layers solved together may take there.
        progress: Show a progress bar.

    Raises:
        LeakageError: If a fold and the rest, near-OOD items included, share an item, a skeleton or a twin.
        ValueError: If residuals and items do not match, an answer is not a class (or that of a near-OOD item
            is one), or a fold's training rows are too few.

    Warns:
        RuntimeWarning: If a solve stopped before it came down to its tolerance.
    """
    options = options or FitOptions()
    task = ProbeTask(residuals, items, np.asarray(folds), tuple(classes), other, by_family)
    device = torch.device(device)
    scores = torch.empty(len(task.fold), residuals.n_layers, task.n_classes)
    fits: dict[str, list[FoldFit]] = {name: [] for name in task.groups}
    for layers, name, fit in task.run(
        task.target[None], options, device, memory, "probe" if progress else None
    ):
        rows = task.groups[name]
        scores[rows, layers] = fit.scores[0].cpu()
        fits[name].append(fit)
    probes = task.probes(fits, options)
    if options.kind == "logistic" and not probes.converged:
        count = int((probes.gradient > probes.tol).sum())
        warnings.warn(
            f"{count} of {probes.gradient.numel()} probes stopped at a gradient of up to "
            f"{probes.gradient.nan_to_num(0).max():.1e} where "
            f"{probes.tol:.0e} was asked; a smaller C is solved faster",
            RuntimeWarning,
            stacklevel=2,
        )
    n = len(items)
    near = None if other is None else readout_of(scores[n:], task.classes, options.kind, other.items.ids)
    return ProbeFit(readout_of(scores[:n], task.classes, options.kind, items.ids), probes, near)


class ProbeTask:
    """Items and near-OOD items as rows of one problem, checked."""

    def __init__(
        self,
        residuals: Residuals,
        items: ItemSet,
        folds: Int[np.ndarray, "sample"],
        classes: tuple[str, ...],
        other: NearOOD | None,
        by_family: bool,
    ) -> None:
        if residuals.item_ids != items.ids:
            raise ValueError("residuals and items are not the same samples in the same order")
        where = {c: k for k, c in enumerate(classes)}
        if unknown := sorted({a for a in items.answers if a not in where}):
            raise ValueError(
                f"answers {unknown[:5]} are not classes; give items without an answer among them "
                "as other=NearOOD"
            )
        target = [where[a] for a in items.answers]
        if other is not None:
            check_other(other, residuals, items, where, by_family)
            target += [len(classes)] * len(other.items)
            if len(folds) == len(items):
                folds = np.concatenate([folds, other.folds])
            items = ItemSet((*items, *other.items), {**items.partners, **other.items.partners})
        self.residuals, self.other, self.items, self.classes = residuals, other, items, classes
        self.n_classes = len(classes) + (other is not None)
        self.target = torch.tensor(target)
        for _ in split_folds(items, folds, by_family=by_family):
            pass  # the checks are the point
        self.fold = folds
        family = np.array([item.family for item in items])
        self.groups = (
            {name: np.flatnonzero(family == name) for name in items.families}
            if by_family
            else {"all": np.arange(len(items))}
        )

    def run(
        self,
        target: Int[Tensor, "set row"],
        options: FitOptions,
        device: torch.device,
        memory: int | None,
        progress: str | None,
    ) -> Iterator[tuple[slice, str, FoldFit]]:
        """Fit a stretch of layers after the other, every group in it."""
        from threadpoolctl import threadpool_limits

        if device.type == "mps":
            device = torch.device("cpu")
        widest = max(len(rows) for rows in self.groups.values())
        n_layers, width = self.residuals.n_layers, self.residuals.d_model
        n_folds = len(np.unique(self.fold))
        each = _layer_bytes(widest, width, n_folds * len(target), self.n_classes, options)
        size = max(1, (memory or (MEMORY if device.type == "cpu" else DEVICE_MEMORY)) // each)
        size = -(-n_layers // -(-n_layers // size))  # stretches of equal length
        starts = range(0, n_layers, size)
        threads = threads_for(widest, width) if device.type == "cpu" else None
        with (
            threadpool_limits(threads),
            tqdm(
                total=n_layers * len(self.groups), desc=progress, disable=progress is None, unit="layer"
            ) as bar,
        ):
            for start in starts:
                layers = slice(start, min(start + size, n_layers))
                x = torch.stack([self._layer(at) for at in range(layers.start, layers.stop)])
                for name, rows in self.groups.items():
                    fold = torch.tensor(np.unique(self.fold[rows], return_inverse=True)[1])
                    fit = fit_layers(
                        x[:, rows].to(device),
                        target[:, rows].to(device),
                        fold.to(device),
                        self.n_classes,
                        self.residuals.layers[layers],
                        options,
                    )
                    bar.update(layers.stop - layers.start)
                    yield layers, name, fit

    def _layer(self, at: int) -> Float[Tensor, "row d_model"]:
        h = self.residuals.layer(at)
        return h if self.other is None else torch.cat([h, self.other.residuals.layer(at)])

    def probes(self, fits: dict[str, list[FoldFit]], options: FitOptions) -> Probes:
        """Everything that was fitted, for the first label set."""
        folds = np.unique(self.fold)

        def joined(pick: Callable[[FoldFit], Tensor]) -> Tensor:
            groups = []
            for name, rows in self.groups.items():
                part = torch.cat([pick(fit).cpu() for fit in fits[name]])
                here = torch.tensor(np.isin(folds, self.fold[rows]))
                if not here.all():  # a small family may have no item in a fold
                    blank = torch.nan if part.is_floating_point() else 0
                    whole = part.new_full((len(part), len(folds), *part.shape[2:]), blank)
                    whole[:, here] = part
                    part = whole
                groups.append(part)
            return torch.stack(groups)

        hidden = None
        if options.kind == "mlp":
            hidden = (
                joined(lambda fit: fit.hidden[0][:, 0] if fit.hidden else fit.weight[:, 0]),
                joined(lambda fit: fit.hidden[1][:, 0] if fit.hidden else fit.bias[:, 0]),
            )
        return Probes(
            kind=options.kind,
            classes=self.classes if self.other is None else (*self.classes, OTHER),
            groups=tuple(self.groups),
            layers=self.residuals.layers,
            folds=tuple(folds.tolist()),
            weight=joined(lambda fit: fit.weight[:, 0]),
            bias=joined(lambda fit: fit.bias[:, 0]),
            hidden=hidden,
            C=joined(lambda fit: fit.C),
            gradient=joined(lambda fit: fit.gradient[:, 0]),
            iterations=joined(lambda fit: fit.iterations[:, 0]),
            tol=options.tol,
            model=self.residuals.model,
            tap=self.residuals.tap,
            item_folds=dict(zip(self.items.ids, self.fold.tolist(), strict=True)),
            item_groups={self.items.ids[row]: name for name, rows in self.groups.items() for row in rows},
        )


def _layer_bytes(rows: int, width: int, problems: int, n_classes: int, options: FitOptions) -> int:
    """Bytes of one layer in a solve: residuals, Gram matrix and factors, and per problem its vectors."""
    outputs = options.mlp.hidden if options.kind == "mlp" else n_classes
    vectors = outputs * (6 * rows + 28 * width)
    return 4 * (8 * rows * width + 3 * width * width + problems * (2 if options.chooses else 1) * vectors)
