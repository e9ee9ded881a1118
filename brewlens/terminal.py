"""Terminal: which log lines and progress bars the command line shows, those of the libraries included."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_NO_BARS = "HF_HUB_DISABLE_PROGRESS_BARS"  # read when huggingface_hub, and then transformers, is imported


@contextmanager
def told(quiet: bool) -> Iterator[bool]:
    """Set what is told on standard error, and set it back.

    Args:
        quiet: No progress bars and no log lines below warnings. Without, bars where standard error is a
            terminal, and log lines above them.

    Yields:
        Whether bars are shown.
    """
    bars = not quiet and sys.stderr.isatty()
    with ExitStack() as stack:
        if quiet:
            stack.enter_context(_warnings_only())
        if bars:
            from tqdm.contrib.logging import logging_redirect_tqdm

            stack.enter_context(logging_redirect_tqdm())
        else:
            stack.enter_context(_no_bars_of_libraries())
        yield bars


@contextmanager
def _warnings_only() -> Iterator[None]:
    log = logging.getLogger("brewlens")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def _no_bars_of_libraries() -> Iterator[None]:
    before = os.environ.get(_NO_BARS)
    os.environ[_NO_BARS] = "1"
    loaded = sys.modules.get("transformers.utils.logging")
    shown = loaded is not None and loaded.is_progress_bar_enabled()
    if loaded is not None:
        loaded.disable_progress_bar()
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NO_BARS]
        else:
            os.environ[_NO_BARS] = before
        if loaded is not None and shown:
            loaded.enable_progress_bar()
