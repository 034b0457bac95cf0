"""Small matrices, parameter trees and task sets."""

import jax
import jax.numpy as jnp
import numpy as np

from adarank_jax import tree

NUM_TASKS = 3
SHAPES = {
    "blocks_0/attn/in_proj/kernel": (6, 12),
    "blocks_0/attn/in_proj/bias": (12,),
    "blocks_0/mlp/c_proj/kernel": (11, 7),
    "embedding": (5, 6),
    "ln_post/scale": (6,),
}
DECOMPOSED = ("blocks_0/attn/in_proj/kernel", "blocks_0/mlp/c_proj/kernel")


def matrix(seed, *shape):
    """Draws a float32 array from a standard normal."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def params(seed, shapes=None):
    """Draws a parameter tree."""
    shapes = SHAPES if shapes is None else shapes
    return tree.unflatten(
        {
            path: matrix([seed, i], *shape)
            for i, (path, shape) in enumerate(shapes.items())
        }
    )


def task_set(seed=0, num_tasks=NUM_TASKS, shapes=None):
    """Draws a pretrained model and one expert a task near it."""
    pretrained = params(seed, shapes)
    steps = [params(seed + 1000 + i, shapes) for i in range(num_tasks)]
    finetuned = [
        jax.tree.map(lambda start, step: start + np.float32(0.1) * step, pretrained, s)
        for s in steps
    ]
    return pretrained, finetuned


def is_decomposed(path, leaf):
    """Holds for the two kernels of the block."""
    return leaf.ndim == 2 and path.startswith("blocks_0")


def flat64(params):
    """Turns a tree into leaves by path, float64: what the oracles take."""
    return {
        path: np.asarray(leaf, np.float64)
        for path, leaf in tree.flatten(params).items()
        if leaf is not None
    }


def transposed(params):
    """Transposes every matrix of a tree."""
    return jax.tree.map(lambda leaf: leaf.T if leaf.ndim == 2 else leaf, params)


def with_entry(params, path, value):
    """Replaces the last entry of one leaf."""
    flat = tree.flatten(params)
    leaf = np.array(flat[path])
    leaf.flat[-1] = value
    return tree.unflatten(flat | {path: leaf})


def without(params, path):
    """Leaves one tensor out."""
    return tree.unflatten({p: x for p, x in tree.flatten(params).items() if p != path})


def relative_error(ours, theirs):
    """Returns the largest difference, relative to the largest reference entry."""
    theirs = np.asarray(theirs, np.float64)
    return np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max()


def assert_close(ours, flat, tolerance=1e-5):
    """Checks a tree against an oracle's leaves by path."""
    ours = flat64(ours)
    assert ours.keys() == flat.keys()
    errors = {path: relative_error(ours[path], flat[path]) for path in flat}
    assert max(errors.values()) < tolerance, errors


def to_jax(params):
    """Turns the leaves of a tree to jax arrays."""
    return jax.tree.map(jnp.asarray, params)
