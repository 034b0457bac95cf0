"""Supervised training: how bases, heads and experts are made."""

import contextlib
import itertools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import orbax.checkpoint as ocp
from rich.console import Console

from adarank_jax import errors
from adarank_jax.adaptation import parallel
from adarank_jax.adaptation.progress import AdaptationProgress
from adarank_jax.models import heads
from adarank_jax.models.heads import Head

Loss = Callable[..., jax.Array]
"""Takes parameters and the arrays of a batch."""

Batches = Callable[[int], tuple[np.ndarray, ...]]
"""Returns the arrays of a step, a pure function of its number."""

Stream = Callable[[int], Iterable[tuple[np.ndarray, ...]]]
"""Takes the step to begin with; yields the arrays of that step and every later one."""


def train(
    params: Any,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    stream: Stream,
    num_steps: int,
    name: str,
    console: Console,
    checkpoints: pathlib.Path | None = None,
    checkpoint_every: int = 1_000,
    log: Callable[[int, float], None] | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Any:
    """Minimises a loss; goes on from the newest checkpoint if there is one.

    Args:
        params: where to start.
        loss: mean over the batch.
        optimizer: of all parameters.
        stream: arrays of each step, `(batch, ...)`.
        num_steps: steps in all.
        name: shown with the progress.
        console: for progress.
        checkpoints: folder for the state; None to keep none.
        checkpoint_every: steps between two saved states; the last is saved as well.
        log: takes the number of each step and its loss, once and in order.
        devices: that share each batch, whose size they divide; the first local one by
            default.

    Returns:
        The parameters after the last step.

    Raises:
        NumericsError: a loss or a parameter is not finite; the message names the
            step.
    """
    devices = devices or jax.local_devices()[:1]
    state = {"params": params, "optimizer": optimizer.init(params)}
    leaves, structure = jax.tree.flatten(state)
    step, late = _make_step(loss, optimizer, devices), None
    with contextlib.ExitStack() as stack:
        manager, first = None, 0
        if checkpoints is not None:
            manager = stack.enter_context(_open(checkpoints))
            first = manager.latest_step() or 0
        if manager is not None and first:
            console.print(f"{name}: resuming at step {first:,} of {num_steps:,}")
            saved = ocp.args.StandardRestore(_named(leaves))
            named = manager.restore(first, args=saved)
            state = jax.tree.unflatten(structure, [named[k] for k in _named(leaves)])
        state = parallel.replicate(state, devices)
        progress = AdaptationProgress(name, first, num_steps, console, "loss")
        stack.enter_context(progress)

        def report(number, value):
            value = _finite(float(value), number, name)
            if log is not None:
                log(number, value)
            progress.update(number + 1, value)

        for number, arrays in zip(range(first, num_steps), stream(first), strict=False):
            shards = [_split(array, len(devices)) for array in arrays]
            state, value = step(state, shards)
            if late is not None:  # one step late, so that the device never waits
                report(number - 1, late)
            late, done = value, number + 1
            if done == num_steps or (manager and done % checkpoint_every == 0):
                report(number, late)
                late = None
                leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
                _check_finite(leaves, number, name)
                if manager is not None:
                    manager.save(done, args=ocp.args.StandardSave(_named(leaves)))
    return jax.tree.map(np.asarray, state["params"])


@contextlib.contextmanager
def _open(folder):
    """Opens a folder of checkpoints; a save that has begun ends whatever happens."""
    manager = ocp.CheckpointManager(
        folder.absolute(),
        options=ocp.CheckpointManagerOptions(max_to_keep=1, create=True),
    )
    try:
        yield manager
    finally:
        manager.wait_until_finished()
        manager.close()


def _make_step(loss, optimizer, devices):
    """Compiles one update; every device has all parameters and a part of the batch."""

    def step(state, arrays):
        value, gradients = jax.value_and_grad(loss)(state["params"], *arrays)
        value, gradients = jax.lax.pmean((value, gradients), parallel.AXIS)
        updates, optimizer_state = optimizer.update(
            gradients, state["optimizer"], state["params"]
        )
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "optimizer": optimizer_state}, value

    return jax.pmap(
        step,
        axis_name=parallel.AXIS,
        in_axes=(None, 0),
        out_axes=None,
        donate_argnums=0,
        devices=devices,
    )


def _split(array, count):
    """Gives every device its part of a batch, along a new leading axis."""
    return np.reshape(array, (count, -1, *np.shape(array)[1:]))


def _finite(loss, step, name):
    """Returns a loss, or raises if training is lost."""
    if not np.isfinite(loss):
        raise errors.NumericsError(
            "E510",
            f"the loss is {loss} at step {step} of {name!r}",
            remedy="lower the learning rate, or check the images and the head",
        )
    return loss


def _check_finite(leaves, step, name):
    """Refuses a state that must not be saved."""
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise errors.NumericsError(
            "E510",
            f"parameters are not finite after step {step} of {name!r}",
            remedy="lower the learning rate; an earlier checkpoint, if there is one, "
            "is still good",
        )


