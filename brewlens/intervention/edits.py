"""Edits: what is written in place of a state, as small objects that can be put together.

An edit takes what the recipient has (``own``), what a donor has, and where they are, and gives what is
written; all states are ``[sample, slot, position, width]``, where a slot is one place along the depth. Edits
draw nothing from the global random state, and a sample is edited in the same way whatever is edited beside
it.

A placebo moves a state as far as another edit does, elsewhere: :func:`as_far_as` along what a second edit
would change (a random subspace, for one), :func:`noise` in a random direction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from brewlens.brief import brief

States = Float[Tensor, "sample slot position width"]


@dataclass(frozen=True, eq=False)
class Where:
    """Which samples and blocks the states of an edit belong to.

    Attributes:
        samples: ``[sample]`` rows of all samples.
        layers: ``[sample, slot]`` block (0-based).
    """

    samples: Int[Tensor, "sample"]
    layers: Int[Tensor, "sample slot"]

    __repr__ = brief


@dataclass(frozen=True, eq=False)
class Subspace:
    """A linear subspace for each group of samples and each layer.

    Attributes:
        name: For tables.
        bases: ``[group, layer, width, rank]``, columns orthonormal.
        groups: ``[sample]`` the group of each sample.

    Raises:
        ValueError: If columns are not orthonormal, or a sample has no group.
    """

    name: str
    bases: Float[Tensor, "group layer width rank"]
    groups: Int[Tensor, "sample"]

    def __post_init__(self) -> None:
        if self.bases.ndim != 4 or self.bases.shape[2] < self.bases.shape[3]:
            raise ValueError(
                f"bases of subspace {self.name!r} must be [group, layer, width, rank]; found "
                f"{list(self.bases.shape)}"
            )
        gram = self.bases.mT @ self.bases
        error = float((gram - torch.eye(self.rank)).abs().max())
        if not error < 1e-4:
            raise ValueError(
                f"bases of subspace {self.name!r} must be orthonormal; found an error of {error:.2g}"
            )
        if len(self.groups) and not 0 <= int(self.groups.min()) <= int(self.groups.max()) < len(self.bases):
            raise ValueError(
                f"subspace {self.name!r} has {len(self.bases)} groups, numbered from 0; found "
                f"{self.groups.unique().tolist()}"
            )

    @classmethod
    def fixed(cls, name: str, basis: Float[Tensor, "width rank"], n_layers: int, n_samples: int) -> Subspace:
        """The same subspace for all samples and layers."""
        bases = basis.expand(1, n_layers, *basis.shape)
        return cls(name, bases, torch.zeros(n_samples, dtype=torch.long))

    def select(self, rows: Int[np.ndarray, "row"]) -> Subspace:
        """The same subspaces, for the samples at ``rows``."""
        return Subspace(self.name, self.bases, self.groups[torch.from_numpy(rows)])

    @property
    def rank(self) -> int:
        """Dimensions."""
        return self.bases.shape[3]

    def project(self, x: States, where: Where) -> States:
        """The part of ``x`` in the subspace of each sample and layer."""
        return self._each(x, where, lambda part, group, layer: self._onto(part, self.bases[group, layer]))

    def pick(self, values: Float[Tensor, "group layer width"], where: Where) -> States:
        """One vector per group and layer, as states of one position."""
        return values[self.groups[where.samples].unsqueeze(1), where.layers].unsqueeze(2)

    def _each(self, x: States, where: Where, change: Callable[[Tensor, int, int], Tensor]) -> States:
        out = torch.empty_like(x)
        for group, layer, rows, slots in _places(self.groups[where.samples], where.layers):
            out[rows, slots] = change(x[rows, slots], group, layer)
        return out

    @staticmethod
    def _onto(x: Float[Tensor, "*rows width"], basis: Float[Tensor, "width rank"]) -> Tensor:
        return (x @ basis) @ basis.T

    __repr__ = brief


def _places(
    groups: Int[Tensor, "sample"], layers: Int[Tensor, "sample slot"]
) -> Iterator[tuple[int, int, Int[Tensor, "place"], Int[Tensor, "place"]]]:
    """Samples and slots of each group and layer."""
    count = int(layers.max()) + 1
    keys = groups.unsqueeze(1) * count + layers
    flat, order = keys.flatten().sort(stable=True)
    values, sizes = flat.unique_consecutive(return_counts=True)
    for key, places in zip(values.tolist(), order.split(sizes.tolist()), strict=True):
        yield key // count, key % count, places // layers.shape[1], places % layers.shape[1]


@dataclass(frozen=True, eq=False)
class Edit:
    """A named change of a state.

    Attributes:
        name: For tables.
        apply: ``apply(own, donor, where)`` gives what is written.
    """

    name: str
    apply: Callable[[States, States, Where], States]

    def __call__(self, own: States, donor: States, where: Where) -> States:
        return self.apply(own, donor, where)

    def then(self, after: Edit) -> Edit:
        """This edit, then another one of what it gave, with the same donor."""
        return Edit(
            f"{self.name}, {after.name}",
            lambda own, donor, where: after(self(own, donor, where), donor, where),
        )

    __repr__ = brief


def no_op() -> Edit:
    """The recipient's own state."""
    return Edit("no_op", lambda own, donor, where: own)


