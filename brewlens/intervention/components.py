"""Components: what attention, MLP and heads of each layer add to the right logit, less a wrong one.

Direct logit attribution (Elhage et al. 2021; Wang et al. 2023, arXiv 2211.00593). At the last token the
final residual is a sum: the embedding, and what attention and MLP of each block add. With the scale of the
final norm held at what it is, logits are linear in that sum, and each component has its share of a logit
difference:

    contribution = ((component / scale) * weight) @ (W_U[right] - W_U[wrong])

with the component's own mean taken off first where the norm is a layer norm. Weights are the raw ones. What
the biases of the norm and of the unembedding add is the component ``bias``. All together are the model's
own logit difference, before a soft cap or scale of the logits; a model in which they are not is refused.

``wrong`` is what the model says instead; where it says the right answer, the strongest other class. A
positive contribution speaks for the right answer.

Heads of attention with a norm behind it (Gemma 2 and 3, OLMo 2) are read through that norm too, at its
scale. What heads leave of their layer's attention is the bias of the output projection.

What it does not show: it is the *direct* effect only. What a component writes for a later one to read
counts as the later one's. A large contribution says where a logit is written, not where the answer is
decided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int

from brewlens import html
from brewlens.decoding.surface_control import OVERALL
from brewlens.intervention.logit_parts import TAPS, LogitSplitter, Parts
from brewlens.lifecycle.landmarks import NEVER
from brewlens.stats import clustered_mean, detectable
from brewlens.stats.robust import Labels

if TYPE_CHECKING:
    import pandas as pd

    from brewlens.answers import AnswerSpace
    from brewlens.model import HookedModel
    from brewlens.tasks.item import ItemSet

BIAS, EMBED, ATTN, MLP = "bias", "embed", "attn", "mlp"
ALL = "all"


class Component(NamedTuple):
    """A summand of the logits.

    Attributes:
        component: ``bias``, ``embed`` (of token and position), ``attn`` or ``mlp``.
        layer: Block (0-based), or ``NEVER``.
    """

    component: str
    layer: int


def components_of(n_layers: int) -> tuple[Component, ...]:
    """Bias, embedding, attention 0, MLP 0, attention 1, ...; parallel blocks too have attention first."""
    blocks = [Component(name, layer) for layer in range(n_layers) for name in (ATTN, MLP)]
    return (Component(BIAS, NEVER), Component(EMBED, NEVER), *blocks)


@dataclass(frozen=True, eq=False, repr=False)
class Attribution:
    """What every component adds to the logits of the answers.

    Attributes:
        item_ids: Ids of the samples.
        classes: The answer classes.
        right: Index of each sample's right class.
        wrong: Index of the class that it is held against.
        components: The component axis.
        logits: ``[sample, component, class]``.
        heads: ``[sample, layer, head]`` right minus wrong, if asked for.
        error: Largest relative error of the sums, against the model's own logits.
    """

    item_ids: tuple[str, ...]
    classes: tuple[str, ...]
    right: Int[np.ndarray, "sample"]
    wrong: Int[np.ndarray, "sample"]
    components: tuple[Component, ...]
    logits: Float[np.ndarray, "sample component class"]
    heads: Float[np.ndarray, "sample layer head"] | None
    error: float

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def values(self) -> Float[np.ndarray, "sample component"]:
        """Right minus wrong, in logits."""
        rows = np.arange(len(self))
        return self.logits[rows, :, self.right] - self.logits[rows, :, self.wrong]

    def columns(self) -> tuple[Float[np.ndarray, "sample column"], pd.DataFrame]:
        """Right minus wrong of components and heads side by side, and what they are.

        Returns:
            The values, and one row per column of them: component, layer, head.
        """
        import pandas as pd

        places, values = [(*c, NEVER) for c in self.components], [self.values]
        if self.heads is not None:
            values.append(rearrange(self.heads, "sample layer head -> sample (layer head)"))
            places += [(ATTN, layer, head) for layer, head in np.ndindex(self.heads.shape[1:])]
        frame = pd.DataFrame(places, columns=["component", "layer", "head"])
        numbers = frame[["layer", "head"]].astype("Int64")
        frame[["layer", "head"]] = numbers.mask(numbers == NEVER)
        return np.concatenate(values, axis=1), frame

    def to_frame(self) -> pd.DataFrame:
        """One row per sample and component or head: id, right, wrong, component, layer, head, value."""
        import pandas as pd

        values, places = self.columns()
        samples, columns = rearrange(np.indices(values.shape), "index sample column -> index (sample column)")
        classes = np.array(self.classes)
        labels = {
            "id": np.array(self.item_ids)[samples],
            "right": classes[self.right[samples]],
            "wrong": classes[self.wrong[samples]],
        }
        frame = pd.concat([pd.DataFrame(labels), places.iloc[columns].reset_index(drop=True)], axis=1)
        return frame.assign(value=rearrange(values, "sample column -> (sample column)"))

    def __repr__(self) -> str:
        heads = "" if self.heads is None else f", heads {self.heads.shape[1]} x {self.heads.shape[2]}"
        return (
            f"Attribution({len(self)} samples x {len(self.components)} components{heads}, "
            f"error {self.error:.1e})"
        )

    def _repr_html_(self) -> str:
        """Mean contribution of attention and MLPs by layer, right minus wrong."""
        values = self.values.mean(axis=0) if len(self) else np.zeros(len(self.components))
        rows = []
        for kind in (ATTN, MLP):
            mean = [v for v, place in zip(values, self.components, strict=True) if place.component == kind]
            drawn = html.sparkline(mean, f"{kind}: mean right minus wrong, logits", line=0)
            rows.append({"component": kind, "n": len(self), "sum over layers": sum(mean), "by layer": drawn})
        return html.card(repr(self), html.table(rows), html.note("Logits; dashed is zero."))


def attribute(
    model: HookedModel,
    items: ItemSet,
    space: AnswerSpace,
    *,
    heads: bool = False,
    batch_tokens: int | None = None,
    progress: bool = False,
) -> Attribution:
    """What every component adds at the last token of every item's prompt.

    Args:
        model: The model. In 16 bits sums are only checked to a hundredth.
        items: The items.
        space: The answer classes, two or more of one token each.
        heads: Give what each head adds too.
        batch_tokens: Most tokens in one forward.
        progress: Show a progress bar.

    Raises:
        ValueError: If there are fewer than two classes, a class has several tokens, or an answer is none.
        ModelError: If the parts do not add up to the model's own logits.
    """
    if not space.single or len(space) < 2:
        raise ValueError(
            f"attribution needs two classes or more of one token each, found {dict(_some(space))}; longer "
            "answers can be told apart by their first tokens with scoring='first'"
        )
    right = torch.tensor([space.index(answer) for answer in items.answers])
    splitter = LogitSplitter(model, space)
    found: list[Parts] = []
    order = []
    for swept in model.sweep(
        model.ids(items.prompts),
        taps=(*TAPS, "z") if heads else TAPS,
        space=space,
        batch_tokens=batch_tokens,
        progress=progress,
    ):
        output: Any = swept.output
        found.append(splitter.split(swept.taps, output, right[swept.rows]))
        order.append(swept.rows)
    back = torch.argsort(torch.cat(order))

    def whole(name: str) -> np.ndarray:
        return torch.cat([getattr(parts, name) for parts in found])[back].numpy()

    return Attribution(
        items.ids,
        space.classes,
        right.numpy(),
        whole("wrong"),
        components_of(model.n_layers),
        whole("values"),
        whole("heads") if heads else None,
        max(parts.error for parts in found),
    )


def _some(space: AnswerSpace) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from list(zip(space.classes, space.sequences, strict=True))[:3]


def component_table(
    attribution: Attribution,
    families: Sequence[str],
    outcomes: Sequence[str] | np.ndarray,
    clusters: Labels,
) -> pd.DataFrame:
    """Mean contribution of every component, by family and outcome.

    Args:
        attribution: The contributions.
        families: Family of each sample.
        outcomes: Outcome of each sample.
        clusters: Shape of each sample.

    Returns:
        One row per family (and ``overall``, where there are several), outcome (and ``all``) and component or
        head: family, outcome, component, layer, head (missing where it is none), n, n_shapes, value (mean of
        right minus wrong, in logits), low, high (95 %, clustered by shape), detectable (in logits).

    Raises:
        ValueError: If there is not one label per sample.
    """
    import pandas as pd

    values, places = attribution.columns()
    shape, frames = np.asarray(clusters), []
    for family, outcome, rows in grouped(families, outcomes, len(attribution)):
        found: list[Any] = [clustered_mean(column, shape[rows]) for column in values[rows].T]
        labels = {"family": family, "outcome": outcome}
        numbers = {
            "n": len(rows),
            "n_shapes": found[0].clusters,
            "value": [f.value for f in found],
            "low": [f.low for f in found],
            "high": [f.high for f in found],
            "detectable": [detectable(f.se, f.df) for f in found],
        }
        frames.append(places.assign(**labels, **numbers)[[*labels, *places.columns, *numbers]])
    return pd.concat(frames, ignore_index=True)


def grouped(
    families: Sequence[str], outcomes: Sequence[str] | np.ndarray, n: int
) -> Iterator[tuple[str, str, Int[np.ndarray, "row"]]]:
    """Family (and all of them, where there are several), outcome (and all), and the samples that have them.

    Raises:
        ValueError: If there is not one label per sample.
    """
    family, outcome = np.asarray(families), np.asarray(outcomes)
    if family.shape != (n,) or outcome.shape != (n,):
        raise ValueError(
            f"asked for a family and an outcome of each of {n} samples, found shapes {family.shape} and "
            f"{outcome.shape}"
        )
    names = list(dict.fromkeys(family.tolist()))
    for name in [*names, OVERALL] if len(names) > 1 else names:
        for end in (ALL, *dict.fromkeys(outcome.tolist())):
            rows = np.flatnonzero(((family == name) | (name == OVERALL)) & ((outcome == end) | (end == ALL)))
            if len(rows):
                yield name, end, rows
