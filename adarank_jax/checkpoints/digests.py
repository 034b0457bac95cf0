"""SHA-256 digests of arrays and of plain values, for files that hold their own.

Neither safetensors nor Orbax notices a flipped bit of an array. What is written here
therefore carries digests of its contents, and whoever reads it compares them.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from adarank_jax import errors
from adarank_jax.checkpoints import all_cores

KEY = "file_sha256"
"""Name of the digest in a JSON object that holds its own."""


def of_arrays(flat: Mapping[str, Any]) -> dict[str, str]:
    """Hashes name, dtype, shape and numbers of every array, on all cores.

    Args:
        flat: arrays by name.

    Returns:
        A digest a name, in hexadecimal.
    """
    named = {name: (name, array) for name, array in flat.items()}
    return all_cores.map_values(lambda item: of_array(*item), named)


def of_array(name: str, array: Any) -> str:
    """Hashes name, dtype, shape and numbers of one array.

    Args:
        name: of it.
        array: of any shape.

    Returns:
        A digest in hexadecimal.
    """
    array = np.asarray(array)
    sha = hashlib.sha256(f"{name} {array.dtype} {array.shape}\n".encode())
    sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return sha.hexdigest()


def of_value(value: Any) -> str:
    """Hashes a plain value, whatever the order of its keys.

    Args:
        value: of numbers, text, lists and dicts.

    Returns:
        A digest in hexadecimal.
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(value: Mapping[str, Any]) -> str:
    """Writes a JSON object that holds its own digest.

    Args:
        value: a plain object.

    Returns:
        Text for a file.
    """
    plain = json.loads(json.dumps(dict(value), default=str))
    whole = {KEY: of_value(plain), **plain}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def read_sealed(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object and compares it with the digest that it holds.

    Args:
        path: of a file that `sealed` made.

    Returns:
        The object without the digest.

    Raises:
        DamageError: a byte of it was changed or is missing.
    """
    try:
        value = json.loads(path.read_bytes())
        expected = value.pop(KEY)
        if of_value(value) == expected:
            return value
        found = f"it holds the digest {str(expected)[:12]} of other contents"
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        found = "it is no JSON object with its own digest"
    raise errors.DamageError(
        "E602",
        f"damaged or changed by hand: {found}",
        where=f"`{path}`",
        expected="the file as it was written",
        remedy="restore it from a copy, or start the run over with --restart",
    )
