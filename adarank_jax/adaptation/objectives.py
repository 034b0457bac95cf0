"""What adaptation minimises: a loss per unlabelled example, averaged over a batch.

An objective takes the logits of one task's batch and one pseudo-label an example, and
returns one loss an example. Neither ever sees a label of the data set.
"""

from collections.abc import Callable

from jaxtyping import Array, Float, Int

from adarank_jax.core import losses

Objective = Callable[
    [Float[Array, "batch classes"], Int[Array, " batch"] | None],
    Float[Array, " batch"],
]


def entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"] | None = None
) -> Float[Array, " batch"]:
    """Returns the entropy of each prediction: the paper's objective.

    Args:
        logits: of the merged model.
        labels: not used.

    References:
        Lee et al., `AdaRank <https://arxiv.org/abs/2503.22178>`_, ICLR 2026, section 4.
    """
    del labels
    return losses.softmax_entropy(logits)


def expert_labels(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"] | None
) -> Float[Array, " batch"]:
    """Returns the cross-entropy against what the task's own expert predicts.

    Args:
        logits: of the merged model.
        labels: argmax of the expert's logits on the same images.

    Raises:
        ValueError: there are no expert labels.

    References:
        Jung et al., `SyMerge <https://arxiv.org/abs/2412.19098>`_, 2024, whose teacher
        this is; there it trains coefficients and heads, here masks and coefficients.
    """
    if labels is None:
        raise ValueError(
            "`labels` must hold the experts' predictions, got None; compute them once "
            "with `evaluate.Predictor.predict` and pass them to the batches."
        )
    return losses.cross_entropy(logits, labels)


OBJECTIVES: dict[str, Objective] = {"entropy": entropy, "expert_labels": expert_labels}
