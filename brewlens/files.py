"""Files that are whole or absent: written to a temporary name and renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes ``path`` when the block succeeds, and is removed when it does not.

    The temporary file lies in the folder of ``path``, which is made, so that the renaming stays within one
    file system; its bytes are on the disk before it gets the name. What was at ``path`` stays until then.

    Args:
        path: The file to write, or to write anew.

    Yields:
        Where to write it. The block must leave a file there.

    Raises:
        OSError: If the file cannot be written; FileNotFoundError if the block wrote none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # safetensors makes files that only their owner can read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
