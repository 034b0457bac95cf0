"""What holds for the weights of every family: floating point, finite, cast back."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import ml_dtypes
import numpy as np

from adarank_jax import errors, tree
from adarank_jax.checkpoints import all_cores, containers
from adarank_jax.checkpoints.containers import StateDict


def check_floating(
    tensors: Mapping[str, np.ndarray], names: Iterable[str], where: str
) -> None:
    """Refuses weights that are no floating-point numbers.

    Args:
        tensors: array by name.
        names: of the weights among them.
        where: what to call the state dict in messages.

    Raises:
        InputError: there are some; the message has their dtypes.
    """
    lines = [
        f"{name}: {tensors[name].dtype}"
        for name in names
        if tensors[name].dtype not in _FLOATING
    ]
    if lines:
        raise errors.InputError(
            "E116",
            f"it has {len(lines)} weights that are no floating-point numbers of 16 "
            "bits or more:\n  " + "\n  ".join(lines[:12]),
            where=where,
            remedy="dequantise them first",
        )


def check_finite(state: StateDict, names: Iterable[str], where: str) -> None:
    """Refuses NaN and infinity, under the names of the file.

    Args:
        state: names and arrays.
        names: of the weights that are read.
        where: what to call the state dict in messages.

    Raises:
        InputError: there are some; the message names each tensor.
    """
    wanted = {name: containers.to_float32(state.tensors[name]) for name in names}
    tree.check_finite(wanted, f"{where} ({', '.join(f.name for f in state.files)})")


def float32_copies(
    arrays: Mapping[str, Sequence[np.ndarray]], turned: Collection[str]
) -> dict[str, np.ndarray]:
    """Copies arrays to float32, on all cores.

    Args:
        arrays: by name, of any floating point: one, or several to put one below the
            other.
        turned: names of the matrices to copy the other way round.

    Returns:
        Contiguous array by name.
    """

    def copy(item):
        parts, is_turned = item
        if is_turned:
            return _transposed(parts)
        if len(parts) > 1:
            return np.concatenate(parts, dtype=np.float32)
        return np.array(parts[0], np.float32, order="C")

    items = {name: (parts, name in turned) for name, parts in arrays.items()}
    return all_cores.map_values(copy, items)


def _transposed(matrices):
    """Copies matrices the other way round, several times faster than numpy does."""
    # Not `np.empty`, which asks for huge pages: clearing those can take longer than
    # turning the matrix.
    rows, cols = sum(map(len, matrices)), matrices[0].shape[1]
    turned = np.zeros((cols, rows), np.float32)
    place = 0
    for matrix in matrices:
        for i in range(0, len(matrix), _STRIP):
            strip = matrix[i : i + _STRIP].T
            turned[:, place : place + strip.shape[1]] = strip
            place += strip.shape[1]
    return turned


def cast(
    new: Mapping[str, np.ndarray],
    like: Mapping[str, np.ndarray],
    same: Mapping[str, np.ndarray],
    source: str,
    what: str,
) -> dict[str, np.ndarray]:
    """Casts arrays to the dtypes of others; what did not change stays as it is.

    Args:
        new: float32 array by name.
        like: arrays with the dtypes that are wanted, by name.
        same: arrays of a checkpoint that `new` replaces, by name.
        source: what to call that checkpoint in messages.
        what: what to call `new` in messages.

    Returns:
        Array by name; those of `same` themselves where every bit is equal.

    Raises:
        InputError: a shape differs, or a number is not finite in the dtype.
    """
    cast = {}
    for name, array in new.items():
        old = like.get(name)
        if old is None:
            cast[name] = array
            continue
        if name in same and old.shape != array.shape:
            raise errors.InputError(
                "E213",
                f"it has {name!r} with shape {array.shape}, but it is {old.shape} in "
                f"`{source}`",
                where=what,
                remedy="merge models of one architecture",
            )
        # Zeros of another sign would change the digest of what was measured.
        bits = old.astype(np.float32).view(np.int32)
        if name in same and np.array_equal(bits, array.view(np.int32)):
            cast[name] = old
            continue
        with np.errstate(over="ignore"):
            cast[name] = array.astype(old.dtype)
    tree.check_finite(cast, f"What is written like `{source}`")
    return cast


_STRIP = 64
"""Rows that are turned at once, so that what is read and written stays in the cache."""

_FLOATING = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)
