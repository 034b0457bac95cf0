"""A tiny problem for the adaptation tests: a two-layer network and three tasks."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from adarank_jax.adaptation.loop import Problem
from adarank_jax.adaptation.step import Batch
from adarank_jax.core import masks, merge, svd, task_vectors
from adarank_jax.models import heads

TASKS = ("a", "b", "c")
CLASSES = (3, 4, 2)
INPUTS, HIDDEN, FEATURES = 10, 6, 5
SOFT = functools.partial(masks.soft, temperature=1.0)


def encode(params, inputs):
    hidden = jnp.tanh(
        inputs @ params["first"]["kernel"] + params["first"]["bias"][None]
    )
    return hidden @ params["second"]["kernel"]


def params(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {
        "first": {
            "kernel": np.float32(scale * rng.normal(size=(INPUTS, HIDDEN))),
            "bias": np.float32(scale * rng.normal(size=HIDDEN)),
        },
        "second": {"kernel": np.float32(scale * rng.normal(size=(HIDDEN, FEATURES)))},
    }


def problem(mask=masks.straight_through, is_decomposed=None):
    pretrained = params(0)
    finetuned = [
        jax.tree.map(np.add, pretrained, params(1 + i, 0.3)) for i in range(len(TASKS))
    ]
    vectors = task_vectors.task_vectors(pretrained, finetuned)
    is_decomposed = is_decomposed or (lambda path, leaf: leaf.ndim == 2)
    rng = np.random.default_rng(9)
    return Problem(
        tasks=TASKS,
        encode=encode,
        classify=heads.cosine_logits,
        heads=[
            heads.make_head(rng.normal(size=(FEATURES, n)).astype(np.float32), 5.0)
            for n in CLASSES
        ],
        origin=pretrained,
        factors=svd.decompose_tree(vectors, is_decomposed),
        mask=mask,
    )


def variables(problem, coefficient=0.3, rank_ratio=0.7):
    return merge.init_variables(problem.factors, coefficient, rank_ratio)


def batch(step, size=16):
    rng = np.random.default_rng([7, step])
    inputs = rng.normal(size=(len(TASKS), size, INPUTS)).astype(np.float32)
    labels = np.stack([rng.integers(0, n, size) for n in CLASSES]).astype(np.int32)
    return Batch(inputs, labels)


def from_step(batch=batch):
    """Turns a function of a step into an iterator from a step on."""
    return lambda first: map(batch, itertools.count(first))
