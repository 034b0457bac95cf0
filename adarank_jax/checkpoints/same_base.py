"""Whether an expert comes from the base that it is merged with, told by the weights.

A fine-tuned weight stays near the weight that it started from: it moves by a few
percent of its norm. Weights of two unrelated trainings of one architecture are as far
apart as two random vectors, about 1.4 norms.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from adarank_jax import errors, tree
from adarank_jax.checkpoints import all_cores
from adarank_jax.errors import Message
from adarank_jax.tree import Predicate, Tree

LARGEST_RATIO = 0.5
"""Median of ||expert - base|| / ||base|| from which an expert is of another base."""


def check_distance(
    base: Tree,
    expert: Tree,
    names: tuple[str, str],
    is_compared: Predicate,
    dtypes: tuple[str, str],
) -> list[Message]:
    """Checks that the weights of an expert are near those of a base.

    Args:
        base: parameters of an encoder.
        expert: parameters of another.
        names: what to call the two in messages.
        is_compared: whether the distance of a leaf counts.
        dtypes: that the files of the two hold, or ``mixed``.

    Returns:
        Warnings: the expert equals the base, is stored with fewer bits, or holds
        numbers of another order.

    Raises:
        InputError: the two have other tensors or shapes, or are too far apart.
    """
    tree.check_same(base, expert, names)
    one, two = tree.flatten(base), tree.flatten(expert)
    pairs = {path: (leaf, two[path]) for path, leaf in one.items()}
    compared = all_cores.map_values(lambda pair: _compare(*pair), pairs)
    ratios = [
        each.ratio for path, each in compared.items() if is_compared(path, one[path])
    ]
    ratio = float(np.median(ratios))
    if not ratio < LARGEST_RATIO:
        raise errors.InputError(
            "E203",
            f"it does not come from the base {names[0]}: the median of |expert - base| "
            f"/ |base| over {len(ratios)} matrices is {ratio:.2f}",
            where=names[1],
            expected=f"below {LARGEST_RATIO} (an unrelated model gives about 1.4)",
            remedy="check which base the expert was fine-tuned from",
        )
    warnings = []
    if all(each.is_equal for each in compared.values()):
        found = (
            f"it equals the base {names[0]}: its task vector is zero, so there is "
            "nothing to keep or prune"
        )
        remedy = "check that it is the fine-tuned model"
        warnings.append(Message("W223", found, names[1], remedy=remedy))
    if _BITS.get(dtypes[1], 32) < _BITS.get(dtypes[0], 32):
        found = (
            f"it is stored as {dtypes[1]} and the base {names[0]} as {dtypes[0]}: the "
            "task vector carries the noise of rounding"
        )
        remedy = f"take the expert in {dtypes[0]} if there is one"
        warnings.append(Message("W222", found, names[1], remedy=remedy))
    large = [
        f"{path} ({each.its_peak:.3g}, the base {each.own_peak:.3g})"
        for path, each in compared.items()
        if each.its_peak > _LARGEST_GROWTH * max(each.own_peak, 1e-3)
    ]
    if large:
        found = (
            f"it holds numbers more than {_LARGEST_GROWTH:,} times as large as those "
            f"of the base {names[0]} in {', '.join(large[:3])}"
        )
        remedy = "check whether it is damaged"
        warnings.append(Message("W227", found, names[1], remedy=remedy))
    return warnings


class _Compared(NamedTuple):
    """How one tensor of an expert lies to that of the base.

    Attributes:
        ratio: norm of the difference over that of the base's.
        is_equal: whether all numbers are equal.
        own_peak: largest magnitude in the base.
        its_peak: that in the expert.
    """

    ratio: float
    is_equal: bool
    own_peak: float
    its_peak: float


def _compare(own, its):
    """Compares one tensor; a norm beyond float32 is infinite, and far enough."""
    with np.errstate(over="ignore"):  # a thread does not inherit that of its caller
        distance, norm = (float(np.linalg.norm(leaf)) for leaf in (its - own, own))
    return _Compared(
        distance / max(norm, 1e-30),
        distance == 0.0 and np.array_equal(own, its),
        *(float(max(leaf.max(), -leaf.min())) for leaf in (own, its)),
    )


def find_twins(experts: Mapping[str, Tree]) -> list[Message]:
    """Compares experts with each other.

    Args:
        experts: parameters of the encoder by task.

    Returns:
        A warning for each expert that equals one before it.
    """
    warnings, seen = [], {}
    for task, expert in experts.items():
        # Most experts differ from each other in the first numbers already.
        begins = b"".join(leaf.flat[:4].tobytes() for leaf in jax.tree.leaves(expert))
        alike = seen.setdefault(begins, [])
        twin = next((t for t in alike if _are_equal(experts[t], expert)), None)
        if twin is None:
            alike.append(task)
        else:
            found = f"the experts {twin!r} and {task!r} are identical"
            remedy = "check whether one of the paths is wrong"
            warnings.append(Message("W224", found, "experts", remedy=remedy))
    return warnings


def _are_equal(left, right):
    """Tells whether two trees hold the same numbers under the same paths."""
    one, two = tree.flatten(left), tree.flatten(right)
    return one.keys() == two.keys() and all(
        np.array_equal(leaf, two[path]) for path, leaf in one.items()
    )


def check_fields(
    base: Mapping[str, object],
    expert: Mapping[str, object],
    fields: tuple[str, ...],
    names: tuple[str, str],
) -> None:
    """Checks that two configurations agree in what shapes do not show.

    Args:
        base: a configuration.
        expert: another.
        fields: that are compared.
        names: what to call the two in messages.

    Raises:
        InputError: some differ; the message has them as a table.
    """
    lines = [
        f"\n  {field:20} {base[field]!s:14} {expert[field]!s}"
        for field in fields
        if base[field] != expert[field]
    ]
    if lines:
        raise errors.InputError(
            "E215",
            "the configurations differ, so the same weights would mean another model:"
            "\n  field                base           expert" + "".join(lines),
            where=f"{names[0]} and {names[1]}",
            remedy="use the base that the expert was fine-tuned from",
        )


_LARGEST_GROWTH = 10_000
_BITS = {"float16": 16, "bfloat16": 16, "mixed": 16, "float32": 32, "float64": 64}
