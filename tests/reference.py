"""The recorded trajectory of the authors' code, in our names and layouts."""

import functools
import pathlib
from typing import NamedTuple

import numpy as np

from adarank_jax import tree
from adarank_jax.models.clip_vision import ClipVisionConfig

CONFIG = ClipVisionConfig(16, 8, 32, 2, 4, 24)
TASKS = ("a", "b", "c")
FILE = pathlib.Path(__file__).parent / "data" / "reference_trajectory.npz"


class Setting(NamedTuple):
    """The hyper-parameters of one recorded case."""

    coefficient: float
    rank_ratio: float
    kept: float
    dropped: float


CASES = {
    "ta": Setting(0.3, 1.0, 0.1, -0.1),
    "cart": Setting(1.2, 0.16, 0.1, -0.1),
    "ta_soft": Setting(0.3, 0.5, 2.0, 0.0),
}
LEARNING_RATE = 5e-3
HEAD_NORM = 15.0


@functools.cache
def recording():
    """Reads the recording once."""
    with np.load(FILE) as arrays:
        return dict(arrays)


def masks(case, what):
    """Returns a recorded quantity of every decomposed matrix by our path."""
    prefix = f"{case}/{what}/"
    found = {
        path(key.removeprefix(prefix)): value
        for key, value in recording().items()
        if key.startswith(prefix)
    }
    assert len(found) == 4 * CONFIG.num_layers
    return found


def table(case, coefficients):
    """Puts coefficients in the recorded order of tensors, `(tasks, tensors)`."""
    flat = tree.flatten(coefficients)
    names = [path(str(name)) for name in recording()[f"{case}/tensor_order"]]
    assert sorted(names) == sorted(flat)
    return np.stack([flat[name] for name in names], axis=1)


def params(arrays, prefix):
    """Reads one set of weights as a parameter tree."""
    names = [key for key in arrays if key.startswith(f"{prefix}/")]
    flat = {}
    for key in names:
        name = key.removeprefix(f"{prefix}/")
        flat[path(name)] = to_ours(name, arrays[key])
    return tree.unflatten(flat)


def path(name):
    """Maps a name of the recording to a path of ours."""
    name = name.removeprefix("visual.").replace("transformer.resblocks.", "resblocks_")
    name = name.replace("in_proj_weight", "in_proj.kernel")
    name = name.replace("in_proj_bias", "in_proj.bias").replace(".", "/")
    if name.endswith("/weight"):
        is_norm = "ln_" in name
        name = name.removesuffix("weight") + ("scale" if is_norm else "kernel")
    return name


def to_ours(name, array):
    """Turns a weight of the recording to (inputs, outputs)."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    if array.ndim == 2 and (name.endswith("weight")):
        return np.ascontiguousarray(array.T)
    return array
