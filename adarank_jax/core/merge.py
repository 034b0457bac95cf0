"""Merged parameters as a pure function of origin, factors and variables.

Lee et al., `AdaRank <https://arxiv.org/abs/2503.22178>`_, ICLR 2026, section 4. The
variables are everything that adaptation trains. A tensor whose factors are None is not
merged: it stays that of the origin, as embeddings of language models do.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from adarank_jax import errors, tree
from adarank_jax.core import masks, svd
from adarank_jax.core.products import weighted_product
from adarank_jax.tree import Tree

Mask = Callable[[Float[Array, "tasks rank"]], Float[Array, "tasks rank"]]
"""Turns mask logits into a mask, for example `masks.straight_through`."""


class Variables(NamedTuple):
    """What adaptation trains.

    Attributes:
        coefficients: a tree as the model's, `(tasks,)` at every merged tensor.
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
        if leaf is None:
            return None
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
    weights = (coefficients[:, None] * mask * s).reshape(-1)
    update = weighted_product(u, weights, vt)
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
    # One row a task: the gradient of any other form copies the task vectors.
    task_vectors = jnp.asarray(task_vectors)
    rows = task_vectors.reshape(len(coefficients), -1)
    update = jnp.matmul(coefficients[None], rows, precision=jax.lax.Precision.HIGHEST)
    return origin + update.reshape(task_vectors.shape[1:])


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
        factors: as `svd.decompose_tree` returns, or this device's shard of it; None
            at a tensor that stays that of the origin.
        variables: coefficients and mask logits, the latter sharded like the factors.
        mask: turns mask logits into a mask.
        axis_name: device axis over which the rank axis is sharded, if it is.

    Returns:
        Parameters as `origin`.

    Raises:
        InputError: `origin`, `factors` and `variables` do not hold the same tensors.

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
        if leaf is None:
            return start
        if not svd.is_factors(leaf):
            return merge_dense(start, coefficients, leaf)
        return merge_matrix(start, coefficients, mask(mask_logits), *leaf, axis_name)

    return tree.map_with_path(leaf_params, origin, factors, *variables)


def kept_directions(mask_logits: Tree, temperature: float) -> Tree:
    """Decides, once and on the host CPU, which directions the binary masks keep.

    Args:
        mask_logits: `(tasks, rank)` at every decomposed matrix and None elsewhere.
        temperature: that the masks were trained with.

    Returns:
        The same tree of host arrays, bool instead of logits.

    Examples:
        >>> import jax.numpy as jnp
        >>> logits = {"bias": None, "kernel": jnp.array([[0.1, 0.0, -0.1]])}
        >>> kept_directions(logits, temperature=10.0)["kernel"]
        array([[ True, False, False]])
    """

    def leaf_kept(_, logits):
        if logits is None:
            return None
        soft = masks.soft(jnp.asarray(np.asarray(logits)), temperature)
        return np.asarray(masks.is_kept(soft))

    with jax.default_device(_host()):
        return tree.map_with_path(leaf_kept, mask_logits)


def hard_merged_params(
    origin: Tree, factors: Tree, coefficients: Tree, kept: Tree
) -> Tree:
    """Merges a whole model from bits: the weights that are exported and rebuilt.

    One computation, leaf by leaf on the host CPU in float32, whatever the model was
    adapted on: equal inputs on the same kind of machine give equal bits.

    Args:
        origin: parameters that the updates are added to.
        factors: as for `merged_params`.
        coefficients: `(tasks,)` at every merged tensor.
        kept: as `kept_directions` returns.

    Returns:
        Parameters as `origin`, float32 host arrays.

    Raises:
        InputError: the trees do not hold the same tensors, or bits and factors do not
            belong together; the message names the tensor.

    Examples:
        >>> import numpy as np
        >>> factors = {"w": np.ones((2, 3), np.float32)}
        >>> coefficients = {"w": np.float32([0.5, 0.25])}
        >>> hard_merged_params({"w": np.zeros(3)}, factors, coefficients, {"w": None})
        {'w': array([0.75, 0.75, 0.75], dtype=float32)}
    """
    names = "`factors`", "`coefficients`", "`kept`"
    for name, other in zip(names, (factors, coefficients, kept), strict=True):
        tree.check_same_paths(origin, other, ("`origin`", name))

    def leaf_params(path, start, leaf, scales, bits):
        _check_bits(path, leaf, scales, bits)
        if leaf is None:
            return np.array(start, np.float32)
        start, scales = (
            jnp.asarray(np.asarray(x, np.float32)) for x in (start, scales)
        )
        if bits is None:
            return np.asarray(merge_dense(start, scales, np.asarray(leaf, np.float32)))
        mask = jnp.asarray(np.asarray(bits, np.float32))
        host = (np.asarray(factor, np.float32) for factor in leaf)
        return np.asarray(merge_matrix(start, scales, mask, *host))

    with jax.default_device(_host()):
        return tree.map_with_path(leaf_params, origin, factors, coefficients, kept)


def _check_bits(path, leaf, coefficients, bits):
    """Checks that bits and coefficients of one tensor fit its factors."""
    expected = np.shape(leaf.s) if svd.is_factors(leaf) else None
    found = None if bits is None else np.shape(bits)
    if found != expected:
        raise errors.InputError(
            "E213",
            f"`kept` has shape {found} at {path!r}, `factors` has {expected} singular "
            "values there (None: not decomposed)",
            remedy="take both from the same experts and the same choice of matrices",
        )
    if leaf is None and coefficients is None:
        return
    if leaf is None or np.shape(coefficients) != (_num_tasks(leaf),):
        raise errors.InputError(
            "E213",
            f"`coefficients` must have one number a task at {path!r}, got shape "
            f"{None if coefficients is None else np.shape(coefficients)} for "
            f"{'a tensor that is not merged' if leaf is None else _num_tasks(leaf)}",
            remedy="take coefficients and factors from the same experts",
        )


def _host():
    """Returns the host CPU, also when JAX's default is an accelerator."""
    return jax.local_devices(backend="cpu")[0]


def static_params(
    origin: Tree, factors: Tree, coefficient: float, rank_ratio: float = 1.0
) -> Tree:
    """Merges with one coefficient and the leading directions: adaptation's start.

    Args:
        origin: parameters that the updates are added to.
        factors: decomposed or plain task vectors; None as for `merged_params`.
        coefficient: of every task and tensor.
        rank_ratio: share of leading directions kept, in (0, 1].

    Returns:
        Parameters as `origin`.

    Raises:
        ValueError: `rank_ratio` is out of range.
        InputError: `origin` and `factors` do not hold the same tensors.
    """
    variables = init_variables(factors, coefficient, rank_ratio)
    return merged_params(origin, factors, variables)


def _num_tasks(leaf):
    """Returns the length of the task axis of one leaf of a factor tree."""
    return leaf.s.shape[0] if svd.is_factors(leaf) else leaf.shape[0]
