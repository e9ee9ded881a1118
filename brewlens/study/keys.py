"""Keys of a run's stages: hashes of whatever each stage depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from brewlens.capturing import SHARD
from brewlens.study import tables
from brewlens.study.pipeline import Options, decoders
from brewlens.study.plan import Plan
from brewlens.study.store import key_of
from brewlens.study.summary import versions


@dataclass(frozen=True)
class Keys:
    """Keys of the stages of one plan and model.

    Attributes:
        plan: The plan.
        weights_hash: Hash of the model's weights.
        tokenizer_hash: Hash of its tokenizer.
    """

    plan: Plan
    weights_hash: str
    tokenizer_hash: str

    @cached_property
    def items(self) -> str:
        return key_of("items", self.plan.key, versions()["brewlens"])

    @cached_property
    def tokens(self) -> str:
        return key_of("tokens", self.items, self.tokenizer_hash)

    @property
    def _model(self) -> str:
        return key_of(self.weights_hash, self.tokenizer_hash, self.plan.dtype)

    def residuals(self, name: str) -> str:
        """Key of a shard."""
        return key_of(name, self.items, self._model, SHARD)

    def near_ood(self, name: str, count: int, fingerprint: str) -> str:
        """Key of the shard of near-OOD programs."""
        return key_of(name, self.items, self._model, count, fingerprint)

    @cached_property
    def decoders(self) -> dict[str, str]:
        base = key_of(self.items, self._model)
        return {name: key_of(name, base) for name in decoders(options_of(self.plan))}

    @cached_property
    def readouts(self) -> str:
        return key_of("readouts", self.decoders)

    @property
    def analysis(self) -> str:
        return key_of("analysis", self.readouts)

    def experiment(self, name: str, n: int) -> str:
        """Key of an experiment on about ``n`` samples."""
        return key_of(tables.INTERVENTIONS, name, self.readouts, n)

    def after(self, stage: str, experiments: Sequence[str]) -> str:
        """Key of ``tables`` or ``report``, which show the experiments that are there."""
        return key_of(stage, self.readouts, experiments)


def merged(experiments: Sequence[str]) -> str:
    """Key of the effects of several experiments, given by their keys."""
    return key_of(tables.EFFECTS, experiments)


def shards(n: int) -> list[str]:
    """Names of the files that hold the residuals of ``n`` items."""
    return [f"residuals/{start // SHARD:05d}.safetensors" for start in range(0, n, SHARD)]


def options_of(plan: Plan) -> Options:
    """How a plan wants residuals decoded."""
    return Options(plan.probe, plan.probe_c, plan.prompts, plan.tuned_lens, plan.seed, plan.compat)
