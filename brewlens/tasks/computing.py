"""computing: a value goes through a few arithmetic operations."""

from __future__ import annotations

import random

from brewlens.tasks.draft import Call, Draft, Function, Sketch, chain

FACTORS = {
    "structure": ("func_arithmetic", "chained_calls", "accumulator"),
    "steps": (2, 3, 4),
    "operators": ("add", "add_sub", "add_mul"),
}


def sketch(rng: random.Random, structure: str, steps: int, operators: str) -> Sketch:
    draft = Draft(rng)
    ops = _operators(draft, steps, operators)
    build = {"func_arithmetic": _one_function, "chained_calls": _calls, "accumulator": _accumulator}[
        structure
    ]
    return build(draft, ops)


def _operators(draft: Draft, steps: int, operators: str) -> list[str]:
    """One sign per step; the second operator occurs at least once, and never in every step."""
    if operators == "add":
        return ["+"] * steps
    second = "-" if operators == "add_sub" else "*"
    count = draft.rng.randint(1, steps - 1)
    signs = [second] * count + ["+"] * (steps - count)
    draft.rng.shuffle(signs)
    return signs


def operand(draft: Draft, sign: str) -> str:
    """A literal that keeps results of this sign near one digit."""
    return draft.lit(2, 3) if sign == "*" else draft.lit(1, 5)


def _one_function(draft: Draft, ops: list[str]) -> Sketch:
    first = draft.name()
    params, args, body = [first], [draft.argument(draft.lit(0, 6))], []
    current = first
    for k, sign in enumerate(ops):
        value = operand(draft, sign)
        if draft.chance(0.3):
            param = draft.name()
            params.append(param)
            args.append(value)
            value = param
        if k and draft.chance(0.35):
            body.append(draft.update(current, sign, value))
        else:
            target = draft.name()
            left, right = (value, current) if sign != "-" and draft.chance(0.25) else (current, value)
            body.append(f"{target} = {left} {sign} {right}")
            current = target
    function = Function(draft.fn(), params, body, current, keyword=draft.chance(0.15))
    draft.functions.append(function)
    draft.finish(Call(function, args))
    draft.distract(int(draft.chance(0.15)))
    return draft.sketch()


def _calls(draft: Draft, ops: list[str]) -> Sketch:
    def step(sign: str):
        def apply(x: str) -> tuple[list[str], str]:
            value = operand(draft, sign)
            left, right = (value, x) if sign != "-" and draft.chance(0.25) else (x, value)
            if draft.chance(0.6):
                return [], f"{left} {sign} {right}"
            name = draft.name()
            return [f"{name} = {left} {sign} {right}"], name

        return apply

    topology = draft.pick("composed", "sequential")
    draft.finish(chain(draft, [step(s) for s in ops], draft.argument(draft.lit(0, 6)), topology))
    draft.distract(int(draft.chance(0.15)))
    return draft.sketch()


def _accumulator(draft: Draft, ops: list[str]) -> Sketch:
    total = draft.name()
    draft.main.append(f"{total} = {draft.lit(0, 6)}")
    in_place = draft.chance(0.5)
    for sign in ops:
        value = operand(draft, sign)
        if draft.chance(0.2):
            name = draft.name()
            draft.main.append(f"{name} = {value}")
            value = name
        draft.main.append(f"{total} {sign}= {value}" if in_place else f"{total} = {total} {sign} {value}")
    draft.finish(total)
    draft.distract(int(draft.chance(0.15)))
    return draft.sketch(inlinable=False)
