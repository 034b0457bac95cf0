"""CART: centred, rank-truncated task arithmetic. Choi et al., 2024."""

from collections.abc import Sequence

from adarank_jax.core import merge, svd, task_vectors
from adarank_jax.core.svd import Decompose
from adarank_jax.tree import Predicate, Tree


def cart(
    pretrained: Tree,
    finetuned: Sequence[Tree],
    is_decomposed: Predicate,
    *,
    coefficient: float = 2.0,
    rank_ratio: float = 0.12,
    decompose: Decompose = svd.decompose_tree,
) -> Tree:
    r"""Adds the leading directions of the task vectors centred on the average.

    .. math:: \theta = \theta_{avg}
        + \lambda \sum_t \operatorname{SVD}_k(\theta_t - \theta_{avg})

    Args:
        pretrained: parameters before fine-tuning; only compared, not used.
        finetuned: parameters of each task's expert.
        is_decomposed: which tensors are truncated; the others stay at the average,
            because their centred task vectors sum to zero.
        coefficient: :math:`\lambda`; the default is published for eight tasks.
        rank_ratio: k as a share of the full rank, in (0, 1].
        decompose: makes the factors; takes task vectors and `is_decomposed`.

    Returns:
        Parameters as `pretrained`.

    Raises:
        ValueError: there is no model, two differ in their tensors, one is not finite,
            or `rank_ratio` is out of range.

    References:
        Choi et al., `Revisiting Weight Averaging for Model Merging
        <https://arxiv.org/abs/2412.12153>`_, 2024.
    """
    task_vectors.check_models(pretrained, finetuned)
    origin = task_vectors.average(finetuned)
    vectors = task_vectors.task_vectors(origin, finetuned)
    factors = decompose(vectors, is_decomposed)
    return merge.static_params(origin, factors, coefficient, rank_ratio)
