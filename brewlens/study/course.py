"""Course: the stages of a run by name, which of them is running, and how long the rest takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from brewlens.study import tables
from brewlens.study.analysis import CONSTANT_PROMPT
from brewlens.study.keys import options_of, shards
from brewlens.study.pipeline import decoders
from brewlens.study.plan import Plan

NEAR_OOD = "residuals/near_ood.safetensors"
_WORDS = {
    "tokens": "tokens of the items",
    NEAR_OOD: "reading near-OOD programs",
    "decoding/surface": "surface baseline",
    "decoding/context_stripped": "context-stripped decoding",
    f"decoding/{CONSTANT_PROMPT}": "context-stripped decoding, constant prompt",
    "analysis": "onsets, nulls and claims",
    tables.INTERVENTIONS: "effects",
    "report": "figures and report",
}
_QUICK = ("items", "tokens", "decoding/surface", "decoding/logit_lens", "readouts")


def words(stage: str) -> str:
    """What a stage does, as its progress bar and log line say it."""
    if stage in _WORDS:
        return _WORDS[stage]
    if stage.startswith("residuals/"):
        return "reading residuals"
    return stage.rpartition("/")[2].replace("_", " ")


@dataclass
class Course:
    """The stages that a run comes to.

    Attributes:
        stages: Their names, in order.
        seconds: Seconds that a stage takes, where it has been timed.
    """

    stages: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, n: int) -> Course:
        """The course of a plan over ``n`` items."""
        asked = [f"{tables.INTERVENTIONS}/{name}" for name in plan.interventions]
        near = [NEAR_OOD] if plan.per_family_ood else []
        decoding = [f"decoding/{name}" for name in decoders(options_of(plan))]
        effects = [tables.INTERVENTIONS] if asked else []
        stages = ("items", "tokens", *shards(n), *near, *decoding, "readouts", "analysis", *asked, *effects)
        return cls((*stages, "tables", "report"))

    def expect(self, timings: Mapping[str, float], n: int, near_ood: int) -> None:
        """Take over what :func:`brewlens.study.timing.timings` measured."""
        reading = [stage for stage in self.stages if stage.startswith("residuals/") and stage != NEAR_OOD]
        self.seconds |= {stage: timings["residuals"] / len(reading) for stage in reading}
        self.seconds[NEAR_OOD] = timings["residuals"] * near_ood / n
        self.seconds |= {f"decoding/{name}": timings[name] for name in ("context_stripped", "probe")}

    def took(self, stage: str, seconds: float) -> None:
        """Correct what is expected of the stages of the same kind that are left."""
        if not stage.startswith("residuals/") or not self.seconds.get(stage):
            return
        factor = seconds / self.seconds[stage]
        for other in self.stages[self.stages.index(stage) :]:
            if other.startswith("residuals/"):
                self.seconds[other] *= factor

    def line(self, stage: str) -> str:
        """``stage 3 of 12: reading residuals``, with the time left to the readouts where it is known."""
        if stage not in self.stages:
            return words(stage)
        at = self.stages.index(stage)
        left = self.left(stage)
        time = "" if left is None else f"; about {_span(left)} to the readouts"
        return f"stage {at + 1} of {len(self.stages)}: {words(stage)}{time}"

    def left(self, stage: str) -> float | None:
        """Seconds from the start of a stage to the readouts; None where a stage between is not timed."""
        last = self.stages.index("readouts")
        rest = [s for s in self.stages[self.stages.index(stage) : last] if s not in _QUICK]
        if not rest or not all(s in self.seconds for s in rest):
            return None
        return sum(self.seconds[s] for s in rest)


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
