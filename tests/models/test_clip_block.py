"""The block that both towers of CLIP are made of."""

import dataclasses
import types

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax import tree
from adarank_jax.models import clip_block, clip_vision, transformer
from tests import helpers

TINY = clip_vision.VARIANTS["vit-tiny-8"]
WRONG_TYPES = (
    # field, value as a JSON file may hold it, problem
    ("width", 32.0, "`width` must be a whole number above zero, got 32.0."),
    ("num_layers", True, "`num_layers` must be a whole number above zero, got True."),
    ("num_heads", "4", "`num_heads` must be a whole number above zero, got '4'."),
    ("layer_norm_epsilon", None, "`layer_norm_epsilon` must be above zero, got None."),
    ("qkv", [], "`qkv` must be one of 'fused', 'split', got []."),
)


def block(x, mask=None):
    """Runs a block with random parameters."""
    module = clip_block.Block(TINY)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    flat = {path: leaf.shape for path, leaf in tree.flatten(shapes).items()}
    params = helpers.to_jax(helpers.params(0, flat))
    return module.apply({"params": params}, x, mask)


@pytest.mark.parametrize(
    ("is_causal", "moved"), ((True, [3, 4]), (False, [0, 1, 2, 3, 4]))
)
def test_block_lets_a_token_move_those_that_may_see_it(is_causal, moved):
    x = jnp.asarray(helpers.matrix(1, 1, 5, TINY.width))
    other = x.at[0, 3].set(0.0)
    mask = transformer.causal_mask(5) if is_causal else None
    difference = block(x, mask) - block(other, mask)
    found = np.flatnonzero(np.abs(difference[0]).max(axis=1))
    assert list(found) == moved


@pytest.mark.parametrize(("given", "width"), ((None, 4 * 32), (40, 40)))
def test_block_has_the_mlp_width_that_was_asked_for(given, width):
    module = clip_block.Block(dataclasses.replace(TINY, mlp_width=given))
    x = jax.ShapeDtypeStruct((1, 5, TINY.width), "f4")
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    assert params["mlp"]["c_fc"]["kernel"].shape == (32, width)


@pytest.mark.parametrize(("field", "value", "problem"), WRONG_TYPES)
def test_problems_names_a_value_of_another_type(field, value, problem):
    config = types.SimpleNamespace(**dataclasses.asdict(TINY) | {field: value})
    assert clip_block.problems(config, (), {}) == [problem]


@pytest.mark.parametrize("qkv", ["fused", "split"])
def test_block_of_a_picked_token_is_that_token_of_the_whole_block(qkv):
    module = clip_block.Block(dataclasses.replace(TINY, qkv=qkv))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, TINY.width)))
    params = jax.jit(module.init)(jax.random.key(0), x)

    def loss(params, pick):
        y = module.apply(params, x, None, pick)[:, :1]
        return (y**2).sum(), y

    grad = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    chex.assert_trees_all_close(
        grad(params, transformer.first_token),
        grad(params, transformer.every_token),
        atol=1e-5,
    )


@pytest.mark.parametrize("qkv", ["fused", "split"])
def test_through_causal_is_one_token_a_text_of_whole_blocks(qkv):
    config = dataclasses.replace(TINY, qkv=qkv)
    x = jnp.asarray(helpers.matrix(0, 3, 5, TINY.width), jnp.float32)
    mask, places = transformer.causal_mask(5), np.array([4, 0, 2])

    class Tower(nn.Module):
        @nn.compact
        def __call__(self, x, is_whole):
            blocks = [clip_block.Block(config, name=name) for name in "ab"]
            if not is_whole:
                return transformer.through_causal(blocks, x, mask, jnp.asarray(places))
            for each in blocks:
                x = each(x, mask)
            return x[np.arange(3), places]

    params = jax.jit(Tower().init, static_argnums=2)(jax.random.key(0), x, True)

    def loss(params, x, is_whole):
        y = Tower().apply(params, x, is_whole)
        return (y**2).sum(), y

    grad = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True), static_argnums=2)
    chex.assert_trees_all_close(
        grad(params, x, False), grad(params, x, True), atol=1e-4, rtol=1e-5
    )
