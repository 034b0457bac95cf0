"""Parameter trees as safetensors files, with a digest of what was written.

safetensors holds no checksum of its own, so a file is compared with a digest that was
recorded elsewhere. Nothing that is read here can run code.
"""

import hashlib
import os
import pathlib
import tempfile
from typing import Any

import numpy as np
from safetensors.numpy import save

from adarank_jax import tree
from adarank_jax.checkpoints import safetensors_files
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
    content = save(flat, metadata={"format": "np"})
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
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds NaN or infinity.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file `{path}`; check the path, or make it again."
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if expected is not None and found != expected:
        raise ValueError(
            f"`{path}` is damaged or was changed: its SHA-256 is {found}, expected "
            f"{expected}; fetch or make the file again."
        )
    arrays = safetensors_files.parse_tensors(content, path)
    params = tree.unflatten(
        {name: _to_float32(path, name, arrays[name]) for name in sorted(arrays)}
    )
    tree.check_finite(params, f"`{path}`")
    return params


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
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def _to_float32(path, name, array):
    """Copies an array to float32."""
    if array.dtype not in _DTYPES:
        raise ValueError(
            f"`{path}` holds {name!r} as {array.dtype}, expected one of "
            f"{[dtype.__name__ for dtype in _DTYPES]}; save it as floating point first."
        )
    return array.astype(np.float32)


_DTYPES = (np.float64, np.float32, np.float16)
