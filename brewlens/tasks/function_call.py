"""function_call: each function calls the one below it, and the value changes on the way."""

from __future__ import annotations

import random

from brewlens.tasks.draft import Assign, Draft, Sketch, chain, indent

FACTORS = {
    "mechanism": ("arithmetic", "container_relay", "conditional_return"),
    "depth": (1, 2, 3),
    "distractors": (0, 1, 2),
}


def sketch(rng: random.Random, mechanism: str, depth: int, distractors: int) -> Sketch:
    draft = Draft(rng)
    value = draft.argument(draft.lit(0, 7))
    if mechanism == "container_relay":
        _relay(draft, value, depth)
    elif mechanism == "arithmetic":
        draft.finish(chain(draft, [_arithmetic(draft)] * depth, value, "nested"))
    elif draft.chance(0.5):
        draft.finish(chain(draft, [_chosen(draft)] * depth, value, "nested"))
    else:
        return _early_returns(draft, value, depth, distractors)
    draft.distract(distractors)
    return draft.sketch()


def _change(draft: Draft, x: str) -> str:
    sign = draft.pick("+", "+", "-", "*")
    value = draft.lit(2, 3) if sign == "*" else draft.lit(1, 5)
    return f"{value} {sign} {x}" if sign != "-" and draft.chance(0.2) else f"{x} {sign} {value}"


def _arithmetic(draft: Draft):
    def step(x: str) -> tuple[list[str], str]:
        if draft.chance(0.5):
            return [], _change(draft, x)
        name = draft.name()
        return [f"{name} = {_change(draft, x)}"], name

    return step


def _relay(draft: Draft, value: str, depth: int) -> None:
    """The value travels in a list or tuple, and is changed each time it is taken out."""
    opening, closing = draft.pick("[]", "()")

    def wrap(x: str) -> str:
        return f"{opening}{x}{',' if opening == '(' else ''}{closing}"

    def step(first: bool):
        def apply(x: str) -> tuple[list[str], str]:
            inner = x if first else f"{x}[0]"
            if draft.chance(0.5):
                return [], wrap(_change(draft, inner))
            name = draft.name()
            return [f"{name} = {_change(draft, inner)}"], wrap(name)

        return apply

    box = draft.name()
    call = chain(draft, [step(k == 0) for k in range(depth)], value, "nested")
    draft.main.append(Assign(box, call))  # type: ignore[arg-type]
    draft.finish(f"{box}[0]")


def _comparison(draft: Draft, x: str) -> str:
    return f"{x} {draft.pick('>', '<', '>=', '<=', '==')} {draft.lit(1, 8)}"


def _chosen(draft: Draft):
    """A step whose condition chooses between two changes."""

    def step(x: str) -> tuple[list[str], str]:
        name = draft.name()
        if draft.chance(0.3):
            return [], f"{_change(draft, x)} if {_comparison(draft, x)} else {_change(draft, x)}"
        lines = [f"if {_comparison(draft, x)}:", f"    {name} = {_change(draft, x)}"]
        return ["\n".join([*lines, "else:", f"    {name} = {_change(draft, x)}"])], name

    return step


def _early_returns(draft: Draft, value: str, depth: int, distractors: int) -> Sketch:
    """The same with two returns per function; such a function cannot be inlined by pasting its body."""
    below = None
    for _ in range(depth):
        name, param = draft.fn(), draft.name()
        lines, x = [], param
        if below is not None:
            x = draft.name()
            lines.append(f"{x} = {below}({param})")
        lines += [
            f"if {_comparison(draft, x)}:",
            f"    return {_change(draft, x)}",
            f"return {_change(draft, x)}",
        ]
        draft.functions.append(f"def {name}({param}):\n{indent(chr(10).join(lines))}")
        below = name
    draft.finish(f"{below}({value})")
    draft.distract(distractors)
    return draft.sketch(inlinable=False)
