"""Experts of texts: a linear head on frozen features, then fine-tuning of the encoder.

The head is fitted first and stays as it is (as CLIP's do): the frozen base with the
same head is then a fair comparison, and all experts keep the base's features in mind.
The embeddings stay the base's too, since no merge moves them.
"""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from adarank_jax.adaptation.evaluate import Predictor
from adarank_jax.data import tokens as token_data
from adarank_jax.data.tokens import Tokens
from adarank_jax.models import sequence_heads
from adarank_jax.models.sequences import FIELDS
from adarank_jax.tree import Tree
from experiments import training

CHECKPOINT_EVERY = 100


FORMAT = 1
"""Counts changes of training that no field of a recipe tells."""


class Recipe(NamedTuple):
    """How an expert is trained: every number that decides its weights.

    The learning rate is at the upper end of what is customary for fine-tuning BERT
    (1e-5 to 1e-4); the number of steps is what a demo on a CPU has time for.

    Attributes:
        num_steps: of AdamW.
        learning_rate: at its peak, after the warm-up; falls as a cosine.
        warmup: share of the steps until the peak.
        batch_size: texts a step.
        weight_decay: of AdamW.
        max_norm: of a gradient; longer ones are cut to it.
        dealt: steps whose texts are drawn at once.
        head_penalty: squared weights of the linear head, on standardised features.
        head_steps: of Adam, on all texts at once.
        head_rate: learning rate of the head at the start; falls as a cosine.
        seed: of the order of the texts.
    """

    num_steps: int = 200
    learning_rate: float = 1e-4
    warmup: float = 0.1
    batch_size: int = 32
    weight_decay: float = 0.01
    max_norm: float = 1.0
    dealt: int = 8
    head_penalty: float = 1e-2
    head_steps: int = 400
    head_rate: float = 0.05
    seed: int = 0


def train_expert(
    module: nn.Module,
    base: Tree,
    tokens: Tokens,
    labels: np.ndarray,
    recipe: Recipe,
    buckets: tuple[int, ...],
    name: str,
    console: Console,
    checkpoints: pathlib.Path | None = None,
) -> tuple[Tree, Tree]:
    """Trains the expert of one task, from the newest checkpoint if there is one.

    Args:
        module: the encoder.
        base: its pretrained parameters.
        tokens: texts to train on.
        labels: their class numbers; every class occurs.
        recipe: how to train.
        buckets: lengths that batches are cut to.
        name: of the task, shown with the progress.
        console: for progress.
        checkpoints: folder for what training needs to go on; None to keep nothing.

    Returns:
        Parameters of the encoder, and the head ``{"kernel", "bias"}``.

    Raises:
        FloatingPointError: a loss or a parameter is not finite.
    """

    def encode(params, inputs):
        return module.apply({"params": params}, inputs)

    trim = functools.partial(token_data.trim, buckets=buckets)
    console.print(f"{name}: fitting the head to {len(labels):,} texts.")
    predictor = Predictor(encode, sequence_heads.linear_logits, 128, trim)
    head = fit_head(predictor.features(base, tokens), labels, recipe)

    def loss(params, head, inputs, targets):
        embeddings = jax.lax.stop_gradient(params["embeddings"])
        features = encode(params | {"embeddings": embeddings}, inputs)
        logits = sequence_heads.linear_logits(features, head)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    encoder = training.train(
        base,
        lambda params, *arrays: loss(params, head, _inputs(arrays), arrays[-1]),
        optimizer(recipe),
        functools.partial(_stream, tokens, labels, recipe, trim),
        recipe.num_steps,
        name,
        console,
        checkpoints,
        checkpoint_every=CHECKPOINT_EVERY,
    )
    return encoder | {"embeddings": base["embeddings"]}, head


def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Builds AdamW with warm-up for all but the embeddings, which do not move.

    Args:
        recipe: of an expert.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        recipe.learning_rate,
        max(1, round(recipe.warmup * recipe.num_steps)),
        recipe.num_steps,
    )
    moving = optax.chain(
        optax.clip_by_global_norm(recipe.max_norm),
        optax.adamw(schedule, weight_decay=recipe.weight_decay),
    )
    return optax.partition(
        {"moving": moving, "frozen": optax.set_to_zero()},
        lambda params: {
            key: jax.tree.map(
                lambda _, kind="frozen" if key == "embeddings" else "moving": kind,
                params[key],
            )
            for key in params
        },
    )


def fit_head(features: np.ndarray, labels: np.ndarray, recipe: Recipe) -> Tree:
    """Fits a linear head to frozen features: logistic regression of all classes.

    Args:
        features: `(examples, features)`.
        labels: class numbers, `(examples,)`; every class occurs.
        recipe: penalty (on features of mean 0 and deviation 1), steps and rate.

    Returns:
        ``{"kernel": (features, classes), "bias": (classes,)}`` for the features as
        they are.

    Raises:
        ValueError: a class does not occur.
    """
    num_classes = int(labels.max()) + 1
    if len(np.unique(labels)) != num_classes:
        raise ValueError(
            f"`labels` must hold each of the classes 0 to {num_classes - 1}, got "
            f"{len(np.unique(labels))} different ones."
        )
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-3
    inputs = jnp.asarray((features - mean[None]) / deviation[None])
    targets = jnp.asarray(labels)
    adam = optax.adam(optax.cosine_decay_schedule(recipe.head_rate, recipe.head_steps))
    start = {
        "kernel": jnp.zeros((features.shape[1], num_classes)),
        "bias": jnp.zeros(num_classes),
    }

    def loss(head, inputs, targets):
        logits = sequence_heads.linear_logits(inputs, head)
        error = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return error.mean() + recipe.head_penalty * jnp.sum(head["kernel"] ** 2)

    @jax.jit
    def fit(head, inputs, targets):
        def step(carry, _):
            head, state = carry
            gradient = jax.grad(loss)(head, inputs, targets)
            updates, state = adam.update(gradient, state, head)
            return (optax.apply_updates(head, updates), state), None

        start = (head, adam.init(head))
        (head, _), _ = jax.lax.scan(step, start, length=recipe.head_steps)
        return head

    head = jax.tree.map(np.asarray, fit(start, inputs, targets))
    kernel = head["kernel"] / deviation[:, None]
    return {"kernel": kernel, "bias": head["bias"] - mean @ kernel}


def _stream(
    tokens: Tokens, labels: np.ndarray, recipe: Recipe, trim: Any, first: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields the arrays of every step; texts of one length come together."""
    number = first
    while True:
        rows = batch_rows(tokens.lengths, recipe, number)
        inputs = trim(tokens[rows])
        yield (*(inputs[name] for name in FIELDS), labels[rows])
        number += 1


def batch_rows(lengths: np.ndarray, recipe: Recipe, number: int) -> np.ndarray:
    """Draws the texts of one step, a pure function of its number.

    Texts for a few steps are drawn at once, sorted by length and dealt out in random
    order, so that little of a batch is padding.

    Args:
        lengths: tokens of each text.
        recipe: texts a step, steps to draw for at once, and seed.
        number: of the step.
    """
    dealt, size = recipe.dealt, recipe.batch_size
    rng = np.random.default_rng([recipe.seed, number // dealt])
    drawn = rng.integers(0, len(lengths), dealt * size)
    drawn = drawn[np.argsort(lengths[drawn], kind="stable")]
    return drawn.reshape(dealt, size)[rng.permutation(dealt)[number % dealt]]


def _inputs(arrays):
    """Names the arrays of a batch of texts."""
    return dict(zip(FIELDS, arrays[:-1], strict=True))
