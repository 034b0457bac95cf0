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

from adarank_jax import errors
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
        MissingError: there is no such file; the message has the nearest name.
        InputError: it has another format, is damaged, or holds dtypes that are unknown
            or quantised; the message names the tensor.
    """
    path = pathlib.Path(path)
    if formats.sniff(path) != "safetensors":
        raise errors.InputError(
            *("E118", "this is a zip archive", f"`{path}`", "safetensors"),
            remedy="call `read_state`, which reads both",
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
        InputError: as `read_tensors`.
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
    where = f"`{path}`"
    size = len(content)
    if size < 10:
        found = f"this is no whole safetensors file: it has {size} bytes"
        raise errors.InputError("E111", found, where, remedy=_AGAIN)
    length = int.from_bytes(content[:8], "little")
    if length > MOST_HEADER_BYTES:
        raise errors.InputError(
            *("E113", f"it claims a header of {length:,} bytes", where),
            expected=f"at most {MOST_HEADER_BYTES:,}",
            remedy=_AGAIN,
        )
    if length + 8 > size:
        raise _cut_off(size, length + 8, where)
    header = formats.parse_json(
        content[8 : 8 + length], f"The header of `{path}`", most_containers=1_000_000
    )
    return header, 8 + length


def _cut_off(found, needed, where, part=""):
    """Says how much of a file is there."""
    return errors.InputError(
        "E111",
        f"this is no whole safetensors file: {part}{found:,} bytes found of {needed:,} "
        f"needed, {100 * (needed - found) / needed:.2g} % missing",
        where=where,
        remedy=_AGAIN,
    )


def _check_entry(name: str, entry: Any, path) -> tuple[int, int]:
    """Checks one entry of the header; returns its span in the data."""
    where = f"Tensor {name!r} of `{path}`"
    if not isinstance(entry, Mapping) or not entry.keys() >= _FIELDS:
        found = f"its entry must have the fields {sorted(_FIELDS)}"
        raise errors.InputError("E114", found, where, remedy=_DAMAGED)
    dtype, shape, span = (entry[field] for field in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPES:
        is_quantised = str(dtype).startswith(("F8", "F6", "F4"))
        quantised = ", quantised" if is_quantised else ""
        raise errors.InputError(
            *("E116", f"it has the dtype {str(dtype)[:20]!r}{quantised}", where),
            expected=f"one of {', '.join(DTYPES)}",
            remedy=formats.DEQUANTISE if is_quantised else "convert it first",
        )
    if not (_are_counts(shape) and len(shape) <= 32):
        raise errors.InputError(
            *("E114", f"it has the shape {str(shape)[:80]}", where),
            expected="a shape of integers >= 0, at most 32",
            remedy=_DAMAGED,
        )
    if not (_are_counts(span) and len(span) == 2 and span[0] <= span[1]):
        raise errors.InputError(
            *("E114", f"it has the offsets {str(span)[:80]}", where),
            expected="0 <= begin <= end",
            remedy=_DAMAGED,
        )
    if math.prod(size or 1 for size in shape) >= 1 << 48:
        found = f"it has the shape {tuple(shape)}, which no tensor has"
        raise errors.InputError("E114", found, where, remedy=_DAMAGED)
    needed = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if span[1] - span[0] != needed:
        raise errors.InputError(
            "E114",
            f"its shape {tuple(shape)} and dtype {dtype} need {needed:,} bytes, but "
            f"its offsets {span} hold {span[1] - span[0]:,}",
            where=where,
            remedy=_DAMAGED,
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
            where = f"Tensor {name!r} of `{path}`"
            raise errors.InputError("E114", f"it {fault}", where, remedy=_DAMAGED)
        position, last = end, f"{name!r}"
    if size < position:
        raise _cut_off(size, position, f"`{path}`", "of its data, ")
    if size > position:
        raise errors.InputError(
            "E112",
            f"{size - position:,} extra bytes after the last tensor, which no "
            "safetensors file has",
            where=f"`{path}`",
            remedy=_AGAIN,
        )


_AGAIN = "download or make it again"
_DAMAGED = f"the file is damaged: {_AGAIN}"
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
