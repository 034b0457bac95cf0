"""Checkpoints of any container to named arrays: a file, a folder or shards.

What a file is, its content decides. Nothing that is read here can run code.
"""

import os
import pathlib
import re
from typing import NamedTuple

import ml_dtypes
import numpy as np

from adarank_jax import errors
from adarank_jax.checkpoints import formats, safetensors_files, torch_files
from adarank_jax.errors import Message


class StateDict(NamedTuple):
    """Tensors by the names that the checkpoint gives them.

    Attributes:
        tensors: arrays in the dtype of the file (bfloat16 as `ml_dtypes.bfloat16`),
            read-only and mapped from the file where that is possible.
        files: every file that was read.
        format: ``"safetensors"`` or ``"torch"``.
        classes: names of the Python classes that a torch file mentions; none of them
            was imported.
        warnings: what is odd about the files and stops nothing.
    """

    tensors: dict[str, np.ndarray]
    files: tuple[pathlib.Path, ...]
    format: str
    classes: tuple[str, ...] = ()
    warnings: tuple[Message, ...] = ()


def read_state(path: str | os.PathLike) -> StateDict:
    """Reads the tensors of a checkpoint.

    Args:
        path: of a safetensors file, of a zip file of `torch.save`, of an index of
            shards, or of a folder that holds one of them under its usual name.

    Returns:
        The tensors, and where they came from.

    Raises:
        MissingError: there is no such path, or shards are missing; the message has
            the nearest name, or all of the shards.
        InputError: the file is damaged, has another format or would run code.
    """
    path = pathlib.Path(path)
    formats.check_exists(path)
    if path.is_dir():
        return _read_folder(path)
    return _read_index(path) if path.name.endswith(".index.json") else _read_file(path)


def _read_file(path):
    """Reads one file by its content."""
    if formats.sniff(path) == "torch":
        read = torch_files.read_torch(path)
        warnings = (
            *_misnamed(path, "torch", (".safetensors",)),
            *_left_out(path, read.classes),
        )
        return StateDict(read.tensors, (path,), "torch", read.classes, warnings)
    tensors = safetensors_files.read_tensors(path)
    if not tensors:
        raise errors.InputError(
            *("E109", "it holds no tensors", f"`{path}`"),
            remedy="give the file of the weights",
        )
    warnings = _misnamed(path, "safetensors", (".pt", ".pth", ".bin"))
    return StateDict(tensors, (path,), "safetensors", warnings=warnings)


def _misnamed(path, kind, others):
    """Warns of a file whose name says something else than its content."""
    if path.suffix not in others:
        return ()
    found = f"this is a {kind} file in spite of its name; it was read as what it is"
    return (Message("W118", found, f"`{path}`", remedy="rename it"),)


def _left_out(path, classes):
    """Warns of Python classes that a torch file would have had imported."""
    if not classes:
        return ()
    shown = ", ".join(classes[:6]) + (", …" if len(classes) > 6 else "")
    found = f"only its tensors were read; these classes were not imported: {shown}"
    return (Message("W151", found, f"`{path}`"),)


def _read_folder(folder):
    """Reads the checkpoint that a folder holds under its usual name."""
    present = sorted(entry.name for entry in folder.iterdir())
    found = [name for name in _NAMES if name in present]
    if found:
        path = folder / found[0]
        _check_link(path, folder)
        is_index = path.name.endswith(".json")
        state = _read_index(path) if is_index else _read_file(path)
        if len(found) == 1:
            return state
        left = ", ".join(found[1:])
        told = f"it holds {found[0]}, which was read, and {left}, left out"
        warning = Message(
            *("W124", told, f"`{folder}`"),
            remedy="give the path of a file if that is the wrong one",
        )
        return state._replace(warnings=(*state.warnings, warning))
    if any(name.startswith(_ADAPTER) for name in present):
        raise errors.InputError(
            *("E125", "it holds a LoRA adapter and no model", f"`{folder}`"),
            remedy="merge the adapter into its base first, and give the folder of the "
            "result",
        )
    raise errors.InputError(*_what_else(present)._replace(where=f"`{folder}`"))


