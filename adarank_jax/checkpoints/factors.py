"""SVD factors on disk, under a digest of what they were made from.

Singular vectors depend on the processor and on the version of LAPACK in their last
bits, so a resumed run reads the factors that it started with and never remakes them.

A file holds a digest of every tensor. Reading maps the file and checks the digests on
all cores: that is the one time that the disk is read, for what is used afterwards comes
from the pages that the check has left in memory.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import safetensors

from adarank_jax import tree
from adarank_jax.checkpoints import files, safetensors_files
from adarank_jax.core import svd
from adarank_jax.core.svd import SVDFactors
from adarank_jax.tree import Tree


def cached_factors(
    folder: str | os.PathLike,
    models: Sequence[Tree],
    make: Callable[[], Tree],
    name: str,
) -> Tree:
    """Reads the factors of these models, or makes and writes them.

    Of several processes only the first writes.

    Args:
        folder: of the cache; one file for each different input and name.
        models: all that the factors are made from.
        make: makes factors of the models, for example by `svd.decompose_tree`; not
            called where the cache has them.
        name: of what `make` does.

    Returns:
        Factors as read-only host arrays, mapped from the file, so that pages of them
        that are not in use need no memory.

    Raises:
        ValueError: a file of the cache is damaged, or what was made is not finite.
    """
    digests = _digests(
        {
            f"{i}/{path}": leaf
            for i, model in enumerate(models)
            for path, leaf in tree.flatten(model).items()
        }
    )
    digest = hashlib.sha256("\n".join(digests.values()).encode()).hexdigest()[:32]
    file = pathlib.Path(folder) / f"{name}-{digest}.safetensors"
    if not file.is_file():
        made = make()
        if jax.process_index() > 0:  # a shared disk may show new files late
            return made
        _write(file, tree.flatten(_to_arrays(made)))
    return _from_arrays(tree.unflatten(_read(file)))


def _digests(flat: Mapping[str, Any]) -> dict[str, str]:
    """Hashes name, shape and float32 numbers of every array, on all cores."""

    def digest(item):
        array = np.ascontiguousarray(item[1], np.float32)
        sha = hashlib.sha256(f"{item[0]} {np.shape(item[1])}\n".encode())
        sha.update(array.reshape(-1).view(np.uint8))
        return sha.hexdigest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(flat, pool.map(digest, flat.items()), strict=True))


def _to_arrays(factors):
    """Turns every `SVDFactors` into a branch of arrays."""
    return tree.map_with_path(
        lambda _, leaf: leaf._asdict() if svd.is_factors(leaf) else leaf, factors
    )


def _write(file, flat):
    """Writes float32 arrays and their digests, without a copy of them in memory."""
    tree.check_finite(tree.unflatten(flat), f"`{file.name}`")
    arrays = {
        name: np.ascontiguousarray(array, np.float32) for name, array in flat.items()
    }
    header: dict[str, dict] = {"__metadata__": _digests(flat)}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": "F32",
            "shape": np.shape(flat[name]),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    start = len(text).to_bytes(8, "little") + text
    parts = (array.reshape(-1).view(np.uint8) for array in arrays.values())
    files.write_whole(file, start, *parts)


def _read(file):
    """Maps the arrays of a file and compares them with their digests."""
    arrays = safetensors_files.read_tensors(file)
    with safetensors.safe_open(file, framework="np") as opened:
        expected = opened.metadata() or {}
    found = _digests(arrays)
    wrong = [name for name in arrays if found[name] != expected.get(name)]
    if wrong or found.keys() != expected.keys():
        raise ValueError(
            f"`{file}` is damaged or was changed: the SHA-256 of {len(wrong)} tensors "
            f"is another, first of {sorted(wrong)[:1]}; delete the file to make it "
            "again."
        )
    return arrays


def _from_arrays(arrays):
    """Undoes `_to_arrays`."""
    if set(arrays) == set(SVDFactors._fields):
        return SVDFactors(**arrays)
    return {
        key: _from_arrays(value) if isinstance(value, dict) else value
        for key, value in arrays.items()
    }
