"""safetensors files to named arrays, with every number of the header checked first.

The format has no checksum: what can be known is that the header describes exactly the
bytes that are there, each of them once.
"""

import math
import mmap
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from adarank_jax.checkpoints import formats

MOST_HEADER_BYTES = 1 << 24
"""Length of header that is read: about 150,000 tensors."""


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Maps the tensors of a safetensors file.

    Args:
        path: of the file.

    Returns:
        Read-only arrays by name in the dtype of the file; they are mapped from it, not
        copied, so the file must not be changed while they are in use.

    Raises:
        FileNotFoundError: there is no such file; the message has the nearest name.
        ValueError: it has another format, is damaged, or holds dtypes that are unknown
            or quantised; the message names the tensor.
    """
    path = pathlib.Path(path)
    if formats.sniff(path) != "safetensors":
        raise ValueError(
            f"`{path}` is a zip archive, expected safetensors; `read_state` reads both."
        )
    with path.open("rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return parse_tensors(content, path)


def parse_tensors(
    content: bytes | mmap.mmap, path: str | os.PathLike
) -> dict[str, np.ndarray]:
    """Views the tensors of a safetensors file that is in memory.

    Args:
        content: of the file.
        path: to name in messages.

    Returns:
        Read-only arrays by name, views of `content`.

    Raises:
        ValueError: as `read_tensors`.
    """
    header, start = _header(content, path)
    header.pop("__metadata__", None)
    spans = {name: _check_entry(name, entry, path) for name, entry in header.items()}
    _check_layout(spans, len(content) - start, path)
    data = np.frombuffer(content, np.uint8)[start:]
    return {
        name: data[begin:end]
        .view(DTYPES[header[name]["dtype"]])
        .reshape(header[name]["shape"])
        for name, (begin, end) in spans.items()
    }


def _header(content, path):
    """Parses the JSON header; returns it and where the data starts."""
    damaged = f"`{path}` is no whole safetensors file:"
    size = len(content)
    if size < 10:
        raise ValueError(f"{damaged} it has {size} bytes; download or make it again.")
    length = int.from_bytes(content[:8], "little")
    if length > MOST_HEADER_BYTES:
        raise ValueError(
            f"{damaged} it claims a header of {length:,} bytes, expected at most "
            f"{MOST_HEADER_BYTES:,}; download or make it again."
        )
    if length + 8 > size:
        raise ValueError(f"{damaged} {_missing(size, length + 8)}")
    header = formats.parse_json(
        content[8 : 8 + length], f"The header of `{path}`", most_containers=1_000_000
    )
    return header, 8 + length


def _missing(found, needed):
    """Says how much of a file is there."""
    return (
        f"{found:,} bytes found of {needed:,} needed, "
        f"{100 * (needed - found) / needed:.2g} % missing; download or make it again."
    )


def _check_entry(name: str, entry: Any, path) -> tuple[int, int]:
    """Checks one entry of the header; returns its span in the data."""
    where = f"Tensor {name!r} of `{path}`"
    if not isinstance(entry, Mapping) or not entry.keys() >= _FIELDS:
        raise ValueError(f"{where} must have the fields {sorted(_FIELDS)}; {_AGAIN}")
    dtype, shape, span = (entry[field] for field in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPES:
        reason = (
            formats.DEQUANTISE
            if str(dtype).startswith(("F8", "F6", "F4"))
            else f"expected one of {', '.join(DTYPES)}; convert it first"
        )
        raise ValueError(f"{where} has the dtype {str(dtype)[:20]!r}: {reason}.")
    if not (_are_counts(shape) and len(shape) <= 32):
        raise ValueError(
            f"{where} must have a shape of integers >= 0, at most 32, got "
            f"{str(shape)[:80]}; {_AGAIN}"
        )
    if not (_are_counts(span) and len(span) == 2 and span[0] <= span[1]):
        raise ValueError(
            f"{where} must have offsets 0 <= begin <= end, got {str(span)[:80]}; "
            f"{_AGAIN}"
        )
    if math.prod(size or 1 for size in shape) >= 1 << 48:
        raise ValueError(f"{where} has the shape {tuple(shape)}; {_AGAIN}")
    needed = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if span[1] - span[0] != needed:
        raise ValueError(
            f"{where} of shape {tuple(shape)} and dtype {dtype} needs {needed:,} "
            f"bytes, but its offsets {span} hold {span[1] - span[0]:,}; {_AGAIN}"
        )
    return span[0], span[1]


def _are_counts(values):
    """Tells whether this is a list of integers from 0 to 2**63 - 1."""
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 1 << 63 for value in values
    )


def _check_layout(spans, size, path):
    """Checks that the tensors cover the data once, without a hole."""
    position, last = 0, "the header"
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != position:
            fault = (
                f"overlaps {last}"
                if begin < position
                else f"leaves a hole of {begin - position:,} bytes after {last}"
            )
            raise ValueError(f"Tensor {name!r} of `{path}` {fault}; {_AGAIN}")
        position, last = end, f"{name!r}"
    if size < position:
        raise ValueError(
            f"`{path}` is no whole safetensors file: its data has "
            f"{_missing(size, position)}"
        )
    if size > position:
        raise ValueError(
            f"`{path}` has {size - position:,} extra bytes after the last tensor, "
            "which no safetensors file has; download or make it again."
        )


_AGAIN = "the file is damaged: download or make it again."
_FIELDS = {"dtype", "shape", "data_offsets"}
DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
"""numpy's dtype for each of the format's that is read."""
