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
from collections.abc import Callable, Sequence

import jax
import numpy as np
import safetensors

from adarank_jax import errors, tree
from adarank_jax.checkpoints import digests, files, safetensors_files
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
        that are not in use need no memory. A process that made them and does not write
        gets what it made.

    Raises:
        DamageError: a file of the cache is damaged.
        ValueError: what was made is not finite.
    """
    parts = digests.of_arrays(
        {
            f"{i}/{path}": leaf
            for i, model in enumerate(models)
            for path, leaf in tree.flatten(model).items()
        }
    )
    digest = hashlib.sha256("\n".join(parts.values()).encode()).hexdigest()[:32]
    file = pathlib.Path(folder) / f"{name}-{digest}.safetensors"
    if not file.is_file():
        made = make()
        tree.check_finite(_to_arrays(made), f"`{file.name}`")
        if jax.process_index() > 0:  # a shared disk may show new files late
            return made
        _write(file, tree.flatten(_to_arrays(made)))
    return _from_arrays(tree.unflatten(_read(file)))


def _to_arrays(factors):
    """Turns every `SVDFactors` into a branch of arrays."""
    return tree.map_with_path(
        lambda _, leaf: leaf._asdict() if svd.is_factors(leaf) else leaf, factors
    )


def _write(file, flat):
    """Writes float32 arrays and their digests, without a copy of them in memory."""
    arrays = {
        name: np.asarray(array, np.float32, order="C") for name, array in flat.items()
    }
    header: dict[str, dict] = {"__metadata__": digests.of_arrays(arrays)}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": "F32",
            "shape": array.shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    start = len(text).to_bytes(8, "little") + text
    parts = (array.reshape(-1).view(np.uint8) for array in arrays.values())
    files.write_whole(file, start, *parts)


def check(file: pathlib.Path) -> None:
    """Reads a file of the cache and compares every array with its digest.

    Args:
        file: of a cache.

    Raises:
        DamageError: a byte was changed or is missing.
    """
    _read(file)


def _read(file):
    """Maps the arrays of a file and compares them with their digests."""
    try:
        arrays = safetensors_files.read_tensors(file)
        with safetensors.safe_open(file, framework="np") as opened:
            expected = opened.metadata() or {}
    except (ValueError, safetensors.SafetensorError) as error:
        raise _damaged(file, str(error)) from error
    found = digests.of_arrays(arrays)
    if found != expected:
        wrong = sorted(name for name in found if found[name] != expected.get(name))
        count = f"the SHA-256 of {len(wrong)} tensors is another, {wrong[:1]} first"
        raise _damaged(file, f"damaged or changed: {count}")
    return arrays


def _damaged(file, found):
    """Says what to do with a damaged file."""
    return errors.DamageError(
        *("E603", found, f"`{file}`", "the factors as they were written"),
        "delete the file to make it again",
    )


def _from_arrays(arrays):
    """Undoes `_to_arrays`."""
    if set(arrays) == set(SVDFactors._fields):
        return SVDFactors(**arrays)
    return {
        key: _from_arrays(value) if isinstance(value, dict) else value
        for key, value in arrays.items()
    }
