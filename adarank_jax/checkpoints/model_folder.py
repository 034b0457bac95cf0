"""What exports of all families share: names of files, rounding, room on the disk.

An export is a folder that appears whole or not at all (`folders`); its weights are
safetensors (`shards`), and everything beside them is plain bytes.
"""

import hashlib
import json
import pathlib
import re
import shutil
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from adarank_jax import errors
from adarank_jax.checkpoints import folders


def slugs(tasks: Sequence[str]) -> list[str]:
    """Turns task names into file names that are safe everywhere, each different.

    Args:
        tasks: any texts.

    Examples:
        >>> slugs(["MNIST", "mnist", "a/b", "naïve", "con", "数字"])
        ['mnist', 'mnist-2', 'a-b', 'naive', 'task-con', 'task']
    """
    found: list[str] = []
    for task in tasks:
        ascii_ = unicodedata.normalize("NFKD", task).encode("ascii", "ignore").decode()
        slug = re.sub(r"[^a-z0-9_.-]+", "-", ascii_.lower()).strip("-._")[:60] or "task"
        slug = f"task-{slug}" if slug.split(".")[0] in _RESERVED else slug
        name, number = slug, 2
        while name in found:
            name, number = f"{slug}-{number}", number + 1
        found.append(name)
    return found


def cast(state: Mapping[str, np.ndarray], dtype: str | None) -> dict[str, np.ndarray]:
    """Rounds floating-point tensors to a dtype, if there is one.

    Args:
        state: array by name.
        dtype: float32, float16 or bfloat16; None to change nothing.

    Returns:
        The same names; other tensors are as they were.

    Raises:
        ValueError: there is no such dtype.
        UsageError: a number does not fit it.

    Examples:
        >>> import numpy as np
        >>> rounded = cast({"a": np.ones(2), "ids": np.arange(3)}, "bfloat16")
        >>> [str(array.dtype) for array in rounded.values()]
        ['bfloat16', 'int64']
    """
    if dtype is None:
        return dict(state)
    if dtype not in _DTYPES:
        raise ValueError(
            f"`dtype` must be one of {', '.join(_DTYPES)} or None, got {dtype!r}."
        )
    with np.errstate(over="ignore"):
        rounded = {
            name: array.astype(_DTYPES[dtype]) if _is_floating(array) else array
            for name, array in state.items()
        }
    floats = {name: x for name, x in rounded.items() if _is_floating(x)}
    bad = [name for name, x in floats.items() if not np.isfinite(x).all()]
    if bad:
        raise errors.UsageError(
            *("E221", f"{bad[0]!r} has numbers that do not fit {dtype}"),
            remedy="take bfloat16 or float32",
        )
    return rounded


def in_float32(base: Any) -> Any:
    """Widens the tensors of a checkpoint, so that what replaces them is rounded once.

    Args:
        base: a checkpoint with `state` and `layout`.

    Returns:
        The same checkpoint; its floating-point tensors are float32.
    """
    tensors = {
        name: np.asarray(x, np.float32) if _is_floating(x) else x
        for name, x in base.state.tensors.items()
    }
    return base._replace(
        state=base.state._replace(tensors=tensors),
        layout=base.layout._replace(dtype="float32"),
    )


def _is_floating(array):
    """Tells whether an array holds floating-point numbers, of any kind."""
    return array.dtype in _DTYPES.values() or array.dtype.kind == "f"


def digest_tensors(tensors: Mapping[str, np.ndarray]) -> str:
    """Hashes the sorted names, dtypes, shapes and bytes of tensors.

    Args:
        tensors: array by name.

    Returns:
        SHA-256, in hexadecimal; independent of shards and of the order.

    Examples:
        >>> import numpy as np
        >>> one, half = np.ones(2, np.float32), np.ones(2, np.float16)
        >>> digest_tensors({"a": one}) == digest_tensors({"a": half})
        False
    """
    sha = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        sha.update(f"{name} {array.dtype} {list(array.shape)}\n".encode())
        sha.update(np.ascontiguousarray(array).view(np.uint8).data)
    return sha.hexdigest()


def check_names(files: Iterable[str], taken: Iterable[str]) -> None:
    """Refuses more files that another part writes, or that lie elsewhere.

    Args:
        files: names that were asked for.
        taken: names in the folder that are the export's own.

    Raises:
        ValueError: a name is taken, is one of a weight file, or is no plain name.
    """
    own = {*taken, folders.SUMS, folders.MARK}
    for name in files:
        is_weights = re.fullmatch(r"(open_clip_)?model\b.*", name) is not None
        is_plain = pathlib.PurePath(name).name == name
        if is_weights or not is_plain or name in own:
            raise ValueError(
                "`files` must have names of their own in the folder itself, got "
                f"{name!r}."
            )


def check_room(target: pathlib.Path, needed: int) -> None:
    """Checks that the disk has room, with a little to spare.

    Args:
        target: folder that will be written.
        needed: bytes of all its weights.

    Raises:
        MachineError: there is no room.
    """
    place = target.absolute().parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed + _SLACK > free:
        raise errors.MachineError(
            "E401",
            f"it needs {needed + _SLACK:,} bytes, but {free:,} are free there",
            where=f"`{target}`",
            remedy="make room, or choose another folder",
        )


def read_inside(file: pathlib.Path) -> bytes:
    """Reads a file, unless it is a link that leads out of its folder and Hub cache.

    Args:
        file: that lies beside the weights of a checkpoint.

    Raises:
        InputError: it is such a link.
    """
    real, roots = file.resolve(), [file.parent.resolve()]
    roots += [
        p.parent.resolve() / "blobs" for p in file.parents if p.name == "snapshots"
    ]
    if not any(real.is_relative_to(root) for root in roots):
        raise errors.InputError(
            "E154",
            f"this is a link to `{real}`, outside the folder of the model",
            where=f"`{file}`",
            remedy="put the file itself there",
        )
    return real.read_bytes()


def without_name(values: Mapping[str, Any]) -> dict[str, Any]:
    """Drops the name of the model that a config.json was written for.

    Args:
        values: the parsed file; a merged model is not the base that they name.

    Examples:
        >>> without_name({"_name_or_path": "a/b", "text_config": {"_name_or_path": ""}})
        {'text_config': {}}
    """
    return {
        key: without_name(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if key != "_name_or_path"
    }


def to_json(values: Mapping[str, Any]) -> bytes:
    """Writes plain values as JSON that people can read."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


_DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_RESERVED = {"con", "prn", "aux", "nul"} | {
    f"{port}{number}" for port in ("com", "lpt") for number in range(10)
}
_SLACK = 16_000_000
