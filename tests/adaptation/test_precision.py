import jax
import jax.numpy as jnp
import numpy as np

from adarank_jax.adaptation import precision
from adarank_jax.core import merge, svd
from adarank_jax.models import clip_vision
from tests.adaptation import problems


def test_bfloat16_factors_merge_to_half_a_percent():
    rng = np.random.default_rng(0)
    vectors = {
        "wide": rng.normal(size=(4, 48, 96)).astype(np.float32),
        "tall": rng.normal(size=(4, 96, 48)).astype(np.float32),
        "bias": rng.normal(size=(4, 48)).astype(np.float32),
    }
    factors = svd.decompose_tree(vectors, lambda path, leaf: leaf.ndim == 2)
    rounded = precision.bfloat16_factors(factors)
    assert rounded["wide"].u.dtype == rounded["tall"].vt.dtype == jnp.bfloat16
    assert rounded["wide"].s.dtype == rounded["bias"].dtype == np.float32
    nothing = jax.tree.map(lambda x: np.zeros(x.shape[1:], np.float32), vectors)
    exact, merged = (merge.static_params(nothing, f, 0.3) for f in (factors, rounded))
    for name in ("wide", "tall"):
        assert merged[name].dtype == jnp.float32
        error = np.linalg.norm(merged[name] - exact[name])
        assert 0 < error < 5e-3 * np.linalg.norm(exact[name])
    np.testing.assert_array_equal(merged["bias"], exact["bias"])


def test_bfloat16_factors_do_not_round_coefficients():
    rng = np.random.default_rng(0)
    vectors = {"w": rng.normal(size=(1, 48, 96)).astype(np.float32)}
    factors = svd.decompose_tree(vectors, lambda path, leaf: True)
    nothing = {"w": np.zeros((48, 96), np.float32)}
    one, other = (
        merge.static_params(nothing, precision.bfloat16_factors(factors), c)["w"]
        for c in (0.3, 0.3 * (1 + 2**-11))
    )
    change = float(jnp.sum((other - one) * one) / jnp.sum(one**2))
    assert 2**-12 < change < 2**-10


def test_bfloat16_factors_have_the_gradient_of_float32_factors():
    problem = problems.problem()
    variables = problems.variables(problem)
    inputs = problems.batch(0).inputs[0]

    def gradient(factors):
        def loss(variables):
            params = merge.merged_params(problem.origin, factors, variables)
            return jnp.sum(jnp.sin(problem.encode(params, inputs)))

        return jax.grad(loss)(variables).mask_logits

    exact = jax.tree.leaves(gradient(problem.factors))
    found = jax.tree.leaves(gradient(precision.bfloat16_factors(problem.factors)))
    for a, b in zip(exact, found, strict=True):
        assert b.dtype == jnp.float32
        assert 0 < np.linalg.norm(a - b) < 0.05 * np.linalg.norm(a)


def test_bfloat16_encoder_rounds_all_but_ids_and_returns_float32():
    seen = {}

    def encode(params, inputs):
        seen.update(params | inputs)
        return params["kernel"][inputs["ids"]]

    wrapped = precision.bfloat16_encoder(encode)
    kernel = np.float32(np.random.default_rng(0).normal(size=(4, 3)))
    features = wrapped({"kernel": kernel}, {"ids": np.int32([0, 2])})
    assert seen["kernel"].dtype == jnp.bfloat16
    assert seen["ids"].dtype == jnp.int32
    assert features.dtype == jnp.float32
    np.testing.assert_allclose(features, kernel[[0, 2]], rtol=2**-8)


def test_bfloat16_encoder_is_near_float32_on_an_image_tower():
    config = clip_vision.ClipVisionConfig(
        image_size=32,
        patch_size=8,
        width=64,
        num_layers=2,
        num_heads=4,
        mlp_width=128,
        output_size=32,
    )
    module = clip_vision.ClipVision(config)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(3, 32, 32, 3)), jnp.float32)
    params = module.init(jax.random.key(0), images)["params"]
    encode = lambda params, x: module.apply({"params": params}, x)
    exact = encode(params, images)
    found = precision.bfloat16_encoder(encode)(params, images)
    assert found.dtype == jnp.float32
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.02
