"""loop: a body that runs two to four times; its unrolled twin writes the body out as often."""

from __future__ import annotations

import random
from collections.abc import Callable

from brewlens.tasks.draft import Draft, Sketch, indent

FACTORS = {
    "body_type": ("simple_acc", "filter_count", "dual_var"),
    "iterations": (2, 3, 4),
    "init_offset": ("0", "low", "high"),
}
_OFFSETS = {"0": (0, 0), "low": (1, 2), "high": (3, 4)}


def sketch(rng: random.Random, body_type: str, iterations: int, init_offset: str) -> Sketch:
    draft = Draft(rng)
    start = draft.lit(*_OFFSETS[init_offset])
    params, args = [], []
    if draft.chance(0.5):
        params.append(draft.name())
        args.append(draft.argument(start))
        start = params[0]
    body, init, result = {"simple_acc": _simple, "filter_count": _filter, "dual_var": _dual}[body_type](
        draft, start, params, args
    )
    looped, unrolled = _iterate(draft, body, iterations, params, args)
    name = draft.fn()
    if len(params) > 1 and draft.chance(0.5):
        params.reverse()
        args.reverse()

    def define(middle: str) -> str:
        text = "\n".join([*init, middle, f"return {result}"])
        return f"def {name}({', '.join(params)}):\n{indent(text)}"

    draft.functions.append(define(looped))
    draft.finish(f"{name}({', '.join(args)})")
    draft.distract(int(draft.chance(0.15)))
    return draft.sketch(defined_twin=[define(unrolled)])


Body = Callable[[str], list[str]]


def _amount(draft: Draft, low: int, high: int, params: list[str], args: list[str]) -> str:
    """A literal, in the body or passed as a parameter."""
    value = draft.lit(low, high)
    if draft.chance(0.75):
        return value
    params.append(draft.name())
    args.append(value)
    return params[-1]


def _simple(draft: Draft, start: str, params: list[str], args: list[str]) -> tuple[Body, list[str], str]:
    total = draft.name()
    kind = draft.pick("index", "index", "constant", "both", "down")
    amount = "" if kind == "index" else _amount(draft, 0, 2, params, args)
    in_place = draft.chance(0.4)

    def add(sign: str, value: str) -> str:
        return f"{total} {sign}= {value}" if in_place else f"{total} = {total} {sign} {value}"

    def body(i: str) -> list[str]:
        return {
            "index": [add("+", i)],
            "constant": [add("+", amount)],
            "both": [add("+", i), add("+", amount)],
            "down": [add("+", i), add("-", amount)],
        }[kind]

    return body, [f"{total} = {start}"], total


def _filter(draft: Draft, start: str, params: list[str], args: list[str]) -> tuple[Body, list[str], str]:
    count = draft.name()
    bound = _amount(draft, 0, 4, params, args)
    test = draft.pick(
        "{} > " + bound, "{} < " + bound, "{} != " + bound, "{} >= " + bound, "{} % 2 == 0", "{} % 2 == 1"
    )
    step = _amount(draft, 1, 3, params, args)
    in_place = draft.chance(0.4)
    change = f"{count} += {step}" if in_place else f"{count} = {count} + {step}"

    def body(i: str) -> list[str]:
        return [f"if {test.format(i)}:", f"    {change}"]

    return body, [f"{count} = {start}"], count


def _dual(draft: Draft, start: str, params: list[str], args: list[str]) -> tuple[Body, list[str], str]:
    first, second = draft.name(), draft.name()
    kind = draft.pick("index", "constant", "swap", "down")
    amount = _amount(draft, 0, 2, params, args)
    init = [f"{first} = {start}", f"{second} = {draft.lit(0, 3)}"]
    if draft.chance(0.3):
        init.reverse()

    def body(i: str) -> list[str]:
        return {
            "index": [f"{first} = {first} + {i}", f"{second} = {second} + {amount}"],
            "constant": [f"{first} = {first} + {amount}", f"{second} = {second} + {i}"],
            "swap": [f"{first}, {second} = {second}, {first} + {amount}"],
            "down": [f"{first} = {first} + {i}", f"{second} = {first} - {amount}"],
        }[kind]

    return body, init, draft.pick(first, second, second, f"{first} + {second}", f"{first} - {second}")


def _iterate(
    draft: Draft, body: Body, iterations: int, params: list[str], args: list[str]
) -> tuple[str, str]:
    """The loop around ``body``, and the body written out once per iteration with the index put in."""
    i = draft.name()
    kind = draft.pick("range", "range", "range_from", "param", "list", "while")
    if kind == "while":
        step = f"{i} = {i} + 1" if draft.chance(0.5) else f"{i} += 1"
        block = [*body(i), step]
        looped = [f"{i} = 0", f"while {i} < {iterations}:", indent("\n".join(block))]
        return "\n".join(looped), "\n".join([f"{i} = 0", *block * iterations])
    indices = [str(k) for k in range(iterations)]
    if kind == "list":
        indices = [draft.lit(0, 4) for _ in range(iterations)]
        over = f"[{', '.join(indices)}]"
    elif kind == "range_from":
        indices = [str(k + 1) for k in range(iterations)]
        over = f"range(1, {iterations + 1})"
    elif kind == "param":
        params.append(draft.name())
        args.append(str(iterations))
        over = f"range({params[-1]})"
    else:
        over = f"range({iterations})"
    looped = f"for {i} in {over}:\n{indent(chr(10).join(body(i)))}"
    return looped, "\n".join(line for index in indices for line in body(index))
