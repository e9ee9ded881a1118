"""Shared fixtures: tiny random models, and nothing from the network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of notebooks and commands that tests start, too
sys.path.insert(0, str(Path(__file__).parent))

import pytest
import tiny
import torch

# Tiny tensors: threads cost more than they bring, and workers would share the cores anyway.
torch.set_num_threads(1)


LONGEST = ("test_notebooks.py", "test_interventions.py", "test_cli.py", "test_run.py", "test_truth.py")


def pytest_addoption(parser):
    parser.addoption("--checked", action="store_true", help="check the annotations of brewlens as it runs")
    parser.addoption("--once", action="store_true", help="run a test with the first of its parameters alone")


def pytest_configure(config):
    if config.getoption("checked"):
        import checked

        checked.install()
        # beartype draws the item of a sequence that it checks, within the strategies of hypothesis too.
        config.addinivalue_line("filterwarnings", "ignore:Do not use the `random` module inside strategies")


def pytest_collection_modifyitems(config, items):
    """The longest files first, so that no worker ends with one of them alone."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
    left = items
    if config.getoption("checked"):
        left = [item for item in left if not item.get_closest_marker("unchecked")]
    if config.getoption("once"):
        left = list({item.nodeid.split("[")[0]: item for item in reversed(left)}.values())[::-1]
    if len(left) < len(items):
        config.hook.pytest_deselected(items=list(set(items) - set(left)))
        items[:] = left


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory):
    """Architecture -> folder with a tiny random model and its tokenizer. Read only."""
    root = tmp_path_factory.mktemp("tiny")
    return {name: tiny.build(name, root / name) for name in tiny.ARCHITECTURES}


@pytest.fixture(scope="session")
def tiny_models(tiny_folders):
    """Architecture -> loaded tiny model."""
    from brewlens.loading import load_model

    return {name: load_model(folder, device="cpu") for name, folder in tiny_folders.items()}


@pytest.fixture(scope="session")
def tiny_model(tiny_models):
    """One tiny model, for tests that do not depend on the architecture."""
    return tiny_models["qwen2"]


@pytest.fixture(params=tiny.ARCHITECTURES)
def any_model(request, tiny_models):
    """Each tiny model in turn."""
    return tiny_models[request.param]
