"""What the command line tells on standard error."""

from __future__ import annotations

import io
import logging
import os
import sys

import pytest
from transformers.utils import logging as library

from brewlens.terminal import told


@pytest.fixture(autouse=True)
def bars_before():
    library.enable_progress_bar()
    yield
    assert library.is_progress_bar_enabled()


def test_quiet_is_quiet_and_warnings_are_told(caplog):
    log = logging.getLogger("brewlens")
    log.setLevel(logging.INFO)
    with told(quiet=True) as bars:
        assert not bars and not library.is_progress_bar_enabled()
        assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
        log.info("stage 1")
        log.warning("left out")
    assert [record.message for record in caplog.records] == ["left out"]
    assert log.level == logging.INFO and "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ
    log.setLevel(logging.NOTSET)


def test_in_a_file_there_are_lines_and_no_bars(caplog):
    with caplog.at_level(logging.INFO, logger="brewlens"), told(quiet=False) as bars:
        assert not bars and not library.is_progress_bar_enabled()
        logging.getLogger("brewlens").info("stage 1")
    assert "stage 1" in caplog.text


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_in_a_terminal_there_are_bars(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with told(quiet=False) as bars:
        assert bars and library.is_progress_bar_enabled()
    with told(quiet=True) as bars:
        assert not bars
