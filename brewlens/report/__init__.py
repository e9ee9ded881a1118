"""One self-contained HTML page from a run: ``build(folder, trace, summary, manifest)``."""

from typing import TYPE_CHECKING

from brewlens.report.warnings import warnings_of

if TYPE_CHECKING:
    from brewlens.report.page import build

__all__ = ["build", "warnings_of"]


def __getattr__(name: str) -> object:
    if name == "build":  # which draws figures; warnings need none
        from brewlens.report.page import build

        return build
    raise AttributeError(f"module 'brewlens.report' has no attribute {name!r}")
