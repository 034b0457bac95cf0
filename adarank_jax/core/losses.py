"""Losses on logits that need no labels of the data."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def softmax_entropy(
    logits: Float[Array, "batch classes"],
) -> Float[Array, " batch"]:
    r"""Returns the entropy of each prediction, in nats.

    .. math:: H = -\sum_c p_c \log p_c, \quad p = \operatorname{softmax}(logits)

    Args:
        logits: of at least two classes; the entropy of one class is always zero.

    Returns:
        Values in [0, log classes].

    Raises:
        ValueError: there are fewer than two classes.

    Examples:
        >>> import jax.numpy as jnp
        >>> softmax_entropy(jnp.zeros((1, 4)))
        Array([1.3862944], dtype=float32)

    References:
        Wang et al., `Tent <https://arxiv.org/abs/2006.10726>`_, ICLR 2021.
    """
    _check_classes(logits)
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def marginal_entropy(logits: Float[Array, "batch classes"]) -> Float[Array, ""]:
    """Returns the entropy of the mean prediction; it falls when predictions collapse.

    Args:
        logits: of at least two classes.

    Returns:
        A value in [0, log classes], in nats.

    Raises:
        ValueError: there are fewer than two classes.
    """
    _check_classes(logits)
    p = jnp.mean(jax.nn.softmax(logits.astype(jnp.float32)), axis=0)
    return -jnp.sum(p * jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny)))


def cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """Returns the cross-entropy of each prediction against a (pseudo-)label, in nats.

    Args:
        logits: of at least two classes.
        labels: class numbers, in [0, classes).

    Raises:
        ValueError: there are fewer than two classes.
    """
    _check_classes(logits)
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]


def _check_classes(logits):
    """Checks that there is something to choose from."""
    if logits.shape[-1] < 2:
        raise ValueError(
            f"`logits` must have at least two classes, got {logits.shape[-1]}; "
            "the entropy of one class is always zero, so leave this task out."
        )
