"""Names of models and content of their sources, told without loading anything."""

from __future__ import annotations

import json
import shutil

import pytest

from brewlens.errors import ModelError
from brewlens.model_source import content, shown_name, source


def test_a_folder_is_called_by_its_last_part(tmp_path, monkeypatch):
    folder = tmp_path / "Small-135M"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    for asked in (
        folder,
        f"{folder}/",
        ".",
        "./",
        "..//Small-135M",
        "~/Small-135M",
        f"{folder}/../Small-135M",
    ):
        assert shown_name(asked) == "Small-135M", asked
    assert shown_name(tmp_path / "link") == "link"
    assert shown_name("/nowhere/else") == "else"
    assert shown_name("reference") == "reference"
    assert shown_name("Qwen/Qwen2.5-0.5B") == "Qwen/Qwen2.5-0.5B"


def test_a_changed_file_of_the_same_size_shows(tiny_folders, tmp_path):
    folder = shutil.copytree(tiny_folders["qwen2"], tmp_path / "m")
    before = content(str(folder))
    assert before and {"config.json", "model.safetensors", "tokenizer.json"} <= set(before)
    weights = folder / "model.safetensors"
    bytes_ = bytearray(weights.read_bytes())
    bytes_[-1] ^= 1
    weights.write_bytes(bytes_)
    after = content(str(folder))
    assert after is not None and {name for name in before if before[name] != after[name]} == {weights.name}
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "more.json").write_text("{}")
    assert content(str(folder)).keys() != before.keys()


def test_shards_in_folders_count_and_weights_elsewhere_are_not_known(tiny_folders, tmp_path):
    folder = shutil.copytree(tiny_folders["qwen2"], tmp_path / "m")
    (folder / "parts").mkdir()
    (folder / "parts" / "1.safetensors").write_bytes(b"1")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w": "parts/1.safetensors"}})
    )
    assert "parts/1.safetensors" in content(str(folder))
    (folder / "parts" / "1.safetensors").unlink()
    assert content(str(folder)) is None
    (folder / "model.safetensors.index.json").unlink()
    assert content(str(folder))
    (folder / "adapter_config.json").write_text("{}")
    assert content(str(folder)) is None


def test_a_hub_id_is_known_by_the_commit_in_the_cache(tmp_path, monkeypatch):
    snapshot = tmp_path / "snapshots" / "abc123" / "config.json"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file: str(snapshot))
    assert content("some/model") == {"commit": "abc123"}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file: None)
    assert content("some/model") is None


def test_a_source_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelError, match="found no such folder"):
        source("/no/such/folder")
    with pytest.raises(ModelError, match=r"found no config\.json"):
        source(str(tmp_path))
