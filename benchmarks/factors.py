"""Times our decomposition against a loop over `torch.linalg.svd`.

``python -m benchmarks.factors --shapes vit-b-32``, on task vectors that are drawn with
a few large directions in noise, as fine-tuning leaves them, or with noise alone; needs
the extra `bench`.
"""

import argparse
import statistics
from collections.abc import Sequence
from importlib import metadata
from typing import get_args

import numpy as np

from adarank_jax import tree
from adarank_jax.core import svd
from adarank_jax.core.svd_backends import Backend
from benchmarks import cli, shapes, step, timing

LIBRARIES = ("jax", "numpy", "torch")
SPECTRA = ("decaying", "flat")
NUM_LARGE = 32
"""Directions of a decaying spectrum that stand out of the noise."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; exits with a message if it is wrong."""
    parser = cli.parser("benchmarks.factors", __doc__)
    parser.add_argument("--shapes", choices=shapes.CLASSES, default="vit-b-32")
    parser.add_argument("--spectrum", choices=SPECTRA, default="decaying")
    parser.add_argument("--backend", choices=get_args(Backend), default="gram")
    parser.add_argument("--tasks", type=cli.count, default=8, help="of each matrix")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> dict:
    """Decomposes the matrices of one layer both ways, in turn.

    Args:
        options: as `parse` returns.

    Returns:
        What was measured, on what, and by which command.

    Raises:
        RuntimeError: JAX does not run on the processor, as PyTorch does here.
    """
    step.check_backend()
    import torch

    stacks = draw(options.shapes, options.tasks, options.spectrum)
    tensors = [torch.from_numpy(matrix) for x in stacks.values() for matrix in x]
    nested = tree.unflatten(stacks)

    def ours():
        return svd.decompose_tree(nested, tree.everything, options.backend)

    def theirs():
        return [torch.linalg.svd(tensor, full_matrices=False) for tensor in tensors]

    found = tree.flatten(ours())
    made = {"ours": _listed(found[path] for path in stacks), "theirs": theirs()}
    matrices = [matrix for x in stacks.values() for matrix in x]
    errors = {name: worst(matrices, each) for name, each in made.items()}
    del found, made
    seconds = timing.alternate({"ours": ours, "theirs": theirs}, options.repeats)
    return cli.result("benchmarks.factors", options) | {
        "versions": {name: metadata.version(name) for name in LIBRARIES},
        "torch_threads": torch.get_num_threads(),
        "matrices": {name: list(stack.shape) for name, stack in stacks.items()},
        "errors": errors,
        "seconds": seconds,
        "median_seconds": {k: statistics.median(v) for k, v in seconds.items()},
        "ratio": timing.median_ratio(seconds["theirs"], seconds["ours"]),
    }


def draw(name: str, tasks: int, spectrum: str) -> dict[str, np.ndarray]:
    """Draws task vectors for the matrices of one layer.

    Args:
        name: of the shapes, as for `shapes.make_case`.
        tasks: matrices of each shape.
        spectrum: one of `SPECTRA`.

    Returns:
        `(tasks, rows, cols)` by path.
    """
    case = shapes.make_case(name, layers=1, tasks=1, batch=1, tokens=1)
    rng = np.random.default_rng(0)
    stacks = {}
    for path, leaf in case.factors.items():
        if not svd.is_factors(leaf):
            continue
        rows, cols = case.origin[path].shape
        stack = rng.standard_normal((tasks, rows, cols))
        if spectrum == "decaying":
            u = rng.standard_normal((tasks, rows, NUM_LARGE))
            vt = rng.standard_normal((tasks, NUM_LARGE, cols))
            stack += (u * 3 / np.arange(1, NUM_LARGE + 1)) @ vt
        stacks[path] = (1e-4 * stack).astype(np.float32)
    return stacks


def _listed(factors):
    """Lists the factors of every task, as the other side returns them."""
    return [
        found
        for u, s, vt in factors
        for found in zip(
            np.split(u, len(s), axis=1), s, np.split(vt, len(s)), strict=True
        )
    ]


def worst(
    matrices: Sequence[np.ndarray], factors: Sequence[Sequence]
) -> dict[str, float]:
    """Measures the largest errors of factors, in double precision.

    Args:
        matrices: that were decomposed.
        factors: `u, s, vt` of each.

    Returns:
        ``reconstruction``, Frobenius norm relative to the matrix; ``orthonormality``,
        the largest entry of U^T U - I or V^T V - I.
    """
    reconstruction = orthonormality = 0.0
    for matrix, found in zip(matrices, factors, strict=True):
        u, s, vt = (np.asarray(part, np.float64) for part in found)
        rest = np.linalg.norm((u * s) @ vt - matrix) / np.linalg.norm(matrix)
        reconstruction = max(reconstruction, float(rest))
        for gram in (u.T @ u, vt @ vt.T):
            off = np.abs(gram - np.eye(len(s))).max()
            orthonormality = max(orthonormality, float(off))
    return {"reconstruction": reconstruction, "orthonormality": orthonormality}


def cells(result: dict) -> tuple[str, ...]:
    """Formats what a row tells."""
    median, errors = result["median_seconds"], result["errors"]
    return (
        f"{median['theirs']:.2f} s",
        f"{median['ours']:.2f} s",
        f"{result['ratio']:.2f}",
        f"{errors['theirs']['reconstruction']:.1e}",
        f"{errors['ours']['reconstruction']:.1e}",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    cli.run(parse(arguments), measure, cells, ("torch",))


if __name__ == "__main__":
    main()
