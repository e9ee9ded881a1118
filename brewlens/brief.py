"""One line for an object that holds tensors: their shapes, never their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields
from typing import Any

_TEXT, _LINE, _FEW = 60, 400, 4


def brief(self: Any) -> str:
    """A dataclass in one line of at most 400 characters; a class takes it by ``__repr__ = brief``."""
    parts = [f"{field.name}={_said(getattr(self, field.name))}" for field in fields(self) if field.repr]
    return f"{type(self).__name__}({_cut(', '.join(parts), _LINE - 40)})"


def _said(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        size = " x ".join(map(str, value.shape)) or "scalar"
        return f"[{size} {str(value.dtype).removeprefix('torch.')}]"
    if hasattr(value, "shape") and hasattr(value, "columns"):
        return f"[{len(value)} rows x {len(value.columns)} columns]"
    if isinstance(value, str | bytes):
        return _cut(repr(value[: _TEXT + 1]), _TEXT)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return f"{{{len(value)} entries}}"
    if isinstance(value, Sequence | AbstractSet):
        if len(value) <= _FEW and isinstance(value, tuple | list):
            return _cut(f"({', '.join(map(_said, value))})", _TEXT)
        return f"({len(value)} of them)"
    return _cut(" ".join(repr(value).split()), _TEXT)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
