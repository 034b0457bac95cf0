"""Heads of text classifiers: plain trees named as in checkpoints.

BERT and GPT-2 have one linear layer, ``{"kernel", "bias"}``, of which GPT-2's has no
bias; RoBERTa has two, ``{"dense": ..., "out_proj": ...}``.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from adarank_jax import errors, tree
from adarank_jax.tree import Tree


def linear_logits(
    features: Float[Array, "batch width"], head: Tree
) -> Float[Array, "batch classes"]:
    """Applies the head of BERT or GPT-2.

    Args:
        features: of some texts.
        head: `kernel (width, classes)`, and `bias (classes,)` if it has one.
    """
    logits = features @ head["kernel"]
    return logits + head["bias"][None] if "bias" in head else logits


def roberta_logits(
    features: Float[Array, "batch width"], head: Tree
) -> Float[Array, "batch classes"]:
    """Applies the head of RoBERTa: a layer, the hyperbolic tangent, and a layer.

    Args:
        features: of some texts.
        head: `dense` and `out_proj`, each a `kernel` and a `bias`.
    """
    return linear_logits(
        jnp.tanh(linear_logits(features, head["dense"])), head["out_proj"]
    )


def check_bert_head(head: Tree, width: int, name: str) -> None:
    """Checks that a head is one of BERT's and fits its features.

    Args:
        head: arrays, or their shapes.
        width: length of the features.
        name: what to call the head in the message.

    Raises:
        InputError: tensors are missing or unknown, a shape is wrong, there is one class
            only (a regression), or a number is not finite; the message has the tensor.

    Examples:
        >>> import numpy as np
        >>> head = {"kernel": np.zeros((4, 3)), "bias": np.zeros(3)}
        >>> check_bert_head(head, width=4, name="the head of cola")
    """
    _check(head, {"kernel": (width, None), "bias": (None,)}, name)


def check_gpt2_head(head: Tree, width: int, name: str) -> None:
    """Checks that a head is one of GPT-2's and fits its features.

    Args:
        head: arrays, or their shapes.
        width: length of the features.
        name: what to call the head in the message.

    Raises:
        InputError: as `check_bert_head`.
    """
    _check(head, {"kernel": (width, None)}, name)


def check_roberta_head(head: Tree, width: int, name: str) -> None:
    """Checks that a head is one of RoBERTa's and fits its features.

    Args:
        head: arrays, or their shapes.
        width: length of the features.
        name: what to call the head in the message.

    Raises:
        InputError: as `check_bert_head`.
    """
    expected = {
        "dense/kernel": (width, width),
        "dense/bias": (width,),
        "out_proj/kernel": (width, None),
        "out_proj/bias": (None,),
    }
    _check(head, expected, name)


def num_classes(head: Tree) -> int:
    """Returns the number of classes that a head tells apart."""
    last = head.get("out_proj", head)
    return int(last["kernel"].shape[-1])


def _check(head: Any, expected, name):
    """Compares a head to the expected shapes; None stands for the classes."""
    flat = tree.flatten(head)
    if set(flat) != set(expected):
        raise errors.InputError(
            "E317",
            f"it must have the tensors {sorted(expected)}, got {sorted(flat)}",
            where=name,
            remedy="is it of another family?",
        )
    kernel = next(path for path, shape in expected.items() if shape[-1:] == (None,))
    count = flat[kernel].shape[-1] if flat[kernel].ndim == 2 else None
    for path, shape in expected.items():
        shape = tuple(count if size is None else size for size in shape)
        if flat[path].shape != shape:
            shown = ", ".join(
                "classes" if size is None else str(size) for size in shape
            )
            raise errors.InputError(
                "E306",
                f"it must have {path!r} of shape ({shown}), got {flat[path].shape}",
                where=name,
                remedy="was it trained on another encoder?",
            )
    if count == 1:
        raise errors.InputError(
            "E304",
            "it must have at least two classes, got one: a regression head (STS-B has "
            "such) leaves nothing to classify",
            where=name,
            remedy="drop this task",
        )
    if all(hasattr(leaf, "__array__") for leaf in flat.values()):
        tree.check_finite(head, name)
