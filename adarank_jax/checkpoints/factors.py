"""SVD factors on disk, under a digest of what they were made from.

Singular vectors depend on the number of cores and on the BLAS kernel in their last
bits, so a resumed run reads the factors that it started with and never remakes them.
"""

import hashlib
import os
import pathlib
from collections.abc import Callable

import numpy as np

from adarank_jax import tree
from adarank_jax.checkpoints import files
from adarank_jax.core import svd
from adarank_jax.core.svd import SVDFactors
from adarank_jax.tree import Tree


def cached_factors(
    folder: str | os.PathLike,
    task_vectors: Tree,
    make: Callable[[Tree], Tree],
    name: str,
) -> Tree:
    """Reads the factors of these task vectors, or makes and writes them.

    Args:
        folder: of the cache; one file for each different input and name.
        task_vectors: a tree with a leading task axis at each leaf.
        make: turns task vectors into factors, for example `svd.decompose_tree`.
        name: of what `make` does.

    Returns:
        Factors as host arrays.

    Raises:
        ValueError: a file of the cache is damaged; delete it to make it again.
    """
    file = pathlib.Path(folder) / f"{name}-{_digest(task_vectors)}.safetensors"
    record = file.with_suffix(".sha256")
    if not (file.is_file() and record.is_file()):
        digest = files.write(file, _to_arrays(make(task_vectors)))
        files.write_whole(record, digest.encode())
    return _from_arrays(files.read(file, record.read_text()))


def _digest(task_vectors):
    """Hashes names, shapes and numbers of the input."""
    digest = hashlib.sha256()
    for path, leaf in sorted(tree.flatten(task_vectors).items()):
        array = np.ascontiguousarray(leaf, np.float32)
        digest.update(f"{path} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:32]


def _to_arrays(factors):
    """Turns every `SVDFactors` into a branch of arrays."""
    return tree.map_with_path(
        lambda _, leaf: leaf._asdict() if svd.is_factors(leaf) else leaf, factors
    )


def _from_arrays(arrays):
    """Undoes `_to_arrays`."""
    if set(arrays) == set(SVDFactors._fields):
        return SVDFactors(**arrays)
    return {
        key: _from_arrays(value) if isinstance(value, dict) else value
        for key, value in arrays.items()
    }
