"""Writing a program: slots for names and literals, functions that can be called or inlined, one template.

A *sketch* is a program whose names and literals are still open. In its template, which is itself valid
Python, ``F0_``, ``V1_``, ``C0_`` and ``R0_`` stand for the names of functions, variables, classes and the
result, and ``N0_`` for a literal. Filling the slots gives an item; filling them again gives its twins.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

RESULT = "R0_"
_SLOT = re.compile(r"\b[FVCRN]\d+_")


@dataclass
class Function:
    """A function whose body ends in its only return, so that a call can be replaced by the body.

    An entry of ``body`` is one statement; a compound statement is one entry of several lines.
    """

    name: str
    params: Sequence[str]
    body: Sequence[str | Assign]
    result: str | Call
    keyword: bool = False


@dataclass(frozen=True)
class Call:
    function: Function
    args: Sequence[str | Call]

    def __str__(self) -> str:
        args = [str(a) for a in self.args]
        if self.function.keyword:
            args = [f"{p}={a}" for p, a in zip(self.function.params, args, strict=True)]
        return f"{self.function.name}({', '.join(args)})"


@dataclass(frozen=True)
class Assign:
    """``target = call``, the one place besides ``return`` where a function is called."""

    target: str
    call: Call

    def __str__(self) -> str:
        return f"{self.target} = {self.call}"


def inline(value: str | Call, lines: list[str]) -> str:
    """Append to ``lines`` what evaluating ``value`` does without any call; return the expression left."""
    if isinstance(value, str):
        return value
    for param, arg in zip(value.function.params, value.args, strict=True):
        lines.append(f"{param} = {inline(arg, lines)}")
    return _inline_body(value.function, lines)


def _inline_body(function: Function, lines: list[str]) -> str:
    for line in function.body:
        if isinstance(line, Assign):
            lines.append(f"{line.target} = {inline(line.call, lines)}")
        else:
            lines.append(line)
    return inline(function.result, lines)


@dataclass(frozen=True)
class Sketch:
    """A program with open names and literals.

    Attributes:
        template: The program; valid Python that assigns ``R0_``.
        choices: Literal slot -> the values it may take.
        twin: The template of its structural twin, or None.
        twin_kind: ``"inlined"``, ``"unrolled"`` or ``"loop"``.
    """

    template: str
    choices: Mapping[str, Sequence[object]]
    twin: str | None = None
    twin_kind: str | None = None

    @cached_property
    def slots(self) -> list[str]:
        """The name slots of the program and its twin."""
        return sorted({s for s in _SLOT.findall(self.template + (self.twin or "")) if s[0] != "N"})

    def literals(self, rng: random.Random) -> dict[str, object]:
        # Not rng.choice, which takes ten times as long; this line runs some fifty times per item.
        uniform = rng.random
        return {slot: values[int(uniform() * len(values))] for slot, values in self.choices.items()}

    @cached_property
    def evaluate(self) -> Callable[..., object]:
        """The program as a function of its literals; much faster than running it anew for each value."""
        body = "\n ".join(self.template.splitlines())
        scope: dict = {}
        exec(f"def run({', '.join(self.choices)}):\n {body}\n return {RESULT}", scope)
        return scope["run"]


def fill(template: str, values: Mapping[str, object]) -> str:
    """The template with every slot replaced by its value."""
    return _SLOT.sub(lambda m: str(values[m[0]]), template)


def opened(text: str) -> str:
    """``text`` as a format string whose fields are its slots: filling that is ten times as fast."""
    return _SLOT.sub(r"{\g<0>}", text.replace("{", "{{").replace("}", "}}"))


@dataclass
class Draft:
    """The pen of the family files: it hands out slots, collects definitions and statements.

    Names are unique in the whole program, so inlining needs no renaming.
    """

    rng: random.Random
    functions: list[Function | str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    main: list[str | Assign] = field(default_factory=list)
    choices: dict[str, Sequence[object]] = field(default_factory=dict)
    _count: dict[str, int] = field(default_factory=dict)

    def _slot(self, role: str) -> str:
        number = self._count.get(role, 0)
        self._count[role] = number + 1
        return f"{role}{number}_"

    def name(self) -> str:
        """A new variable."""
        return self._slot("V")

    def fn(self) -> str:
        """A new function or method name."""
        return self._slot("F")

    def cls(self) -> str:
        """A new class name."""
        return self._slot("C")

    def lit(self, low: int, high: int) -> str:
        """A new literal between ``low`` and ``high``, both included."""
        return self.one_of(tuple(range(low, high + 1)))

    def one_of(self, values: Sequence[object]) -> str:
        """A new literal that takes one of ``values``."""
        slot = self._slot("N")
        self.choices[slot] = values
        return slot

    def pick(self, *options):
        return self.rng.choice(options)

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def update(self, target: str, op: str, value: str) -> str:
        """``t += v`` or ``t = t + v``; the same computation, another tree."""
        return f"{target} {op}= {value}" if self.chance(0.3) else f"{target} = {target} {op} {value}"

    def argument(self, value: str) -> str:
        """A literal as it is, or by way of a variable assigned before or after the definitions."""
        if self.chance(0.5):
            return value
        name = self.name()
        (self.before if self.chance(0.4) else self.main).append(f"{name} = {value}")
        return name

    def finish(self, value: str | Call) -> None:
        """Bind the result, at once or by way of one more variable."""
        if self.chance(0.25):
            name = self.name()
            self.main.append(Assign(name, value) if isinstance(value, Call) else f"{name} = {value}")
            value = name
        self.main.append(Assign(RESULT, value) if isinstance(value, Call) else f"{RESULT} = {value}")

    def distract(self, count: int) -> None:
        """Irrelevant values: unused assignments at module level, unused parameters, unused locals."""
        callables = [f for f in self.functions if isinstance(f, Function)]
        for _ in range(count):
            kind = self.pick("module", "param", "local") if callables else "module"
            if kind == "module":
                place = self.before if self.chance(0.5) else self.main
                place.insert(self.rng.randint(0, len(place)), f"{self.name()} = {self.lit(0, 9)}")
            elif kind == "local":
                f = self.pick(*callables)
                at = self.rng.randint(0, len(f.body))
                f.body = [*f.body[:at], f"{self.name()} = {self.lit(0, 9)}", *f.body[at:]]
            else:
                self._extra_parameter(self.pick(*callables))

    def _extra_parameter(self, function: Function) -> None:
        value, name = self.lit(0, 9), self.name()
        at = self.rng.randint(0, len(function.params))

        def widen(call: str | Call) -> str | Call:
            if isinstance(call, str):
                return call
            args = [widen(a) for a in call.args]
            if call.function is function:
                args.insert(at, value)
            return Call(call.function, args)

        def widened(line: str | Assign) -> str | Assign:
            return Assign(line.target, widen(line.call)) if isinstance(line, Assign) else line  # type: ignore[arg-type]

        for f in self.functions:
            if isinstance(f, Function):
                f.body, f.result = [widened(line) for line in f.body], widen(f.result)
        self.main = [widened(line) for line in self.main]
        function.params = [*function.params[:at], name, *function.params[at:]]

    def sketch(self, inlinable: bool = True, defined_twin: Sequence[str] | None = None) -> Sketch:
        """The template, and that of its structural twin.

        Args:
            inlinable: Whether the twin is the program with its calls replaced by the bodies.
            defined_twin: Definitions that stand for ``functions`` in a twin that still calls them.
        """
        blocks = [_define(f) for f in self.functions]
        template = self._join(blocks, [str(line) for line in self.main])
        if defined_twin is not None:
            twin = self._join(list(defined_twin), [str(line) for line in self.main])
            return Sketch(template, self.choices, twin, "unrolled")
        if not inlinable:
            return Sketch(template, self.choices)
        lines: list[str] = []
        for line in self.main:
            if isinstance(line, Assign):
                lines.append(f"{line.target} = {inline(line.call, lines)}")
            else:
                lines.append(line)
        return Sketch(template, self.choices, self._join([], lines), "inlined")

    def _join(self, blocks: list[str], main: list[str]) -> str:
        head = ["\n".join(self.before)] if self.before else []
        if not blocks:
            return "\n".join(head + main) + "\n"
        return "\n\n".join([*head, *blocks, "\n".join(main)]) + "\n"


def _define(function: Function | str) -> str:
    if isinstance(function, str):
        return function
    body = [str(line) for line in function.body]
    text = "\n".join([*body, f"return {function.result}"])
    return f"def {function.name}({', '.join(function.params)}):\n{indent(text)}"


def indent(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())


def chain(
    draft: Draft, steps: Sequence[Callable[[str], tuple[list[str], str]]], value: str, topology: str
) -> str | Call:
    """One function per step, the output of each feeding the next.

    Args:
        draft: Where the functions go.
        steps: Each maps the expression of its input to body lines and the expression of its output.
        value: The first input.
        topology: ``nested`` (each function calls the one before it), ``composed``
            (``f2(f1(x))``) or ``sequential`` (one statement per call).

    Returns:
        What evaluates to the last output.
    """
    made: list[Function] = []
    for step in steps:
        param = draft.name()
        if topology == "nested" and made:
            inner = draft.name()
            lines, result = step(inner)
            body: list[str | Assign] = [Assign(inner, Call(made[-1], [param])), *lines]
        else:
            body, result = step(param)  # type: ignore[assignment]
        made.append(Function(draft.fn(), [param], body, result, keyword=draft.chance(0.15)))
    draft.functions.extend(made)
    if topology == "nested":
        return Call(made[-1], [value])
    if topology == "composed":
        call: str | Call = value
        for function in made:
            call = Call(function, [call])
        return call
    for function in made[:-1]:
        name = draft.name()
        draft.main.append(Assign(name, Call(function, [value])))
        value = name
    return Call(made[-1], [value])
