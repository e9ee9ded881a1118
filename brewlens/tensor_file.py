"""A safetensors file that is filled row by row, so that what is written need not be in memory at once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

# Names of the safetensors format, version 0.
_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
}


class TensorFile:
    """Tensors of known shapes on disk; rows are written in any order. Use it in a ``with`` block.

    Args:
        path: Written anew; a row that is never written reads as zeros.
        shapes: Tensor name -> type and shape; rows are entries of the first axis.
        metadata: Kept as one JSON text under ``brewlens``.

    Raises:
        ValueError: If a type is not float32, float16, bfloat16, int64 or int32.
    """

    def __init__(
        self,
        path: Path,
        shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
        metadata: Mapping[str, object],
    ) -> None:
        if unknown := {dtype for dtype, _ in shapes.values()} - set(_NAMES):
            raise ValueError(f"can write {[str(d) for d in _NAMES]}, found {unknown}")
        self._shapes = dict(shapes)
        self._starts: dict[str, int] = {}
        header: dict[str, object] = {
            "__metadata__": {"brewlens": json.dumps(metadata, sort_keys=True, ensure_ascii=False)}
        }
        end = 0
        # The widest types first, so that every tensor begins at a multiple of its type's size.
        for name, (dtype, shape) in sorted(shapes.items(), key=lambda kv: -kv[1][0].itemsize):
            self._starts[name], end = end, end + math.prod(shape) * dtype.itemsize
            header[name] = {
                "dtype": _NAMES[dtype],
                "shape": list(shape),
                "data_offsets": [self._starts[name], end],
            }
        text = json.dumps(header, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._data = 8 + len(text)
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.truncate(self._data + end)

    def write(self, name: str, values: Tensor, rows: Int[Tensor, "row"] | None = None) -> None:
        """Write ``values[k]`` as row ``rows[k]`` of a tensor, in the tensor's type; without rows, all of it.

        Raises:
            ValueError: If a row or the shape of the values does not fit.
        """
        dtype, shape = self._shapes[name]
        expected = shape if rows is None else (len(rows), *shape[1:])
        if tuple(values.shape) != expected or (
            rows is not None and len(rows) and int(rows.max()) >= shape[0]
        ):
            raise ValueError(f"{name} is {list(shape)}; found {list(values.shape)} for rows {rows}")
        data: Any = values.to("cpu", dtype).contiguous().reshape(-1).view(torch.uint8).numpy()
        start = self._data + self._starts[name]
        if rows is None:
            self._file.seek(start)
            self._file.write(data)
            return
        size = math.prod(shape[1:]) * dtype.itemsize
        for k, row in enumerate(rows.tolist()):
            self._file.seek(start + row * size)
            self._file.write(data[k * size : (k + 1) * size])

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