def _what_else(present):
    """Says what is in a folder that holds no checkpoint under its usual name."""
    if not present:
        remedy = "give the folder or file of a checkpoint"
        return Message("E108", "this is an empty folder", remedy=remedy)
    weights = [name for name in present if name.endswith(_WEIGHT_SUFFIXES)]
    if weights:
        found = f"it has no checkpoint under its usual name, but {weights[:5]}"
        return Message("E108", found, remedy="give the path of that file")
    for suffix, what in _OTHER_FORMATS.items():
        if others := [name for name in present if name.endswith(suffix)]:
            return Message(
                "E125",
                f"it holds {others[0]!r} ({what}), neither safetensors nor torch files",
                remedy="save it as safetensors first",
            )
    return Message(
        "E108",
        f"it holds no checkpoint; it has {present[:5]}",
        expected=f"one of {list(_NAMES)}",
        remedy="give the path of a file",
    )


def _check_link(path, folder):
    """Checks that a file is in its folder, or in the blobs of the same hub cache."""
    target, home = (pathlib.Path(os.path.realpath(each)) for each in (path, folder))
    blobs = next(
        (
            parent.parent / "blobs"
            for parent in home.parents
            if parent.name == "snapshots"
        ),
        home,
    )
    if not (target.is_relative_to(home) or target.is_relative_to(blobs)):
        raise errors.InputError(
            "E154",
            f"this is a link to `{target}`, which is outside of its folder",
            where=f"`{path}`",
            remedy="give the path of the file itself if you trust it",
        )


def _read_index(path):
    """Reads all shards of an index, which must name exactly what they hold."""
    if (size := path.stat().st_size) > _MOST_INDEX_BYTES:
        raise errors.InputError(
            *("E123", f"{size:,} bytes", f"`{path}`"),
            expected=f"at most {_MOST_INDEX_BYTES:,}",
            remedy="check that it is the index",
        )
    index = formats.parse_json(path.read_bytes(), f"`{path}`", most_containers=1000)
    weight_map = index.get("weight_map")
    if not (
        isinstance(weight_map, dict)
        and weight_map
        and all(isinstance(shard, str) for shard in weight_map.values())
    ):
        raise errors.InputError(
            *("E121", "it must have a `weight_map` from tensor to file", f"`{path}`"),
            remedy="check that it is the index",
        )
    names = sorted(set(weight_map.values()))
    shards = {name: _shard(path, name) for name in names}
    if missing := [name for name in names if not shards[name].is_file()]:
        raise errors.MissingError(
            "E120",
            f"it names {len(names)} shards, {len(missing)} of them are missing:\n  "
            + "\n  ".join(missing),
            where=f"`{path}`",
            remedy="download them again",
        )
    tensors, formats_read, classes, faults, warnings = {}, set(), set(), [], []
    for name, shard in shards.items():
        _check_link(shard, path.parent)
        state = _read_file(shard)
        expected = {tensor for tensor, where in weight_map.items() if where == name}
        faults += [
            *(f"{t!r} is not in {name}" for t in expected - state.tensors.keys()),
            *(f"{t!r} is only in {name}" for t in state.tensors.keys() - expected),
        ]
        tensors |= state.tensors
        formats_read.add(state.format)
        classes |= set(state.classes)
        warnings += state.warnings
    if faults:
        raise errors.InputError(
            "E121",
            f"it and its shards differ in {len(faults)} tensors:\n  "
            + "\n  ".join(sorted(faults)[:50]),
            where=f"`{path}`",
            remedy="download all of them again",
        )
    return StateDict(
        tensors,
        (path, *shards.values()),
        "safetensors" if formats_read == {"safetensors"} else "torch",
        tuple(sorted(classes)),
        tuple(warnings),
    )


def _shard(index, name):
    """Joins the name of a shard to the folder of its index."""
    parts = re.split(r"[/\\]", name)
    if (
        {"\\", ":"} & set(name)
        or not name.isprintable()
        or {"", ".", ".."} & set(parts)
    ):
        raise errors.InputError(
            "E122",
            f"it names the shard {name[:200]!r}, which leaves its folder or is no file "
            "name",
            where=f"`{index}`",
            remedy="do not use it",
        )
    return index.parent / name


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


_MOST_INDEX_BYTES = 50_000_000
_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
_ADAPTER = ("adapter_config.json", "adapter_model.")
_WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_OTHER_FORMATS = {
    ".h5": "HDF5 of Keras",
    ".keras": "Keras",
    ".msgpack": "msgpack of Flax",
    ".gguf": "GGUF of llama.cpp, quantised",
    ".onnx": "ONNX",
    ".ckpt.index": "TensorFlow",
    ".pb": "TensorFlow",
    ".tflite": "TensorFlow Lite",
    ".ckpt": "Lightning or TensorFlow",
    ".npz": "numpy",
}
