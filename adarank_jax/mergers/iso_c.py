"""Iso-C: isotropic merging in the common subspace. Marczak et al., ICML 2025."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adarank_jax import tree
from adarank_jax.core import task_vectors
from adarank_jax.tree import Predicate, Tree


def iso_c(
    pretrained: Tree,
    finetuned: Sequence[Tree],
    is_decomposed: Predicate,
    *,
    coefficient: float = 1.5,
) -> Tree:
    r"""Adds the sum of the task vectors with a flat spectrum.

    .. math:: \theta = \theta_0 + \alpha \bar{s} U V^\top, \quad
        \sum_t \tau_t = U \operatorname{diag}(s) V^\top

    Args:
        pretrained: parameters before fine-tuning.
        finetuned: parameters of each task's expert.
        is_decomposed: which tensors are flattened; to the others the mean of the task
            vectors is added, scaled alike.
        coefficient: :math:`\alpha`; the default is FusionBench's.

    Returns:
        Parameters as `pretrained`.

    Raises:
        ValueError: there is no model, two differ in their tensors, or one is not
            finite.

    References:
        Marczak et al., `No Task Left Behind <https://arxiv.org/abs/2502.04959>`_,
        ICML 2025, section 4.
    """

    def leaf_params(path, start, vectors):
        if not is_decomposed(path, start):
            return start + coefficient * jnp.mean(vectors, axis=0)
        return start + coefficient * flat_spectrum(jnp.sum(vectors, axis=0))

    vectors = task_vectors.task_vectors(pretrained, finetuned)
    return tree.map_with_path(leaf_params, pretrained, vectors)


def flat_spectrum(update: Float[Array, "rows cols"]) -> Float[Array, "rows cols"]:
    """Replaces every singular value by their mean."""
    u, s, vt = jnp.linalg.svd(update, full_matrices=False)
    return jnp.mean(s) * jnp.matmul(u, vt, precision=jax.lax.Precision.HIGHEST)
