import numpy as np
import pytest

from adarank_jax import mergers, tree
from adarank_jax.core import merge
from experiments import starts
from experiments.merge_config import Method


@pytest.mark.parametrize("name", mergers.MERGERS)
def test_static_merge_leaves_what_is_not_merged_to_its_origin(name):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    models = [{"w": draw(12, 8), "embedding": draw(5, 4)} for _ in range(4)]
    pretrained, finetuned = models[0], models[1:]
    merge_static = lambda is_merged: starts.merge_static(
        name, pretrained, finetuned, lambda path, leaf: path == "w", is_merged
    )
    merged = merge_static(lambda path, leaf: path == "w")
    average = np.mean([model["embedding"] for model in finetuned], axis=0)
    is_averaging = name in ("weight_averaging", "cart")
    expected = average if is_averaging else pretrained["embedding"]
    np.testing.assert_allclose(merged["embedding"], expected, rtol=1e-6)
    whole = merge_static(tree.everything)
    np.testing.assert_allclose(merged["w"], whole["w"], rtol=1e-6)


@pytest.mark.parametrize("name", starts.STARTS)
def test_start_leaves_what_is_not_merged_to_its_origin(name, tmp_path):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    models = [{"w": draw(12, 8), "embedding": draw(5, 4)} for _ in range(4)]
    only_w = lambda path, leaf: path == "w"
    start = starts.get(Method(name="adarank", origin=name))
    for build in (starts.build, starts.build_dense):
        arguments = (start, models[0], models[1:], only_w)
        origin, factors = build(*arguments, tmp_path, only_w)
        assert factors["embedding"] is None
        merged = merge.static_params(origin, factors, start.coefficient)
        average = np.mean([model["embedding"] for model in models[1:]], axis=0)
        expected = average if start.is_centred else models[0]["embedding"]
        np.testing.assert_allclose(merged["embedding"], expected, rtol=1e-6)
