"""Ridge classifier for many layers, folds and label sets: least squares, one class against the rest.

One per (layer, problem), with targets +1 for the class and -1 for the others, and scikit-learn's
``RidgeClassifier`` with ``alpha = 1 / (2 C)``:

    C * sum over training rows and classes of (W x + b - target)^2  +  1/2 ||W||^2,     b without penalty,

where ``x`` is standardised by the problem's own training rows. In closed form, by one Cholesky factor in
float64 per (layer, problem); the Gram matrix of the training rows is that of all rows less that of the
others, which are few.

Its scores estimate ``2 P(class) - 1``. Their arg max is the classifier's decision; a softmax over them is no
probability, so calibration and entropy of a ridge probe mean little.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from brewlens.decoding.multinomial import Design, Solution


@torch.no_grad()
def solve_ridge(
    design: Design,
    target: Int[Tensor, "problem row"],
    n_classes: int,
    C: float | Float[Tensor, "layer problem"],
) -> Solution:
    """Solve every (layer, problem).

    Args:
        design: Residuals and training rows.
        target: Class of each row in each problem; of rows outside a problem's training rows it is not read.
        n_classes: Number of classes. The score of one that a problem's training rows lack is minus infinity.
        C: Inverse strength of the L2 penalty; ``alpha = 1 / (2 C)``.

    Raises:
        ValueError: If a problem's training rows have fewer than two classes, or ``C`` is not positive.
    """
    z, train = design.z, design.train
    C = torch.as_tensor(C, dtype=torch.float64, device=z.device).expand(design.ratio.shape[:2])
    onehot = torch.nn.functional.one_hot(target.where(train, 0), n_classes).double() * train[..., None]
    present = onehot.any(1)
    if (present.sum(1) < 2).any():
        raise ValueError("a probe needs training samples of at least two answers, found one")
    if not (C > 0).all():
        raise ValueError(f"C is the inverse strength of the penalty and positive, found {C.min().item()}")
    v = torch.empty(*design.ratio.shape[:2], n_classes, z.shape[2], device=z.device)
    for layer in range(len(z)):
        rows = z[layer, :, :-1].double()
        gram = rows.T @ rows
        for problem, chosen in enumerate(train):
            out = rows[~chosen]
            v[layer, problem] = _solve(
                gram - out.T @ out,
                rows[chosen],
                2 * onehot[problem, chosen] - 1,
                design.ratio[layer, problem, :-1].double(),
                0.5 / C[layer, problem],
            )
    logits = design.logits(v).masked_fill_(~present[None, :, :, None], -torch.inf)
    once = torch.ones(v.shape[:2], dtype=torch.int64, device=z.device)
    return Solution(v, logits, z.new_zeros(v.shape[:2]), once, 0.0)


def _solve(
    gram: Float[Tensor, "d_model d_model"],
    rows: Float[Tensor, "train d_model"],
    target: Float[Tensor, "train class"],
    ratio: Float[Tensor, "d_model"],
    alpha: Float[Tensor, ""],
) -> Float[Tensor, "class column"]:
    """Weights for the columns of ``z`` and, last, the intercept."""
    alive = ratio > 0
    mean, centre = rows.mean(0), target.mean(0)
    gram = (gram - len(rows) * mean[:, None] * mean) * alive * alive[:, None]
    gram.diagonal().add_(torch.where(alive, alpha / ratio.square(), 1.0))
    cross = (rows.T @ (target - centre)) * alive[:, None]
    weight = torch.cholesky_solve(cross, torch.linalg.cholesky(gram))
    return torch.cat([weight, (centre - mean @ weight)[None]]).T.float()
