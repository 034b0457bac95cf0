"""CART against the oracle."""

import chex
import pytest

from adarank_jax.mergers import cart, weight_averaging
from tests import helpers
from tests.oracles import static

HYPER_PARAMETERS = (
    # coefficient, rank ratio
    (2.0, 0.12),
    (1.5, 0.5),
    (1.0, 1.0),
)


def merged(pretrained, finetuned, coefficient, rank_ratio):
    """Runs the merger."""
    return cart(
        pretrained,
        finetuned,
        helpers.is_decomposed,
        coefficient=coefficient,
        rank_ratio=rank_ratio,
    )


@pytest.mark.parametrize(("coefficient", "rank_ratio"), HYPER_PARAMETERS)
def test_cart_agrees_with_oracle(coefficient, rank_ratio):
    pretrained, finetuned = helpers.task_set()
    theirs = static.cart(
        [helpers.flat64(model) for model in finetuned],
        helpers.DECOMPOSED,
        coefficient,
        rank_ratio,
    )
    ours = merged(pretrained, finetuned, coefficient, rank_ratio)
    helpers.assert_close(ours, theirs)


def test_cart_has_the_published_defaults():
    models = helpers.task_set()
    ours = cart(*models, helpers.is_decomposed)
    chex.assert_trees_all_equal(ours, merged(*models, 2.0, 0.12))


def test_cart_of_full_rank_is_weight_averaging():
    models = helpers.task_set()
    theirs = weight_averaging(*models, helpers.is_decomposed)
    chex.assert_trees_all_close(merged(*models, 2.0, 1.0), theirs, rtol=0, atol=1e-5)


def test_cart_of_one_task_is_the_finetuned_model():
    pretrained, finetuned = helpers.task_set(num_tasks=1)
    ours = merged(pretrained, finetuned, 2.0, 0.5)
    chex.assert_trees_all_equal(ours, finetuned[0])


def test_cart_does_not_use_the_pretrained_weights():
    pretrained, finetuned = helpers.task_set()
    ours = merged(helpers.params(99), finetuned, 2.0, 0.5)
    chex.assert_trees_all_equal(ours, merged(pretrained, finetuned, 2.0, 0.5))


@pytest.mark.parametrize("rank_ratio", (0.0, 1.5))
def test_cart_refuses_a_ratio_out_of_range(rank_ratio):
    with pytest.raises(ValueError, match="`rank_ratio` must be in"):
        merged(*helpers.task_set(), 2.0, rank_ratio)
