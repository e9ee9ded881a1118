"""Target prompts of context-stripped decoding: what stands around a residual once its program is taken away.

One prompt is one lucky or unlucky wording. The bundled set asks the same in several ways, so that readiness
is an estimate with a spread (see :mod:`brewlens.decoding.readiness`):

* ``own``: the sample's own question.
* ``constant``: one question for all samples, that of the public code of arXiv 2606.17648.
* ``paraphrase``: the same question in other words, with the same opening quote at its end.
* ``few_shot``: short examples that show that the answer follows the quote, in the spirit of the identity
  prompts of Patchscopes (Ghandeharioun et al. 2024, arXiv 2401.06102); there the residual replaces the thing
  to be repeated, here the quote behind which it is said. Where digits occur in them, each of the ten occurs
  once, in an order of its own.
* ``contextless``: the residual is the only token, without even a beginning-of-text token in front of it. Its
  keys are all that its later blocks can attend to, so the result does not depend on which token it
  replaces; the prior does, being what the model says after that lone token. For a model that always reads a
  beginning-of-text token first this is far from anything that it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from brewlens.answers import AnswerSpace
from brewlens.tasks.item import ItemSet

if TYPE_CHECKING:
    from brewlens.model import HookedModel, Prompt

Kind = Literal["own", "constant", "paraphrase", "few_shot", "contextless"]

Prompts = tuple["Prompt", ...]
"""One target prompt per sample: text, or the token ids that the model reads."""

CONSTANT_SUFFIX = '# The value of x is "'

_ENDING = 24  # characters of a prompt that decide how the answer behind it is cut into tokens


@dataclass(frozen=True)
class Target:
    """A target prompt, or the rule that gives each sample its own.

    Attributes:
        name: Unique within a set; tables name the prompt by it.
        kind: ``own``, ``constant``, ``paraphrase``, ``few_shot`` or ``contextless``.
        text: The prompt, which ends where the answer must begin; None for ``own`` and ``contextless``.

    Raises:
        ValueError: If the kind is unknown, or the text is missing or too much.
    """

    name: str
    kind: Kind
    text: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"target {self.name!r} has kind {self.kind!r}; choose one of {get_args(Kind)}")
        by_rule = self.kind in ("own", "contextless")
        if by_rule != (self.text is None) or self.text == "" or not self.name:
            raise ValueError(
                f"target {self.name!r} of kind {self.kind!r} needs a name and "
                f"{'no text: the items give it' if by_rule else 'a text'}, found text {self.text!r}"
            )


def _examples(template: str, shown: str) -> str:
    return "".join(
        template.format(name=name, shown=value) for name, value in zip("abcdefghij", shown, strict=True)
    )


OWN = Target("own", "own")
CONSTANT = Target("constant", "constant", CONSTANT_SUFFIX)
CONTEXTLESS = Target("contextless", "contextless")

BUNDLED: tuple[Target, ...] = (
    OWN,
    CONSTANT,
    Target("equals", "paraphrase", '# Here x is equal to "'),
    Target("printed", "paraphrase", '# Printed on the screen, x reads "'),
    Target("holds", "paraphrase", '# When this program has run, the variable x holds "'),
    Target("result", "paraphrase", '# So the final result, stored in x, is "'),
    Target("few_shot_words", "few_shot", '"cat" -> "cat"\n"green" -> "green"\n"Paris" -> "Paris"\n"x" -> "'),
    Target("few_shot_digits", "few_shot", _examples('"{shown}" -> "{shown}"\n', "6205917384") + '"x" -> "'),
    Target(
        "few_shot_questions",
        "few_shot",
        _examples('# The value of {name} is "{shown}"\n', "3817460952") + CONSTANT_SUFFIX,
    ),
    CONTEXTLESS,
)
"""The sample's own question, and nine prompts more."""


def own_suffixes(items: ItemSet) -> tuple[str, ...]:
    """The question of each item, as target prompts; the constant one for items that name none."""
    return tuple(item.suffix or CONSTANT_SUFFIX for item in items)


def resolve(target: Target, model: HookedModel, items: ItemSet, space: AnswerSpace) -> Prompts:
    """The prompt that each item's residual goes into.

    Args:
        target: The target.
        model: The model that will read it.
        items: The items.
        space: The answer classes, whose tokens must be the same behind this prompt.

    Returns:
        One text per item; for ``contextless`` one tuple with one token id, the last of the item's own
        question.

    Raises:
        ValueError: If a class has other tokens behind the prompt than ``space`` says; names the prompt.
    """
    own = own_suffixes(items)
    if target.kind == "contextless":
        last = {text: model.token_ids(text)[-1] for text in set(own)}
        return tuple((last[text],) for text in own)
    prompts = own if target.text is None else (target.text,) * len(items)
    for text in {text[-_ENDING:]: text for text in prompts}.values():
        _check_tokens(target, text, model, space)
    return prompts


def resolve_all(
    targets: Sequence[Target],
    model: HookedModel,
    items: ItemSet,
    space: AnswerSpace,
    *,
    unusable: Literal["raise", "leave_out"] = "raise",
) -> tuple[dict[Target, Prompts], dict[str, str]]:
    """Resolve several targets.

    Args:
        targets: With names that differ.
        model: As in :func:`resolve`, like the next two.
        items: The items.
        space: The answer classes.
        unusable: What to do with a prompt behind which this tokenizer cuts the answers otherwise.

    Returns:
        The prompts of each usable target, and the reason of each one left out, by name.

    Raises:
        ValueError: If names are not unique, no target is usable, or one is not and ``unusable`` is ``raise``.
    """
    names = [target.name for target in targets]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"give at least one target prompt, each with a name of its own; found {names}")
    if unusable not in ("raise", "leave_out"):
        raise ValueError(f"unusable is 'raise' or 'leave_out', found {unusable!r}")
    found: dict[Target, Prompts] = {}
    left_out: dict[str, str] = {}
    for target in targets:
        try:
            found[target] = resolve(target, model, items, space)
        except ValueError as error:
            if unusable == "raise":
                raise
            left_out[target.name] = str(error)
    if not found:
        raise ValueError(f"no target prompt is usable with {model.name}: {'; '.join(left_out.values())}")
    return found, left_out


def _check_tokens(target: Target, text: str, model: HookedModel, space: AnswerSpace) -> None:
    context = model.token_ids(text)
    for answer, tokens in zip(space.classes, space.sequences, strict=True):
        # A class scored by its first token is longer than that; one scored with what follows it is shorter.
        written = max(answer, model.decode(tokens).strip(), key=len)
        expected, whole = (*context, *tokens), model.token_ids(text + written)
        if whole[: len(expected)] != expected:
            raise ValueError(
                f"target prompt {target.name!r} does not fit {model.name}: behind {text[-40:]!r} answer "
                f"{answer!r} must be {list(tokens)}, as it is behind the items, but the prompt has "
                f"{len(context)} tokens and with the answer ends in {list(whole[len(context) - 1 :])}. "
                "Leave this prompt out (unusable='leave_out') or word its end as the items' questions end"
            )
