"""Sizes of what is measured, and what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

PARTS = ("injection", "scaling", "causal", "capture", "probes", "memory")


@dataclass(frozen=True)
class Shape:
    """Of a Qwen2: pre-norm blocks of grouped-query attention and a gated MLP.

    Attributes:
        layers: Number of blocks.
        width: Of the residual stream.
        heads: Of the queries.
        key_heads: Of the keys and values.
        inner: Width of the MLP.
        vocabulary: Number of tokens; the first 257 are the padding and one per byte.
    """

    layers: int
    width: int
    heads: int
    key_heads: int
    inner: int
    vocabulary: int = 260

    @classmethod
    def of(cls, layers: int, width: int) -> Shape:
        """A small model: heads of width 32, two queries per key, an MLP of three times the width."""
        return cls(layers, width, max(1, width // 32), max(1, width // 64), 3 * width)

    @property
    def block_flops(self) -> int:
        """Of one token in one block: two per entry of its matrices. Attention over positions is left out."""
        keys = self.width * self.key_heads // self.heads
        return 2 * (2 * self.width * (self.width + keys) + 3 * self.width * self.inner)

    def injection_flops(self, samples: int) -> int:
        """Of ``samples`` at every layer: what is written at block ``l`` passes ``L - 1 - l`` blocks."""
        return samples * self.layers * (self.layers - 1) // 2 * self.block_flops


@dataclass(frozen=True)
class Limit:
    """What is asked of a number; an end that is None is open."""

    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Settings:
    """One run.

    Attributes:
        name: Of these sizes.
        device: Where models and probes run.
        dtype: Of models: ``float32`` or ``bfloat16``.
        cores: Threads of capture and probes.
        repeats: How often each way is timed; the best counts.
        gemm: Sides of the square matrices whose product gives the peak.
        limits: Line -> what is asked of it.
        shape: Of the model of injection and capture.
        target: Tokens of a target prompt.
        samples: Injected at every layer.
        naive_samples: Of these, run by the loops of one forward per sample and layer.
        row_samples: Of these, run as rows of full prompts.
        scaling_samples: Numbers of samples, at ``shape``.
        scaling_layers: Numbers of layers.
        scaling_layers_samples: Samples at each number of layers.
        causal_samples: Programs of the grid of causal use, on the bundled reference model.
        causal_naive_samples: Of these, run by the loop of one forward per cell.
        prompts: Captured in turns with the bare forwards.
        whole_prompts: Captured once into shards, in a process of its own, for the memory.
        tokens: Least and most tokens of a prompt.
        probe_layers, probe_width, items, folds: Of the probes.
        epochs: Most of the Adam loop.
        probe_repeats: How often these are timed.
        fitted_layers: How many of the layers scikit-learn fits.
        stripped_shape: Of the model of the long context-stripped run.
        stripped_items: Two sizes of that run.
    """

    name: str
    device: str
    dtype: str
    cores: int
    repeats: int
    gemm: tuple[int, ...]
    shape: Shape
    target: int
    samples: int
    naive_samples: int
    row_samples: int
    scaling_samples: tuple[int, ...]
    scaling_layers: tuple[int, ...]
    scaling_layers_samples: int
    causal_samples: int
    causal_naive_samples: int
    prompts: int
    whole_prompts: int
    tokens: tuple[int, int]
    probe_layers: int
    probe_width: int
    items: int
    folds: int
    epochs: int
    probe_repeats: int
    fitted_layers: int
    stripped_shape: Shape
    stripped_items: tuple[int, int]
    limits: Mapping[str, Limit] = field(default_factory=dict)

    @property
    def tolerance(self) -> float:
        """Relative difference up to which results are equal: rounding, in another order of summation."""
        return 5e-5 if self.dtype == "float32" else 1e-2


PROCESSOR = Settings(
    name="processor",
    device="cpu",
    dtype="float32",
    cores=2,
    repeats=3,
    gemm=(1024, 1536, 2048, 3072),
    shape=Shape.of(16, 256),
    target=8,
    samples=256,
    naive_samples=8,
    row_samples=64,
    scaling_samples=(64, 128, 256, 512, 1024),
    scaling_layers=(4, 8, 16, 32),
    scaling_layers_samples=256,
    causal_samples=200,
    causal_naive_samples=2,
    prompts=300,
    whole_prompts=2000,
    tokens=(60, 110),
    probe_layers=28,
    probe_width=896,
    items=4050,
    folds=5,
    epochs=1000,
    probe_repeats=2,
    fitted_layers=4,
    stripped_shape=Shape.of(8, 64),
    stripped_items=(2430, 24300),
    limits={
        "injection.naive": Limit(at_least=60),
        "injection.peak": Limit(at_least=0.5),
        "injection.error": Limit(at_most=5e-5),
        "injection.memory": Limit(at_most=64),
        "scaling.samples": Limit(0.9, 1.1),
        "scaling.layers": Limit(1.8, 2.2),
        "causal.naive": Limit(at_least=20),
        "causal.error": Limit(at_most=5e-5),
        "capture.ratio": Limit(at_most=1.2),
        "capture.error": Limit(at_most=5e-5),
        "capture.memory": Limit(at_most=100),
        "probes.ratio_1": Limit(at_least=2),
        "probes.accuracy_1": Limit(-0.5, 0.5),
        "probes.agreement_0.1": Limit(at_least=99),
        "stripped.growth": Limit(at_most=1.2),
    },
)

# The shape of Qwen2.5-Coder-7B; its vocabulary counts in the read-out.
ACCELERATOR = replace(
    PROCESSOR,
    name="accelerator",
    device="cuda",
    dtype="bfloat16",
    cores=8,
    gemm=(4096, 8192, 16384),
    shape=Shape(28, 3584, 28, 4, 18944, 152064),
    samples=810,
    naive_samples=20,
    row_samples=81,
    scaling_samples=(102, 203, 405, 810, 1620),
    scaling_layers=(7, 14, 28),
    scaling_layers_samples=405,
    prompts=2430,
    whole_prompts=24300,
    tokens=(85, 85),
    probe_width=3584,
    fitted_layers=2,
    limits={
        "injection.seconds": Limit(at_most=1),
        "injection.error": Limit(at_most=1e-2),
        "causal.error": Limit(at_most=1e-2),
        "capture.error": Limit(at_most=1e-2),
        "capture.seconds": Limit(at_most=120),
        "probes.seconds_1": Limit(at_most=10),
        "probes.seconds_0.1": Limit(at_most=10),
        "probes.agreement_0.1": Limit(at_least=99),
        "stripped.growth": Limit(at_most=1.2),
    },
)

QUICK = replace(
    PROCESSOR,
    name="quick",
    repeats=1,
    gemm=(128,),
    shape=Shape.of(4, 64),
    samples=16,
    naive_samples=2,
    row_samples=8,
    scaling_samples=(4, 8, 16),
    scaling_layers=(2, 4, 8),
    scaling_layers_samples=8,
    causal_samples=6,
    causal_naive_samples=1,
    prompts=12,
    whole_prompts=24,
    tokens=(12, 24),
    probe_layers=3,
    probe_width=24,
    items=300,
    epochs=20,
    probe_repeats=1,
    fitted_layers=2,
    stripped_shape=Shape.of(3, 32),
    stripped_items=(40, 160),
    limits={},
)


def settings_for(device: str, quick: bool) -> Settings:
    """The sizes for a device; toy sizes if ``quick``, whose numbers are held to no limit."""
    if quick:
        return replace(QUICK, device=device, dtype="float32" if device == "cpu" else "bfloat16")
    return PROCESSOR if device == "cpu" else replace(ACCELERATOR, device=device)
