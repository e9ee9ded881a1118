"""Multinomial logistic regression for many layers, folds and label sets at once, on any device.

The objective is scikit-learn's, one per (layer, problem); a problem is a set of training rows with a target
each:

    C * sum over training rows of -log softmax(W x + b)[y]  +  1/2 ||W||^2,     b without penalty,

where ``x`` is standardised by the mean and the deviation of the problem's own training rows. Two classes are
fitted like more of them; scikit-learn then fits one vector of weights, which is the same with ``C`` doubled.

Three things make it fast. The residuals of a layer are kept once, in the standardisation of all rows, and
each problem's own one is folded into its weights and penalty, so that the logits of all problems are one wide
matrix product in place of many thin ones. L-BFGS (Liu & Nocedal 1989) is preconditioned by one Cholesky
factor per layer of

    gamma * X'X + I / C,

which at equal probabilities (gamma = 1 / classes) is the Hessian itself but for its class part, and is
Böhning's bound (Ann. Inst. Stat. Math. 44, 1992) with gamma = 1/2; gamma follows the mean of p (1 - p).
And a line search needs no product: along a direction the logits are linear. The objective being convex, it
looks at slopes alone, which float32 holds where differences of the objective drown.

Rows that are scored take part in the preconditioner and in the reference of the standardisation. Both change
the way to the solution, and the solution by no more than ``tol``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from brewlens.brief import brief

TOL = 1e-5
MAX_ITER = 500

_HISTORY = 10  # pairs of L-BFGS
_SLOPE = 0.5  # a step may end where the slope has turned to at most this share of what it was
_DEAD = 1e-12  # variance in the training rows, relative to all rows, from which down a dimension is constant


@dataclass(frozen=True, eq=False)
class Design:
    """The residuals of some layers, standardised over all rows, and how each problem's differs.

    Attributes:
        z: ``[layer, row, d_model + 1]`` float32; the last column is one.
        mean: ``[layer, d_model]`` of all rows.
        scale: ``[layer, d_model]`` deviation of all rows; one where it is zero.
        ratio: ``[layer, problem, d_model + 1]``: ``scale`` over the deviation in the problem's training rows;
            zero where that is zero; one for the column of ones.
        shift: ``[layer, problem, d_model + 1]``: mean of ``z`` over the problem's training rows; zero for the
            ones.
        train: ``[problem, row]`` the training rows.
        gram: ``[layer, d_model + 1, d_model + 1]`` products of the columns of ``z``; where rows are fewer,
            ``[layer, row, row]``, those of its rows.
    """

    z: Float[Tensor, "layer row column"]
    mean: Float[Tensor, "layer d_model"]
    scale: Float[Tensor, "layer d_model"]
    ratio: Float[Tensor, "layer problem column"]
    shift: Float[Tensor, "layer problem column"]
    train: Bool[Tensor, "problem row"]
    gram: Float[Tensor, "layer side side"]

    @classmethod
    def of(cls, x: Float[Tensor, "layer row d_model"], train: Bool[Tensor, "problem row"]) -> Design:
        """Standardise; ``x`` may be of any floating dtype and is copied.

        Raises:
            ValueError: If shapes do not match, a problem has no training row, or residuals are not finite.
        """
        if x.ndim != 3 or train.ndim != 2 or train.shape[1] != x.shape[1]:
            raise ValueError(
                "residuals are [layer, row, d_model] and training rows [problem, row]; found "
                f"{list(x.shape)} and {list(train.shape)}"
            )
        if not train.any(1).all():
            raise ValueError("every problem needs training rows; found one without")
        x = x.float()
        deviation, mean = torch.std_mean(x.double(), 1, correction=0)
        if not deviation.isfinite().all():
            raise ValueError(
                "residuals hold NaN or infinity; look at the model's dtype, then capture them again"
            )
        scale = torch.where(deviation > 0, deviation, 1.0)
        z = torch.cat([(x - mean[:, None].float()) / scale[:, None].float(), x.new_ones(*x.shape[:2], 1)], 2)
        weight = train.double() / train.sum(1, keepdim=True)
        exact = z.double()
        shift = weight @ exact
        variance = weight @ exact.square() - shift.square()
        ratio = torch.where(variance > _DEAD, variance.clamp_min(_DEAD).rsqrt(), 0.0).float()
        ratio[..., -1], shift[..., -1] = 1, 0
        return cls(z, mean.float(), scale.float(), ratio, shift.float(), train, _gram(z))

    def layers(self, index: Int[Tensor, "chosen"]) -> Design:
        """Some of the layers."""
        names = ("z", "mean", "scale", "ratio", "shift", "gram")
        return replace(self, **{name: getattr(self, name)[index] for name in names})

    def problems(self, index: Int[Tensor, "chosen"]) -> Design:
        """Some of the problems, or one of them several times, as for several label sets."""
        return replace(self, ratio=self.ratio[:, index], shift=self.shift[:, index], train=self.train[index])

    def logits(
        self, v: Float[Tensor, "layer problem class column"]
    ) -> Float[Tensor, "layer problem class row"]:
        """Of every row, training row or not."""
        return (v.flatten(1, 2) @ self.z.mT).unflatten(1, v.shape[1:3])

    def raw(
        self, v: Float[Tensor, "layer problem class column"]
    ) -> tuple[Float[Tensor, "layer problem class d_model"], Float[Tensor, "layer problem class"]]:
        """Weight and bias for residuals as they are: ``logits = weight @ h + bias``."""
        weight = v[..., :-1].double() / self.scale[:, None, None].double()
        bias = v[..., -1].double() - (weight * self.mean[:, None, None].double()).sum(-1)
        return weight.float(), bias.float()

    __repr__ = brief


@dataclass(frozen=True, eq=False)
class Solution:
    """Solved problems.

    Attributes:
        v: ``[layer, problem, class, d_model + 1]`` weights for :attr:`Design.z`; see :meth:`Design.raw`.
        logits: ``[layer, problem, class, row]`` of every row; minus infinity for a class without training
            rows.
        gradient: ``[layer, problem]`` largest entry of the gradient of the objective over ``C`` and over the
            number of training rows: what scikit-learn's ``tol`` bounds.
        iterations: ``[layer, problem]``.
        tol: What ``gradient`` was to come down to.
    """

    v: Float[Tensor, "layer problem class column"]
    logits: Float[Tensor, "layer problem class row"]
    gradient: Float[Tensor, "layer problem"]
    iterations: Int[Tensor, "layer problem"]
    tol: float

    @property
    def converged(self) -> Bool[Tensor, "layer problem"]:
        return self.gradient <= self.tol

    __repr__ = brief


@torch.no_grad()
def solve(
    design: Design,
    target: Int[Tensor, "problem row"],
    n_classes: int,
    C: float | Float[Tensor, "layer problem"],
    *,
    start: Float[Tensor, "layer problem class column"] | None = None,
    tol: float = TOL,
    max_iter: int = MAX_ITER,
) -> Solution:
    """Solve every (layer, problem).

    Args:
        design: Residuals and training rows.
        target: Class of each row in each problem; of rows outside a problem's training rows it is not read.
        n_classes: Number of classes. One that a problem's training rows lack is left out of it.
        C: Inverse strength of the L2 penalty.
        start: Where to start, as the solution at another ``C``. Default: zero.
        tol: Stop a problem when its :attr:`Solution.gradient` is at most this. scikit-learn's default is
            1e-4.
        max_iter: Stop all then; see :attr:`Solution.converged`.

    Raises:
        ValueError: If a problem's training rows have fewer than two classes, or ``C`` is not positive.
    """
    run = _Run(
        design, target, n_classes, torch.as_tensor(C, dtype=torch.float32, device=design.z.device), start
    )
    layers, problems = design.ratio.shape[:2]
    v = design.z.new_zeros(layers, problems, n_classes, design.z.shape[2])
    logits = design.z.new_empty(layers, problems, n_classes, design.z.shape[1])
    gradient = design.z.new_empty(layers, problems)
    iterations = torch.zeros(layers, problems, dtype=torch.int64, device=v.device)
    for step in range(max_iter + 1):
        size = run.gradient_size()
        open_ = size > tol
        gradient[run.index] = size
        iterations[run.index] += open_ if step < max_iter else 0
        running = open_.any(1)
        last = step == max_iter or not running.any()
        if last or int(running.sum()) <= 0.75 * len(running):
            done = run.index if last else run.index[~running]
            rows = torch.arange(len(running), device=v.device) if last else (~running).nonzero()[:, 0]
            v[done], logits[done] = run.v[rows], run.a[rows]
            if last:
                break
            keep = running.nonzero()[:, 0]
            run.keep(keep)
            open_ = open_[keep]
        run.step(open_)
    return Solution(v, logits, gradient, iterations, tol)


class _Run:
    """State of the L-BFGS of the layers that are not done."""

    def __init__(
        self, design: Design, target: Tensor, n_classes: int, C: Tensor, start: Tensor | None
    ) -> None:
        train = design.train
        onehot = torch.nn.functional.one_hot(target.where(train, 0), n_classes).mT.float() * train[:, None]
        present = onehot.any(2)
        if (present.sum(1) < 2).any():
            raise ValueError("a probe needs training samples of at least two answers, found one")
        if not (C > 0).all():
            raise ValueError(f"C is the inverse strength of the penalty and positive, found {C.min().item()}")
        self.design, self.onehot, self.mask = design, onehot, train[:, None].float()
        self.n_train = train.sum(1)
        self.index = torch.arange(len(design.z), device=design.z.device)
        self.C = C.expand(design.ratio.shape[:2])
        self.penalty = (1 / design.ratio.square() / self.C[..., None]).nan_to_num(posinf=0.0)[:, :, None]
        self.penalty[..., -1] = 0
        self.alive = (design.ratio > 0).float()[:, :, None]
        shape = (*design.ratio.shape[:2], n_classes, design.z.shape[2])
        self.v = design.z.new_zeros(shape) if start is None else start * present[None, :, :, None]
        absent = torch.zeros_like(present, dtype=torch.float32).masked_fill(~present, -torch.inf)
        self.a = design.logits(self.v) + absent[None, :, :, None]
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.residual = self._residual(self.a)
        self.g = self._gradient()
        self.gamma = self._curvature()
        self.ridge, self.factor = self._factor()

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the layers."""
        self.design = self.design.layers(rows)
        for name in ("index", "C", "penalty", "alive", "v", "a", "residual", "g", "gamma", "ridge", "factor"):
            setattr(self, name, getattr(self, name)[rows])
        self.pairs = [(s[rows], y[rows], rho[rows]) for s, y, rho in self.pairs]

    def gradient_size(self) -> Float[Tensor, "layer problem"]:
        """In each problem's own standardisation, for the mean over its training rows."""
        return (self.g * self.design.ratio[:, :, None]).abs().amax((2, 3)) / self.n_train

    def step(self, open_: Bool[Tensor, "layer problem"]) -> None:
        """One iteration; problems that are not open stay as they are."""
        gamma = (self.gamma * self._curvature()).sqrt()  # damped: early steps overshoot
        if ((gamma < 0.7 * self.gamma) | (gamma > 1.4 * self.gamma)).any():
            self.gamma = gamma
            self.ridge, self.factor = self._factor()
        direction = self._direction()
        da = self.design.logits(direction)
        slope = _dot(self.g, direction)
        linear = _dot(self.penalty * self.v, direction)
        square = _dot(self.penalty * direction, direction)
        t = open_.float()
        for _ in range(20):
            a = self.a + t[..., None, None] * da
            residual = self._residual(a)
            reached = _dot(residual, da) + linear + t * square
            far = open_ & (reached > -_SLOPE * slope)
            if not far.any():
                break
            t = torch.where(
                far, t * (-slope / (reached - slope)), t
            )  # secant; the slope grows along the line
        moved = t[..., None, None] * direction
        self.v, self.a, self.residual = self.v + moved, a, residual
        before, self.g = self.g, self._gradient()
        change = self.g - before
        curvature = _dot(moved, change)
        rho = torch.where(curvature > 0, 1 / curvature, 0.0)
        self.pairs = [*self.pairs, (moved, change, rho)][-_HISTORY:]

    def _residual(self, a: Tensor) -> Tensor:
        return a.softmax(2).mul_(self.mask).sub_(self.onehot)

    def _gradient(self) -> Tensor:
        g = (self.residual.flatten(1, 2) @ self.design.z).view_as(self.v)
        return g.addcmul_(self.penalty, self.v).mul_(self.alive)

    def _curvature(self) -> Float[Tensor, "layer"]:
        """Mean of p (1 - p), so scaled that equal probabilities give 1 / classes."""
        p = self.residual.abs()  # where the class is right, 1 - p
        classes = p.shape[2]
        mean = (p - p.square()).sum((1, 2, 3)) / (self.n_train.sum() * (classes - 1))
        return mean.clamp_min(1e-5)

    def _factor(self) -> tuple[Float[Tensor, "layer 1 1"], Float[Tensor, "layer side side"]]:
        """The ridge, and the inverse of the Cholesky factor of the scaled Gram matrix with the ridge.

        The inverse, because applying it is a matrix product, which a GPU does best.
        """
        matrix = self.design.gram * self._weight()
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        ridge = torch.maximum((-self.C.log().mean(1)).exp(), 1e-6 * diagonal.amax(1))[:, None]
        if self._wide():
            diagonal += ridge
        else:
            diagonal[:, :-1] += ridge
        identity = torch.eye(matrix.shape[1], device=matrix.device).expand_as(matrix)
        factor = torch.linalg.solve_triangular(torch.linalg.cholesky(matrix), identity, upper=False)
        return ridge[..., None], factor

    def _weight(self) -> Float[Tensor, "layer 1 1"]:
        """gamma, for the share of the rows that are trained on."""
        share = self.n_train.double().mean().item() / self.mask.shape[2]
        return (self.gamma * share)[:, None, None]

    def _wide(self) -> bool:
        return self.design.gram.shape[1] != self.design.z.shape[2]

    def _precondition(self, q: Tensor) -> Tensor:
        """The inverse of ``gamma Z'Z + ridge``; by Woodbury's identity where rows are fewer than columns."""
        flat, z = q.flatten(1, 2), self.design.z
        if not self._wide():
            return ((flat @ self.factor.mT) @ self.factor).view_as(q)
        inner = ((flat @ z.mT) @ self.factor.mT) @ self.factor
        return ((flat - self._weight() * (inner @ z)) / self.ridge).view_as(q)

    def _direction(self) -> Tensor:
        """Two-loop recursion of L-BFGS."""
        q, weights = self.g, []
        for s, y, rho in reversed(self.pairs):
            weights.append(rho * _dot(s, q))
            q = q - weights[-1][..., None, None] * y
        q = self._precondition(q) * self.alive
        for (s, y, rho), weight in zip(self.pairs, reversed(weights), strict=True):
            q = q + (weight - rho * _dot(y, q))[..., None, None] * s
        return q.neg_()


def _gram(z: Float[Tensor, "layer row column"]) -> Float[Tensor, "layer side side"]:
    return z @ z.mT if z.shape[1] < z.shape[2] else z.mT @ z


def _dot(a: Tensor, b: Tensor) -> Float[Tensor, "layer problem"]:
    pairs = a.shape[0] * a.shape[1]
    return (a.reshape(pairs, 1, -1) @ b.reshape(pairs, -1, 1)).view(a.shape[:2])
