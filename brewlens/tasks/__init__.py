"""Items: generated programs in six families, or a user's own from a file."""

from brewlens.tasks.folds import LeakageError, assign_folds, check_leakage, groups, universe_of
from brewlens.tasks.generate import FAMILIES, configurations, generate, stream
from brewlens.tasks.item import Item, ItemSet

__all__ = [
    "FAMILIES",
    "Item",
    "ItemSet",
    "LeakageError",
    "assign_folds",
    "check_leakage",
    "configurations",
    "generate",
    "groups",
    "stream",
    "universe_of",
]
