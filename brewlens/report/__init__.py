"""One self-contained HTML page from a run: ``build(folder, trace, summary, manifest)``."""

from brewlens.report.page import build
from brewlens.report.warnings import warnings_of

__all__ = ["build", "warnings_of"]
