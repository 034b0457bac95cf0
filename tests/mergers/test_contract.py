"""What every merger keeps."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax.mergers import MERGERS
from tests import helpers

NAMES = tuple(MERGERS)
ARGUMENTS = ("pretrained", "finetuned", "is_decomposed")
BAD_VALUES = (np.nan, np.inf, -np.inf)
KERNEL = helpers.DECOMPOSED[0]

pytestmark = pytest.mark.parametrize("name", NAMES)


def merged(name, pretrained, finetuned):
    """Runs one merger with its published hyper-parameters."""
    return MERGERS[name](pretrained, finetuned, helpers.is_decomposed)


def test_merger_has_the_name_of_its_function(name):
    assert MERGERS[name].__name__ == name


def test_merger_takes_the_three_arguments_first(name):
    assert tuple(inspect.signature(MERGERS[name]).parameters)[:3] == ARGUMENTS


def test_merger_takes_hyper_parameters_by_keyword_with_defaults(name):
    _, _, _, *rest = inspect.signature(MERGERS[name]).parameters.values()
    for parameter in rest:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is not inspect.Parameter.empty


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16))
def test_merger_returns_the_tree_in_float32(name, dtype):
    models = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), helpers.task_set())
    pretrained, _ = helpers.task_set()
    chex.assert_trees_all_equal_shapes_and_dtypes(merged(name, *models), pretrained)


def test_merger_returns_finite_parameters(name):
    chex.assert_tree_all_finite(merged(name, *helpers.task_set()))


def test_merger_moves_every_tensor(name):
    pretrained, finetuned = helpers.task_set()
    ours = helpers.flat64(merged(name, pretrained, finetuned))
    for path, start in helpers.flat64(pretrained).items():
        assert np.abs(ours[path] - start).max() > 1e-3, path


def test_merger_does_not_change_its_inputs(name):
    models = helpers.task_set()
    copy = jax.tree.map(np.array, models)
    merged(name, *models)
    chex.assert_trees_all_equal(models, copy)


def test_merger_gives_the_same_bits_again(name):
    models = helpers.task_set()
    chex.assert_trees_all_equal(merged(name, *models), merged(name, *models))


def test_merger_takes_numpy_and_jax_arrays(name):
    models = helpers.task_set()
    chex.assert_trees_all_equal(
        merged(name, *models), merged(name, *helpers.to_jax(models))
    )


@pytest.mark.parametrize("order", ((1, 2, 0), (2, 1, 0)))
def test_merger_does_not_depend_on_the_order_of_tasks(name, order):
    pretrained, finetuned = helpers.task_set()
    ours = merged(name, pretrained, [finetuned[i] for i in order])
    theirs = merged(name, pretrained, finetuned)
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-5)


def test_merger_of_the_transposed_layout_is_transposed(name):
    pretrained, finetuned = helpers.task_set()
    ours = merged(
        name,
        helpers.transposed(pretrained),
        [helpers.transposed(model) for model in finetuned],
    )
    theirs = helpers.transposed(merged(name, pretrained, finetuned))
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-5)


def test_merger_of_untouched_experts_is_the_pretrained_model(name):
    pretrained, _ = helpers.task_set()
    ours = merged(name, pretrained, [pretrained] * 3)
    chex.assert_trees_all_close(ours, pretrained, rtol=0, atol=1e-5)


def test_merger_takes_more_tasks_than_ranks(name):
    chex.assert_tree_all_finite(merged(name, *helpers.task_set(num_tasks=9)))


def test_merger_refuses_no_expert(name):
    with pytest.raises(ValueError, match="`finetuned` must hold at least one model"):
        merged(name, helpers.params(0), [])


def test_merger_refuses_an_expert_that_lacks_a_tensor(name):
    pretrained, finetuned = helpers.task_set()
    finetuned[1] = helpers.without(finetuned[1], KERNEL)
    message = rf"(?s)`origin` and `finetuned\[1\]`: .*only in `origin`: {KERNEL}"
    with pytest.raises(ValueError, match=message):
        merged(name, pretrained, finetuned)


def test_merger_refuses_a_pretrained_model_that_lacks_a_tensor(name):
    pretrained, finetuned = helpers.task_set()
    pretrained = helpers.without(pretrained, "ln_post/scale")
    message = r"only in `finetuned\[0\]`: ln_post/scale"
    with pytest.raises(ValueError, match=message):
        merged(name, pretrained, finetuned)


def test_merger_refuses_another_shape(name):
    pretrained, finetuned = helpers.task_set()
    other = helpers.params(1, helpers.SHAPES | {"embedding": (6, 5)})
    message = r"embedding: \(5, 6\) in `origin`, \(6, 5\) in `finetuned\[2\]`"
    with pytest.raises(ValueError, match=message):
        merged(name, pretrained, [*finetuned[:2], other])


@pytest.mark.parametrize("path", (KERNEL, "ln_post/scale"))
@pytest.mark.parametrize("value", BAD_VALUES)
def test_merger_refuses_an_expert_that_is_not_finite(name, value, path):
    pretrained, finetuned = helpers.task_set()
    finetuned[1] = helpers.with_entry(finetuned[1], path, value)
    with pytest.raises(ValueError, match=rf"(?s)E220 .*{path}: "):
        merged(name, pretrained, finetuned)
