"""A user's file: read as it is meant, or refused with its name, its line and a way out."""

from __future__ import annotations

import json

import pytest

from brewlens import tasks
from brewlens.tasks import ItemFileError, read_items
from brewlens.tasks.sources import write_items

GOOD = {"prompt": 'x = 3\n# The value of x is "', "answer": "3"}


def test_a_minimal_line(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps({**GOOD, "answer": 3, "id": "b"}) + "\n")
    first, second = read_items(path)
    assert (first.id, first.family, first.answer) == ("mine-1", "mine", "3")
    assert first.suffix == '# The value of x is "'
    assert first.code == "x = 3\n"
    assert second.answer == "3"
    assert first.skeleton == second.skeleton


def test_round_trip(tmp_path):
    items = tasks.generate("computing", n=27)
    write_items(tmp_path / "out.jsonl", items)
    back = read_items(tmp_path / "out.jsonl")
    for a, b in zip(items, back, strict=True):
        assert (a.id, a.family, dict(a.factors), a.prompt, a.answer, a.skeleton, a.shape) == (
            b.id, b.family, dict(b.factors), b.prompt, b.answer, b.skeleton, b.shape
        )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no item"),
        ("\n \n", "holds no item"),
        ("{not json", "line 1: not JSON"),
        (json.dumps(GOOD) + "\n{]", "line 2: not JSON"),
        ("[1, 2]", "must be a JSON object, found a list"),
        ('{"answer": "1"}', "lacks prompt"),
        ('{"prompt": "x"}', "lacks answer"),
        ('{"prompt": "x", "answer": "42"}', "answer '42' is not one of the answer classes 0, 1"),
        ('{"prompt": "x", "answer": true}', "answer must be str"),
        ('{"prompt": "", "answer": "1"}', "the prompt is empty"),
        ('{"prompt": 5, "answer": "1"}', "prompt must be str, found 5"),
        ('{"prompt": "x", "answer": "1", "anwser": "1"}', "unknown field 'anwser'"),
        ('{"prompt": "x", "answer": "1", "suffix": "y"}', "does not end with its suffix"),
        ('{"prompt": "x", "answer": "1", "factors": {"id": 1}}', "factor 'id'"),
        ('{"prompt": "x", "answer": "1", "factors": {"a": [1]}}', "factor 'a'"),
        ('{"prompt": "x", "answer": "1", "id": "a"}\n' * 2, "items 1 and 2 share the id 'a'"),
    ],
)
def test_refused(tmp_path, text, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(ItemFileError, match=message.replace("(", "\\(")) as error:
        read_items(path)
    assert str(path) in str(error.value)


def test_missing_folder_and_binary(tmp_path):
    with pytest.raises(ItemFileError, match="no such file"):
        read_items(tmp_path / "none.jsonl")
    with pytest.raises(ItemFileError, match="is a folder"):
        read_items(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ItemFileError, match="not UTF-8"):
        read_items(tmp_path / "binary")
