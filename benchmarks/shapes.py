"""Merging problems of published shapes with random numbers: nothing is downloaded.

The cost of a step depends on shapes alone, so the singular directions are random and
not orthonormal, and no matrix has to be decomposed.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from adarank_jax import tree
from adarank_jax.core import svd
from adarank_jax.core.svd import SVDFactors
from adarank_jax.models import clip_vision, heads, language, roberta

COEFFICIENT = 0.3
CLASSES = {
    "vit-b-32": (397, 196, 45, 10, 10, 43, 10, 47),
    "roberta-base": (2, 2, 2, 2, 3, 2, 2),
}
"""Classes of the paper's tasks, by shape; more tasks begin again with the first."""


@dataclasses.dataclass(frozen=True)
class Case:
    """What both steps are given.

    Attributes:
        name: of the shapes.
        config: of the encoder.
        module: maps inputs to features.
        classify: `(features, head)`; the logits of one task.
        origin: random parameters, by path.
        factors: by path: factors of all tasks, plain task vectors, or None where a
            tensor is not merged.
        heads: one a task.
        inputs: `(tasks, batch, ...)`, one array or a dict of arrays.
        num_tokens: tokens of all examples.
        rank_ratio: share of leading directions that masks keep at the start.
    """

    name: str
    config: Any
    module: Any
    classify: Callable[[Any, Any], Any]
    origin: dict[str, Any]
    factors: dict[str, Any]
    heads: Sequence[Any]
    inputs: Any
    num_tokens: int
    rank_ratio: float


def make_case(
    name: str,
    layers: int,
    tasks: int,
    batch: int,
    tokens: int,
    rank_ratio: float = 1.0,
) -> Case:
    """Draws a problem.

    Args:
        name: of the shapes, ``vit-b-32`` or ``roberta-base``.
        layers: depth, of the published 12.
        tasks: number of experts.
        batch: examples a task.
        tokens: length of every text; images have their own.
        rank_ratio: share of leading directions that masks keep at the start.
    """
    rng = np.random.default_rng(0)
    rows = CLASSES[name]
    classes = [rows[i % len(rows)] for i in range(tasks)]
    if name == "vit-b-32":
        config = dataclasses.replace(clip_vision.variant(name), num_layers=layers)
        module, tokens = clip_vision.ClipVision(config), config.num_patches + 1
        size = (tasks, batch, config.image_size, config.image_size, 3)
        inputs = rng.standard_normal(size, np.float32)
        drawn = [
            heads.make_head(rng.standard_normal((config.output_size, n)), 100.0)
            for n in classes
        ]
        rules = clip_vision.is_decomposed, tree.everything, heads.cosine_logits
    else:
        family = language.family("roberta")
        config = dataclasses.replace(roberta.variant(name), num_layers=layers)
        module = family.module_class(config)
        inputs = _texts(rng, (tasks, batch, tokens), config)
        drawn = [_roberta_head(rng, config.width, n) for n in classes]
        rules = family.is_decomposed, family.is_merged, family.classify
    is_decomposed, is_merged, classify = rules
    example = jax.tree.map(lambda x: x[0], inputs)
    variables = jax.eval_shape(module.init, jax.random.key(0), example)
    shapes_by_path = tree.flatten(variables["params"])
    factors = {
        path: _factors(rng, leaf.shape, tasks, is_decomposed(path, leaf))
        if is_merged(path, leaf)
        else None
        for path, leaf in shapes_by_path.items()
    }
    return Case(
        name,
        config,
        module,
        classify,
        {path: _draw(rng, path, leaf.shape) for path, leaf in shapes_by_path.items()},
        factors,
        drawn,
        inputs,
        tasks * batch * tokens,
        rank_ratio,
    )


def _texts(rng, shape, config):
    """Draws texts without padding."""
    return {
        "input_ids": rng.integers(5, config.vocabulary_size, shape, np.int32),
        "attention_mask": np.ones(shape, np.int32),
        "token_type_ids": np.zeros(shape, np.int32),
    }


def _roberta_head(rng, width, classes):
    """Draws the two layers of a head."""
    return {
        name: {
            "kernel": rng.standard_normal((width, size), np.float32) / width**0.5,
            "bias": np.zeros(size, np.float32),
        }
        for name, size in (("dense", width), ("out_proj", classes))
    }


def _draw(rng, path, shape):
    """Draws a tensor of the origin."""
    noise = rng.standard_normal(shape, np.float32)
    if path.endswith("scale"):
        return 1 + 0.1 * noise
    return noise / np.float32(max(shape[0], 2) ** 0.5 if len(shape) == 2 else 10)


def _factors(rng, shape, tasks, decomposed):
    """Draws the task vectors of a tensor, or factors that multiply to such."""
    if not decomposed:
        return 0.01 * rng.standard_normal((tasks, *shape), np.float32)
    rank = min(shape)
    u = rng.standard_normal((shape[0], tasks * rank), np.float32)
    vt = rng.standard_normal((tasks * rank, shape[1]), np.float32)
    decay = np.float32(0.05) / np.arange(1, rank + 1, dtype=np.float32)
    norm = np.float32((shape[0] * shape[1]) ** 0.25)
    return SVDFactors(u / norm, np.tile(decay, (tasks, 1)), vt / norm)


def useful_flops(case: Case) -> float:
    """Counts the multiplications and additions that one step cannot do without.

    Merging takes a product of those directions of each matrix that masks keep, the
    gradient of the masks one of all directions, the encoder three of its matrices:
    forward, and backward to inputs and to weights. The last block needs keys and values
    of all tokens and everything else of one token an example.
    """
    total = 0.0
    for path, leaf in case.factors.items():
        if isinstance(leaf, SVDFactors):
            rows, cols = case.origin[path].shape
            tasks, rank = leaf.s.shape
            kept = svd.leading_rank(rank, case.rank_ratio)
            total += 2.0 * rows * cols * tasks * (kept + rank)
            total += 3 * 2.0 * rows * cols * _num_rows(case, path)
    return total


def _num_rows(case, path):
    """Counts the tokens that a matrix is applied to; a mean if its columns differ."""
    examples = jax.tree.leaves(case.inputs)[0].shape
    num_examples = examples[0] * examples[1]
    if f"_{case.config.num_layers - 1}/" not in path:
        return case.num_tokens
    if "/in_proj/" in path:
        return (num_examples + 2 * case.num_tokens) / 3
    if "/key/" in path or "/value/" in path:
        return case.num_tokens
    return num_examples
