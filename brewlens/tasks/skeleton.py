"""Skeleton and shape: what two programs share when only their names, or also their literals, differ.

The *skeleton* of a program is its syntax tree with names abstracted and literals kept; two programs of
one skeleton are the same program renamed. The *shape* abstracts the literals too. Layout, comments and
redundant parentheses are not in the tree, so they change neither.

A name is abstracted when the program binds it (assignment, parameter, function, class, attribute that
is stored to); all other names, such as ``range`` or ``append``, are kept. Strings are literals.
"""

from __future__ import annotations

import ast
import hashlib
from functools import lru_cache

_NAME, _LITERAL = 0, 1


def tree_text(code: str) -> tuple[str, str]:
    """The skeleton and the shape of a program, written out.

    Raises:
        SyntaxError: If ``code`` is not Python.
    """
    parts: list[str | tuple[int, str]] = []
    bound: set[str] = set()
    _walk(ast.parse(code), parts, bound)
    order: dict[str, str] = {}
    skeleton, shape = [], []
    for part in parts:
        if isinstance(part, str):
            skeleton.append(part)
            shape.append(part)
            continue
        kind, text = part
        if kind == _NAME:
            text = order.setdefault(text, f"${len(order)}") if text in bound else text
            skeleton.append(text)
            shape.append(text)
        else:
            skeleton.append(text)
            shape.append("#")
    return " ".join(skeleton), " ".join(shape)


def digest(text: str) -> str:
    """64-bit hash of a written-out tree, in hexadecimal."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@lru_cache(maxsize=65536)
def identify(code: str) -> tuple[str, str]:
    """Skeleton hash and shape hash of a program. Text that is not Python is its own skeleton and shape."""
    try:
        skeleton, shape = tree_text(code)
    except (SyntaxError, ValueError, RecursionError):
        return digest(code), digest(code)
    return digest(skeleton), digest(shape)


def _walk(node: ast.AST, parts: list, bound: set[str]) -> None:
    kind = type(node)
    if kind is ast.Name:
        if type(node.ctx) is not ast.Load:  # type: ignore[attr-defined]
            bound.add(node.id)  # type: ignore[attr-defined]
        parts.append((_NAME, node.id))  # type: ignore[attr-defined]
        return
    if kind is ast.Constant:
        parts.append((_LITERAL, repr(node.value)))  # type: ignore[attr-defined]
        return
    parts.append(kind.__name__ + "(")
    if kind is ast.Attribute:
        _walk(node.value, parts, bound)  # type: ignore[attr-defined]
        if type(node.ctx) is not ast.Load:  # type: ignore[attr-defined]
            bound.add(node.attr)  # type: ignore[attr-defined]
        parts += [(_NAME, node.attr), ")"]  # type: ignore[attr-defined]
        return
    if kind is ast.arg:
        bound.add(node.arg)  # type: ignore[attr-defined]
    elif kind in (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef):
        bound.add(node.name)  # type: ignore[attr-defined]
    elif kind is ast.alias and node.asname:  # type: ignore[attr-defined]
        bound.add(node.asname)  # type: ignore[attr-defined]
    elif kind is ast.ExceptHandler and node.name:  # type: ignore[attr-defined]
        bound.add(node.name)  # type: ignore[attr-defined]
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == [] or name in ("ctx", "type_comment"):
            continue
        if isinstance(value, ast.AST):
            _walk(value, parts, bound)
        elif isinstance(value, list):
            parts.append("[")
            for child in value:
                if isinstance(child, ast.AST):
                    _walk(child, parts, bound)
                elif child is not None:
                    parts.append((_NAME, child))
            parts.append("]")
        elif isinstance(value, str):
            parts.append((_NAME, value))
        else:
            parts.append(repr(value))
    parts.append(")")
