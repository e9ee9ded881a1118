"""A user's own items: JSON lines with ``prompt`` and ``answer``, and what else is known of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from brewlens.answers import DIGITS
from brewlens.files import replacing
from brewlens.tasks.item import Item, ItemSet
from brewlens.tasks.skeleton import identify

_FIELDS = {
    "id": str,
    "family": str,
    "factors": dict,
    "code": str,
    "suffix": str,
    "prompt": str,
    "answer": str,
}

RESERVED = ("id", "family", "code", "suffix", "prompt", "answer", "skeleton", "shape", "fold", "twins")


class ItemFileError(ValueError):
    """A file of items cannot be used. The text names the file, the line, and what to do."""


def read_items(path: str | Path, classes: Sequence[str] | None = DIGITS) -> ItemSet:
    """Read items from a JSON-lines file.

    Each line is an object with ``prompt`` and ``answer`` (text, or a number for convenience), and
    optionally ``id``, ``family``, ``factors``, ``code`` and ``suffix``. A prompt that ends with its
    ``suffix`` needs no ``code``. Without a suffix, the last line of the prompt is taken for one when it
    is a comment. Programs are parsed for their skeleton and never run. ``classes`` are the answers that may
    occur; None allows any.

    Raises:
        ItemFileError: If the file is missing, empty or not text; if a line is not a JSON object, lacks
            ``prompt`` or ``answer``, has a field of the wrong type or unknown name, or an answer that is
            not one of the classes; if two items share an id.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8")
    except FileNotFoundError:
        raise ItemFileError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ItemFileError(f"{path}: is a folder; give a file of JSON lines") from None
    except UnicodeDecodeError as error:
        raise ItemFileError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    items = [
        _item(path, number, line, classes)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]
    if not items:
        raise ItemFileError(f"{path}: holds no item; give one JSON object with prompt and answer per line")
    first: dict[str, int] = {}
    for number, item in enumerate(items, start=1):
        if first.setdefault(item.id, number) != number:
            raise ItemFileError(f"{path}: items {first[item.id]} and {number} share the id {item.id!r}")
    provenance = {"source": path.name, "sha256": hashlib.sha256(raw).hexdigest(), "short": {}}
    return ItemSet(tuple(items), {}, provenance)


def _item(path: Path, number: int, line: str, classes: Sequence[str] | None) -> Item:
    where = f"{path}, line {number}"
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise ItemFileError(
            f"{where}: not JSON ({error.msg} at column {error.colno}): {line[:60]!r}"
        ) from None
    if not isinstance(fields, dict):
        raise ItemFileError(f"{where}: each line must be a JSON object, found a {type(fields).__name__}")
    if missing := [name for name in ("prompt", "answer") if name not in fields]:
        raise ItemFileError(f"{where}: lacks {' and '.join(missing)}; it has {sorted(fields)}")
    if unknown := sorted(set(fields) - set(_FIELDS)):
        raise ItemFileError(f"{where}: unknown field {unknown[0]!r}; the fields are {', '.join(_FIELDS)}")
    if type(fields["answer"]) is int:
        fields["answer"] = str(fields["answer"])
    for name, value in fields.items():
        if not isinstance(value, _FIELDS[name]):
            raise ItemFileError(f"{where}: {name} must be {_FIELDS[name].__name__}, found {value!r}")
    if classes is not None and fields["answer"] not in classes:
        raise ItemFileError(
            f"{where}: answer {fields['answer']!r} is not one of the answer classes {', '.join(classes)}; "
            "name others with --classes, or take those of the file with --classes items"
        )
    for name, level in fields.get("factors", {}).items():
        if name in RESERVED or type(level) not in (int, str):
            raise ItemFileError(
                f"{where}: factor {name!r} must be text or a whole number, and not be named like a column of "
                f"the tables ({', '.join(RESERVED)})"
            )
    prompt = fields["prompt"]
    if not prompt:
        raise ItemFileError(f"{where}: the prompt is empty")
    suffix = fields.get("suffix", "")
    if suffix and not prompt.endswith(suffix):
        raise ItemFileError(f"{where}: the prompt does not end with its suffix {suffix!r}")
    if not suffix:
        last = prompt.rsplit("\n", 1)[-1]
        suffix = last if last.startswith("#") else ""
    code = fields.get("code", prompt.removesuffix(suffix))
    skeleton, shape = identify(code)
    return Item(
        id=fields.get("id", f"{path.stem}-{number}"),
        family=fields.get("family", path.stem),
        factors=fields.get("factors", {}),
        code=code,
        suffix=suffix,
        prompt=prompt,
        answer=fields["answer"],
        skeleton=skeleton,
        shape=shape,
    )


def write_items(path: str | Path, items: ItemSet) -> None:
    """Write items in the form that :func:`read_items` reads."""
    lines = (
        json.dumps({name: _plain(getattr(item, name)) for name in _FIELDS}, ensure_ascii=False) + "\n"
        for item in items
    )
    with replacing(Path(path)) as temporary:
        temporary.write_text("".join(lines), "utf-8")


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, dict) else value
