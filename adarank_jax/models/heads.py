"""Cosine heads: a task's classes as directions in the space of embeddings.

Radford et al., `Learning Transferable Visual Models From Natural Language Supervision
<https://arxiv.org/abs/2103.00020>`_, 2021.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


class Head(NamedTuple):
    """The classifier of one task.

    Attributes:
        directions: one unit vector a class, `(features, classes)`.
        logit_scale: what the cosines are multiplied by (CLIP's is 100).
    """

    directions: Array
    logit_scale: Array


def make_head(
    class_vectors: Float[ArrayLike, "features classes"], logit_scale: float
) -> Head:
    """Builds a head from one vector a class.

    Args:
        class_vectors: of any length above zero.
        logit_scale: above zero.

    Returns:
        A head with unit directions, float32.

    Raises:
        ValueError: there are fewer than two classes, a vector is zero or not finite,
            or the scale is not above zero.

    Examples:
        >>> import jax.numpy as jnp
        >>> make_head(2.0 * jnp.eye(3), 10.0).directions[0, 0]
        Array(1., dtype=float32)
    """
    vectors = jnp.asarray(class_vectors, jnp.float32)
    if vectors.ndim != 2 or vectors.shape[1] < 2:
        raise ValueError(
            "`class_vectors` must have shape (features, classes) with at least two "
            f"classes, got {vectors.shape}; one class leaves nothing to predict."
        )
    lengths = jnp.linalg.norm(vectors, axis=0)
    if not bool((jnp.isfinite(lengths) & (lengths > 0)).all()):
        raise ValueError("`class_vectors` must be finite and none of them zero.")
    if not logit_scale > 0:
        raise ValueError(f"`logit_scale` must be above zero, got {logit_scale}.")
    return Head(vectors / lengths[None], jnp.float32(logit_scale))


def normalise(
    features: Float[Array, "batch features"],
) -> Float[Array, "batch features"]:
    """Scales embeddings to unit length."""
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


def cosine_logits(
    features: Float[Array, "batch features"], head: Head
) -> Float[Array, "batch classes"]:
    """Returns scaled cosines of embeddings and classes.

    Args:
        features: embeddings, of any length above zero.
        head: the classifier.
    """
    return head.logit_scale * (normalise(features) @ head.directions)
