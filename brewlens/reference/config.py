"""What a training run is told, and what it finds out about the machine that it runs on."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import Qwen2Config

EASY_LEVELS: dict[str, tuple[str | int, ...]] = {"depth": (1,), "steps": (2,), "iterations": (2,)}
"""The factor levels that training starts with."""

_MAY_CHANGE = {"minutes", "steps", "device", "threads", "compile", "eval_minutes", "checkpoint_minutes"}


@dataclass(frozen=True)
class TrainConfig:
    """How to train the reference model. The defaults are the bundled model's.

    Attributes:
        minutes: Planned time, in minutes of wall clock, interruptions not counted. None: no limit.
        steps: Planned number of steps. None: no limit. With both, whichever is used up first.
        seed: Seeds the weights, the tokenizer's programs and the stream of programs.
        device: ``cpu`` or ``cuda``.
        precision: ``float32``, ``bfloat16`` (of the matrix products), or ``auto``: bfloat16 where the
            device has instructions for it.
        compile: Whether to compile the block. Worth it on a GPU; slower on two cores.
        threads: Threads of the matrix products on a processor. None: PyTorch's default.
        layers: Number of blocks.
        width: Width of the residual stream.
        heads: Query heads.
        kv_heads: Key and value heads.
        mlp_width: Width of the SwiGLU layer.
        vocab_size: Upper limit of the vocabulary.
        tokenizer_programs: Programs that the tokenizer is learned on.
        batch: Programs per step.
        chunk: Programs per buffer, within which programs of like length are put together.
        matrix_lr: Muon's learning rate, for the matrices in the blocks.
        other_lr: AdamW's learning rate, for embedding, norms and biases.
        momentum: Muon's momentum.
        weight_decay: Muon's weight decay.
        warmup_steps: Steps over which the learning rates rise from zero.
        answer_weight: Weight of the answer token in the loss.
        text_weight: Weight of every other token in the loss.
        easy_fraction: Fraction of the plan during which only the easiest levels are shown.
        bare_from: Fraction of the plan after which one program in 64 is a question without a program.
        eval_items: Held-out items per family in the periodic evaluation; 0 for none.
        eval_minutes: Minutes between evaluations.
        checkpoint_minutes: Minutes between checkpoints.
    """

    minutes: float | None = None
    steps: int | None = None
    seed: int = 0
    device: str = "cpu"
    precision: str = "auto"
    compile: bool = False
    threads: int | None = None
    layers: int = 12
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    mlp_width: int = 384
    vocab_size: int = 1152
    tokenizer_programs: int = 12_000
    batch: int = 32
    chunk: int = 2048
    matrix_lr: float = 3e-3
    other_lr: float = 3e-3
    momentum: float = 0.95
    weight_decay: float = 0.05
    warmup_steps: int = 100
    answer_weight: float = 5.0
    text_weight: float = 0.1
    easy_fraction: float = 0.2
    bare_from: float = 0.5
    eval_items: int = 270
    eval_minutes: float = 5.0
    checkpoint_minutes: float = 3.0

    def __post_init__(self) -> None:
        if self.minutes is None and self.steps is None:
            raise ValueError("training needs a plan: give minutes, steps, or both")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision is auto, float32 or bfloat16; found {self.precision!r}")
        if self.chunk % self.batch:
            raise ValueError(f"chunk ({self.chunk}) must be a multiple of batch ({self.batch})")

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)

    def check_resume(self, stored: dict[str, Any]) -> None:
        """Refuse to go on with a run that was started with another recipe.

        Args:
            stored: The fields of the run's configuration.

        Raises:
            ValueError: If a field differs that changes what is learned. Plan, device, threads and the
                intervals of evaluation and checkpoints may change.
        """
        mine = self.to_dict()
        other = {
            f: (stored.get(f), mine[f]) for f in mine if f not in _MAY_CHANGE and stored.get(f) != mine[f]
        }
        if other:
            raise ValueError(
                "this run was started with another recipe; (stored, asked): "
                + ", ".join(f"{name} {pair}" for name, pair in sorted(other.items()))
                + "; resume with the stored values or train into a new folder"
            )

    def changed(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def fraction(self, step: int, seconds: float) -> float:
        """How much of the plan is used up after ``step`` steps and ``seconds`` of training, 0 to 1."""
        by_step = step / self.steps if self.steps else 0.0
        by_time = seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_step, by_time))

    def stage(self, fraction: float) -> Literal["easy", "all", "bare"]:
        """Which programs are shown after a fraction of the plan."""
        if fraction < self.easy_fraction:
            return "easy"
        return "bare" if fraction >= self.bare_from else "all"

    def rate(self, step: int, fraction: float) -> float:
        """Factor on the learning rates at a 0-based step: a short rise, then a line down to zero."""
        rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return rise * (1.0 - fraction)

    def model_config(self, vocab_size: int) -> Qwen2Config:
        """The Qwen2 configuration, for a tokenizer of ``vocab_size`` tokens whose end token is id 0."""
        from transformers import Qwen2Config

        return Qwen2Config(
            vocab_size=vocab_size,
            hidden_size=self.width,
            intermediate_size=self.mlp_width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=0,
            architectures=["Qwen2ForCausalLM"],
        )


def hardware(device: str = "cpu") -> dict[str, str | int]:
    """Processor, number of usable cores, accelerator if used, and versions, as the machine reports them."""
    import torch
    import transformers

    found: dict[str, str | int] = {
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return found


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = _cpuinfo("flags").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _cpuinfo(field: str) -> str:
    """The first value of a field of Linux' list of processors; empty where there is none."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""
