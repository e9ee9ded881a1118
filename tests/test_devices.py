"""Devices that are not there are refused before anything is loaded."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

import brewlens as bl
from brewlens.devices import usable


def absent():
    some = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "xpu": torch.xpu.is_available(),
    }
    return ["cuda:77", "meta", "gpu", "cpu:3", "", *(name for name, there in some.items() if not there)]


@pytest.mark.parametrize("device", absent())
def test_one_line_that_says_what_there_is(device, monkeypatch):
    monkeypatch.setattr("brewlens.loading.source", None)
    with pytest.raises(bl.ModelError) as error:
        bl.load_model("reference", device=device)
    text = str(error.value)
    assert text.startswith(f"reference: asked for device {device!r}, found ")
    assert "give one of: cpu" in text and "\n" not in text


def test_a_part_of_a_device_map():
    with pytest.raises(bl.ModelError, match="asked for device 'cuda:77'"):
        bl.load_model("reference", device_map={"": 77})


def test_those_that_are_there():
    assert usable("cpu") == torch.device("cpu")
    assert usable(torch.device("cpu")).type == "cpu"
    assert usable() == torch.device("cuda" if torch.cuda.is_available() else "cpu")


def test_a_run_is_refused_before_items_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("brewlens.study.run"), "load_items", None)
    monkeypatch.setattr("brewlens.loading.load_model", None)
    with pytest.raises(bl.ModelError, match="asked for device 'cuda:77'"):
        bl.run(bl.make_plan(device="cuda:77"), tmp_path / "r", progress=False)
    assert not list(tmp_path.iterdir())
