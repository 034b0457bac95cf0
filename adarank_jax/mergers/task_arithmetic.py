"""Task Arithmetic. Ilharco et al., ICLR 2023."""

from collections.abc import Sequence

from adarank_jax.core import merge, task_vectors
from adarank_jax.tree import Predicate, Tree


def task_arithmetic(
    pretrained: Tree,
    finetuned: Sequence[Tree],
    is_decomposed: Predicate,
    *,
    coefficient: float = 0.3,
) -> Tree:
    r"""Adds the scaled sum of the task vectors.

    .. math:: \theta = \theta_0 + \lambda \sum_t (\theta_t - \theta_0)

    Args:
        pretrained: parameters before fine-tuning.
        finetuned: parameters of each task's expert.
        is_decomposed: not used; every tensor is treated alike.
        coefficient: :math:`\lambda`; 0.3 is the published choice for eight tasks.

    Returns:
        Parameters as `pretrained`.

    Raises:
        ValueError: there is no model, two differ in their tensors, or one is not
            finite.

    References:
        Ilharco et al., `Editing Models with Task Arithmetic
        <https://arxiv.org/abs/2212.04089>`_, ICLR 2023.
    """
    del is_decomposed
    vectors = task_vectors.task_vectors(pretrained, finetuned)
    return merge.static_params(pretrained, vectors, coefficient)
