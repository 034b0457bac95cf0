"""One step of test-time adaptation, as seen by one device.

The same function is right by itself, and under `jax.pmap` or `jax.shard_map` when
`axis_name` names the device axis: each device then holds a slice of the rank axis and
of the batch. The merged update is summed over devices in the forward pass, so the
transposed sum in the backward pass hands every device the whole gradient of its own
mask logits, provided that the loss is this device's share of the global mean.
Coefficients are replicated, and their gradients are summed.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from adarank_jax.adaptation.gradients import Measured, task_gradients
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
    tasks_at_once: int | None = None,
    remat: bool = False,
) -> Step:
    """Builds the step `(state, origin, factors, heads, batch) -> (state, metrics)`.

    The model is merged once (with `remat`, twice a group). Gradients of the merged
    weights are summed over groups of tasks and then pulled back to masks and
    coefficients, once as well.

    Args:
        encode: the model without its head.
        classify: the head of one task.
        objective: loss an example.
        mask: turns mask logits into a mask.
        optimizer: applied to the variables and to nothing else.
        axis_name: device axis that shards the batch and the rank axis; None for one
            device.
        tasks_at_once: tasks whose activations are in memory together; None: all.
        remat: keep only what products with weights put out; merged matrices, attention
            and activations are computed again in the backward pass.

    Returns:
        A pure function of arrays, to be jitted or pmapped. The factors are an argument:
        as a constant, XLA would fold them for minutes.

    Raises:
        ValueError: `tasks_at_once` is below 1.

    References:
        Lee et al., `AdaRank <https://arxiv.org/abs/2503.22178>`_, ICLR 2026, section 4.
    """
    if tasks_at_once is not None and tasks_at_once < 1:
        raise ValueError(f"`tasks_at_once` must be at least 1, got {tasks_at_once}.")

    def step(state, origin, factors, heads, batch):
        def merged(variables):
            return merge.merged_params(origin, factors, variables, mask, axis_name)

        params, pull_back = jax.vjp(merged, state.variables)
        gradients, measured = task_gradients(
            encode,
            _measures(encode, classify, objective, params, heads, batch),
            params,
            batch.inputs,
            batch.labels,
            tasks_at_once or len(heads),
            functools.partial(merged, state.variables) if remat else None,
        )
        if axis_name is not None:
            # The loss of a device is its share of the global mean.
            share = 1 / jax.lax.axis_size(axis_name)
            gradients = jax.tree.map(lambda leaf: leaf * share, gradients)
            measured = jax.lax.pmean(measured, axis_name)
        (gradients,) = pull_back(gradients)
        if axis_name is not None:
            gradients = gradients._replace(
                coefficients=jax.lax.psum(gradients.coefficients, axis_name)
            )
        updates, optimizer_state = optimizer.update(
            gradients, state.optimizer, state.variables
        )
        variables = optax.apply_updates(state.variables, updates)
        return State(variables, optimizer_state), _metrics(measured)

    return step


def _measures(encode, classify, objective, params, heads, batch):
    """Returns one function a task, from features and labels to `Measured`."""
    examples = jax.tree.map(lambda leaf: leaf[0], batch.inputs)
    features = jax.eval_shape(encode, params, examples)
    classes = [jax.eval_shape(classify, features, h).shape[-1] for h in heads]

    def measure(head, features, label):
        logits = classify(features, head)
        entropy = losses.softmax_entropy(logits).mean()
        prediction = jax.nn.softmax(logits).mean(axis=0)
        padded = jnp.pad(prediction, (0, max(classes) - len(prediction)))
        return Measured(
            objective(logits, label).mean(),
            *jax.lax.stop_gradient((entropy, padded)),
        )

    return [functools.partial(measure, head) for head in heads]


def _metrics(measured):
    """Turns what the tasks gave into what is logged."""
    marginal = [losses.marginal_entropy(jnp.log(p)[None]) for p in measured.prediction]
    return Metrics(measured.loss, measured.entropy, jnp.stack(marginal))
