"""Masks over singular directions, trained through their logits.

Lee et al., `AdaRank <https://arxiv.org/abs/2503.22178>`_, ICLR 2026, section 4.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adarank_jax.core import svd


def init_logits(
    num_tasks: int,
    rank: int,
    rank_ratio: float,
    kept: float = 0.1,
    dropped: float = -0.1,
) -> Float[Array, "tasks rank"]:
    """Starts from the leading directions of every task.

    Args:
        num_tasks: T.
        rank: number of directions a task.
        rank_ratio: share of leading directions kept at the start, in (0, 1].
        kept: logit of a kept direction (2.0 for soft masks).
        dropped: logit of a dropped direction (0.0 for soft masks).

    Returns:
        Mask logits, float32.

    Raises:
        ValueError: `rank_ratio` is out of range.

    Examples:
        >>> init_logits(1, 4, 0.5)
        Array([[ 0.1,  0.1, -0.1, -0.1]], dtype=float32)
    """
    leading = jnp.arange(rank) < svd.leading_rank(rank, rank_ratio)
    row = jnp.where(leading, jnp.float32(kept), jnp.float32(dropped))
    return jnp.tile(row[None], (num_tasks, 1))


def soft(
    mask_logits: Float[Array, "tasks rank"], temperature: float = 10.0
) -> Float[Array, "tasks rank"]:
    r"""Returns the soft mask, :math:`\sigma(b / temperature)`."""
    return jax.nn.sigmoid(mask_logits / temperature)


def straight_through(
    mask_logits: Float[Array, "tasks rank"], temperature: float = 10.0
) -> Float[Array, "tasks rank"]:
    r"""Returns the binary mask, with the gradient of the soft one.

    .. math:: B = \mathbb{1}[\sigma(b / temperature) > 0.5]

    Args:
        mask_logits: b.
        temperature: divisor of the logits; it scales the gradient only.

    Returns:
        Exactly 0 or 1 in the forward pass.

    Examples:
        >>> import jax.numpy as jnp
        >>> straight_through(jnp.array([[0.1, 0.0, -0.1]]))
        Array([[1., 0., 0.]], dtype=float32)

    References:
        Bengio et al., `Estimating or Propagating Gradients
        <https://arxiv.org/abs/1308.3432>`_, 2013.
    """
    mask = soft(mask_logits, temperature)
    return is_kept(mask).astype(mask.dtype) + (mask - jax.lax.stop_gradient(mask))


def is_kept(mask: Float[Array, "tasks rank"]) -> Array:
    """Tells which directions a soft mask keeps."""
    return mask > 0.5


def kept_rank(mask_logits: Float[Array, "tasks rank"]) -> Int[Array, " tasks"]:
    """Counts the kept directions of every task."""
    return jnp.sum(is_kept(soft(mask_logits)), axis=1, dtype=jnp.int32)
