"""ModelError: what is raised where a model cannot be used."""

from __future__ import annotations


class ModelError(ValueError):
    """A model cannot be loaded, or failed its self-check. The text says asked, found, what to do."""
