"""One step of test-time adaptation, as seen by one device.

The same function is right by itself, and under `jax.pmap` when `axis_name` names the
device axis: each device then holds a slice of the rank axis and of the batch. The
merged update is summed over devices in the forward pass, so the transposed sum in the
backward pass hands every device the whole gradient of its own mask logits, provided
that the loss is this device's share of the global mean. Coefficients are replicated,
and their gradients are summed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from adarank_jax.adaptation.objectives import Objective
from adarank_jax.core import losses, merge
from adarank_jax.core.merge import Mask, Variables
from adarank_jax.tree import Tree

Encode = Callable[[Tree, Any], Float[Array, "batch features"]]
"""Maps parameters and a batch of inputs to features."""

Classify = Callable[[Float[Array, "batch features"], Any], Array]
"""Maps features and one task's head to logits."""


class Batch(NamedTuple):
    """Unlabelled examples of every task.

    Attributes:
        inputs: an array or a tree of arrays, `(tasks, batch, ...)`.
        labels: expert predictions `(tasks, batch)`, or None if the objective needs
            none.
    """

    inputs: Any
    labels: Array | None = None


class State(NamedTuple):
    """What a step reads and writes.

    Attributes:
        variables: coefficients and mask logits.
        optimizer: state of the optax transformation, of the same shape.
    """

    variables: Variables
    optimizer: optax.OptState


class Metrics(NamedTuple):
    """What a step measured before its update.

    Attributes:
        loss: mean objective, `(tasks,)`; their sum is minimised.
        entropy: mean entropy of the predictions, `(tasks,)`, in nats.
        marginal_entropy: entropy of the mean prediction, `(tasks,)`, in nats; when
            predictions collapse to one class it falls to zero.
    """

    loss: Array
    entropy: Array
    marginal_entropy: Array


Step = Callable[[State, Tree, Tree, Sequence[Any], Batch], tuple[State, Metrics]]


def make_step(
    encode: Encode,
    classify: Classify,
    objective: Objective,
    mask: Mask,
    optimizer: optax.GradientTransformation,
    axis_name: str | None = None,
) -> Step:
    """Builds the step `(state, origin, factors, heads, batch) -> (state, metrics)`.

    Args:
        encode: the model without its head.
        classify: the head of one task.
        objective: loss an example.
        mask: turns mask logits into a mask.
        optimizer: applied to the variables and to nothing else.
        axis_name: device axis that shards the batch and the rank axis; None for one
            device.

    Returns:
        A pure function of arrays, to be jitted or pmapped. The factors are an argument:
        as a constant, XLA would fold them for minutes.

    References:
        Lee et al., `AdaRank <https://arxiv.org/abs/2503.22178>`_, ICLR 2026, section 4.
    """

    def loss(variables, origin, factors, heads, batch):
        params = merge.merged_params(origin, factors, variables, mask, axis_name)
        logits = task_logits(encode, classify, params, heads, batch.inputs)
        labels = [None] * len(logits) if batch.labels is None else [*batch.labels]
        values = jnp.stack(
            [objective(z, y).mean() for z, y in zip(logits, labels, strict=True)]
        )
        share = values.sum()
        if axis_name is not None:
            share = share / jax.lax.axis_size(axis_name)
        return share, _metrics(values, logits, axis_name)

    def step(state, origin, factors, heads, batch):
        gradients, metrics = jax.grad(loss, has_aux=True)(
            state.variables, origin, factors, heads, batch
        )
        if axis_name is not None:
            gradients = gradients._replace(
                coefficients=jax.lax.psum(gradients.coefficients, axis_name)
            )
        updates, optimizer_state = optimizer.update(
            gradients, state.optimizer, state.variables
        )
        variables = optax.apply_updates(state.variables, updates)
        return State(variables, optimizer_state), metrics

    return step


def task_logits(
    encode: Encode,
    classify: Classify,
    params: Tree,
    heads: Sequence[Any],
    inputs: Any,
) -> list[Array]:
    """Runs the examples of all tasks through the encoder at once.

    Args:
        encode: the model without its head.
        classify: the head of one task.
        params: of the encoder.
        heads: one a task.
        inputs: `(tasks, batch, ...)` at every leaf.

    Returns:
        One `(batch, classes)` a task.
    """
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), inputs)
    features = encode(params, flat)
    by_task = features.reshape(len(heads), -1, features.shape[-1])
    return [classify(f, head) for f, head in zip(by_task, heads, strict=True)]


def _metrics(values, logits, axis_name):
    """Measures the predictions, averaged over the devices."""
    entropy = jnp.stack([losses.softmax_entropy(z).mean() for z in logits])
    mean = [jax.nn.softmax(z).mean(axis=0) for z in logits]
    if axis_name is not None:
        values, entropy, mean = jax.lax.pmean((values, entropy, mean), axis_name)
    marginal = [losses.marginal_entropy(jnp.log(p)[None]) for p in mean]
    return Metrics(*jax.lax.stop_gradient((values, entropy, jnp.stack(marginal))))
