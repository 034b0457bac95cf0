"""Attention, activations and checks that every transformer shares."""

import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax.models import transformer
from tests import helpers


def test_gelu_is_exact():
    x = np.linspace(-6.0, 6.0, 201, dtype=np.float32)
    theirs = [v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in np.float64(x)]
    ours = transformer.gelu(jnp.asarray(x))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_quick_gelu_is_the_scaled_sigmoid():
    x = np.linspace(-6.0, 6.0, 201, dtype=np.float32)
    theirs = [v / (1 + math.exp(-1.702 * v)) for v in np.float64(x)]
    ours = transformer.quick_gelu(jnp.asarray(x))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ("gelu_new", "gelu_fast", "gelu_pytorch_tanh"))
def test_activations_have_the_tanh_form_of_gelu(name):
    x = np.linspace(-6.0, 6.0, 201)
    theirs = x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ours = transformer.ACTIVATIONS[name](jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_activations_have_the_rest_by_their_formulas():
    x = np.linspace(-6.0, 6.0, 201)
    formulas = {
        "relu": np.maximum(x, 0),
        "silu": x / (1 + np.exp(-x)),
        "tanh": np.tanh(x),
    }
    for name, theirs in formulas.items():
        ours = transformer.ACTIVATIONS[name](jnp.asarray(x, jnp.float32))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def attention(query, key, value, num_heads, mask):
    """Computes attention head by head; `mask` is (batch, queries, tokens)."""
    batch, tokens, width = query.shape
    size = width // num_heads
    outputs = np.zeros(query.shape)
    for b in range(batch):
        for h in range(num_heads):
            part = slice(h * size, (h + 1) * size)
            q, k, v = (np.float64(x[b, :, part]) for x in (query, key, value))
            scores = np.where(mask[b], q @ k.T / math.sqrt(size), -np.inf)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            outputs[b, :, part] = weights / weights.sum(axis=1, keepdims=True) @ v
    return outputs


@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("padded", (False, True))
def test_attend_is_attention_under_a_mask(causal, padded):
    rows = [helpers.matrix(i, 2, 5, 6) for i in range(3)]
    seen = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]] if padded else [[1] * 5] * 2)
    allowed = np.tril(np.ones((5, 5))) if causal else np.ones((5, 5))
    mask = transformer.padding_mask(jnp.asarray(seen))
    if causal:
        mask = mask & transformer.causal_mask(5)
    theirs = attention(*rows, 2, (allowed[None] * seen[:, None]) > 0)
    ours = transformer.attend(*map(jnp.asarray, rows), 2, mask)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_attend_without_a_mask_sees_everything():
    rows = [jnp.asarray(helpers.matrix(i, 2, 5, 6)) for i in range(3)]
    whole = transformer.padding_mask(jnp.ones((2, 5), jnp.int32))
    ours, theirs = (transformer.attend(*rows, 2, mask) for mask in (None, whole))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_attend_averages_where_nothing_may_be_seen():
    rows = [jnp.asarray(helpers.matrix(i, 1, 5, 6)) for i in range(3)]
    nothing = transformer.padding_mask(jnp.zeros((1, 5), jnp.int32))
    everything = transformer.padding_mask(jnp.ones((1, 5), jnp.int32))
    ours, theirs = (transformer.attend(*rows, 2, m) for m in (nothing, everything))
    np.testing.assert_array_equal(ours, theirs)

    def loss(rows):
        return (transformer.attend(*rows, 2, nothing) ** 2).sum()

    assert all(jnp.isfinite(leaf).all() for leaf in jax.grad(loss)(rows))


def test_fused_projection_of_chosen_tokens_gives_their_queries_and_all_keys():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4)), jnp.float32)
    module = transformer.FusedProjection()
    params = module.init(jax.random.key(0), x, x)
    query, key, value = module.apply(params, x, x)
    chosen = module.apply(params, transformer.first_token(x), x)
    chex.assert_trees_all_close(chosen, (query[:, :1], key, value), atol=1e-6)


def test_fused_projection_has_the_parameters_of_a_dense_layer():
    x, key = jnp.zeros((1, 2, 4)), jax.random.key(0)
    ours = jax.eval_shape(lambda: transformer.FusedProjection().init(key, x, x))
    theirs = jax.eval_shape(nn.Dense(12).init, key, x)
    assert ours == theirs
