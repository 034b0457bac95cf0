"""Whether an expert comes from the base that it is merged with, told by the weights.

A fine-tuned weight stays near the weight that it started from: it moves by a few
percent of its norm. Weights of two unrelated trainings of one architecture are as far
apart as two random vectors, about 1.4 norms.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from adarank_jax import tree
from adarank_jax.checkpoints import all_cores
from adarank_jax.tree import Predicate, Tree

LARGEST_RATIO = 0.5
"""Median of ||expert - base|| / ||base|| from which an expert is of another base."""


def check_distance(
    base: Tree,
    expert: Tree,
    names: tuple[str, str],
    is_compared: Predicate,
    dtypes: tuple[str, str],
) -> list[str]:
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
        ValueError: the two have other tensors or shapes, or are too far apart.
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
        raise ValueError(
            f"{names[1]} does not come from the base {names[0]}: the median of "
            f"|expert - base| / |base| over {len(ratios)} matrices is {ratio:.2f}, "
            f"expected below {LARGEST_RATIO} (an unrelated model gives about 1.4); "
            "check which base the expert was fine-tuned from."
        )
    warnings = []
    if all(each.is_equal for each in compared.values()):
        warnings.append(
            f"{names[1]} equals the base {names[0]}: its task vector is zero, so there "
            "is nothing to keep or prune."
        )
    if _BITS.get(dtypes[1], 32) < _BITS.get(dtypes[0], 32):
        warnings.append(
            f"{names[1]} is stored as {dtypes[1]} and the base {names[0]} as "
            f"{dtypes[0]}: the task vector carries the noise of rounding."
        )
    large = [
        f"{path} ({each.its_peak:.3g}, the base {each.own_peak:.3g})"
        for path, each in compared.items()
        if each.its_peak > _LARGEST_GROWTH * max(each.own_peak, 1e-3)
    ]
    if large:
        warnings.append(
            f"{names[1]} holds numbers more than {_LARGEST_GROWTH:,} times as large as "
            f"those of the base {names[0]} in {', '.join(large[:3])}; is it damaged?"
        )
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


def find_twins(experts: Mapping[str, Tree]) -> list[str]:
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
            warnings.append(
                f"The experts {twin!r} and {task!r} are identical; is one of the paths "
                "wrong?"
            )
    return warnings


def _are_equal(left, right):
    """Tells whether two trees hold the same numbers under the same paths."""
    one, two = tree.flatten(left), tree.flatten(right)
    return one.keys() == two.keys() and all(
        np.array_equal(leaf, two[path]) for path, leaf in one.items()
    )


def table(
    base: Mapping[str, object], expert: Mapping[str, object], fields: tuple[str, ...]
) -> str:
    """Lists the fields in which two configurations differ, as a table.

    Args:
        base: a configuration.
        expert: another.
        fields: that are compared.

    Returns:
        Lines to go behind a message; nothing if they agree.

    Examples:
        >>> table({"width": 4}, {"width": 4}, ("width",))
        ''
    """
    lines = [
        f"\n  {field:20} {base[field]!s:14} {expert[field]!s}"
        for field in fields
        if base[field] != expert[field]
    ]
    header = "\n  field                base           expert"
    return header + "".join(lines) if lines else ""


_LARGEST_GROWTH = 10_000
_BITS = {"float16": 16, "bfloat16": 16, "mixed": 16, "float32": 32, "float64": 64}
