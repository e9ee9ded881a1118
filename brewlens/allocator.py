"""Allocator: memory of large tensors is kept between forwards, in the process of the command line.

glibc takes a large buffer from the system and hands it back when it is freed. Every forward then has its
pages cleared and mapped anew. With both thresholds above the size of a batch the buffers stay. Memory that
was once in use is kept until the process ends.
"""

from __future__ import annotations

import ctypes
import os
import platform

KEPT = 2**30
"""Largest buffer, and largest free memory at the end of the heap, that is kept (bytes)."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_buffers() -> bool:
    """Raise glibc's thresholds, unless the environment sets an allocator or its thresholds.

    Returns:
        Whether they were raised: False on systems without glibc.
    """
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in _SETTINGS):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, KEPT) and mallopt(_TRIM_THRESHOLD, KEPT))
