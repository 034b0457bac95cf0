"""The product of factors that merges a matrix, and its derivative.

It leaves out directions whose weight is zero. Masks drop most of them where a merge
starts from few leading ones, and then the product is most of the merge's cost.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


@jax.custom_vjp
@jax.jit  # or else every call outside of a compiled function would compile again
def weighted_product(
    u: Float[ArrayLike, "rows rank"],
    weights: Float[Array, " rank"],
    vt: Float[ArrayLike, "rank cols"],
) -> Float[Array, "rows cols"]:
    r"""Multiplies two factors, each direction with its weight.

    .. math:: U \operatorname{diag}(w) V^\top

    Args:
        u: left directions.
        weights: w.
        vt: right directions.

    Returns:
        The product, summed in float32 whatever the factors are.
    """
    part = -(-len(weights) // _NUM_PARTS)
    num_kept = jnp.count_nonzero(weights)
    return jax.lax.cond(
        2 * num_kept > len(weights),
        _whole_product,
        lambda *factors: _kept_product(*factors, num_kept, part),
        *(u, weights, vt),
    )


def _whole_product(u, weights, vt):
    """Multiplies all directions, scaling the smaller factor."""
    if u.shape[0] <= vt.shape[1]:
        return _product((u * weights[None]).astype(u.dtype), vt)
    return _product(u, (weights[:, None] * vt).astype(vt.dtype))


def _kept_product(u, weights, vt, num_kept, part):
    """Collects the directions with a weight, `part` at a time, and multiplies those."""
    # The kept ones first. Others, of no weight, fill up the last part; there are enough
    # of them, since at most half of all are kept.
    order = jnp.argsort(weights == 0, stable=True)

    def part_product(i):
        chosen = jax.lax.dynamic_slice(order, (i * part,), (part,))
        return _whole_product(u[:, chosen], weights[chosen], vt[chosen])

    add_part = lambda i, total: total + part_product(i)
    # The sum starts with a part and not with zeros, which `jax.shard_map` would take
    # to be the same on all devices and refuse to add parts to that are not.
    return jax.lax.fori_loop(1, -(-num_kept // part), add_part, part_product(0))


def _forward(u, weights, vt):
    """Keeps the arguments and nothing else: no product of one task exists."""
    return weighted_product(u, weights, vt), (u, weights, vt)


def _backward(arguments, gradient):
    """Sums `(u^T G) * vt` over the columns, where numbers lie side by side.

    Derived automatically, the sum would run over the rows of a wide matrix, which takes
    half as long again. Directions without a weight have a gradient too. Those of the
    factors are dropped when compiled: nobody asks for them.
    """
    u, weights, vt = arguments
    gradient = gradient.astype(u.dtype)
    rotated = _product(u.T, gradient)
    return (
        (_product(gradient, vt.T) * weights[None]).astype(u.dtype),
        (rotated * vt).sum(axis=1),
        (weights[:, None] * rotated).astype(vt.dtype),
    )


weighted_product.defvjp(_forward, _backward)


def _product(left, right):
    """Multiplies two matrices; the sums are float32 whatever the factors are."""
    return jnp.matmul(
        left,
        right,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


_NUM_PARTS = 16
"""Of all directions; fewer waste products on the last part, more are small ones."""
