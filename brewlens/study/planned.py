"""Planned: the folder, items, classes, model and disk that a plan names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from brewlens.answers import DIGITS
from brewlens.model_source import content, shown_name
from brewlens.study.plan import N_GENERATED, Plan, PlanError
from brewlens.tasks import ItemSet, generate, read_items

if TYPE_CHECKING:
    from brewlens.model import HookedModel

MOST_CLASSES = 200  # of an items file; more are values to be computed, not a set to choose from


def default_folder(plan: Plan) -> Path:
    """``runs/<model>-<key of the plan>``: another plan, another folder."""
    return Path("runs") / f"{Path(shown_name(plan.model)).name}-{plan.key[:8]}"


def load_items(plan: Plan) -> ItemSet:
    """The items of a plan, generated or read from its file (the first ``n`` of it).

    Raises:
        ItemFileError: If the file cannot be used.
    """
    if plan.items is None:
        return generate(plan.families, n=plan.per_family or N_GENERATED, seed=plan.seed)
    named = DIGITS if plan.classes is None else None if plan.classes == "items" else plan.classes
    return read_items(plan.items, named)[: plan.n]


def classes_of(plan: Plan, items: ItemSet) -> tuple[str, ...]:
    """The answer classes of a plan: the digits, those that it names, or those that its items have.

    Raises:
        PlanError: If the items have too many or too few answers to be classes.
    """
    if plan.classes is None:
        return DIGITS
    if plan.classes != "items":
        return plan.classes
    found = tuple(sorted(set(items.answers)))
    if not 2 <= len(found) <= MOST_CLASSES:
        raise PlanError(
            f"{plan.items} has {len(found)} different answers, first {found[:5]}; as classes there must "
            f"be 2 to {MOST_CLASSES}"
        )
    return found


def load_planned(plan: Plan) -> tuple[HookedModel, dict[str, str] | None]:
    """The model of a plan, and what :func:`brewlens.model_source.content` says of its source.

    Raises:
        ModelError: If it cannot be loaded or fails its self-check.
    """
    from brewlens.loading import load_model

    known = content(plan.model)
    model = load_model(plan.model, device=plan.torch_device, dtype=plan.dtype)
    return model, known or content(plan.model)  # a model of the hub may have come only now


def disk_bytes(n: int, layers: int, width: int, dtype: str) -> int:
    """About what a run folder will take: residuals, readouts, tables, figures and report."""
    residuals = n * layers * width * (4 if dtype == "float32" else 2) * 6 // 5  # with near-OOD programs
    readouts = n * layers * (6 * 10 * 4 + 5 * 4)
    return residuals + 2 * readouts + n * 4000 + 25_000_000
