"""value_tracking: a value passes through functions, containers or methods and comes out unchanged."""

from __future__ import annotations

import random
from itertools import pairwise

from brewlens.tasks.draft import Draft, Sketch, chain, indent

FACTORS = {
    "mechanism": ("function_chain", "container", "method_chain"),
    "depth": (1, 2, 3),
    "distractors": (0, 1, 2),
}


def sketch(rng: random.Random, mechanism: str, depth: int, distractors: int) -> Sketch:
    draft = Draft(rng)
    value = draft.argument(draft.lit(0, 9))
    return {"function_chain": _functions, "container": _container, "method_chain": _methods}[mechanism](
        draft, value, depth, distractors
    )


def _pass(draft: Draft):
    """A step that hands its input on, by way of up to two variables."""

    def step(x: str) -> tuple[list[str], str]:
        lines = []
        for _ in range(draft.pick(0, 0, 0, 1, 1, 2, 3)):
            name = draft.name()
            lines.append(f"{name} = {x}")
            x = name
        return lines, x

    return step


def _functions(draft: Draft, value: str, depth: int, distractors: int) -> Sketch:
    topology = draft.pick("nested", "composed", "sequential")
    draft.finish(chain(draft, [_pass(draft)] * depth, value, topology))
    draft.distract(distractors)
    return draft.sketch()


def _container(draft: Draft, value: str, depth: int, distractors: int) -> Sketch:
    fillers = draft.rng.randint(0, distractors)
    layout = [_container_kind(draft, fillers)] + [_container_kind(draft, 0) for _ in range(depth - 1)]

    def pack(kind):
        return lambda x: _maybe_named(draft, kind[0](x))

    def repack(old, new):
        return lambda box: _maybe_named(draft, new[0](box + old[1]))

    def unpack(kind):
        return lambda box: _maybe_named(draft, box + kind[1])

    steps = [pack(layout[0])]
    steps += [repack(old, new) for old, new in pairwise(layout)]
    steps.append(unpack(layout[-1]))
    draft.finish(chain(draft, steps, value, draft.pick("composed", "sequential")))
    draft.distract(distractors - fillers)
    return draft.sketch()


def _container_kind(draft: Draft, fillers: int):
    """How to wrap an expression, and the accessor that takes it out again."""
    kind = draft.pick("list", "tuple", "dict")
    place = draft.rng.randint(0, fillers)
    others = [draft.lit(0, 9) for _ in range(fillers)]
    if kind == "dict":
        keys = draft.rng.sample(["'a'", "'b'", "'k'", "'n'", "'v'"], fillers + 1)

        def wrap(x: str) -> str:
            values = [*others[:place], x, *others[place:]]
            return "{" + ", ".join(f"{k}: {v}" for k, v in zip(keys, values, strict=True)) + "}"

        return wrap, f"[{keys[place]}]"
    opening, closing = "[]" if kind == "list" else "()"

    def wrap(x: str) -> str:
        values = [*others[:place], x, *others[place:]]
        comma = "," if kind == "tuple" and len(values) == 1 else ""
        return f"{opening}{', '.join(values)}{comma}{closing}"

    return wrap, f"[{place}]"


def _maybe_named(draft: Draft, expression: str) -> tuple[list[str], str]:
    if draft.chance(0.5):
        return [], expression
    name = draft.name()
    return [f"{name} = {expression}"], name


def _methods(draft: Draft, value: str, depth: int, distractors: int) -> Sketch:
    this, param, attribute = draft.name(), draft.name(), draft.name()
    cls = draft.cls()
    in_class = draft.rng.randint(0, distractors)
    init = [f"{this}.{attribute} = {param}"]
    for _ in range(in_class):
        line = f"{this}.{draft.name()} = {draft.lit(0, 9)}"
        init.insert(draft.rng.randint(0, len(init)), line)
    methods, inner = [], f"{this}.{attribute}"
    for _ in range(depth):
        name, body = draft.fn(), [f"return {inner}"]
        if draft.chance(0.4):
            kept = draft.name()
            body = [f"{kept} = {inner}", f"return {kept}"]
        methods.append((f"{name}({this})", body))
        inner = f"{this}.{name}()"
    last = inner.removeprefix(f"{this}.")
    if draft.chance(0.3):
        methods.reverse()
    text = "\n\n".join(
        f"def {head}:\n{indent(chr(10).join(body))}"
        for head, body in [(f"__init__({this}, {param})", init), *methods]
    )
    draft.functions.append(f"class {cls}:\n{indent(text).replace('    ' + chr(10), chr(10))}")
    if draft.chance(0.5):
        draft.finish(f"{cls}({value}).{last}")
    else:
        obj = draft.name()
        draft.main.append(f"{obj} = {cls}({value})")
        draft.finish(f"{obj}.{last}")
    draft.distract(distractors - in_class)
    return draft.sketch(inlinable=False)
