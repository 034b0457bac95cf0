"""Merged parameters as a pure function of origin, factors and variables.

Lee et al., `AdaRank <https://arxiv.org/abs/2503.22178>`_, ICLR 2026, section 4. The
variables are everything that adaptation trains.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from adarank_jax import tree
from adarank_jax.core import masks, svd
from adarank_jax.tree import Tree

Mask = Callable[[Float[Array, "tasks rank"]], Float[Array, "tasks rank"]]
"""Turns mask logits into a mask, for example `masks.straight_through`."""


class Variables(NamedTuple):
    """What adaptation trains.

    Attributes:
        coefficients: a tree as the model's, `(tasks,)` at every leaf.
        mask_logits: the same tree, `(tasks, rank)` at every decomposed matrix and None
            elsewhere.
    """

    coefficients: Tree
    mask_logits: Tree


def init_variables(
    factors: Tree,
    coefficient: float,
    rank_ratio: float = 1.0,
    kept: float = 0.1,
    dropped: float = -0.1,
) -> Variables:
    """Starts every coefficient at one value and every mask at the leading directions.

    Args:
        factors: as `svd.decompose_tree` returns.
        coefficient: merging coefficient of every task and tensor (the paper's prior).
        rank_ratio: share of leading directions kept at the start, in (0, 1].
        kept: logit of a kept direction.
        dropped: logit of a dropped direction.

    Returns:
        Float32 variables.

    Raises:
        ValueError: `rank_ratio` is out of range.
    """

    def coefficients(_, leaf):
        return jnp.full((_num_tasks(leaf),), coefficient, jnp.float32)

    def mask_logits(_, leaf):
        if not svd.is_factors(leaf):
            return None
        return masks.init_logits(*leaf.s.shape, rank_ratio, kept, dropped)

    return Variables(
        tree.map_with_path(coefficients, factors),
        tree.map_with_path(mask_logits, factors),
    )


def merge_matrix(
    origin: Float[ArrayLike, "rows cols"],
    coefficients: Float[Array, " tasks"],
    mask: Float[Array, "tasks rank"],
    u: Float[ArrayLike, "rows tasks*rank"],
    s: Float[ArrayLike, "tasks rank"],
    vt: Float[ArrayLike, "tasks*rank cols"],
    axis_name: str | None = None,
) -> Float[Array, "rows cols"]:
    r"""Merges one decomposed matrix.

    .. math:: \theta = \theta_{origin}
        + \sum_t \lambda_t U_t \operatorname{diag}(B_t \odot s_t) V_t^\top

    Args:
        origin: weights that the update is added to.
        coefficients: :math:`\lambda`.
        mask: B.
        u: left directions, all tasks side by side.
        s: singular values.
        vt: right directions, all tasks one below the other.
        axis_name: device axis over which the rank axis is sharded, if it is.

    Returns:
        The merged matrix, in full precision and the same on every device.
    """
    weights = (coefficients[:, None] * mask * s).reshape(1, -1)
    update = jnp.matmul(u * weights, vt, precision=jax.lax.Precision.HIGHEST)
    if axis_name is not None:
        update = jax.lax.psum(update, axis_name)
    return origin + update


def merge_dense(
    origin: Float[ArrayLike, "*shape"],
    coefficients: Float[Array, " tasks"],
    task_vectors: Float[ArrayLike, " tasks *shape"],
) -> Float[Array, "*shape"]:
    r"""Merges one tensor that is not decomposed.

    .. math:: \theta = \theta_{origin} + \sum_t \lambda_t \tau_t

    Args:
        origin: weights that the update is added to.
        coefficients: :math:`\lambda`.
        task_vectors: fine-tuned minus origin weights.

    Returns:
        The merged tensor.
    """
    return origin + jnp.tensordot(
        coefficients, task_vectors, axes=1, precision=jax.lax.Precision.HIGHEST
    )


def merged_params(
    origin: Tree,
    factors: Tree,
    variables: Variables,
    mask: Mask = masks.straight_through,
    axis_name: str | None = None,
) -> Tree:
    """Merges a whole model: the function that adaptation differentiates.

    Args:
        origin: parameters that the updates are added to.
        factors: as `svd.decompose_tree` returns, or this device's shard of it.
        variables: coefficients and mask logits, the latter sharded like the factors.
        mask: turns mask logits into a mask.
        axis_name: device axis over which the rank axis is sharded, if it is.

    Returns:
        Parameters as `origin`.

    Raises:
        ValueError: `origin`, `factors` and `variables` do not hold the same tensors.

    Examples:
        >>> import jax.numpy as jnp
        >>> vectors = {"w": jnp.ones((2, 3, 3))}
        >>> factors = svd.decompose_tree(vectors, lambda path, leaf: True)
        >>> variables = init_variables(factors, coefficient=0.5)
        >>> merged = merged_params({"w": jnp.zeros((3, 3))}, factors, variables)
        >>> bool(jnp.allclose(merged["w"], 1.0, atol=1e-5))
        True
    """
    names = "`factors`", "`variables.coefficients`", "`variables.mask_logits`"
    for name, other in zip(names, (factors, *variables), strict=True):
        tree.check_same_paths(origin, other, ("`origin`", name))

    def leaf_params(_, start, leaf, coefficients, mask_logits):
        if not svd.is_factors(leaf):
            return merge_dense(start, coefficients, leaf)
        return merge_matrix(start, coefficients, mask(mask_logits), *leaf, axis_name)

    return tree.map_with_path(leaf_params, origin, factors, *variables)


def static_params(
    origin: Tree, factors: Tree, coefficient: float, rank_ratio: float = 1.0
) -> Tree:
    """Merges with one coefficient and the leading directions: adaptation's start.

    Args:
        origin: parameters that the updates are added to.
        factors: decomposed or plain task vectors.
        coefficient: of every task and tensor.
        rank_ratio: share of leading directions kept, in (0, 1].

    Returns:
        Parameters as `origin`.

    Raises:
        ValueError: `rank_ratio` is out of range, or `origin` and `factors` do not hold
            the same tensors.
    """
    variables = init_variables(factors, coefficient, rank_ratio)
    return merged_params(origin, factors, variables)


def _num_tasks(leaf):
    """Returns the length of the task axis of one leaf of a factor tree."""
    return leaf.s.shape[0] if svd.is_factors(leaf) else leaf.shape[0]
