"""What the methods of a run count: tensors, bytes and operations, from shapes alone."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from adarank_jax import tree
from adarank_jax.adaptation import loop
from adarank_jax.core import svd
from experiments import starts
from experiments.merge_config import BOUNDS, MergeConfig, Method
from experiments.suite import Inputs


class Sizes(NamedTuple):
    """What one method of a run counts.

    Attributes:
        num_tasks: experts.
        parameters: of one model.
        matrices: that are decomposed, of one model; 0 if the method needs no SVD.
        logits: mask logits of all tasks; 0 if the method has no masks.
        factors: bytes of the singular vectors and values of all tasks.
        dense: bytes of the task vectors that are not decomposed, of all tasks; 0 if
            the method needs none.
        step_flops: of one optimiser step, forward and backward, as masks are at the
            start; 0 without steps.
        example_flops: of the forward pass of one example, as long as one may be.
        svd_flops: of the decomposition, in units of rows x cols x rank.
        activations: bytes that the backward pass of a step keeps.
    """

    num_tasks: int
    parameters: int
    matrices: int
    logits: int
    factors: int
    dense: int
    step_flops: float
    example_flops: float
    svd_flops: float
    activations: int


def count(config: MergeConfig, inputs: Inputs, method: Method | None = None) -> Sizes:
    """Counts what a method needs.

    Args:
        config: of the run.
        inputs: with shapes and tower.
        method: one of the run; the one that is exported by default.

    Raises:
        ValueError: the inputs say nothing of the tower.
    """
    method = method or config.method
    flat, tasks = tree.flatten(inputs.shapes), len(config.task_names)
    shapes = [x.shape for k, x in flat.items() if inputs.is_decomposed(k, x)]
    inside = sum(m * n for m, n in shapes)
    parameters = sum(int(np.prod(x.shape)) for x in flat.values())
    vectors = sum(
        int(np.prod(x.shape)) for k, x in flat.items() if inputs.is_merged(k, x)
    )
    if inputs.tower is None:
        raise ValueError("`inputs` must have a tower, as they have shapes.")
    tokens, width, layers = inputs.tower
    # A product of every token with every block kernel, and attention between tokens.
    example_flops = 2.0 * tokens * inside + 4.0 * tokens**2 * width * layers

    is_masked, is_svd = method.name == "adarank", is_decomposing(method)
    is_leading = is_masked and starts.get(method).is_decorrelated
    ranks = [min(shape) // (tasks if is_leading else 1) or 1 for shape in shapes]
    places = [(m, n, r) for (m, n), r in zip(shapes, ranks, strict=True)]
    factors = 4 * sum(tasks * r * (m + n + 1) for m, n, r in places)
    whole_vectors = 4 * tasks * vectors
    needs_vectors = method.name not in (*BOUNDS, "weight_averaging")
    examples = config.adaptation.batch_size * tasks
    at_once = loop.tasks_at_once(config.adaptation, jax.local_devices()) or tasks
    together = config.adaptation.batch_size * min(at_once, tasks)
    merge_flops = 4.0 * tasks * vectors
    if is_masked:
        ratio = starts.get(method).rank_ratio
        merge_flops = sum(
            2.0 * tasks * m * n * (_num_multiplied(r, ratio) + r) for m, n, r in places
        )
    return Sizes(
        num_tasks=tasks,
        parameters=parameters,
        matrices=len(shapes) if is_svd else 0,
        logits=sum(tasks * r for _, _, r in places) if is_masked else 0,
        factors=factors if is_svd else 0,
        dense=(whole_vectors - 4 * tasks * inside if is_svd else whole_vectors)
        if needs_vectors
        else 0,
        step_flops=3.0 * examples * example_flops + merge_flops
        if method.is_adapted
        else 0.0,
        example_flops=example_flops,
        svd_flops=sum(float(tasks) * m * n * min(m, n) for m, n in shapes)
        if is_svd
        else 0.0,
        activations=4 * together * tokens * layers * width * _KEPT_PER_BLOCK
        if method.is_adapted
        else 0,
    )


def _num_multiplied(rank, rank_ratio):
    """Counts the directions that a merge multiplies at the start of adaptation.

    The gradient of the masks is one of all directions; see `core.products`.
    """
    kept = svd.leading_rank(rank, rank_ratio)
    return kept if 2 * kept <= rank else rank


def methods(config: MergeConfig) -> Sequence[Method]:
    """Lists the methods of a run, each once."""
    return list(dict.fromkeys([*config.compare, config.method]))


def is_decomposing(method: Method) -> bool:
    """Tells whether a method needs an SVD.

    Args:
        method: of a run.
    """
    if method.name == "adamerging":
        start = starts.get(method)
        return start.is_decorrelated or start.rank_ratio < 1.0
    return method.name in ("adarank", "cart", "tsv_m", "iso_c")


_KEPT_PER_BLOCK = 20
"""Activations of a block that the backward pass reads, in multiples of the width."""
