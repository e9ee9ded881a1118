"""A file is whole or absent, whatever happens while it is written."""

from __future__ import annotations

import stat

import pytest

from brewlens.files import replacing


def test_the_file_is_there_after_the_block_and_not_before(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("interruption", [OSError("no space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [None, "old"])
def test_an_interrupted_block_changes_nothing(tmp_path, interruption, before):
    path = tmp_path / "a.txt"
    if before is not None:
        path.write_text(before)
    with pytest.raises(type(interruption)), replacing(path) as temporary:
        temporary.write_text("half")
        raise interruption
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == ([("a.txt", before)] if before else [])


def test_a_block_that_writes_nothing_is_an_error_and_the_old_file_stays(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


def test_everyone_may_read_it(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as temporary:
        temporary.touch(mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_name_that_is_a_folder_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError), replacing(tmp_path / "a") as temporary:
        temporary.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
