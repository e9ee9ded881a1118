"""Annotations of brewlens checked as it runs: types by beartype, shapes and dtypes by jaxtyping.

jaxtyping takes what it cannot resolve while a function is defined for ``Any``: every name imported under
``TYPE_CHECKING``, every class within its own body. Here a function is decorated when it is first called. By
then all names are known, and one that is not is an error.

An axis name of an array within a sequence or a mapping holds for all of them; where they differ, it is ``_``.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
import types
import typing
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import beartype
import jaxtyping

EAGER = jaxtyping.jaxtyped
GUARD = "TYPE_CHECKING"
MOST = 50  # closures of one function that are checked; to decorate one takes longer than its calls
DEFINED: Counter[types.CodeType] = Counter()
CONFIGURATION = beartype.BeartypeConf(is_pep484_tower=True)  # an int is a float, as PEP 484 has it


def install() -> None:
    """Checks whatever of brewlens is imported from here on.

    Raises:
        RuntimeError: If some of it was imported before.
    """
    early = sorted(name for name in sys.modules if name.split(".")[0] == "brewlens")
    if early:
        raise RuntimeError(f"checks start before brewlens is imported; found {', '.join(early)}")
    jaxtyping.jaxtyped = _decorator
    jaxtyping.install_import_hook("brewlens", "checked.checker")


def checker(function: Callable) -> Callable:
    """The type checker that the hook is given."""
    return beartype.beartype(conf=CONFIGURATION)(function)


def _decorator(value: typing.Any = None, *, typechecker: typing.Any) -> typing.Any:
    if value is None:
        return functools.partial(_decorator, typechecker=typechecker)
    if not inspect.isclass(value):
        return _when_called(value, typechecker) if inspect.isfunction(value) else value
    if getattr(value, "_is_protocol", False):
        return typing.runtime_checkable(value)
    if "__dataclass_fields__" in vars(value) and not hasattr(value.__init__, "__wrapped__"):
        value.__init__ = _when_called(value.__init__, typechecker)
    return value


def _when_called(function: Callable, typechecker: Callable) -> Callable:
    if not function.__annotations__ or DEFINED[function.__code__] >= MOST:
        return function
    checked = None

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        nonlocal checked
        if checked is None:
            checked = function  # what resolving itself calls
            DEFINED[function.__code__] += 1
            try:
                function.__annotations__.update(_resolved(function))
                shapes = any(map(_has_arrays, function.__annotations__.values()))
                checked = EAGER(function, typechecker=typechecker) if shapes else checker(function)
            except Exception:
                checked = None
                raise
        return checked(*args, **kwargs)

    if not inspect.isgeneratorfunction(function):
        return wrapper

    @functools.wraps(function)
    def generator(*args, **kwargs):  # what torch.no_grad decorates as one
        return (yield from wrapper(*args, **kwargs))

    return generator


def _has_arrays(hint: typing.Any) -> bool:
    """Where there are none, beartype alone says the same in a fraction of the time."""
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(_has_arrays, typing.get_args(hint)))


def _resolved(function: Callable) -> dict[str, typing.Any]:
    names = {**vars(sys.modules[function.__module__]), **inspect.getclosurevars(function).nonlocals}
    written = set(re.findall(r"\w+", " ".join(map(str, function.__annotations__.values()))))
    for name, node in _only_for_types(function.__module__).items():
        if name in written:
            exec(compile(ast.Module([node], []), function.__module__, "exec"), names)
    return typing.get_type_hints(function, names, include_extras=True)


@functools.cache
def _only_for_types(module: str) -> dict[str, ast.stmt]:
    """What a module imports under ``TYPE_CHECKING``: names, and the statements that bring them."""
    tree = ast.parse(Path(sys.modules[module].__file__).read_text(encoding="utf-8"))
    blocks = [node.body for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == GUARD]
    imports = [node for body in blocks for node in body]
    return {alias.asname or alias.name: node for node in imports for alias in node.names}
