"""Checkpoints of any container to named arrays: a file, a folder or shards.

What a file is, its content decides. Nothing that is read here can run code.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import ml_dtypes
import numpy as np

from adarank_jax.checkpoints import formats, safetensors_files


class StateDict(NamedTuple):
    """Tensors by the names that the checkpoint gives them.

    Attributes:
        tensors: arrays in the dtype of the file (bfloat16 as `ml_dtypes.bfloat16`),
            read-only and mapped from the file where that is possible.
        files: every file that was read.
        format: ``"safetensors"`` or ``"torch"``.
        classes: names of the Python classes that a torch file mentions; none of them
            was imported.
    """

    tensors: dict[str, np.ndarray]
    files: tuple[pathlib.Path, ...]
    format: str
    classes: tuple[str, ...] = ()


def read_state(path: str | os.PathLike) -> StateDict:
    """Reads the tensors of a checkpoint.

    Args:
        path: of a safetensors file, of a zip file of `torch.save`, of an index of
            shards, or of a folder that holds one of them under its usual name.

    Returns:
        The tensors, and where they came from.

    Raises:
        FileNotFoundError: there is no such path, or shards are missing; the message
            has the nearest name, or all of the shards.
        ValueError: the file is damaged, has another format or would run code.
    """
    path = pathlib.Path(path)
    formats.check_exists(path)
    return _read_file(path)


def _read_file(path):
    """Reads one file by its content."""
    formats.sniff(path)
    return StateDict(safetensors_files.read_tensors(path), (path,), "safetensors")


def check_floating(tensors: Mapping[str, np.ndarray], source: str) -> None:
    """Checks that no weight is stored as integers.

    Args:
        tensors: arrays by name.
        source: what to call them in the message.

    Raises:
        ValueError: a tensor has 8-bit integers, or integers under the name of a weight;
            the message lists all of them.
    """
    bad = [
        f"{name}: {array.dtype}"
        for name, array in sorted(tensors.items())
        if array.dtype in (np.int8, np.uint8)
        or (array.dtype.kind in "iu" and name.endswith(_WEIGHTS))
    ]
    if bad:
        raise ValueError(
            f"{source} has {len(bad)} tensors that are {formats.DEQUANTISE}.\n  "
            + "\n  ".join(bad)
        )


def to_float32(array: np.ndarray) -> np.ndarray:
    """Converts floating point of any width to float32.

    Args:
        array: of float64, float32, float16 or bfloat16.

    Returns:
        The array itself if it is float32 already, else a copy; a float64 that does
        not fit becomes infinite.

    Raises:
        TypeError: the array holds something else.

    Examples:
        >>> to_float32(np.float16([0.5, 2])).dtype
        dtype('float32')
    """
    if array.dtype.kind != "f" and array.dtype != ml_dtypes.bfloat16:
        raise TypeError(f"`array` must be floating point, got {array.dtype}.")
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


_WEIGHTS = ("weight", "bias", "proj", "kernel", "embedding", "scale")
