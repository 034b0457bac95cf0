"""The recorded trajectory of the authors' code, step by step.

Adam turns a tiny gradient of the wrong sign into a whole step, so starts, gradients and
entropies are compared tightly and ends are compared by mask bits and merged weights.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adarank_jax import tree
from adarank_jax.core import losses, masks, merge, svd, task_vectors
from adarank_jax.models import clip_vision, heads
from adarank_jax.models.clip_vision import ClipVision
from tests import helpers, reference

NUM_STEPS = 40
TEMPERATURE = 10.0
OPTIMIZER = optax.adam(reference.LEARNING_RATE)

pytestmark = pytest.mark.parametrize("case", reference.CASES)


class Run(NamedTuple):
    """What one case gave."""

    merged_start: Any
    first_gradients: Any
    entropy: Any
    end: Any
    merged_end: Any


@functools.cache
def compiled(mask_function):
    """Compiles the merge and the step of one mask, which two of the cases share."""
    mask = functools.partial(mask_function, temperature=TEMPERATURE)
    model = ClipVision(reference.CONFIG)

    def loss(variables, origin, factors, task_heads, images):
        params = merge.merged_params(origin, factors, variables, mask)
        features = jnp.split(model.apply({"params": params}, images), len(task_heads))
        logits = map(heads.cosine_logits, features, task_heads)
        entropy = jnp.stack([losses.softmax_entropy(z).mean() for z in logits])
        return entropy.sum(), entropy

    @jax.jit
    def step(variables, state, *arguments):
        gradients, entropy = jax.grad(loss, has_aux=True)(variables, *arguments)
        updates, state = OPTIMIZER.update(gradients, state)
        return optax.apply_updates(variables, updates), state, gradients, entropy

    return jax.jit(functools.partial(merge.merged_params, mask=mask)), step


@functools.cache
def run(case):
    """Adapts as the recording did."""
    arrays, setting = reference.recording(), reference.CASES[case]
    finetuned = [reference.params(arrays, f"finetuned/{t}") for t in reference.TASKS]
    origin = reference.params(arrays, "pretrained")
    if case == "cart":
        origin = task_vectors.average(finetuned)
    vectors = task_vectors.task_vectors(origin, finetuned)
    factors = svd.decompose_tree(vectors, clip_vision.is_decomposed)
    task_heads = [
        heads.make_head(arrays[f"head/{t}"].T, reference.HEAD_NORM)
        for t in reference.TASKS
    ]
    merged, step = compiled(masks.soft if "soft" in case else masks.straight_through)
    variables = merge.init_variables(factors, *setting)
    state, gradients, entropies = OPTIMIZER.init(variables), [], []
    # Factors are committed to a device; so is what the step returns. Arguments that
    # are not would compile the step a second time.
    variables, state = jax.device_put((variables, state), jax.devices()[0])
    merged_start = merged(origin, factors, variables)
    for images in batches(arrays):
        variables, state, gradient, entropy = step(
            variables, state, origin, factors, task_heads, images
        )
        gradients.append(gradient)
        entropies.append(entropy)
    merged_end = merged(origin, factors, variables)
    return Run(merged_start, gradients[0], np.stack(entropies), variables, merged_end)


def batches(arrays):
    """Yields the images of all tasks, step by step."""
    images = np.stack([arrays[f"images/{t}"] for t in reference.TASKS], axis=1)
    assert len(images) == NUM_STEPS
    for step in images.transpose(0, 1, 2, 4, 5, 3):
        yield jnp.asarray(step.reshape(-1, *step.shape[2:]))


def test_trajectory_starts_from_the_recorded_weights(case):
    theirs = reference.params(reference.recording(), f"{case}/merged_start")
    helpers.assert_close(run(case).merged_start, helpers.flat64(theirs), 1e-5)


def test_trajectory_has_the_recorded_first_mask_gradients(case):
    theirs = reference.masks(case, "first_mask_gradient")
    helpers.assert_close(run(case).first_gradients.mask_logits, theirs, 1e-4)


def test_trajectory_has_the_recorded_first_coefficient_gradients(case):
    theirs = reference.recording()[f"{case}/first_coefficient_gradient"]
    ours = reference.table(case, run(case).first_gradients.coefficients)
    assert helpers.relative_error(ours, theirs) < 1e-5


def test_trajectory_has_the_recorded_entropies(case):
    theirs = reference.recording()[f"{case}/entropy"]
    np.testing.assert_allclose(run(case).entropy, theirs, rtol=1e-4)


def test_trajectory_ends_with_the_recorded_mask_bits(case):
    logits = tree.flatten(run(case).end.mask_logits)
    for path, theirs in reference.masks(case, "mask_logits_end").items():
        np.testing.assert_array_equal(logits[path] > 0, theirs > 0, err_msg=path)


def test_trajectory_flips_mask_bits_in_the_recording(case):
    setting, flipped = reference.CASES[case], 0
    for theirs in reference.masks(case, "mask_logits_end").values():
        start = masks.init_logits(*theirs.shape, *setting[1:])
        flipped += np.sum((start > 0) != (theirs > 0))
    assert flipped > 0


def test_trajectory_ends_with_the_recorded_coefficients(case):
    theirs = reference.recording()[f"{case}/coefficients_end"]
    ours = reference.table(case, run(case).end.coefficients)
    assert helpers.relative_error(ours, theirs) < 1e-3


def test_trajectory_ends_with_the_recorded_weights(case):
    theirs = reference.params(reference.recording(), f"{case}/merged_end")
    helpers.assert_close(run(case).merged_end, helpers.flat64(theirs), 1e-3)
