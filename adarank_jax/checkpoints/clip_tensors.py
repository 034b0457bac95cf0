"""CLIP's tensors: flat state dicts of torch <-> parameter trees, bit for bit.

Torch keeps a Linear weight as (outputs, inputs) and the patch embedding as a
convolution; here every kernel is (inputs, outputs). Query, key and value are one matrix
in open_clip and three in Hugging Face; rows are put together or cut apart.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from adarank_jax import errors, tree
from adarank_jax.checkpoints import weights
from adarank_jax.checkpoints.clip_names import Layout, entries
from adarank_jax.tree import Tree


def shapes(
    tensors: Mapping[str, Any], layout: Layout, where: str = "the state dict"
) -> dict[str, tuple[int, ...]]:
    """Lists the shapes that the parameters will have, without reading a number.

    Args:
        tensors: array by name.
        layout: of the state dict.
        where: what to call the state dict in messages.

    Returns:
        Shape by path; query, key and value count as one.

    Raises:
        InputError: the patch embedding is no convolution over square RGB patches, or
            query, key and value differ in shape.
    """
    found = {}
    for path, names, how in entries(layout):
        raw = [tuple(tensors[name].shape) for name in names]
        if len({*raw}) > 1 or (len(raw) > 1 and not raw[0]):
            held = ", ".join(f"{n} {s}" for n, s in zip(names, raw, strict=True))
            raise errors.InputError(
                *("E214", f"it has query, key and value of shapes: {held}", where),
                expected="one shape",
                remedy="save the model again",
            )
        shape = (3 * raw[0][0], *raw[0][1:]) if len(raw) > 1 else raw[0]
        if how == "patches":
            if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
                raise errors.InputError(
                    *("E213", f"it has {names[0]!r} with shape {shape}", where),
                    expected="(width, 3, patch, patch): square patches of RGB images",
                    remedy="take a model of RGB images",
                )
            shape = (3 * shape[2] * shape[3], shape[0])
        found[path] = shape[::-1] if how == "transpose" else shape
    return found


def to_params(
    tensors: Mapping[str, Any],
    layout: Layout,
    qkv: str = "fused",
    towers: Collection[str] = ("vision", "text"),
) -> Tree:
    """Builds parameter trees from a state dict.

    Args:
        tensors: array by name.
        layout: of the state dict.
        qkv: ``fused`` for one matrix of query, key and value, ``split`` for three.
        towers: which of them to build.

    Returns:
        A nested dict with ``vision``, ``text`` and ``logit_scale``, as far as the state
        dict has them; float32 copies.

    Raises:
        ValueError: `qkv` is neither of the two.
    """
    if qkv not in ("fused", "split"):
        raise ValueError(f"`qkv` must be 'fused' or 'split', got {qkv!r}.")
    flat, turned = {}, set()
    for path, names, how in entries(layout):
        if path.split("/")[0] not in (*towers, "logit_scale"):
            continue
        rows = [tensors[name] for name in names]
        parts = {path: rows}
        if "/in_proj/" in path and qkv == "split":
            thirds = zip(_parts(path), _thirds(rows), strict=True)
            parts = {one: [third] for one, third in thirds}
        if how == "patches":
            parts = {path: [rows[0].transpose(2, 3, 1, 0).reshape(-1, len(rows[0]))]}
        flat |= parts
        if how == "transpose":
            turned |= parts.keys()
    return tree.unflatten(weights.float32_copies(flat, turned))


def to_state(params: Tree, layout: Layout) -> dict[str, np.ndarray]:
    """Turns parameter trees to a state dict: undoes `to_params`.

    Args:
        params: a nested dict with ``vision``, ``text`` or ``logit_scale``; query, key
            and value fused or split.
        layout: to write.

    Returns:
        Float32 array by name, for the branches that `params` has.

    Raises:
        ValueError: a tensor of such a branch is missing, or has no place in the layout.
    """
    flat = tree.flatten(params)
    wanted = [entry for entry in entries(layout) if entry.path.split("/")[0] in params]
    state, used = {}, set()
    for path, names, how in wanted:
        paths = [path] if path in flat or "/in_proj/" not in path else _parts(path)
        if missing := [one for one in paths if one not in flat]:
            raise ValueError(
                f"`params` must hold {path!r} to be written as {', '.join(names)}; "
                f"{missing} is missing."
            )
        used |= {*paths}
        rows = [np.array(flat[one], np.float32) for one in paths]
        if how == "patches":
            patch = round((rows[0].shape[0] / 3) ** 0.5)
            rows = [rows[0].reshape(patch, patch, 3, -1).transpose(3, 2, 0, 1)]
        rows = [row.T for row in rows] if how == "transpose" else rows
        if "/in_proj/" in path:
            rows = [np.concatenate(rows)] if len(names) == 1 else _thirds(rows)
        for name, row in zip(names, rows, strict=True):
            state[name] = np.ascontiguousarray(row).reshape(row.shape)
    if left := sorted(flat.keys() - used):
        raise ValueError(
            f"`params` holds {left}, which have no place in a {layout.model} in the "
            f"layout of {layout.kind}."
        )
    return state


def _thirds(rows):
    """Cuts one array in three, unless it is in three already."""
    return rows if len(rows) == 3 else np.split(rows[0], 3)


def _parts(path):
    """Names the three parts of a fused tensor."""
    return [path.replace("/in_proj/", f"/{part}_proj/") for part in "qkv"]
