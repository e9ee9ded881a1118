"""Items: generated programs in six families or a user's own, or programs from a file."""

from brewlens.tasks.draft import Call, Draft, Function, Sketch
from brewlens.tasks.families import FAMILIES, family
from brewlens.tasks.folds import (
    LeakageError,
    assign_folds,
    check_leakage,
    clusters,
    few_shapes,
    groups,
    universe_of,
)
from brewlens.tasks.generate import configurations, generate, stream
from brewlens.tasks.item import Item, ItemSet
from brewlens.tasks.near_ood import near_ood
from brewlens.tasks.sources import ItemFileError, read_items, write_items

__all__ = [
    "FAMILIES",
    "Call",
    "Draft",
    "Function",
    "Item",
    "ItemFileError",
    "ItemSet",
    "LeakageError",
    "Sketch",
    "assign_folds",
    "check_leakage",
    "clusters",
    "configurations",
    "family",
    "few_shapes",
    "generate",
    "groups",
    "near_ood",
    "read_items",
    "stream",
    "universe_of",
    "write_items",
]
