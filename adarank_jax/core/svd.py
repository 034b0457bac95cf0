"""Singular value decomposition of task vectors, all tasks side by side.

The factors of one matrix are concatenated over tasks on the rank axis, so that the
update of all tasks is one matrix product, `(u * weights) @ vt`, and so that the same
axis can be sharded over devices.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from adarank_jax import tree
from adarank_jax.core import svd_backends
from adarank_jax.core.svd_backends import Backend, Report
from adarank_jax.tree import Predicate, Tree


class SVDFactors(NamedTuple):
    """Singular directions of the task vectors of one weight matrix.

    Attributes:
        u: left directions as columns, `(rows, tasks * rank)`, task by task.
        s: singular values, `(tasks, rank)`, falling within a task.
        vt: right directions as rows, `(tasks * rank, cols)`.
    """

    u: Array
    s: Array
    vt: Array


def decompose(
    task_vectors: Float[ArrayLike, "tasks rows cols"], backend: Backend = "gram"
) -> SVDFactors:
    r"""Decomposes the task vectors of one weight matrix.

    .. math:: \tau_t = U_t \operatorname{diag}(s_t) V_t^\top

    Args:
        task_vectors: fine-tuned minus origin weights, one matrix a task.
        backend: how, and where: one of `svd_backends.Backend`.

    Returns:
        The factors as host (NumPy) arrays; `rank` is the smaller side of the matrix.

    Raises:
        ValueError: a matrix is empty or not finite, or there is no such backend.
        InputError: the decomposition does not converge.

    Examples:
        >>> import jax.numpy as jnp
        >>> decompose(jnp.ones((2, 5, 3))).s.shape
        (2, 3)

    References:
        Lee et al., `AdaRank <https://arxiv.org/abs/2503.22178>`_, ICLR 2026, section 3.
    """
    if np.ndim(task_vectors) != 3 or not np.size(task_vectors):
        raise ValueError(
            "`task_vectors` must have shape (tasks, rows, cols), none of them zero, "
            f"got {np.shape(task_vectors)}."
        )
    if not np.isfinite(task_vectors).all():
        raise ValueError("`task_vectors` must be finite, got NaN or infinity.")
    found = svd_backends.decompose_stacks({"task_vectors": task_vectors}, backend)
    return SVDFactors(*found["task_vectors"])


Decompose = Callable[[Tree, Predicate], Tree]
"""What `decompose_tree` is, its backend and report chosen."""


def decompose_tree(
    task_vectors: Tree,
    is_decomposed: Predicate,
    backend: Backend = "gram",
    report: Report | None = None,
) -> Tree:
    """Decomposes the matrices of a model; leaves the rest dense.

    The factors of a matrix do not depend on what else is in the tree.

    Args:
        task_vectors: a tree with a leading task axis at each leaf.
        is_decomposed: `(path, leaf of one task) -> bool`, asked once a leaf.
        backend: how, and where: one of `svd_backends.Backend`.
        report: called after every matrix with how many are done and how many there
            are.

    Returns:
        The same tree as host (NumPy) arrays, with `SVDFactors` where the predicate
        holds; they belong to no device until they are put on one.

    Raises:
        ValueError: a tensor that the predicate names is not a matrix, or there is no
            such backend.
        InputError: a tensor is not finite, or a decomposition does not converge.
    """
    tree.check_finite(task_vectors, "`task_vectors`")
    flat = tree.flatten(task_vectors)
    chosen = {path: x for path, x in flat.items() if is_decomposed(path, x[0])}
    for path, leaf in chosen.items():
        if leaf.ndim != 3 or not leaf.size:
            raise ValueError(
                f"`is_decomposed` must hold for matrices only, got {path!r} of shape "
                f"{leaf.shape[1:]}; reshape it to (rows, cols) or exclude it."
            )
    found = svd_backends.decompose_stacks(chosen, backend, report)
    return tree.unflatten(
        {
            path: SVDFactors(*found[path]) if path in found else np.asarray(leaf)
            for path, leaf in flat.items()
        }
    )


def is_factors(leaf: object) -> bool:
    """Tells whether a leaf of a factor tree is decomposed."""
    return isinstance(leaf, SVDFactors)


def reconstruct(factors: SVDFactors) -> Float[Array, "tasks rows cols"]:
    """Multiplies the factors back into one matrix a task."""
    tasks, rank = factors.s.shape
    u = factors.u.reshape(-1, tasks, rank)
    vt = factors.vt.reshape(tasks, rank, -1)
    return jnp.einsum(
        "mtr,tr,trn->tmn", u, factors.s, vt, precision=jax.lax.Precision.HIGHEST
    )


def truncate(factors: SVDFactors, rank: int) -> SVDFactors:
    """Keeps the leading `rank` directions of every task.

    Args:
        factors: of one matrix.
        rank: how many directions to keep, from 1 to all.

    Returns:
        Smaller factors.

    Raises:
        ValueError: `rank` is out of range.
    """
    tasks, full = factors.s.shape
    if not 1 <= rank <= full:
        raise ValueError(f"`rank` must be from 1 to {full}, got {rank}.")
    u = factors.u.reshape(-1, tasks, full)[:, :, :rank]
    vt = factors.vt.reshape(tasks, full, -1)[:, :rank]
    return SVDFactors(
        u.reshape(-1, tasks * rank),
        factors.s[:, :rank],
        vt.reshape(tasks * rank, -1),
    )


def leading_rank(rank: int, rank_ratio: float) -> int:
    """Returns how many leading directions a ratio keeps: rounded down, at least one.

    Args:
        rank: number of directions.
        rank_ratio: share to keep, in (0, 1].

    Raises:
        ValueError: the ratio is out of range.

    Examples:
        >>> leading_rank(32, 0.16)
        5
    """
    if not 0.0 < rank_ratio <= 1.0:
        raise ValueError(f"`rank_ratio` must be in (0, 1], got {rank_ratio}.")
    return max(1, math.floor(rank * rank_ratio + 1e-9))


def energy_rank(
    s: Float[ArrayLike, "tasks rank"], energy: float = 0.95
) -> Int[Array, " tasks"]:
    r"""Returns the smallest rank that holds a share of the spectral energy.

    .. math:: \min \{k : \sum_{i \le k} s_i^2 \ge e \sum_i s_i^2\}

    Args:
        s: singular values, falling.
        energy: the share, in (0, 1].

    Raises:
        ValueError: `energy` is out of range.

    Examples:
        >>> import jax.numpy as jnp
        >>> energy_rank(jnp.array([[3.0, 1.0, 0.0], [1.0, 1.0, 1.0]]), 0.9)
        Array([1, 3], dtype=int32)

    References:
        Lee et al., `AdaRank <https://arxiv.org/abs/2503.22178>`_, ICLR 2026, figure 2.
    """
    if not 0.0 < energy <= 1.0:
        raise ValueError(f"`energy` must be in (0, 1], got {energy}.")
    total = jnp.cumsum(jnp.asarray(s) ** 2, axis=1)
    return 1 + jnp.sum(total < energy * total[:, -1:], axis=1, dtype=jnp.int32)
