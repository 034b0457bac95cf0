"""Gradients of the objective with respect to merged weights, some tasks at a time.

A group of tasks goes through the encoder at once. Groups follow each other in a loop,
so that only the activations of one are in memory at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adarank_jax.tree import Tree


class Measured(NamedTuple):
    """What one task's examples give, or with a leading axis, those of several tasks.

    Attributes:
        loss: mean objective; the sum over tasks is minimised.
        entropy: mean entropy of the predictions, in nats.
        prediction: mean prediction, `(classes,)`; zeros at the end where another task
            has more classes.
    """

    loss: Array
    entropy: Array
    prediction: Array


Measure = Callable[[Float[Array, "batch features"], Any], Measured]
"""Judges the features and labels (or None) of one task's examples."""


def task_gradients(
    encode: Callable[[Tree, Any], Float[Array, "batch features"]],
    measures: Sequence[Measure],
    params: Tree,
    inputs: Any,
    labels: Any,
    tasks_at_once: int,
    remerge: Callable[[], Tree] | None = None,
) -> tuple[Tree, Measured]:
    """Differentiates the sum of the tasks' losses with respect to merged weights.

    Args:
        encode: the model without its head.
        measures: one a task; what they return has one shape.
        params: merged weights.
        inputs: `(tasks, batch, ...)` at every leaf.
        labels: `(tasks, batch)`, or None.
        tasks_at_once: size of a group; the last one may be smaller.
        remerge: makes `params` again. Given, the backward pass keeps nothing but the
            outputs of the encoder's products with weights, and merged tensors that
            are not decomposed.

    Returns:
        Gradients as `params`, and what was measured, `(tasks, ...)` at every leaf.
    """

    def group_gradients(tasks, inputs, labels):
        def loss(params):
            features = encode(params, _merge_axes(inputs))
            features = features.reshape(len(tasks), -1, features.shape[-1])
            rows = [
                _measure(measures, task, features[i], _row(labels, i))
                for i, task in enumerate(tasks)
            ]
            measured = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
            return measured.loss.sum(), measured

        if remerge is None:
            return jax.grad(loss, has_aux=True)(params)
        again = jax.checkpoint(_after(loss, remerge), policy=_POLICY)
        return jax.grad(again, has_aux=True)(jax.tree.map(jnp.zeros_like, params))

    count = len(measures)
    if count <= tasks_at_once:
        return group_gradients(range(count), inputs, labels)

    def add_group(total, group):
        tasks, inputs, labels = group
        gradients, measured = group_gradients([*tasks], inputs, labels)
        return jax.tree.map(jnp.add, total, gradients), measured

    whole = count // tasks_at_once
    groups = jax.tree.map(
        lambda leaf: leaf[: whole * tasks_at_once].reshape(
            whole, tasks_at_once, *leaf.shape[1:]
        ),
        (jnp.arange(count), inputs, labels),
    )
    total = jax.tree.map(jnp.zeros_like, params)
    total, measured = jax.lax.scan(add_group, total, groups)
    measured = _merge_axes(measured)
    if rest := range(whole * tasks_at_once, count):
        last = jax.tree.map(lambda leaf: leaf[rest.start :], (inputs, labels))
        total, found = add_group(total, (rest, *last))
        measured = jax.tree.map(lambda *x: jnp.concatenate(x), measured, found)
    return total, measured


def _after(loss, remerge):
    """Returns the loss as a function of what is added to the merged weights."""
    return lambda added: loss(jax.tree.map(jnp.add, remerge(), added))


def _merge_axes(arrays):
    """Joins the first two axes of every array."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), arrays)


def _row(labels, i):
    """Returns the labels of one task, if there are labels."""
    return None if labels is None else labels[i]


def _measure(measures, task, features, label):
    """Judges one task's features; its number is known only when a loop runs, or now."""
    if isinstance(task, int):
        return measures[task](features, label)
    return jax.lax.switch(task, measures, features, label)


# A merge has a derivative rule of its own, so its products are not among the kept ones.
_POLICY = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