def pretraining_optimizer(
    params: Any, num_steps: int, learning_rate: float = 2e-3, muon_rate: float = 0.01
) -> optax.GradientTransformation:
    """Builds Muon for the kernels of the blocks and Adam for everything else.

    Muon (Jordan et al., 2024) reached AdamW's loss in about four fifths of its time.
    """
    warmup = min(300, num_steps // 2)

    def schedule(peak):
        return optax.warmup_cosine_decay_schedule(
            0.0, peak, warmup, num_steps, peak / 100
        )

    def dimensions(path, leaf):
        name = jax.tree_util.keystr(path)
        is_block = "resblocks" in name and leaf.ndim == 2
        return optax.contrib.MuonDimensionNumbers() if is_block else None

    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.contrib.muon(
            schedule(muon_rate),
            adam_learning_rate=schedule(learning_rate),
            adam_b2=0.98,
            weight_decay=0.02,
            muon_weight_dimension_numbers=jax.tree_util.tree_map_with_path(
                dimensions, params
            ),
        ),
    )


def classifier_loss(model: nn.Module, num_classes: int) -> tuple[Callable, Loss]:
    """Builds a cosine classifier on top of an encoder, with a learned logit scale.

    Args:
        model: the encoder.
        num_classes: number of pretraining classes.

    Returns:
        `init(key, images) -> params` and the cross-entropy of these params.
    """

    def init(key, images):
        tower = model.init(key, to_input(images))["params"]
        width = model.config.output_size
        directions = 0.1 * jax.random.normal(key, (width, num_classes))
        return {
            "tower": tower,
            "directions": directions,
            "log_scale": jnp.float32(np.log(20.0)),
        }

    def loss(params, images, labels):
        features = model.apply({"params": params["tower"]}, to_input(images))
        lengths = jnp.linalg.norm(params["directions"], axis=0, keepdims=True)
        scale = jnp.exp(jnp.minimum(params["log_scale"], np.log(100.0)))
        head = Head(params["directions"] / lengths, scale, jnp.zeros(num_classes))
        logits = heads.cosine_logits(features, head)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return init, loss


def fit_head(
    features: np.ndarray, labels: np.ndarray, logit_scale: float, num_steps: int = 300
) -> Head:
    """Fits the directions of a cosine head to frozen features, by cross-entropy.

    Args:
        features: `(examples, features)`.
        labels: `(examples,)`; every class must occur.
        logit_scale: fixed.
        num_steps: of Adam, on all examples at once.

    Returns:
        The head; it starts from the centred class means.
    """
    unit = heads.normalise(jnp.asarray(features))
    classes = range(int(labels.max()) + 1)
    means = jnp.stack([unit[labels == c].mean(axis=0) for c in classes], axis=1)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, num_steps))
    return _fit_directions(unit, labels, logit_scale, means, optimizer, num_steps)


def _fit_directions(features, labels, logit_scale, means, optimizer, num_steps):
    """Runs the optimiser of a head."""

    def loss(directions):
        lengths = jnp.linalg.norm(directions, axis=0, keepdims=True)
        head = Head(directions / lengths, logit_scale, jnp.zeros(lengths.size))
        logits = heads.cosine_logits(features, head)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(directions, state):
        updates, state = optimizer.update(jax.grad(loss)(directions), state)
        return optax.apply_updates(directions, updates), state

    directions = means - means.mean(axis=1, keepdims=True)
    directions /= jnp.linalg.norm(directions, axis=0, keepdims=True)
    state = optimizer.init(directions)
    for _ in range(num_steps):
        directions, state = step(directions, state)
    return heads.make_head(directions, logit_scale)


def finetuning_loss(model: nn.Module, head: Head, rehearsal_weight: float) -> Loss:
    """Builds the cross-entropy under a frozen head, plus what keeps the rest in place.

    The second term is the mean squared distance of the unit embeddings of pretraining
    images to those of the pretrained model (rehearsal, as in learning without
    forgetting): a model of this size has no other reason to leave alone what its task
    does not need, and experts that do not leave it alone merge badly.

    Args:
        model: the encoder.
        head: of the task, frozen.
        rehearsal_weight: of the second term.

    Returns:
        Loss of parameters, images, labels, pretraining images and their embeddings.

    References:
        Li and Hoiem, `Learning without Forgetting <https://arxiv.org/abs/1606.09282>`_,
        2016.
    """

    def loss(params, images, labels, old_images, old_features):
        both = to_input(jnp.concatenate([images, old_images]))
        features = model.apply({"params": params}, both)
        logits = heads.cosine_logits(features[: len(images)], head)
        new = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        moved = heads.normalise(features[len(images) :]) - old_features
        return new + rehearsal_weight * jnp.sum(moved**2, axis=-1).mean()

    return loss


def to_input(images: jax.Array) -> jax.Array:
    """Scales 8-bit pixels to [-1, 1] on the device, as `transforms.normalise` does."""
    return (jnp.asarray(images, jnp.float32) / 255.0 - 0.5) / 0.5


def random_batches(
    images: np.ndarray, targets: np.ndarray, batch_size: int, seed: int, shift: int = 0
) -> Batches:
    """Draws images and targets for each step, shifted by up to `shift` pixels."""

    def batch(number):
        rng = np.random.default_rng([seed, number])
        rows = rng.integers(0, len(images), batch_size)
        moved = np.roll(images[rows], rng.integers(-shift, shift + 1, 2), (1, 2))
        return moved, targets[rows]

    return batch


def in_steps(batch: Batches) -> Stream:
    """Streams the batches of a function, none ahead of time."""
    return lambda first: map(batch, itertools.count(first))


def _named(leaves):
    """Names the leaves of a state by their place: what Orbax stores is only arrays."""
    return {f"{i:04d}": leaf for i, leaf in enumerate(leaves)}
