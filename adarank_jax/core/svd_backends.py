"""Ways to decompose many matrices, each on one core and all cores at once.

A matrix is decomposed by one thread of BLAS, so that its last bits depend neither on
the number of cores nor on the matrices beside it, and matrices are decomposed side by
side. Beyond input and output, memory is needed for one matrix a core.
"""

import contextlib
import importlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl
from jax.typing import ArrayLike
from jaxtyping import Float

from adarank_jax import errors
from adarank_jax.core import gram
from adarank_jax.core.gram import Factors

Backend = Literal["gram", "host", "device"]
"""Where and how: ``gram``, eigenvectors of the Gram matrix in double precision on the
host CPU; ``host``, LAPACK's SVD on the host CPU; ``device``, the SVD of the first
device that JAX computes on: polar decomposition on NVIDIA's. On a TPU that takes many
minutes to compile for each shape."""

Report = Callable[[int, int], None]
"""Takes how many matrices are done, and how many there are."""

Stack = Float[ArrayLike, "tasks rows cols"]
Matrix = Float[np.ndarray, "rows cols"]


def decompose_stacks(
    stacks: Mapping[str, Stack], backend: Backend, report: Report | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Decomposes stacks of matrices.

    Args:
        stacks: by name; finite.
        backend: one of `Backend`.
        report: called in the calling thread after every matrix, in order.

    Returns:
        Host arrays `u (rows, tasks * rank)`, `s (tasks, rank)`, `vt (tasks * rank,
        cols)`, by name. Warns with the name of a matrix that did not converge, which
        LAPACK has decomposed instead.

    Raises:
        ValueError: there is no such backend.
        InputError: LAPACK's SVD does not converge either.
    """
    if backend not in get_args(Backend):
        raise ValueError(
            f"`backend` must be one of {get_args(Backend)}, got {backend!r}."
        )
    factors = {name: _room(np.shape(stack)) for name, stack in stacks.items()}
    jobs = [(name, task) for name, x in stacks.items() for task in range(len(x))]

    def run(job):
        name, task = job
        matrix = np.asarray(np.asarray(stacks[name])[task], np.float32)
        found = _decompose(matrix, backend)
        is_whole = found is not None
        if found is None:
            found = _host(matrix)
            if not all(np.isfinite(part).all() for part in found):
                raise errors.InputError(
                    "E228",
                    f"LAPACK's SVD of {name!r}, task {task}, does not converge",
                    remedy="check whether the checkpoint is damaged",
                )
        u, s, vt = factors[name]
        rank = s.shape[1]
        place = slice(task * rank, (task + 1) * rank)
        u[:, place], s[task], vt[place] = found
        return is_whole

    with _side_by_side(1 if backend == "device" else _num_cores()) as pool:
        for i, is_whole in enumerate(pool.map(run, jobs)):
            if not is_whole:
                name, task = jobs[i]
                warnings.warn(
                    f"The backend {backend!r} did not converge for {name!r}, task "
                    f"{task}; decomposed by LAPACK on the host.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            if report is not None:
                report(i + 1, len(jobs))
    return factors


def _room(shape):
    """Allocates the factors of one stack; no memory is used before it is written."""
    tasks, rows, cols = shape
    rank = min(rows, cols)
    shapes = (rows, tasks * rank), (tasks, rank), (tasks * rank, cols)
    return tuple(np.empty(shape, np.float32) for shape in shapes)


def _decompose(matrix: Matrix, backend: Backend) -> Factors | None:
    """Decomposes one matrix; returns nothing if that did not converge."""
    try:
        found = _ROUTES[backend](matrix)
    except np.linalg.LinAlgError:
        return None
    return found if all(np.isfinite(part).all() for part in found) else None


def _host(matrix: Matrix) -> Factors:
    """Asks LAPACK, in single precision."""
    host = jax.local_devices(backend="cpu")[0]
    return jax.device_get(
        tuple(jnp.linalg.svd(jax.device_put(matrix, host), full_matrices=False))
    )


def _device(matrix: Matrix) -> Factors:
    """Asks the default device, always for a matrix that is not wide."""
    if matrix.shape[0] < matrix.shape[1]:
        u, s, vt = _device(matrix.T)
        return vt.T, s, u.T
    device = jax.local_devices()[0]
    is_cuda = "cuda" in device.client.platform_version
    algorithm = jax.lax.linalg.SvdAlgorithm.POLAR if is_cuda else None
    return jax.device_get(
        tuple(
            jax.lax.linalg.svd(
                jax.device_put(matrix, device),
                full_matrices=False,
                algorithm=algorithm,
            )
        )
    )


@contextlib.contextmanager
def _side_by_side(num_threads: int) -> Iterator[ThreadPoolExecutor]:
    """Runs jobs in threads that have one thread of BLAS each."""
    # JAX loads its LAPACK at the first use; it must be there to be limited as well.
    importlib.import_module("scipy.linalg.cython_lapack")
    pool = ThreadPoolExecutor(num_threads)
    with threadpoolctl.threadpool_limits(1, "blas"):
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def _num_cores():
    """Counts cores; more than 32 matrices at once would need too much memory."""
    return min(os.cpu_count() or 1, 32)


_ROUTES = {"gram": gram.svd, "host": _host, "device": _device}
