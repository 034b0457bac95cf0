"""Task heads: a task's classes as directions in the space of embeddings.

A head is a linear layer on embeddings of unit length. Made from class vectors or from
the embeddings of class names it is a cosine classifier; an imported linear layer may
have a bias and rows of any length.

Radford et al., `Learning Transferable Visual Models From Natural Language Supervision
<https://arxiv.org/abs/2103.00020>`_, 2021.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from adarank_jax import errors


class Head(NamedTuple):
    """The classifier of one task.

    Attributes:
        directions: one vector a class, `(features, classes)`, of unit length unless an
            imported head has classes of different lengths.
        logit_scale: what the cosines are multiplied by (CLIP's is 100).
        bias: what is added to the logits, `(classes,)`; zeros if there is none.
    """

    directions: Array
    logit_scale: Array
    bias: Array


def make_head(
    class_vectors: Float[ArrayLike, "features classes"],
    logit_scale: float,
    bias: ArrayLike | None = None,
) -> Head:
    """Builds a head from one vector a class.

    Args:
        class_vectors: of any length above zero.
        logit_scale: above zero.
        bias: one number a class; None for zeros.

    Returns:
        A head with unit directions, float32.

    Raises:
        InputError: the bias is not finite or of another shape.
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
    bias = _checked_bias(bias, vectors.shape[1])
    return Head(vectors / lengths[None], jnp.float32(logit_scale), bias)


def _checked_bias(bias, num_classes):
    """Returns one finite number a class, float32."""
    if bias is None:
        return jnp.zeros(num_classes, jnp.float32)
    bias = np.asarray(bias, np.float32)
    if bias.shape != (num_classes,):
        raise errors.InputError(
            "E305",
            f"`bias` must have one number for each of {num_classes} classes, got shape "
            f"{bias.shape}",
        )
    if not np.isfinite(bias).all():
        raise errors.InputError(
            "E220",
            "`bias` must be finite",
            remedy="save or download the head again",
        )
    return jnp.asarray(bias)


def head_from_weight(
    weight: ArrayLike, bias: ArrayLike | None = None, features: int | None = None
) -> Head:
    """Builds a head from an imported linear layer, whose rows hold the logit scale.

    The logits are those of the layer on unit embeddings, also if its rows differ in
    length; rows of one length give unit directions.

    Args:
        weight: `(classes, features)`, as torch stores a linear layer.
        bias: one number a class; None for zeros.
        features: length of the embeddings that the head is for; None for any.

    Returns:
        A head, float32; its scale is the mean length of the rows.

    Raises:
        InputError: `weight` is not a matrix of at least two rows of that length, a row
            is zero or not finite, or the bias is not finite or of another shape.

    Examples:
        >>> import numpy as np
        >>> head_from_weight(100.0 * np.eye(3)).logit_scale
        Array(100., dtype=float32)
    """
    rows = np.asarray(weight, np.float64)
    if rows.ndim != 2 or rows.shape[0] < 2:
        raise errors.InputError(
            "E304",
            "`weight` must have shape (classes, features) with at least two classes, "
            f"got {rows.shape}",
            remedy="one class leaves nothing to predict",
        )
    if features is not None and rows.shape[1] != features:
        raise errors.InputError(
            "E306",
            f"`weight` must have rows of length {features}, as the embeddings, got "
            f"{rows.shape[1]}",
            remedy="was the head made before or after the projection?",
        )
    lengths = np.linalg.norm(rows, axis=1)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        raise errors.InputError(
            "E220",
            "`weight` must be finite and have no row of zeros, but these rows are "
            f"wrong: {_some(bad)}",
            remedy="save or download the head again",
        )
    scale = lengths.mean()
    return Head(
        jnp.asarray((rows / scale).T, jnp.float32),
        jnp.float32(scale),
        _checked_bias(bias, len(rows)),
    )


def _some(indices):
    """Lists the first few of some indices."""
    rest = f" and {len(indices) - 5} more" if len(indices) > 5 else ""
    return ", ".join(str(i) for i in indices[:5]) + rest


def zero_shot_head(class_embeddings: Sequence[ArrayLike], logit_scale: float) -> Head:
    """Builds a head from the embeddings of class names, filled into templates.

    Every embedding is scaled to unit length, the templates of a class are averaged, and
    the average is scaled to unit length again.

    Args:
        class_embeddings: one `(templates, features)` a class, of any length above zero;
            the number of templates may differ.
        logit_scale: what the cosines are multiplied by: the exponential of what a
            checkpoint stores, 100 for OpenAI's.

    Raises:
        InputError: an embedding is zero or not finite.
        ValueError: there are fewer than two classes, one has no embedding or of another
            length than the first, or an average or the scale is zero.

    Examples:
        >>> import numpy as np
        >>> head = zero_shot_head([np.eye(2)[:1], 3.0 * np.eye(2)], 100.0)
        >>> [round(float(x), 3) for x in head.directions[:, 1]]
        [0.707, 0.707]

    References:
        Radford et al., section 3.1.4.
    """
    blocks = [np.asarray(block, np.float32) for block in class_embeddings]
    widths = {block.shape[-1] for block in blocks if block.ndim == 2}
    if any(b.ndim != 2 or not len(b) for b in blocks) or len(widths) > 1:
        raise ValueError(
            "`class_embeddings` must have one (templates, features) a class, at least "
            "one template each and the same features, got the shapes "
            f"{sorted({block.shape for block in blocks})}."
        )
    if len(blocks) < 2:
        raise ValueError(
            f"`class_embeddings` must have at least two classes, got {len(blocks)}; "
            "one class leaves nothing to predict."
        )
    lengths = [np.linalg.norm(block, axis=1, keepdims=True) for block in blocks]
    bad = [i for i, x in enumerate(lengths) if not (np.isfinite(x) & (x > 0)).all()]
    if bad:
        raise errors.InputError(
            "E220",
            "`class_embeddings` must be finite and none of them zero, but these "
            f"classes have such: {_some(bad)}",
            remedy="check the text tower and its tokens",
        )
    means = [(b / x).mean(axis=0) for b, x in zip(blocks, lengths, strict=True)]
    return make_head(np.stack(means, axis=1), logit_scale)


def normalise(
    features: Float[Array, "batch features"],
) -> Float[Array, "batch features"]:
    """Scales embeddings to unit length."""
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


def cosine_logits(
    features: Float[Array, "batch features"], head: Head
) -> Float[Array, "batch classes"]:
    """Returns scaled cosines of embeddings and classes, plus the bias.

    Args:
        features: embeddings, of any length above zero.
        head: the classifier.
    """
    return head.logit_scale * (normalise(features) @ head.directions) + head.bias[None]
