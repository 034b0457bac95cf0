"""Parameter trees by path: flatten to ``a/b/c``, compare two trees.

A parameter tree is a nested dict with string keys and arrays at its leaves.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from adarank_jax import errors

Tree = Any
"""A nested dict of arrays."""

Predicate = Callable[[str, Any], bool]
"""Takes a path ``a/b/c`` and a leaf."""


def flatten(tree: Tree) -> dict[str, Any]:
    """Lists the leaves of a nested dict by path.

    Args:
        tree: nested dict; whatever is not a dict is a leaf.

    Returns:
        Leaf by path, in the order of `jax.tree.leaves`.

    Raises:
        ValueError: a key holds a slash, or a branch is empty.

    Examples:
        >>> flatten({"b": {"w": 1}, "a": 2})
        {'a': 2, 'b/w': 1}
    """
    flat = {}
    for key in sorted(tree):
        if "/" in key:
            raise ValueError(f"`tree` must not have a slash in a key, got {key!r}.")
        if not isinstance(tree[key], Mapping):
            flat[key] = tree[key]
            continue
        if not tree[key]:
            raise ValueError(f"`tree` must not have empty branches, got one: {key!r}.")
        flat |= {f"{key}/{rest}": leaf for rest, leaf in flatten(tree[key]).items()}
    return flat


def unflatten(flat: Mapping[str, Any]) -> Tree:
    """Builds the nested dict back from leaves by path.

    Args:
        flat: leaf by path, as `flatten` returns.

    Raises:
        ValueError: one path is a leaf and a branch at once.

    Examples:
        >>> unflatten({"a": 2, "b/w": 1})
        {'a': 2, 'b': {'w': 1}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *branches, last = path.split("/")
        node = tree
        for key in branches:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ValueError(f"`flat` has a leaf at {key!r} and also {path!r}.")
        if last in node:
            raise ValueError(f"`flat` has a branch at {path!r} and also a leaf.")
        node[last] = leaf
    return tree


def map_with_path(function: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Maps `function(path, leaf, *leaves)` over nested dicts of the same paths.

    Args:
        function: takes a path, the leaf of `tree` and those of `rest`.
        tree: a nested dict.
        *rest: more of them.

    Returns:
        What the function returned, as a nested dict of the same paths.

    Raises:
        InputError: the paths differ; the message lists those of both sides, sorted.
    """
    for i, other in enumerate(rest):
        check_same_paths(tree, other, ("`tree`", f"`rest[{i}]`"))
    flats = [flatten(other) for other in rest]
    return unflatten(
        {
            path: function(path, leaf, *(flat[path] for flat in flats))
            for path, leaf in flatten(tree).items()
        }
    )


def everything(path: str, leaf: Any) -> bool:
    """Holds for every leaf: the predicate that leaves nothing out."""
    return True


def partition(tree: Tree, predicate: Predicate) -> tuple[Tree, Tree]:
    """Splits a nested dict into the leaves that a predicate names and all others.

    Args:
        tree: a nested dict.
        predicate: asked once a leaf.

    Returns:
        Two nested dicts, without the branches that hold nothing; `join` undoes it.

    Examples:
        >>> partition({"a": 1, "b": {"c": 2, "d": 3}}, lambda path, leaf: leaf < 3)
        ({'a': 1, 'b': {'c': 2}}, {'b': {'d': 3}})
    """
    chosen, others = {}, {}
    for path, leaf in flatten(tree).items():
        (chosen if predicate(path, leaf) else others)[path] = leaf
    return unflatten(chosen), unflatten(others)


def join(left: Tree, right: Tree) -> Tree:
    """Puts two nested dicts of different paths into one.

    Args:
        left: a nested dict.
        right: another.

    Raises:
        ValueError: a path is in both.

    Examples:
        >>> join({"b": {"c": 2}}, {"a": 1, "b": {"d": 3}})
        {'a': 1, 'b': {'c': 2, 'd': 3}}
    """
    one, two = flatten(left), flatten(right)
    twice = sorted(one.keys() & two.keys())
    if twice:
        raise ValueError(f"`left` and `right` must differ in all paths, both: {twice}.")
    both = one | two
    return unflatten({path: both[path] for path in sorted(both)})


def without_none(tree: Tree) -> Tree:
    """Drops the leaves that are None, and the branches that hold nothing else.

    Examples:
        >>> without_none({"a": None, "b": {"c": 1, "d": None}})
        {'b': {'c': 1}}
    """
    kept = {path: leaf for path, leaf in flatten(tree).items() if leaf is not None}
    return unflatten(kept)


def check_same_paths(left: Tree, right: Tree, names: tuple[str, str]) -> None:
    """Checks that two trees have the same paths, whatever their leaves are.

    Args:
        left: a nested dict.
        right: another.
        names: what to call the two in the message.

    Raises:
        InputError: they differ; the message lists the paths of both sides, sorted.
    """
    _refuse("E210", _path_differences(flatten(left), flatten(right), names), names)


def _path_differences(one, two, names):
    """Lists the paths that only one of two flat dicts has."""
    lines = [f"only in {names[0]}: {path}" for path in sorted(one.keys() - two.keys())]
    return lines + [
        f"only in {names[1]}: {path}" for path in sorted(two.keys() - one.keys())
    ]


def _refuse(code, lines, names):
    """Raises if there are differences."""
    if lines:
        raise errors.InputError(
            code,
            f"they must have the same tensors, but {len(lines)} differ:\n  "
            + "\n  ".join(lines),
            where=f"{names[0]} and {names[1]}",
            remedy="take models of one architecture",
        )


def check_same(left: Tree, right: Tree, names: tuple[str, str]) -> None:
    """Checks that two trees have the same paths and shapes.

    Args:
        left: a nested dict of arrays.
        right: another.
        names: what to call the two in the message.

    Raises:
        InputError: they differ; the message lists the paths of both sides, sorted.
    """
    one, two = flatten(left), flatten(right)
    lines = _path_differences(one, two, names)
    code = "E210" if lines else "E213"
    for path in sorted(one.keys() & two.keys()):
        shapes = np.shape(one[path]), np.shape(two[path])
        if shapes[0] != shapes[1]:
            lines.append(
                f"{path}: {shapes[0]} in {names[0]}, {shapes[1]} in {names[1]}"
            )
    _refuse(code, lines, names)


def check_finite(tree: Tree, name: str) -> None:
    """Checks that no tensor holds NaN or infinity; one Inf can hang an SVD for ever.

    Args:
        tree: a nested dict of arrays.
        name: what to call the tree in the message.

    Raises:
        InputError: some tensors are not finite; the message names each of them, with
            the number of bad entries and the index of the first.
    """
    lines = []
    for path, leaf in flatten(tree).items():
        leaf = np.asarray(leaf, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(leaf.sum()):  # then so is every number, in one fast pass
                continue
        bad = ~np.isfinite(leaf)
        if bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            lines.append(f"{path}: {int(bad.sum())} of {bad.size}, first at {first}")
    if lines:
        raise errors.InputError(
            "E220",
            f"{len(lines)} tensors hold NaN or infinity:\n  " + "\n  ".join(lines),
            where=name,
            remedy="save or download it again",
        )


def num_parameters(tree: Tree) -> int:
    """Counts the numbers in all leaves."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(tree))
