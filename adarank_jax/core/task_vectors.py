"""Task vectors: what fine-tuning added to an origin.

Ilharco et al., `Editing Models with Task Arithmetic <https://arxiv.org/abs/2212.04089>`_,
2023. The origin is the pretrained model, or the average of the fine-tuned ones (Choi et
al., `CART <https://arxiv.org/abs/2412.12153>`_, 2024), or any other merge of them.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from adarank_jax import tree
from adarank_jax.tree import Tree


def average(finetuned: Sequence[Tree]) -> Tree:
    r"""Averages the fine-tuned models: the origin of CART.

    .. math:: \theta_{avg} = \frac{1}{T} \sum_t \theta_t

    Args:
        finetuned: parameters of each task's expert.

    Returns:
        Parameters of the same structure, float32.

    Raises:
        ValueError: there is no model.
        InputError: two differ in their tensors.

    Examples:
        >>> import jax.numpy as jnp
        >>> average([{"w": jnp.zeros(2)}, {"w": jnp.ones(2)}])["w"]
        Array([0.5, 0.5], dtype=float32)
    """
    check_models(None, finetuned)

    def mean(first, *others):
        # In place on the host; a stack would hold all models once more.
        total = first.astype(jnp.float32)
        for other in others:
            total += other
        # XLA divides by multiplying, so that NumPy must do the same for equal bits.
        total *= np.float32(1 / len(finetuned))
        return total

    return jax.tree.map(mean, *finetuned)


def task_vectors(origin: Tree, finetuned: Sequence[Tree]) -> Tree:
    r"""Subtracts the origin from every fine-tuned model.

    .. math:: \tau_t = \theta_t - \theta_{origin}

    Args:
        origin: parameters that the merged model starts from.
        finetuned: parameters of each task's expert.

    Returns:
        A tree as `origin`, each leaf float32 with a leading task axis.

    Raises:
        ValueError: there is no model.
        InputError: one differs from the origin in its tensors.

    Examples:
        >>> import jax.numpy as jnp
        >>> task_vectors({"w": jnp.ones(3)}, [{"w": jnp.full(3, 3.0)}] * 2)["w"].shape
        (2, 3)
    """
    check_models(origin, finetuned)
    return jax.tree.map(
        lambda start, *ends: jnp.stack(
            [jnp.asarray(end, jnp.float32) - start for end in ends]
        ),
        jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), origin),
        *finetuned,
    )


def check_models(origin: Tree | None, finetuned: Sequence[Tree]) -> None:
    """Checks that there is a model, and that all of them hold the same tensors.

    Args:
        origin: parameters to compare with; None for the first fine-tuned model.
        finetuned: parameters of each task's expert.

    Raises:
        ValueError: there is no model.
        InputError: one differs (both sides are listed), or one is not finite: a single
            Inf can hang an SVD for ever.
    """
    if not finetuned:
        raise ValueError(
            "`finetuned` must hold at least one model, got none; name an expert a task."
        )
    first, name = (
        (finetuned[0], "`finetuned[0]`") if origin is None else (origin, "`origin`")
    )
    tree.check_finite(first, name)
    for i, model in enumerate(finetuned):
        tree.check_same(first, model, (name, f"`finetuned[{i}]`"))
        tree.check_finite(model, f"`finetuned[{i}]`")
