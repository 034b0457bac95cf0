"""Where AdaRank starts from: one row an origin, fixed before any adaptation.

Where a method states none, task arithmetic and CART have the authors' settings for CLIP
ViT-B/32 and eight tasks; a run of texts states CART's always (`text_config.CART`).
TSV-M: the scale of one that TSV-M itself publishes, over the `rank / tasks` directions
a task that it keeps. The paper reports that variant, but no code of it exists: here
the masks choose among the decorrelated directions, which are not decorrelated again.
"""

import functools
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from adarank_jax import mergers, tree
from adarank_jax.checkpoints.factors import cached_factors
from adarank_jax.core import svd, task_vectors
from adarank_jax.core.svd_backends import Backend, Report
from adarank_jax.errors import Message
from adarank_jax.tree import Predicate, Tree
from experiments.merge_config import MergeConfig, Method


class Start(NamedTuple):
    """One origin and its start.

    Attributes:
        origin: name shown in tables.
        coefficient: of every task and tensor (the paper's prior).
        rank_ratio: share of leading directions kept at the start.
        is_centred: the origin is the average of the experts, not the pretrained model.
        is_decorrelated: the directions are those of TSV-M.
    """

    origin: str
    coefficient: float
    rank_ratio: float
    is_centred: bool = False
    is_decorrelated: bool = False


STARTS = {
    "task_arithmetic": Start("task_arithmetic", 0.3, 1.0),
    "cart": Start("cart", 2.3, 0.16, is_centred=True),
    "tsv_m": Start("tsv_m", 1.0, 1.0, is_decorrelated=True),
}


def get(method: Method) -> Start:
    """Returns the published start of a method, with what its options change.

    Args:
        method: one that is adapted.
    """
    chosen = STARTS[method.origin]
    if method.name == "adamerging" and chosen.is_centred:
        chosen = chosen._replace(coefficient=2.0, rank_ratio=0.12)  # CART's own
    given = method.model_dump(include={"coefficient", "rank_ratio"}, exclude_none=True)
    return chosen._replace(**given)


def doubts(config: MergeConfig) -> Iterator[Message]:
    """Warns of settings that are valid and cannot do what they seem to.

    Args:
        config: of a run.

    Yields:
        Warnings.
    """
    chosen = [*config.compare, config.method]
    centred = [m for m in chosen if m.name == "cart" or m.origin == "cart"]
    if centred and len(config.task_names) == 2:
        yield Message(
            "W011",
            "with two experts the centred task vectors cancel, so CART is the average, "
            "whatever its coefficient and rank ratio",
            "method.origin",
            remedy="start from task_arithmetic or tsv_m",
        )
    settings = config.adaptation
    steps, rate = settings.num_steps, settings.learning_rate
    if steps * rate < _LOGIT and any(m.name == "adarank" for m in chosen):
        remedy = f"take {math.ceil(_LOGIT / rate):,} steps or more at this rate"
        if steps:
            remedy += f", or a rate of {_rounded_up(_LOGIT / steps):g} for {steps:,}"
        yield Message(
            "W012",
            f"{steps:,} steps at a rate of {rate:g} cannot flip a mask: its logit "
            f"starts at {_LOGIT} or -{_LOGIT} and moves by about the rate a step",
            "adaptation.num_steps",
            remedy=remedy,
        )


def _rounded_up(number):
    """Rounds up to two digits, so that what is shown is enough."""
    unit = 10.0 ** (math.floor(math.log10(number)) - 1)
    return math.ceil(number / unit - 1e-9) * unit


