"""State dicts as safetensors files, split into shards when they are large.

Tensors are written one after the other as the bytes that they are, in any dtype of the
format, bfloat16 and the 8-bit floats included.
"""

import json
import math
import pathlib
from collections.abc import Mapping

import ml_dtypes
import numpy as np


def write_state(
    folder: pathlib.Path,
    tensors: Mapping[str, np.ndarray],
    stem: str = "model",
    max_shard_size: int | str = "5GB",
) -> list[pathlib.Path]:
    """Writes a state dict as one file, or as shards with an index.

    Args:
        folder: that exists.
        tensors: array by name.
        stem: of the file names.
        max_shard_size: bytes of a file, or for example ``"5GB"``; a larger tensor has a
            file of its own.

    Returns:
        The files that hold tensors.

    Raises:
        ValueError: there is no tensor, or one has a dtype that safetensors lacks.
    """
    from huggingface_hub import split_state_dict_into_shards_factory

    if not tensors:
        raise ValueError("`tensors` must hold at least one tensor, got none.")
    for name, array in tensors.items():
        _dtype_name(name, array)
    split = split_state_dict_into_shards_factory(
        dict(tensors),
        get_storage_size=lambda array: array.nbytes,
        filename_pattern=f"{stem}{{suffix}}.safetensors",
        max_shard_size=max_shard_size,
    )
    for file, names in split.filename_to_tensors.items():
        write_safetensors(folder / file, {name: tensors[name] for name in names})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / f"{stem}.safetensors.index.json").write_text(text, encoding="utf-8")
    return [folder / file for file in split.filename_to_tensors]


def write_safetensors(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes one safetensors file, tensor by tensor, with metadata for PyTorch.

    Args:
        path: of the file.
        tensors: array by name.

    Raises:
        ValueError: a dtype is none of safetensors.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    # Wide numbers first, so that every tensor lies at a multiple of its item size.
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    end = 0
    for name in order:
        array = tensors[name]
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": _dtype_name(name, array),
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            file.write(np.ascontiguousarray(tensors[name]).tobytes())


def num_bytes(tensors: Mapping[str, np.ndarray]) -> int:
    """Counts the bytes of all tensors."""
    return sum(math.prod(a.shape) * a.itemsize for a in tensors.values())


def _dtype_name(name, array):
    """Returns what safetensors calls a dtype."""
    if array.dtype not in _NAMES:
        raise ValueError(
            f"{name!r} is of {array.dtype}, which safetensors cannot hold; convert it "
            f"to one of {', '.join(str(dtype) for dtype in _NAMES)}."
        )
    return _NAMES[array.dtype]


_NAMES = {
    np.dtype(kind): name
    for kind, name in (
        (np.float64, "F64"),
        (np.float32, "F32"),
        (np.float16, "F16"),
        (ml_dtypes.bfloat16, "BF16"),
        (ml_dtypes.float8_e4m3fn, "F8_E4M3"),
        (ml_dtypes.float8_e5m2, "F8_E5M2"),
        (np.int64, "I64"),
        (np.int32, "I32"),
        (np.int16, "I16"),
        (np.int8, "I8"),
        (np.uint64, "U64"),
        (np.uint32, "U32"),
        (np.uint16, "U16"),
        (np.uint8, "U8"),
        (np.bool_, "BOOL"),
    )
}
