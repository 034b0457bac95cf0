"""Parameter trees as safetensors files, with a digest of what was written.

safetensors holds no checksum of its own, so a file that is written here holds a digest
of each tensor, and may be compared as a whole with a digest that was recorded
elsewhere. Nothing that is read here can run code.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
from typing import Any

import numpy as np
from safetensors.numpy import save

from adarank_jax import errors, faults, tree
from adarank_jax.checkpoints import digests, safetensors_files
from adarank_jax.tree import Tree


def write(path: str | os.PathLike, params: Tree, dtype: Any = np.float32) -> str:
    """Writes a tree, whole or not at all.

    Args:
        path: of the file.
        params: a nested dict of arrays.
        dtype: that the arrays are stored in.

    Returns:
        The SHA-256 digest of the file, in hexadecimal.

    Raises:
        ValueError: a value is not finite, or does not fit the dtype.
    """
    path = pathlib.Path(path)
    flat = {
        name: np.array(leaf, dtype, order="C")
        for name, leaf in tree.flatten(params).items()
    }
    tree.check_finite(tree.unflatten(flat), f"`{path.name}`")
    # One entry only: safetensors writes several in random order.
    held = json.dumps(digests.of_arrays(flat), sort_keys=True)
    content = save(flat, metadata={_DIGESTS: held})
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def read(path: str | os.PathLike, expected: str | None = None) -> Tree:
    """Reads a tree as float32 and checks every number.

    Args:
        path: of a safetensors file whose names are paths ``a/b/c``.
        expected: SHA-256 digest that the file must have; None to accept any.

    Returns:
        A nested dict of float32 arrays.

    Raises:
        DamageError: the file is damaged.
        InputError: it holds NaN or infinity, or what is no floating point.
        MissingError: there is no such file.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.MissingError(
            "E101",
            f"There is no file `{path}`",
            remedy="check the path, or make it again",
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if expected is not None and found != expected:
        raise _damaged(path, f"its SHA-256 is {found}", expected)
    try:
        arrays = safetensors_files.parse_tensors(content, path)
    except ValueError as error:
        raise _damaged(path, str(error), "a file that is whole") from error
    _check_digests(path, content, arrays)
    params = tree.unflatten(
        {name: _to_float32(path, name, arrays[name]) for name in sorted(arrays)}
    )
    tree.check_finite(params, f"`{path}`")
    return params


def _check_digests(path, content, arrays):
    """Compares every tensor with the digest that the file holds, if it holds any."""
    size = int.from_bytes(content[:8], "little")
    held = json.loads(content[8 : 8 + size]).get("__metadata__", {}).get(_DIGESTS)
    if held is None:
        return
    found, expected = digests.of_arrays(arrays), {}
    with contextlib.suppress(ValueError):
        expected = dict(json.loads(held))
    names = found.keys() | expected.keys()
    wrong = sorted(n for n in names if found.get(n) != expected.get(n))
    if wrong:
        raise _damaged(path, f"the SHA-256 of {wrong[:3]} is another", "that it holds")


def _damaged(path, found, expected):
    """Says that a file is not what was written."""
    return errors.DamageError(
        *("E604", f"damaged or changed: {found}", f"`{path}`", expected),
        "fetch or make the file again",
    )


def digest(path: str | os.PathLike) -> str:
    """Returns the SHA-256 digest of a file, in hexadecimal."""
    with pathlib.Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_whole(path: str | os.PathLike, *content: bytes | np.ndarray) -> None:
    """Replaces a file in one step: a reader sees the old one or the new one.

    Args:
        path: of the file; its folder is made if it is missing.
        *content: what it shall hold, in parts: bytes or arrays of bytes.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            for part in content:
                stream.write(part)
            faults.point("file-half-written")
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    faults.point("file-in-place")


def sync_folder(path: str | os.PathLike) -> None:
    """Waits until the names in a folder are on the disk.

    Args:
        path: of the folder.
    """
    if os.name == "nt":  # which cannot open a folder
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _to_float32(path, name, array):
    """Copies an array to float32."""
    if array.dtype not in _DTYPES:
        raise errors.InputError(
            "E116",
            f"`{path}` holds {name!r} as {array.dtype}",
            expected=f"one of {[dtype.__name__ for dtype in _DTYPES]}",
            remedy="save it as floating point first",
        )
    return array.astype(np.float32)


_DIGESTS = "sha256"
_DTYPES = (np.float64, np.float32, np.float16)
