"""SVD factors on disk, under a digest of what they were made from.

Singular vectors depend on the number of cores and on the BLAS kernel in their last
bits, so a resumed run reads the factors that it started with and never remakes them.
"""

import hashlib
import os
import pathlib

import numpy as np

from adarank_jax import tree
from adarank_jax.checkpoints import files
from adarank_jax.core import svd
from adarank_jax.core.svd import SVDFactors
from adarank_jax.tree import Predicate, Tree


def cached_factors(
    folder: str | os.PathLike, task_vectors: Tree, is_decomposed: Predicate
) -> Tree:
    """Reads the factors of these task vectors, or makes and writes them.

    Args:
        folder: of the cache; one file for each different input.
        task_vectors: a tree with a leading task axis at each leaf.
        is_decomposed: `(path, leaf of one task) -> bool`.

    Returns:
        As `svd.decompose_tree`.

    Raises:
        ValueError: a tensor is not finite, or a file of the cache is damaged.
    """
    file = pathlib.Path(folder) / f"{_digest(task_vectors, is_decomposed)}.safetensors"
    if not file.is_file():
        files.write(file, _to_arrays(svd.decompose_tree(task_vectors, is_decomposed)))
    return _from_arrays(files.read(file))


def _digest(task_vectors, is_decomposed):
    """Hashes names, shapes and numbers of the input, and what is decomposed."""
    digest = hashlib.sha256()
    for path, leaf in sorted(tree.flatten(task_vectors).items()):
        array = np.ascontiguousarray(leaf, np.float32)
        which = "decomposed" if is_decomposed(path, array[0]) else "dense"
        digest.update(f"{path} {array.shape} {which}\n".encode())
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
