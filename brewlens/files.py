"""Files that are whole or absent: written to a temporary name and renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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


def refusal_of(folder: Path) -> str | None:
    """Why no file can be written in a folder, in words; None where one can.

    The folder and a file in it are made and removed again: permissions alone do not tell.
    """
    made: list[Path] = []
    try:
        for path in (*reversed(folder.absolute().parents), folder.absolute()):
            if path.is_dir():
                continue
            if path.exists():
                return f"{path} is a file"
            with suppress(FileExistsError):  # another run made it in between
                path.mkdir()
                made.append(path)
        trial = folder / f".trial.{os.getpid()}.tmp"
        trial.touch()
        trial.unlink()
    except OSError as error:
        return f"{error.filename or folder}: {error.strerror}"
    finally:
        for path in reversed(made):
            with suppress(OSError):  # another run has written there in between
                path.rmdir()
    return None


def nearest(folder: Path) -> Path:
    """A folder, or where it is not there, the nearest one above it that is."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def write_json(path: Path, content: object) -> None:
    """A JSON file; NaN and infinity are refused."""
    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8"
        )


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object] | None = None
) -> None:
    """A safetensors file. Its metadata is one JSON text: of several, the library shuffles the order.

    Raises:
        OSError: If the disk is full, which the library reports as an error of its own.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        try:
            save_file(contiguous, temporary, {"brewlens": json.dumps(metadata or {}, sort_keys=True)})
        except SafetensorError as error:
            if f"os error {errno.ENOSPC}" not in str(error):
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def file_hash(path: Path) -> str:
    """blake2b of a file's bytes."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