def build(
    start: Start,
    pretrained: Tree,
    finetuned: Sequence[Tree],
    is_decomposed: Predicate,
    cache: pathlib.Path | None = None,
    is_merged: Predicate = tree.everything,
    backend: Backend = "gram",
    report: Report | None = None,
) -> tuple[Tree, Tree]:
    """Builds the origin and the factors that adaptation starts from, on the host CPU.

    The backend ``device`` alone decomposes elsewhere.

    Equal weights give equal bits on the same kind of machine, whatever accelerator it
    has, so that a merge can be made again from its masks.

    Args:
        start: where to start.
        pretrained: parameters before fine-tuning.
        finetuned: parameters of each task's expert.
        is_decomposed: which tensors are decomposed.
        cache: folder of factors; those that it already holds are read. None to make
            them and keep nothing.
        is_merged: which tensors are merged; the others stay those of the origin, so
            they are averaged if that is the average.
        backend: that decomposes, as for `svd.decompose_tree`.
        report: called after every matrix, as for `svd.decompose_tree`.

    Returns:
        Origin and factors, None at every tensor that is not merged.
    """
    make = functools.partial(svd.decompose_tree, backend=backend, report=report)
    if start.is_decorrelated:
        make = functools.partial(mergers.tsv_factors, decompose=make)
    make = functools.partial(make, is_decomposed=is_decomposed)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        host, experts = jax.tree.map(np.asarray, (pretrained, list(finetuned)))
        origin = task_vectors.average(experts) if start.is_centred else host
        task_vectors.check_models(origin, experts)
        merged, kept = tree.partition(origin, is_merged)
        parts = [tree.partition(expert, is_merged)[0] for expert in experts]
        split = lambda: make(task_vectors.task_vectors(merged, parts))
        if cache is None:
            factors = split()
        else:
            name = f"{start.origin}-{backend}"
            factors = cached_factors(cache, [merged, *parts], split, name)
        nothing = tree.map_with_path(lambda path, leaf: None, kept)
        return origin, tree.join(factors, nothing)


def build_dense(
    start: Start,
    pretrained: Tree,
    finetuned: Sequence[Tree],
    is_decomposed: Predicate,
    cache: pathlib.Path | None = None,
    is_merged: Predicate = tree.everything,
    backend: Backend = "gram",
    report: Report | None = None,
) -> tuple[Tree, Tree]:
    """Builds the origin and whole updates, for a method that has no masks.

    Args:
        start: where to start.
        pretrained: parameters before fine-tuning.
        finetuned: parameters of each task's expert.
        is_decomposed: which tensors the start truncates or decorrelates.
        cache: as for `build`.
        is_merged: as for `build`.
        backend: as for `build`.
        report: as for `build`.

    Returns:
        Origin and task vectors, `(tasks, ...)` at every merged tensor; those of a start
        that keeps every direction are never decomposed.
    """
    if start.rank_ratio == 1.0 and not start.is_decorrelated:
        nothing = lambda path, leaf: False
        return build(start, pretrained, finetuned, nothing, is_merged=is_merged)
    models = (pretrained, finetuned, is_decomposed)
    origin, factors = build(start, *models, cache, is_merged, backend, report)

    def whole(_, leaf):
        if not svd.is_factors(leaf):
            return leaf
        rank = svd.leading_rank(leaf.s.shape[1], start.rank_ratio)
        return np.asarray(svd.reconstruct(svd.truncate(leaf, rank)))

    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return origin, tree.map_with_path(whole, factors)


def merge_static(
    name: str,
    pretrained: Tree,
    finetuned: Sequence[Tree],
    is_decomposed: Predicate,
    is_merged: Predicate = tree.everything,
    backend: Backend = "gram",
    report: Report | None = None,
    **hyper: Any,
) -> Tree:
    """Merges by a published method; what is not merged is that of its origin.

    Args:
        name: of the merger.
        pretrained: parameters before fine-tuning.
        finetuned: parameters of each task's expert.
        is_decomposed: which tensors the merger decomposes.
        is_merged: as for `build`.
        backend: as for `build`.
        report: as for `build`.
        **hyper: the merger's own hyper-parameters.

    Returns:
        Parameters as `pretrained`.
    """
    merged, kept = tree.partition(pretrained, is_merged)
    parts = [tree.partition(expert, is_merged) for expert in finetuned]
    if kept and name in AVERAGING:
        kept = task_vectors.average([rest for _, rest in parts])
    if name in DECOMPOSING:
        decompose = functools.partial(
            svd.decompose_tree, backend=backend, report=report
        )
        hyper |= {"decompose": decompose}
    made = mergers.MERGERS[name](
        merged, [part for part, _ in parts], is_decomposed, **hyper
    )
    return tree.join(made, kept)


AVERAGING = ("weight_averaging", "cart")
"""Mergers whose origin is the average of the experts."""

DECOMPOSING = ("cart", "tsv_m")
"""Mergers that decompose the task vectors of every expert."""

_LOGIT = 0.1  # of a direction that is kept at the start; minus that of the others
