"""Where AdaRank starts from: one row an origin, fixed before any adaptation.

Task arithmetic and CART: the authors' settings for CLIP ViT-B/32 and eight tasks.
TSV-M: the scale of one that TSV-M itself publishes, over the `rank / tasks` directions
a task that it keeps. The paper reports that variant, but no code of it exists: here
the masks choose among the decorrelated directions, which are not decorrelated again.
"""

import difflib
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from adarank_jax import mergers
from adarank_jax.checkpoints.factors import cached_factors
from adarank_jax.core import svd, task_vectors
from adarank_jax.tree import Predicate, Tree


class Preset(NamedTuple):
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


PRESETS = {
    "task_arithmetic": Preset("task_arithmetic", 0.3, 1.0),
    "cart": Preset("cart", 2.3, 0.16, is_centred=True),
    "tsv_m": Preset("tsv_m", 1.0, 1.0, is_decorrelated=True),
}


def get(name: str) -> Preset:
    """Looks a preset up.

    Raises:
        KeyError: there is no such preset; the message has the nearest.
    """
    return nearest("preset", name, PRESETS)


def start(
    preset: Preset,
    pretrained: Tree,
    finetuned: Sequence[Tree],
    is_decomposed: Predicate,
    cache: pathlib.Path,
) -> tuple[Tree, Tree]:
    """Builds the origin and the factors that a preset starts from.

    Args:
        preset: a row of `PRESETS`.
        pretrained: parameters before fine-tuning.
        finetuned: parameters of each task's expert.
        is_decomposed: which tensors are decomposed.
        cache: folder of factors; those that it already holds are read.

    Returns:
        Origin and factors.
    """
    origin = task_vectors.average(finetuned) if preset.is_centred else pretrained
    make = mergers.tsv_factors if preset.is_decorrelated else svd.decompose_tree
    vectors = task_vectors.task_vectors(origin, finetuned)
    factors = cached_factors(
        cache,
        vectors,
        functools.partial(make, is_decomposed=is_decomposed),
        preset.origin,
    )
    return origin, factors


def nearest(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    """Looks a name up.

    Args:
        kind: what is looked for, for the message.
        name: a key of the table.
        table: all there is.

    Raises:
        KeyError: there is no such name; the message has the nearest.
    """
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1, cutoff=0.0)[0]
        raise KeyError(
            f"There is no {kind} {name!r}; did you mean {near!r}? "
            f"There are {', '.join(table)}."
        )
    return table[name]
