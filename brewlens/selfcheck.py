"""What must hold for a model before brewlens measures anything with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from brewlens.batching import Batch

if TYPE_CHECKING:
    from brewlens.answers import AnswerSpace
    from brewlens.model import AnswerLogits, HookedModel

# Two lengths, so that padding and injection into another prompt are exercised; two of one length, whose
# prefixes must not be mistaken for each other.
DEFAULT_PROMPTS = (
    'x = 3\n# The value of x is "',
    'total = 4 + 1\n# The value of total is "',
    'y = 7\n# The value of y is "',
)
TOLERANCE = {torch.float32: 5e-5, torch.float64: 5e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


@dataclass(frozen=True)
class ModelCheck:
    """Result of the self-check. Errors are relative to the largest magnitude of what is compared.

    Attributes:
        additivity: ``resid_pre + attn_out + mlp_out`` against ``resid_post``, worst layer; where the
            model has no such taps, or they are not all of a block, ``resid_post`` against the next block's
            ``resid_pre``.
        taps: Whether attention and MLP outputs add up to their block.
        padding: Residuals of padded prompts against the same prompts alone.
        read_out: Read-out of the last residual against the model's own logits.
        no_op: Injection of a prompt's own residuals against the prompt left alone.
        edit: Smallest change of the answer logits, over layers, when a block output is negated (logits).
        answers: Number of answer tokens, distinct in context.
        grows: Whether injection into a growing batch gives what padded injection gives.
        refused: Why not, if not.
    """

    additivity: float
    taps: bool
    padding: float
    read_out: float
    no_op: float
    edit: float
    answers: int
    grows: bool
    refused: str = ""

    def __str__(self) -> str:
        what = (
            "residual additivity"
            if self.taps
            else "residual continuity (attention and MLP outputs do not add up to their block)"
        )
        return (
            f"self-check passed: {what} {self.additivity:.0e}, padding {self.padding:.0e}, read-out "
            f"{self.read_out:.0e}, no-op {self.no_op:.0e}, edit changes logits by {self.edit:.1f}, "
            f"{self.answers} answer tokens distinct in context"
            + ("" if self.grows else f"; injection runs padded, the slower way: {self.refused}")
        )


def check(model: HookedModel, prompts: Sequence[str] | None = None) -> ModelCheck:
    """Check a model on a few prompts.

    Raises:
        ModelError: Names the property that does not hold, the number found and the tolerance.
    """
    from brewlens.model import ModelError

    prompts = list(prompts or DEFAULT_PROMPTS)[:4]
    try:
        space = model.answer_space(prompts)
    except ValueError as error:
        raise ModelError(
            f"{model.name}: asked for ten digits that are distinct single tokens, found: {error}"
        ) from error
    tolerance = TOLERANCE.get(model.dtype, 5e-5)
    alone = [model.encode([prompt]) for prompt in prompts]
    try:
        with torch.no_grad():
            # The plain forward, with no hook of ours and no padding.
            full = [b.gather(model.bridge(b.tokens)) for b in alone]
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        raise ModelError(
            f"{model.name}: asked for a forward pass in {model.dtype}, found {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}. TransformerLens' bridge cannot run this architecture in "
            "this type; try float32, or another version of transformer-lens"
        ) from error
    residuals, _ = model.last_residuals(prompts)
    own = model.answer_logits(prompts, space)
    plain = type(own).of(torch.cat(full), space)
    singly = torch.cat([model.last_residuals([prompt])[0] for prompt in prompts])

    edited = model.inject(-residuals, prompts, space)
    change = (edited.logits - own.logits[:, None]).abs().amax(dim=(0, 2))
    unchanged = model.inject(residuals, prompts, space)
    refused = _refusal(model, residuals, prompts, space, edited, tolerance)
    additivity, taps = _additivity(model, model.encode(prompts))
    result = ModelCheck(
        additivity=additivity,
        taps=taps,
        padding=max(_relative(residuals, singly), difference(own, plain)),
        read_out=difference(model.read_out(singly[:, model.n_layers - 1], space), plain),
        no_op=max(difference(unchanged[:, layer], own) for layer in range(model.n_layers)),
        edit=float(change.min()),
        answers=len(space),
        grows=not refused,
        refused=refused,
    )
    wrong = {
        name: value
        for name in ("additivity", "padding", "read_out", "no_op")
        # Not "value > tolerance": a NaN must fail too.
        if not (value := getattr(result, name)) <= tolerance
    }
    if not result.edit > tolerance * float(own.logits.abs().max()):
        wrong["edit"] = result.edit
    if wrong:
        found = ", ".join(f"{name} {value:.2g}" for name, value in wrong.items())
        raise ModelError(
            f"{model.name}: the self-check failed, asked for errors below {tolerance:.0e} and an edit that "
            f"changes the logits, found {found}. Results would be wrong, so the model is refused: check that "
            "its weights are untouched, or try dtype float32 or another version of transformer-lens"
        )
    return result


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().max() / b.float().abs().max())


def difference(a: AnswerLogits, b: AnswerLogits) -> float:
    """Largest difference of class logits or the rest's, relative to the largest class logit."""
    scale = b.logits.abs().max()
    logits, other = (a.logits - b.logits).abs().max(), (a.log_other - b.log_other).abs().max()
    return float(torch.maximum(logits, other) / scale)


def _refusal(
    model: HookedModel,
    residuals: Tensor,
    prompts: Sequence[str],
    space: AnswerSpace,
    padded: AnswerLogits,
    tolerance: float,
) -> str:
    """Why injection by a growing batch cannot be had for this model; nothing if it can."""
    from brewlens.model import ModelError

    model.grows = True
    try:
        grown = model.inject(-residuals, prompts, space)
    except ModelError:
        return "in a growing batch a row that is not written differs from a plain forward"
    except (RuntimeError, TypeError, AttributeError, ValueError, LookupError) as error:
        # Recurrent layers and masks built per row refuse a batch that grows, each in its own way.
        return f"a growing batch raises {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    finally:
        model.grows = False
    found = difference(grown, padded)
    return "" if found <= tolerance else f"a growing batch differs by {found:.1e}"


def _additivity(model: HookedModel, batch: Batch) -> tuple[float, bool]:
    names = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
    seen: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(x: Tensor, hook: object) -> None:
            seen[name] = batch.gather(x).float()

        return hook

    wanted = [f"blocks.{layer}.{name}" for layer in range(model.n_layers) for name in names]
    with torch.no_grad(), model.hooks([(n, keep(n)) for n in wanted if n in model.bridge.hook_dict]):
        model.bridge(batch.tokens, use_cache=False)

    def at(layer: int, name: str) -> Tensor:
        return seen[f"blocks.{layer}.{name}"]

    # A block may hold more than the two: a state-space path beside attention, for one.
    more = {name for block in model.bridge.blocks for name in block.submodules} & {"mamba", "ssm", "mixer"}
    if all(n in seen for n in wanted) and not more:
        error = 0.0
        for layer in range(model.n_layers):
            parts = torch.stack([at(layer, name) for name in names[:3]])
            # Rounding is relative to the summands, which may cancel.
            off = (parts.sum(0) - at(layer, names[3])).abs().max() / parts.abs().sum(0).max()
            error = max(error, float(off))
        return error, True
    later = range(1, model.n_layers)
    return max((_relative(at(n, names[0]), at(n - 1, names[3])) for n in later), default=0.0), False
