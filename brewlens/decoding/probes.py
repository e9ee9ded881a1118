"""Fitted probes, as an object and as a safetensors file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from brewlens import html
from brewlens.decoding.readout import Readout
from brewlens.files import write_tensors
from brewlens.residuals import Residuals

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
ABSENT = np.log(1e-6)  # log-probability of a class that the training fold does not have
OTHER = "other"  # the class of near-OOD items, after the answers

_TENSORS = ("weight", "bias", "C", "gradient", "iterations")


@dataclass(frozen=True, eq=False)
class Probes:
    """The probes of every group of items, layer and fold, for residuals as they are: ``weight @ h + bias``.

    The probe of fold ``f`` was fitted on the items of the other folds. What was standardised in fitting is
    folded in.

    Attributes:
        kind: ``logistic``, ``ridge`` or ``mlp``.
        classes: The answers, and ``other`` behind them if near-OOD items were trained on.
        groups: The families, or ``("all",)`` for one set of probes.
        layers: Blocks (0-based) of the layer axis.
        folds: Labels of the fold axis. Where a group has no item in a fold, weights and C are NaN.
        weight: ``[group, layer, fold, class, feature]`` float32.
        bias: ``[group, layer, fold, class]`` float32; minus infinity for a class that the training fold
            lacks.
        hidden: Weight ``[group, layer, fold, unit, d_model]`` and bias of the rectified units that are the
            features of a two-layer probe. Without them the features are the residual.
        C: ``[group, layer, fold]`` inverse strength of the penalty, given or chosen; NaN for ``mlp``.
        gradient: ``[group, layer, fold]`` where the solver stopped; see
            :class:`brewlens.decoding.multinomial.Solution`.
        iterations: ``[group, layer, fold]``.
        tol: What ``gradient`` was to come down to.
        model: Name of the model that the residuals came from.
        tap: Their tap.
        item_folds: Id of each item -> its fold.
        item_groups: Id of each item -> its group.
    """

    kind: str
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    layers: tuple[int, ...]
    folds: tuple[int, ...]
    weight: Float[Tensor, "group layer fold class feature"]
    bias: Float[Tensor, "group layer fold class"]
    hidden: (
        tuple[Float[Tensor, "group layer fold unit d_model"], Float[Tensor, "group layer fold unit"]] | None
    )
    C: Float[Tensor, "group layer fold"]
    gradient: Float[Tensor, "group layer fold"]
    iterations: Int[Tensor, "group layer fold"]
    tol: float
    model: str
    tap: str
    item_folds: Mapping[str, int]
    item_groups: Mapping[str, str]

    def __post_init__(self) -> None:
        shape = (len(self.groups), len(self.layers), len(self.folds))
        found = {name: tuple(getattr(self, name).shape[:3]) for name in _TENSORS}
        if any(s != shape for s in found.values()) or self.weight.shape[3] != len(self.classes):
            raise ValueError(
                f"probes of {shape[0]} groups, {shape[1]} layers and {shape[2]} folds for "
                f"{len(self.classes)} classes "
                f"need tensors of that shape; found {found}, weight {list(self.weight.shape)}"
            )

    @property
    def d_model(self) -> int:
        """Width of the residuals that they read."""
        return self.weight.shape[4] if self.hidden is None else self.hidden[0].shape[4]

    @cached_property
    def converged(self) -> bool:
        """Whether every solve came down to ``tol``."""
        return bool((self.gradient.nan_to_num(0) <= self.tol).all())

    def logits(
        self, h: Float[Tensor, "*rows d_model"], group: str, layer: int, fold: int
    ) -> Float[Tensor, "*rows class"]:
        """Scores of one probe, not normalised; minus infinity for a class that it does not know.

        Args:
            h: Residuals at the output of block ``layer``.
            group: A family, or ``all``.
            layer: Block (0-based).
            fold: The fold that the probe did not see.

        Raises:
            ValueError: If there is no such probe, or the width differs.
        """
        for name, value, known in (
            ("group", group, self.groups),
            ("layer", layer, self.layers),
            ("fold", fold, self.folds),
        ):
            if value not in known:
                raise ValueError(f"asked for the probe of {name} {value!r}, there are {list(known)}")
        if h.shape[-1] != self.d_model:
            raise ValueError(f"these probes read residuals of width {self.d_model}, found {h.shape[-1]}")
        at = (self.groups.index(group), self.layers.index(layer), self.folds.index(fold))
        features = h.float()
        if self.hidden is not None:
            units, shift = self.hidden
            features = (features @ units[at].T.to(h.device) + shift[at].to(h.device)).relu()
        return features @ self.weight[at].T.to(h.device) + self.bias[at].to(h.device)

    def read(self, residuals: Residuals) -> Readout:
        """Score items that the probes were fitted on, each by the probe of the fold that held it out.

        Raises:
            ValueError: If the residuals are of another model or other layers, or an item is not among those
                of the fit. Then no fold is known to be free of it; use :meth:`logits`, after
                :func:`brewlens.tasks.folds.check_leakage`.
        """
        theirs = (residuals.model, residuals.layers, residuals.tap)
        if theirs != (self.model, self.layers, self.tap):
            raise ValueError(
                f"these probes read {self.tap} of {self.model}, layers {list(self.layers)}; found "
                f"{residuals!r} of layers {list(residuals.layers)}"
            )
        if unknown := [i for i in residuals.item_ids if i not in self.item_folds]:
            raise ValueError(
                f"{len(unknown)} of {len(residuals)} items are not among those of the fit, first "
                f"{unknown[:3]}, so no probe is known not to have seen their like; check them with "
                "tasks.folds.check_leakage and use logits"
            )
        places = [(self.item_groups[i], self.item_folds[i]) for i in residuals.item_ids]
        scores = torch.empty(len(residuals), len(self.layers), len(self.classes))
        for at, layer in enumerate(self.layers):
            h = residuals.layer(at)
            for place in sorted(set(places)):
                rows = [row for row, p in enumerate(places) if p == place]
                scores[rows, at] = self.logits(h[rows], place[0], layer, place[1])
        n_answers = len(self.classes) - (self.classes[-1] == OTHER)
        return readout_of(scores, self.classes[:n_answers], self.kind, residuals.item_ids)

    def to_frame(self) -> pd.DataFrame:
        """Tidy table: group, layer, fold, C, gradient, iterations, converged."""
        import pandas as pd

        index = pd.MultiIndex.from_product(
            [self.groups, self.layers, self.folds], names=["group", "layer", "fold"]
        )
        columns = {name: getattr(self, name).flatten().numpy() for name in ("C", "gradient", "iterations")}
        frame = pd.DataFrame(columns, index=index).reset_index()
        frame["converged"] = frame["gradient"] <= self.tol
        return frame

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file; its metadata is one JSON text."""
        path = Path(path)
        tensors = {name: getattr(self, name) for name in _TENSORS}
        if self.hidden is not None:
            tensors |= {"hidden_weight": self.hidden[0], "hidden_bias": self.hidden[1]}
        names = (
            "kind",
            "classes",
            "groups",
            "layers",
            "folds",
            "tol",
            "model",
            "tap",
            "item_folds",
            "item_groups",
        )
        metadata = {"format": FORMAT, "what": "probes", **{name: getattr(self, name) for name in names}}
        write_tensors(path, tensors, metadata)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Probes:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: If the file holds no probes of this format, or is damaged.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                metadata: dict[str, Any] = json.loads((file.metadata() or {}).get("brewlens", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is damaged ({error}); fit and save the probes again") from error
        if (metadata.get("what"), metadata.get("format")) != ("probes", FORMAT):
            raise ValueError(
                f"asked for probes of format {FORMAT}, found {metadata.get('what')!r} of format "
                f"{metadata.get('format')!r} in {path}; fit and save them with this version"
            )
        try:
            hidden = (
                (tensors["hidden_weight"], tensors["hidden_bias"]) if "hidden_weight" in tensors else None
            )
            return cls(
                hidden=hidden,
                **{name: tensors[name] for name in _TENSORS},
                **{name: tuple(metadata[name]) for name in ("classes", "groups", "layers", "folds")},
                **{n: metadata[n] for n in ("kind", "tol", "model", "tap", "item_folds", "item_groups")},
            )
        except KeyError as error:
            raise ValueError(f"{path} is damaged: it lacks {error}; fit and save the probes again") from error

    def __repr__(self) -> str:
        return (
            f"Probes({self.kind}: {len(self.groups)} groups x {len(self.layers)} layers x "
            f"{len(self.folds)} folds x {len(self.classes)} classes, d_model {self.d_model}, of {self.model})"
        )

    def _repr_html_(self) -> str:
        """One row per group: items, how large the weights are and how they were penalised, by layer."""
        owner = Counter(self.item_groups.values())
        rows = []
        for k, group in enumerate(self.groups):
            norm = self.weight[k].flatten(2).norm(dim=-1).nanmean(dim=-1).tolist()
            strength = self.C[k].nanmedian(dim=-1).values.tolist()
            rows.append(
                {
                    "group": group,
                    "items": owner.get(group),
                    "norm of the weights by layer": html.sparkline(
                        norm, f"{group}: norm", low=0, labels=self.layers
                    ),
                    "C by layer (median of folds)": html.sparkline(
                        strength, f"{group}: C", labels=self.layers
                    ),
                }
            )
        rest = self.gradient[self.gradient.isfinite()]
        worst = (
            f"largest gradient left {float(rest.max()):.1e}, asked for {self.tol:.0e}" if len(rest) else ""
        )
        state = "All solves converged" if self.converged else "Not all solves converged"
        return html.card(repr(self), html.table(rows), html.note(f"{state}; {worst}"))


def readout_of(
    scores: Float[Tensor, "sample layer class"], answers: Sequence[str], kind: str, item_ids: Sequence[str]
) -> Readout:
    """Readout over the answers, of scores that may have ``other`` behind them.

    The logits of a logistic or two-layer probe are log-probabilities among the answers, at least ``ABSENT``;
    those of ridge its scores. ``other_mass`` is the softmax of all scores at ``other``.
    """
    scores = scores.cpu()
    logits, other = scores[..., : len(answers)], None
    if scores.shape[2] > len(answers):
        other = scores.softmax(2)[..., -1].numpy()
    if kind != "ridge":
        logits = logits.log_softmax(2)
    logits = logits.clamp_min(float(ABSENT)).float().numpy()
    return Readout(logits, tuple(answers), "probe", tuple(item_ids), other)
