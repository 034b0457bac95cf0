"""TSV-M: task singular vectors, decorrelated. Gargiulo et al., CVPR 2025."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from adarank_jax import tree
from adarank_jax.core import merge, svd, task_vectors
from adarank_jax.core.svd import Decompose, SVDFactors
from adarank_jax.tree import Predicate, Tree


def tsv_m(
    pretrained: Tree,
    finetuned: Sequence[Tree],
    is_decomposed: Predicate,
    *,
    coefficient: float = 1.0,
    decompose: Decompose = svd.decompose_tree,
) -> Tree:
    r"""Adds the decorrelated leading directions of the task vectors.

    .. math:: \theta = \theta_0 + \alpha U_\perp \operatorname{diag}(s) V_\perp^\top

    Args:
        pretrained: parameters before fine-tuning.
        finetuned: parameters of each task's expert.
        is_decomposed: which tensors are decomposed; to the others the mean of the task
            vectors is added, scaled alike.
        coefficient: :math:`\alpha`; 1 is the published choice.
        decompose: makes the factors; takes task vectors and `is_decomposed`.

    Returns:
        Parameters as `pretrained`.

    Raises:
        ValueError: there is no model, two differ in their tensors, or one is not
            finite.

    References:
        Gargiulo et al., `Task Singular Vectors <https://arxiv.org/abs/2412.00081>`_,
        CVPR 2025, algorithm 1.
    """
    vectors = task_vectors.task_vectors(pretrained, finetuned)
    factors = tsv_factors(vectors, is_decomposed, decompose)
    return merge.static_params(pretrained, factors, coefficient)


def tsv_factors(
    vectors: Tree,
    is_decomposed: Predicate,
    decompose: Decompose = svd.decompose_tree,
) -> Tree:
    """Makes the factors of TSV-M, from which AdaRank can start as well, on the host.

    Args:
        vectors: task vectors from the pretrained model.
        is_decomposed: which tensors are decomposed.
        decompose: makes the plain factors of all directions.

    Returns:
        Host arrays: factors with `rank / tasks` directions a task, decorrelated over
        all tasks; the other task vectors are divided by the number of tasks, so that
        their sum is the mean.
    """

    def leaf_factors(_, leaf):
        if not svd.is_factors(leaf):
            return leaf / leaf.shape[0]
        tasks, rank = leaf.s.shape
        leading = svd.truncate(leaf, max(1, rank // tasks))
        return SVDFactors(
            nearest_orthogonal(leading.u),
            leading.s,
            nearest_orthogonal(leading.vt.T).T,
        )

    factors = decompose(vectors, is_decomposed)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return jax.tree.map(np.asarray, tree.map_with_path(leaf_factors, factors))


def nearest_orthogonal(
    columns: Float[ArrayLike, "rows directions"],
) -> Float[Array, "rows directions"]:
    r"""Returns the closest matrix with orthonormal columns (Procrustes).

    .. math:: P Q^\top \quad\text{where}\quad X = P D Q^\top
    """
    p, _, qt = jnp.linalg.svd(columns, full_matrices=False)
    return jnp.matmul(p, qt, precision=jax.lax.Precision.HIGHEST)
