"""Weight averaging against the oracle."""

import chex

from adarank_jax.mergers import weight_averaging
from tests import helpers
from tests.oracles import static


def test_weight_averaging_agrees_with_oracle():
    pretrained, finetuned = helpers.task_set()
    ours = weight_averaging(pretrained, finetuned, helpers.is_decomposed)
    theirs = static.averaging([helpers.flat64(model) for model in finetuned])
    helpers.assert_close(ours, theirs)


def test_weight_averaging_of_one_task_is_the_finetuned_model():
    pretrained, finetuned = helpers.task_set(num_tasks=1)
    ours = weight_averaging(pretrained, finetuned, helpers.is_decomposed)
    chex.assert_trees_all_equal(ours, finetuned[0])


def test_weight_averaging_does_not_use_the_pretrained_weights():
    pretrained, finetuned = helpers.task_set()
    ours = weight_averaging(helpers.params(99), finetuned, helpers.is_decomposed)
    theirs = weight_averaging(pretrained, finetuned, helpers.is_decomposed)
    chex.assert_trees_all_equal(ours, theirs)
