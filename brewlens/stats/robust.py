"""Cluster-robust inference on a linear contrast: CR2 variance with Satterthwaite degrees of freedom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from einops import einsum
from jaxtyping import Float, Int

Labels = Sequence[Any] | np.ndarray
"""One label per sample, strings or whole numbers; samples of one label are one cluster."""


def cluster_codes(clusters: Labels | None, n: int) -> Int[np.ndarray, "sample"]:
    """Labels as whole numbers from 0; without labels each sample is a cluster.

    Raises:
        ValueError: If there is not one label per sample.
    """
    if clusters is None:
        return np.arange(n)
    labels = np.asarray(clusters)
    if labels.shape != (n,):
        raise ValueError(f"needs one label per sample, {n} in all; found labels of shape {labels.shape}")
    return np.unique(labels, return_inverse=True)[1].reshape(n)


@dataclass(frozen=True)
class Contrast:
    """A linear contrast of least-squares coefficients.

    Attributes:
        value: The contrast.
        se: Its cluster-robust standard error.
        df: Its degrees of freedom; 0 where there is one cluster.
        correlation: Correlation of residuals within a cluster, between 0 and 1.
    """

    value: float
    se: float
    df: float
    correlation: float


def contrast(
    design: Float[np.ndarray, "sample column"],
    values: Float[np.ndarray, "sample"],
    codes: Int[np.ndarray, "sample"],
    weights: Float[np.ndarray, "column"],
) -> Contrast:
    """Weighted sum of least-squares coefficients, with its cluster-robust error.

    The variance is CR2 for an identity working model: residuals of a cluster are multiplied by
    ``(I - H_gg)^(-1/2)`` (Bell and McCaffrey 2002, Survey Methodology 28), with the generalised inverse
    where a cluster alone sets a coefficient (Pustejovsky and Tipton 2018). The degrees of freedom are
    Satterthwaite's under one correlation within clusters, estimated from the residuals (Imbens and Kolesár
    2016). It takes time and memory in proportion to the samples.

    Args:
        design: Columns of full rank.
        values: Values to fit, in any unit.
        codes: Cluster of each sample, from 0 without gaps.
        weights: Weight of each coefficient.
    """
    columns = design.shape[1]
    basis, triangle = np.linalg.qr(design)  # in this basis X'X is the identity
    direction = np.linalg.solve(triangle.T, weights)
    fitted = basis.T @ values
    residual = values - basis @ fitted
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    starts = np.cumsum(sizes) - sizes

    def sums(x: np.ndarray) -> np.ndarray:
        return np.add.reduceat(x[order], starts, axis=0)

    influence = basis @ direction / _root(1 - np.square(basis).sum(axis=1))
    shared = sizes > 1
    if shared.any():
        inside = order[shared[codes[order]]]
        within = np.cumsum(sizes[shared]) - sizes[shared]
        gram = np.add.reduceat(basis[inside, :, None] * basis[inside, None, :], within, axis=0)
        square, turn = np.linalg.eigh(gram)
        turned = einsum(turn, direction, "cluster column turned, column -> cluster turned") / _root(
            1 - square
        )
        adjusted = einsum(turn, turned, "cluster column turned, cluster turned -> cluster column")
        adjusted = np.repeat(adjusted, sizes[shared], axis=0)
        influence[inside] = (basis[inside] * adjusted).sum(axis=1)
    se = float(np.sqrt(np.square(sums(influence * residual)).sum()))

    rho = _correlation(residual, sums(residual), sizes)
    # The variance is a quadratic form in the values; under the working model its matrix has the eigenvalues
    # of (1 - rho) P'P + rho (Z'P)'(Z'P): a diagonal plus F K F', with two columns of F per coefficient.
    own, whole = sums(np.square(influence)), sums(influence)
    total = sums(basis)
    factor = np.concatenate([sums(basis * influence[:, None]), whole[:, None] * total], axis=1)
    identity = np.eye(columns)
    kernel = np.block(
        [
            [rho * total.T @ total - (1 - rho) * identity, -rho * identity],
            [-rho * identity, np.zeros((columns, columns))],
        ]
    )
    diagonal = (1 - rho) * own + rho * np.square(whole)
    rest = ((factor @ kernel) * factor).sum(axis=1)
    product = kernel @ (factor.T @ factor)
    trace = float((diagonal + rest).sum())
    trace_of_square = float((diagonal**2 + 2 * diagonal * rest).sum() + (product @ product).trace())
    df = trace**2 / trace_of_square if len(sizes) > 1 and trace_of_square > 0 else 0.0
    return Contrast(float(direction @ fitted), se, df, rho)


def _root(left: np.ndarray) -> np.ndarray:
    """Square root of what leverage leaves; infinity, which drops the part, where that is nothing."""
    return np.where(left > 1e-9, np.sqrt(np.maximum(left, 0)), np.inf)


def _correlation(residual: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> float:
    """Mean product of two residuals of a cluster, over their variance."""
    pairs, power = float((sizes * (sizes - 1)).sum()), float(np.square(residual).sum())
    if pairs == 0 or power == 0:
        return 0.0
    together = float(np.square(sums).sum()) - power
    return float(np.clip(together / pairs / (power / len(residual)), 0, 1))