def replace() -> Edit:
    """The donor's state."""
    return Edit("replace", lambda own, donor, where: donor.expand_as(own))


def norm_match() -> Edit:
    """The donor's state, as long as the recipient's."""

    def apply(own: States, donor: States, where: Where) -> States:
        return donor * (_length(own) / _length(donor))

    return Edit("norm_match", apply)


def blend(alpha: float) -> Edit:
    """``(1 - alpha) own + alpha donor``."""
    return Edit(f"blend_{alpha:g}", lambda own, donor, where: own + alpha * (donor - own))


def swap_subspace(subspace: Subspace) -> Edit:
    """The donor's coordinates in a subspace, the recipient's in its complement."""
    return Edit(f"swap_{subspace.name}", lambda own, donor, where: own + subspace.project(donor - own, where))


def erase_subspace(subspace: Subspace, mean: Float[Tensor, "group layer width"]) -> Edit:
    """The mean's coordinates in a subspace; the donor is not looked at.

    Erasure by resampling is :func:`swap_subspace` with a shuffled donor.

    Args:
        subspace: What is erased.
        mean: Mean state of each of the subspace's groups and layers.
    """

    def apply(own: States, donor: States, where: Where) -> States:
        return own + subspace.project(subspace.pick(mean, where) - own, where)

    return Edit(f"erase_{subspace.name}", apply)


def add(vector: Float[Tensor, "layer width"], scale: float = 1.0) -> Edit:
    """``own + scale * vector[layer]``; the donor is not looked at."""
    return Edit(
        f"add_{scale:g}", lambda own, donor, where: own + scale * vector[where.layers].unsqueeze(2).to(own)
    )


def as_far_as(reference: Edit, edit: Edit) -> Edit:
    """What ``edit`` would change, scaled so that each state moves as far as ``reference`` moves it.

    A state that ``edit`` leaves where it is stays there.
    """

    def apply(own: States, donor: States, where: Where) -> States:
        return own + _scaled(edit(own, donor, where) - own, reference(own, donor, where) - own)

    return Edit(f"{edit.name}_as_far_as_{reference.name}", apply)


def noise(reference: Edit, seed: int = 0) -> Edit:
    """A move in a random direction, as far as ``reference`` moves each state."""

    def apply(own: States, donor: States, where: Where) -> States:
        places = [
            (sample, layer)
            for sample, layers in zip(where.samples.tolist(), where.layers.tolist(), strict=True)
            for layer in layers
        ]
        drawn = [torch.randn(own.shape[2:], generator=_generator(seed, *place)) for place in places]
        pattern = "(sample slot) position width -> sample slot position width"
        direction = rearrange(drawn, pattern, sample=len(own))
        return own + _scaled(direction.to(own), reference(own, donor, where) - own)

    return Edit(f"noise_as_far_as_{reference.name}", apply)


def _generator(*numbers: int) -> torch.Generator:
    """A generator of its own for each combination of numbers."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=6).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest))


def _length(x: States) -> Float[Tensor, "sample slot position 1"]:
    return x.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


def _scaled(move: States, reference: States) -> States:
    return move * (reference.norm(dim=-1, keepdim=True) / _length(move))
