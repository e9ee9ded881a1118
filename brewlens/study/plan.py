"""Plan: everything that decides what a run computes. Read from TOML, strict, frozen."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from brewlens import defaults
from brewlens.answers import Scoring
from brewlens.defaults import N_GENERATED
from brewlens.tasks import FAMILIES

INTERVENTIONS = (
    "causal_use",
    "fjc_patching",
    "layer_skipping",
    "reinjection",
    "transplant",
    "components",
    "rescue",
)


class PlanError(ValueError):
    """A plan cannot be read. The text names the file, the option, and what to do."""


class Plan(BaseModel):
    """What to run. Every field is an option of the command line or a line of a study file.

    Attributes:
        model: A bundled name, a local Hugging Face folder, or a hub id.
        families: Families of generated items; not used with ``items``.
        n: Items per family, by default 810 generated ones; of an items file the first ``n``, by default all.
        seed: Seed of items and folds.
        items: A JSON-lines file of the user's own items, instead of generated ones.
        folds: Number of folds.
        classes: The answers that are told apart: a list, or ``items`` for those that the items file has.
            Default: the ten digits.
        scoring: ``token`` where every answer is one token, ``first`` to go by the first token of each,
            ``sequence`` for the log-probability of the whole answer.
        end: What follows an answer, for ``sequence``.
        probe: ``logistic``, ``ridge`` or ``mlp``.
        probe_c: Inverse strength of the probe's L2 penalty; by default chosen inside the folds.
        near_ood: Near-OOD programs per family that the probe learns as ``other``. Default: a tenth of ``n``,
            as many as of each digit, for generated items where that is at least ten; none for an items file.
        prompts: ``own`` reads readiness with each sample's own question; ``bundled`` with nine prompts more
            besides.
        tuned_lens: Train and read a tuned lens too, out of fold.
        tail_start: The tail is every layer ``l >= floor(tail_start * L)``.
        confident: The least tail confidence of a misresolved sample.
        compat: ``paper`` scores the run by the published recipe too, from readouts with its constant target
            prompt, and shows both side by side; digits only.
        resamples: Permutations of the answers, and shifts along depth, behind every null.
        interventions: Experiments on the finished trace: ``causal_use``, ``fjc_patching``,
            ``layer_skipping``, ``reinjection``, ``transplant``, ``components``, ``rescue``. They do not
            change the rest of the run: the same folder takes them later, too.
        intervention_n: About how many samples of each family or outcome the experiments edit at most.
        dtype: Type of weights and stored residuals: ``float32``, ``bfloat16`` or ``float16``.
        device: ``auto`` takes a GPU when there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str = defaults.MODEL
    families: tuple[str, ...] = FAMILIES
    n: Annotated[int, Field(ge=1)] | None = None
    seed: int = defaults.SEED
    items: str | None = None
    folds: Annotated[int, Field(ge=2)] = defaults.FOLDS
    classes: tuple[str, ...] | Literal["items"] | None = None
    scoring: Scoring = defaults.SCORING
    end: str = defaults.END
    probe: Literal["logistic", "ridge", "mlp"] = defaults.PROBE
    probe_c: Annotated[float, Field(gt=0)] | None = None
    near_ood: Annotated[int, Field(ge=0)] | None = None
    prompts: Literal["own", "bundled"] = defaults.PROMPTS
    tuned_lens: bool = defaults.TUNED_LENS
    tail_start: Annotated[float, Field(ge=0, lt=1)] = defaults.TAIL_START
    confident: Annotated[float, Field(ge=0, le=1)] = defaults.CONFIDENT
    compat: Literal["paper"] | None = None
    resamples: Annotated[int, Field(ge=99)] = defaults.RESAMPLES
    interventions: tuple[str, ...] = ()
    intervention_n: Annotated[int, Field(ge=10)] = defaults.INTERVENTION_N
    dtype: Literal["float32", "bfloat16", "float16"] = defaults.DTYPE
    device: str = defaults.DEVICE

    @field_validator("families", mode="before")
    @classmethod
    def _known(cls, families: object) -> object:
        if not isinstance(families, list | tuple):
            raise ValueError("families must be a list of family names")
        if unknown := [f for f in families if f not in FAMILIES]:
            raise ValueError(f"unknown family {unknown[0]!r}; the families are {', '.join(FAMILIES)}")
        if len(set(families)) != len(families) or not families:
            raise ValueError("name each family once, at least one")
        return tuple(families)

    @field_validator("interventions", mode="before")
    @classmethod
    def _experiments(cls, names: object) -> object:
        if names == "all" or names == ["all"]:
            return INTERVENTIONS
        if not isinstance(names, list | tuple):
            raise ValueError('interventions must be a list of experiments, or "all"')
        if unknown := [name for name in names if name not in INTERVENTIONS]:
            raise ValueError(f"no experiment {unknown[0]!r}; there are all, {', '.join(INTERVENTIONS)}")
        return tuple(name for name in INTERVENTIONS if name in names)

    @field_validator("classes", mode="before")
    @classmethod
    def _distinct(cls, classes: object) -> object:
        if classes is None or classes == "items":
            return classes
        if not isinstance(classes, list | tuple) or len(set(classes)) != len(classes) or len(classes) < 2:
            raise ValueError('classes must be a list of at least two different answers, or "items"')
        return tuple(classes)

    @model_validator(mode="after")
    def _one_source(self) -> Plan:
        if self.items is not None and self.families != FAMILIES:
            raise ValueError("families are those of generated programs; give families or items, not both")
        if self.items is not None and self.near_ood:
            raise ValueError("near-OOD programs are made for generated families; leave near_ood out")
        if self.items is None and self.classes is not None:
            raise ValueError("generated programs are answered by digits; give classes with an items file")
        if self.folds < 3 and (self.probe == "mlp" or (self.probe == "logistic" and self.probe_c is None)):
            raise ValueError("two folds leave nothing to choose the probe on; give probe_c, or three folds")
        if self.compat == "paper" and (self.classes is not None or self.scoring != "token"):
            raise ValueError("the paper's recipe knows the ten digits; leave classes and scoring out")
        if self.end and self.scoring != "sequence":
            raise ValueError("end is what follows a whole answer; give it with scoring = 'sequence'")
        return self

    @property
    def per_family(self) -> int | None:
        """Items per family; None for all that a file has."""
        return N_GENERATED if self.n is None and self.items is None else self.n

    @property
    def per_family_ood(self) -> int:
        """Near-OOD programs per family."""
        if self.near_ood is not None:
            return self.near_ood
        tenth = (self.per_family or N_GENERATED) // 10
        return 0 if self.items is not None or tenth < 10 else tenth

    @property
    def torch_device(self) -> str | None:
        """The device as torch knows it; None leaves the choice to :func:`brewlens.load_model`."""
        return None if self.device == "auto" else self.device

    def stated(self) -> dict[str, object]:
        """The plan as plain data, defaults that depend on other fields filled in."""
        return {**self.model_dump(mode="json"), "n": self.per_family, "near_ood": self.per_family_ood}

    @property
    def key(self) -> str:
        """Hash of what decides the trace; where it is computed does not, nor what is done with it later."""
        content = {
            **self.model_dump(exclude={"device", "interventions", "intervention_n"}),
            "n": self.per_family,
            "near_ood": self.per_family_ood,
        }
        if self.items is not None:
            content["items"] = _file_hash(Path(self.items))
            del content["families"]
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()


def _file_hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PlanError(f"items file {path}: {error.strerror}") from None


def make_plan(study: str | Path | None = None, **options: object) -> Plan:
    """A plan from a study file, with options on top of it; ``None`` leaves a field as it is.

    Raises:
        PlanError: If the file is not there or not TOML, or a field is unknown or out of range.
    """
    fields: dict[str, object] = {}
    where = "options"
    if study is not None:
        path, where = Path(study), str(study)
        try:
            fields = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(f"study file {path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise PlanError(f"study file {path} is not TOML: {error}") from None
        if fields.get("items") is not None:
            fields["items"] = str(path.parent / str(fields["items"]))
    fields.update((name, value) for name, value in options.items() if value is not None)
    try:
        return Plan(**fields)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(
            ": ".join([*map(str, e["loc"]), _plain(e, Plan.model_fields)]) for e in error.errors()
        )
        raise PlanError(f"{where}: {problems}") from None


def _plain(error, fields) -> str:
    if error["type"] == "extra_forbidden":
        return f"no such option; the options are {', '.join(fields)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{message}, found {error['input']!r}" if error["loc"] else message
