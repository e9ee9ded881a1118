"""conditional: which branch is taken."""

from __future__ import annotations

import random

from brewlens.tasks.draft import Call, Draft, Function, Sketch, indent

FACTORS = {
    "branch_type": ("elif_chain", "guard_clause", "sequential_if"),
    "depth": (1, 2, 3),
    "condition_type": ("numeric", "membership", "boolean_flag"),
}


def sketch(rng: random.Random, branch_type: str, depth: int, condition_type: str) -> Sketch:
    draft = Draft(rng)
    subjects = _Subjects(draft, condition_type, depth)
    build = {"elif_chain": _elif_chain, "guard_clause": _guards, "sequential_if": _sequential}[branch_type]
    return build(draft, subjects, depth)


class _Subjects:
    """What the conditions are about: one number, or one flag per condition."""

    def __init__(self, draft: Draft, condition_type: str, depth: int):
        self.draft, self.kind = draft, condition_type
        count = depth if condition_type == "boolean_flag" else 1
        self.params = [draft.name() for _ in range(count)]
        if condition_type == "boolean_flag":
            self.args = [draft.one_of((True, False)) for _ in self.params]
        else:
            self.args = [draft.argument(draft.lit(0, 9))]

    def condition(self, k: int) -> str:
        draft = self.draft
        if self.kind == "numeric":
            return f"{self.params[0]} {draft.pick('>', '<', '>=', '<=', '==', '!=')} {draft.lit(1, 8)}"
        if self.kind == "membership":
            values = ", ".join(draft.lit(0, 9) for _ in range(draft.pick(2, 3, 3)))
            opening, closing = draft.pick("()", "[]")
            negated = "not in" if draft.chance(0.2) else "in"
            return f"{self.params[0]} {negated} {opening}{values}{closing}"
        flag = self.params[k]
        if k and draft.chance(0.25):
            return f"{flag} {draft.pick('and', 'or')} {self.params[draft.rng.randrange(k)]}"
        return f"not {flag}" if draft.chance(0.3) else flag

    def disturb(self, k: int) -> str:
        """A statement by which a branch changes what a later condition looks at."""
        if self.kind == "boolean_flag":
            later = self.params[self.draft.rng.randrange(k + 1, len(self.params))]
            return f"{later} = not {later}"
        return self.draft.update(self.params[0], self.draft.pick("+", "-"), self.draft.lit(1, 3))

    def value(self) -> str:
        """What a branch gives: a literal, or the number with one added to it."""
        if self.kind == "boolean_flag" or self.draft.chance(0.75):
            return self.draft.lit(0, 9)
        return f"{self.params[0]} + {self.draft.lit(0, 3)}"


def _finish(
    draft: Draft, subjects: _Subjects, function: Function | str, name: str, inlinable: bool
) -> Sketch:
    draft.functions.append(function)
    if isinstance(function, Function):
        draft.finish(Call(function, subjects.args))
    else:
        draft.finish(f"{name}({', '.join(subjects.args)})")
    draft.distract(int(draft.chance(0.2)))
    return draft.sketch(inlinable)


def _elif_chain(draft: Draft, subjects: _Subjects, depth: int) -> Sketch:
    name, target = draft.fn(), draft.name()
    returns = draft.chance(0.4)
    words = ["if"] + ["elif"] * (depth - 1)
    branch = (
        (lambda: f"    return {subjects.value()}")
        if returns
        else (lambda: f"    {target} = {subjects.value()}")
    )
    lines = [part for k, word in enumerate(words) for part in (f"{word} {subjects.condition(k)}:", branch())]
    if returns:
        tail = ["else:", branch()] if draft.chance(0.5) else [branch().strip()]
        text = "\n".join(lines + tail)
        return _finish(draft, subjects, _definition(name, subjects, text), name, inlinable=False)
    if draft.chance(0.5):
        body = ["\n".join([*lines, "else:", branch()])]
    else:
        body = [branch().strip(), "\n".join(lines)]
    return _finish(draft, subjects, Function(name, subjects.params, body, target), name, inlinable=True)


def _definition(name: str, subjects: _Subjects, text: str) -> str:
    return f"def {name}({', '.join(subjects.params)}):\n{indent(text)}"


def _guards(draft: Draft, subjects: _Subjects, depth: int) -> Sketch:
    name = draft.fn()
    lines = []
    for k in range(depth):
        lines += [f"if {subjects.condition(k)}:", f"    return {subjects.value()}"]
        if subjects.kind != "boolean_flag" and k + 1 < depth and draft.chance(0.2):
            lines.append(subjects.disturb(k))
    lines.append(f"return {subjects.value()}")
    return _finish(draft, subjects, _definition(name, subjects, "\n".join(lines)), name, inlinable=False)


def _sequential(draft: Draft, subjects: _Subjects, depth: int) -> Sketch:
    name, target = draft.fn(), draft.name()
    body = [f"{target} = {draft.lit(0, 6)}"]
    for k in range(depth):
        block = [f"if {subjects.condition(k)}:"]
        change = draft.update(target, draft.pick("+", "+", "-"), draft.lit(1, 4))
        block.append("    " + (change if draft.chance(0.8) else f"{target} = {draft.lit(0, 9)}"))
        if k + 1 < depth and draft.chance(0.3):
            block.append("    " + subjects.disturb(k))
        if draft.chance(0.2):
            block += ["else:", "    " + draft.update(target, "+", draft.lit(1, 4))]
        body.append("\n".join(block))
    return _finish(draft, subjects, Function(name, subjects.params, body, target), name, inlinable=True)
