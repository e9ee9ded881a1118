"""Items: generated programs in six families, or a user's own from a file."""

from brewlens.tasks.folds import (
    LeakageError,
    assign_folds,
    check_leakage,
    clusters,
    few_shapes,
    groups,
    universe_of,
)
from brewlens.tasks.generate import FAMILIES, configurations, generate, stream
from brewlens.tasks.item import Item, ItemSet
from brewlens.tasks.near_ood import near_ood
from brewlens.tasks.sources import ItemFileError, read_items

__all__ = [
    "FAMILIES",
    "Item",
    "ItemFileError",
    "ItemSet",
    "LeakageError",
    "assign_folds",
    "check_leakage",
    "clusters",
    "configurations",
    "few_shapes",
    "generate",
    "groups",
    "near_ood",
    "read_items",
    "stream",
    "universe_of",
]
