"""Weight averaging. Wortsman et al., Model Soups, ICML 2022."""

from collections.abc import Sequence

from adarank_jax.core import task_vectors
from adarank_jax.tree import Predicate, Tree


def weight_averaging(
    pretrained: Tree, finetuned: Sequence[Tree], is_decomposed: Predicate
) -> Tree:
    r"""Averages the fine-tuned models.

    .. math:: \theta = \frac{1}{T} \sum_t \theta_t

    Args:
        pretrained: parameters before fine-tuning; only compared, not used.
        finetuned: parameters of each task's expert.
        is_decomposed: not used; every tensor is averaged.

    Returns:
        Parameters as `pretrained`.

    Raises:
        ValueError: there is no model, two differ in their tensors, or one is not
            finite.

    References:
        Wortsman et al., `Model Soups <https://arxiv.org/abs/2203.05482>`_, ICML 2022.
    """
    del is_decomposed
    task_vectors.check_models(pretrained, finetuned)
    return task_vectors.average(finetuned)
