"""Task Arithmetic against the oracle."""

import chex
import pytest

from adarank_jax.mergers import task_arithmetic, weight_averaging
from tests import helpers
from tests.oracles import static


def merged(pretrained, finetuned, coefficient):
    """Runs the merger."""
    return task_arithmetic(
        pretrained, finetuned, helpers.is_decomposed, coefficient=coefficient
    )


@pytest.mark.parametrize("coefficient", (0.05, 0.3, 1.0))
def test_task_arithmetic_agrees_with_oracle(coefficient):
    pretrained, finetuned = helpers.task_set()
    theirs = static.task_arithmetic(
        helpers.flat64(pretrained), [helpers.flat64(m) for m in finetuned], coefficient
    )
    helpers.assert_close(merged(pretrained, finetuned, coefficient), theirs)


def test_task_arithmetic_has_the_published_default():
    models = helpers.task_set()
    ours = task_arithmetic(*models, helpers.is_decomposed)
    chex.assert_trees_all_equal(ours, merged(*models, 0.3))


def test_task_arithmetic_of_one_task_in_full_is_the_finetuned_model():
    pretrained, finetuned = helpers.task_set(num_tasks=1)
    ours = merged(pretrained, finetuned, 1.0)
    chex.assert_trees_all_close(ours, finetuned[0], rtol=0, atol=1e-6)


def test_task_arithmetic_with_coefficient_zero_is_the_pretrained_model():
    pretrained, finetuned = helpers.task_set()
    chex.assert_trees_all_equal(merged(pretrained, finetuned, 0.0), pretrained)


def test_task_arithmetic_with_one_over_tasks_is_weight_averaging():
    models = helpers.task_set()
    theirs = weight_averaging(*models, helpers.is_decomposed)
    ours = merged(*models, 1.0 / helpers.NUM_TASKS)
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-6)
