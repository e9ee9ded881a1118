"""A subspace learned to carry the answer: distributed alignment search (DAS).

Where a probe's weights say what can be read, DAS looks for what is used: per layer, an orthonormal basis is
trained so that exchanging a recipient's coordinates in it for a donor's, at the last token, makes the model
say the donor's answer (Geiger et al. 2024, arXiv 2303.02536). TransformerLens' ``fit_das`` does it; the model
itself is left as it is.

What it finds is no evidence by itself: it may find a way to the answer that the model does not take. So
halves of the programs that share no shape are trained on apart, a sample is edited in the basis learned from
the other half, and what is said is judged against placebos of the same rank.

The only module of this room that imports TransformerLens, when a basis is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from brewlens import html
from brewlens.intervention.edits import Subspace
from brewlens.intervention.last_token import Continuation, continuation
from brewlens.intervention.pairs import Pairs, draw_pairs, halves
from brewlens.progress import bar
from brewlens.stats import clustered_share

if TYPE_CHECKING:
    import pandas as pd

    from brewlens.answers import AnswerSpace
    from brewlens.model import HookedModel
    from brewlens.results import Trace

_STATE = "state"  # the one hook point of what fit_das takes for a model
_READ_ONLY = -1  # in place of a recipient: the state is looked at, and nothing is run


@dataclass(frozen=True, eq=False)
class Learned:
    """Learned subspaces and how they were learned.

    Attributes:
        subspace: Groups are the two halves; each sample's basis was trained on the other half. In a layer
            that was not trained it is random.
        layers: Blocks (0-based) that were trained.
        pairs: What was trained and judged on.
        losses: ``[group, layer, epoch]`` mean cross-entropy in training, nats.
        table: Interchange accuracy on pairs of the half that a basis was not trained on. Tidy: group, layer,
            rank, n_trained (pairs), loss of the last epoch, n (held-out pairs) and n_shapes;
            follows, the share of them in which the model says the donor's answer, with low and high of its
            95 % interval. Without an edit it is zero: recipients are answered rightly, donors otherwise.
    """

    subspace: Subspace
    layers: tuple[int, ...]
    pairs: Pairs
    losses: Float[np.ndarray, "group layer epoch"]
    table: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """The table."""
        return self.table

    def __repr__(self) -> str:
        return (
            f"Learned({self.subspace.rank} dimensions at {len(self.layers)} layers, from {len(self.pairs)} "
            "pairs in two halves)"
        )

    def _repr_html_(self) -> str:
        """One row per half: held-out pairs that follow the donor, by layer with intervals."""
        rows = []
        for group, found in self.table.groupby("group", sort=False):
            drawn = html.sparkline(
                found["follows"],
                f"half {group}: share that follows",
                low=0,
                high=1,
                band=(found["low"], found["high"]),
                labels=list(found["layer"]),
            )
            row: dict[str, object] = {"half": group, "n": max(found["n"]), "rank": self.subspace.rank}
            rows.append(row | {"greatest": max(found["follows"]), "follows, by layer": drawn})
        return html.card(repr(self), html.table(rows), html.note("Bands: 95 % intervals by shape."))


def learned_subspace(
    model: HookedModel,
    trace: Trace,
    space: AnswerSpace,
    *,
    rank: int | None = None,
    layers: Sequence[int] | None = None,
    pairs: int = 1200,
    epochs: int = 1,
    batch_size: int = 32,
    lr: float = 0.01,
    judged: int = 400,
    seed: int = 0,
    progress: bool = False,
) -> Learned:
    """Learn, layer by layer, the subspace whose exchange makes the model say the donor's answer.

    All families are learned from together. The keys and values of the recipients' prompts, as many as
    ``pairs``, are kept in the model's memory while it lasts.

    Args:
        model: The model.
        trace: Its trace.
        space: The answer classes, one token each.
        rank: Dimensions; default: one fewer than there are classes.
        layers: Blocks (0-based) to train; default: all.
        pairs: Recipient and donor pairs of each half.
        epochs: Passes over them; more pairs teach more than more passes do.
        batch_size: Pairs per step.
        lr: Learning rate of Adam.
        judged: Most held-out pairs that a basis is judged on.
        seed: Of the halves, the pairs, the first basis and the order of pairs.
        progress: Show a progress bar.

    Raises:
        ValueError: If a class has several tokens, a layer or rank is not there, a number is below one, or too
            few samples are answered rightly.
    """
    import pandas as pd

    if not space.single:
        raise ValueError(
            "a subspace is learned for answers of one token each, found "
            f"{max(map(len, space.sequences))} tokens; take other classes, or scoring='first'"
        )
    rank = len(space) - 1 if rank is None else rank
    trained = tuple(range(model.n_layers) if layers is None else layers)
    if not 0 < rank <= model.d_model:
        raise ValueError(f"a subspace of {model.name} has 1 to {model.d_model} dimensions, asked for {rank}")
    if not trained or not set(trained) <= set(range(model.n_layers)):
        raise ValueError(f"{model.name} has layers 0 to {model.n_layers - 1}, asked for {list(trained)}")
    if min(pairs, epochs, judged) < 1:
        raise ValueError(
            "a basis needs pairs, a pass over them, and pairs that it is judged on; asked for "
            f"pairs={pairs}, epochs={epochs}, judged={judged}"
        )
    half = halves(trace.items, trace.shapes, seed)
    drawn = draw_pairs(model, trace, space, half, pairs, seed, progress=progress)
    run = continuation(model, drawn.ids, space)
    bases = _random_bases(model, rank, seed)
    losses, records = np.empty((2, len(trained), epochs)), []
    with bar(total=2 * len(trained), shown=progress, unit="fit", work="learned subspaces") as done:
        for group in (0, 1):
            train = (drawn.half != group).nonzero()[:, 0]
            held_out = (drawn.half == group).nonzero()[:judged, 0]
            for at, layer in enumerate(trained):
                bases[group, layer], losses[group, at] = fit_layer(
                    *(model, run, drawn, train, layer, rank),
                    epochs=epochs,
                    batch_size=batch_size,
                    lr=lr,
                    seed=seed,
                )
                follows = _followed(run, drawn, held_out, layer, bases[group, layer])
                if (share := clustered_share(follows, drawn.cluster[held_out.numpy()])) is not None:
                    records.append(
                        {
                            "group": group,
                            "layer": layer,
                            "rank": rank,
                            "n_trained": len(train),
                            "loss": losses[group, at, -1],
                            "n": share.n,
                            "n_shapes": share.clusters,
                            "follows": share.value,
                            "low": share.low,
                            "high": share.high,
                        }
                    )
                done.update()
    subspace = Subspace("learned", bases, torch.from_numpy(half))
    return Learned(subspace, trained, drawn, losses, pd.DataFrame(records))


def fit_layer(
    model: HookedModel,
    run: Continuation,
    pairs: Pairs,
    rows: Int[Tensor, "row"],
    layer: int,
    rank: int,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
) -> tuple[Float[Tensor, "d_model rank"], tuple[float, ...]]:
    """Train one basis.

    Args:
        model: The model.
        run: Of the pairs' recipients.
        pairs: All pairs.
        rows: Those that are trained on.
        layer: Block (0-based).
        rank: Dimensions.
        epochs: As in :func:`learned_subspace`, like the rest.
        batch_size: Pairs per step.
        lr: Learning rate.
        seed: Seed.

    Returns:
        The orthonormal basis, and the mean loss of each epoch in nats.
    """
    from transformer_lens.tools.analysis.interchange import fit_das

    tap = _StateTap(model.bridge.original_model)
    states = pairs.states[:, layer].to(model.device)

    def task_logits(inputs: Int[Tensor, "row two"]) -> Tensor:
        state = tap(states[inputs[:, 1].to(states.device)])
        if (inputs[:, 0] == _READ_ONLY).all():
            return state[:, :0]
        return run(inputs[:, 0], layer, state)

    recipient, donor = pairs.recipient[rows], pairs.donor[rows]
    with torch.enable_grad():
        found = fit_das(
            tap,
            _STATE,
            torch.stack([recipient, recipient], 1),
            torch.stack([torch.full_like(donor, _READ_ONLY), donor], 1),
            pairs.target[rows],
            task_logits,
            rank=rank,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            seed=seed,
        )
    return found.basis.cpu(), found.losses


class _StateTap(torch.nn.Module):
    """What ``fit_das`` takes for the model: a state passes through, and hooks may change it.

    It has the model's parameters, which are frozen in training, and the state of a last token as its one
    activation. Blocks in front of it need not run, and prompts of any length share a batch.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = False
        self._attached: list[tuple[str, Callable[..., Any]]] = []

    @contextmanager
    def hooks(self, fwd_hooks: Sequence[tuple[str, Callable[..., Any]]]) -> Iterator[_StateTap]:
        if unknown := [name for name, _ in fwd_hooks if name != _STATE]:
            raise ValueError(f"asked for hook points {unknown}, there is {_STATE!r}")
        self._attached.extend(fwd_hooks)
        try:
            yield self
        finally:
            self._attached.clear()

    def forward(self, x: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        for _, hook in self._attached:
            changed = hook(x, hook=self)
            x = x if changed is None else changed
        return x


@torch.no_grad()
def _followed(
    run: Continuation,
    pairs: Pairs,
    rows: Int[Tensor, "row"],
    layer: int,
    basis: Float[Tensor, "d_model rank"],
) -> np.ndarray:
    """Whether the model says the donor's answer, of some pairs."""
    own, donor = (pairs.states[at[rows], layer] for at in (pairs.recipient, pairs.donor))
    said = run(pairs.recipient[rows], layer, own + (donor - own) @ basis @ basis.T).argmax(-1)
    return (said.cpu() == pairs.target[rows]).numpy()


def _random_bases(model: HookedModel, rank: int, seed: int) -> Float[Tensor, "group layer d_model rank"]:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(2, model.n_layers, model.d_model, rank, generator=generator))[0]
