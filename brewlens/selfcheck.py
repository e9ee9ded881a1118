"""What must hold for a model before brewlens measures anything with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from brewlens.batching import Batch
from brewlens.errors import ModelError
from brewlens.rows import Rows

if TYPE_CHECKING:
    from brewlens.model import AnswerLogits, HookedModel

# Two lengths, so that padding and injection into another prompt are exercised; two of one length, whose
# prefixes must not be mistaken for each other.
DEFAULT_PROMPTS = (
    'x = 3\n# The value of x is "',
    'total = 4 + 1\n# The value of total is "',
    'y = 7\n# The value of y is "',
)
TESTED = {"transformers": "5.24.0", "transformer-lens": "4.3.0"}
"""The newest pair of libraries whose batches are known to grow."""
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
        refused: If not: the reason, the versions of the libraries, and how many times longer it takes.
        prompts: What it was checked on.
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
    prompts: tuple[str, ...] = ()

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
    rows = Rows.of(model, -residuals, model.ids(prompts), space)
    refused = _refusal(model, rows, edited.reshape(len(rows)), tolerance)
    if refused:
        target = max(model.ids(DEFAULT_PROMPTS), key=len)
        refused = (
            f"{refused} ({_versions()}). Patching a prompt of {len(target)} tokens takes about "
            f"{slowdown(model, target):.0f} times as long"
        )
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
        prompts=tuple(prompts),
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


def _refusal(model: HookedModel, rows: Rows, expected: AnswerLogits, tolerance: float) -> str:
    """Why injection by a growing batch cannot be had for this model; nothing if it can."""
    from brewlens.injection import run

    try:
        grown = run(model, rows, grows=True)[0]
    except ModelError as error:
        return str(error).removeprefix(f"{model.name}: ").partition(";")[0]
    except (RuntimeError, TypeError, AttributeError, ValueError, LookupError) as error:
        # Recurrent layers and masks built per row refuse a batch that grows, each in its own way.
        return f"a growing batch raises {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    found = difference(grown, expected)
    return "" if found <= tolerance else f"a growing batch differs by {found:.1e}"


def _versions() -> str:
    here, tested = (", ".join(f"{n} {v(n)}" for n in TESTED) for v in (version, TESTED.__getitem__))
    return f"{here}; the newest versions that brewlens is tested with are {tested}"


def slowdown(model: HookedModel, target: tuple[int, ...]) -> float:
    """How many times longer injection takes padded than in a batch that grows, measured on this machine.

    Eight rows for every layer run a whole target prompt. Rows of a growing batch run its last token, and pass
    half of the blocks on average: that is as much as half of the rows that pass all of them.
    """
    rows = 8 * model.n_layers

    def seconds(count: int, tokens: tuple[int, ...]) -> float:
        batch, times = model.batch([tokens] * count), []
        for _ in range(3):
            start = time.perf_counter()
            model.read_from(batch, lambda x, hook: x[:1, :1]).cpu()
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(rows, target) / seconds(rows // 2, target[-1:])


@dataclass(frozen=True)
class TapCheck:
    """What the first injection inside blocks measured; three blocks answer for all.

    Attributes:
        tap: What is overwritten: ``attn_out``, ``mlp_out`` or ``z``.
        no_op: Injection of a prompt's own states against the prompt left alone.
        grows: Whether a growing batch gives what padded injection gives.
        refused: Why not, if not.
    """

    tap: str
    no_op: float
    grows: bool
    refused: str = ""


def check_tap(model: HookedModel, tap: str) -> TapCheck:
    """Check injection at a tap, on prompts that the model was loaded with.

    Raises:
        ModelError: If the model has no such tap, or what is written there does not reach the answer.
    """
    from brewlens.injection import run

    ids = model.ids(model.check.prompts[:2])
    space = model.answer_space(model.check.prompts)
    # A hybrid model has it in some blocks; in the others, asking for it is an error of its own.
    there = [layer for layer in range(model.n_layers) if model.tap(tap, layer) in model.bridge.hook_dict]
    if not there:
        raise ModelError(
            f"{model.name}: asked to write at {tap!r}, found no such hook point in any block; write at the "
            "block outputs (resid_post), or look at model.bridge.hook_dict"
        )
    layers = sorted({there[0], there[len(there) // 2], there[-1]})
    own = model.states(ids, tap=tap, layers=layers)[:, :, 0]
    # Not a constant, which a LayerNorm takes out again; and not small, where own states vanish.
    other = own + (1 + own.abs().max()) * torch.linspace(-1, 1, own.shape[-1])
    rows = [Rows.of(model, values, ids, space, layers=layers, tap=tap) for values in (own, other)]
    unchanged, changed = (run(model, row, grows=False)[0] for row in rows)
    plain = model.base_logits(ids, space)[rows[0].target]
    tolerance = TOLERANCE.get(model.dtype, 5e-5)
    no_op = difference(unchanged, plain)
    edit = float((changed.logits - unchanged.logits).abs().max())
    if not (no_op <= tolerance and edit > 0):
        raise ModelError(
            f"{model.name}: asked to write at {tap!r}, found that a prompt's own states, written there, "
            f"change its answer by {no_op:.2g} (at most {tolerance:.0e} is rounding) and others by "
            f"{edit:.2g}; the model does not use this hook point as it is named. Write at the block outputs "
            "(resid_post), or try another version of transformer-lens"
        )
    refused = model.check.refused or _refusal(model, rows[1], changed, tolerance)
    return TapCheck(tap, no_op, not refused, refused)


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
