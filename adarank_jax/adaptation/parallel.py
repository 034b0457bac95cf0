"""The step on several devices, with the rank axis sharded.

Factors, mask logits and their optimiser state are split along the rank axis, never
replicated. Directions are dealt out like cards: masks keep leading ones, of which every
device then has its share. Ranks that do not divide are padded with zero singular
values, whose mask logits get no gradient. A sharded array has a leading device axis.
The one per-device step runs under `jax.pmap` or under `jax.jit(jax.shard_map)`; with
several processes each puts the shards of its own devices and nothing else.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from adarank_jax import tree
from adarank_jax.adaptation.per_device import (
    AXIS,
    COPIED,
    SPLIT,
    Wrapper,
    compiled,
    device_mesh,
    put,
)
from adarank_jax.adaptation.step import Batch, Metrics, State, Step
from adarank_jax.core import merge, svd
from adarank_jax.core.merge import Mask, Variables
from adarank_jax.core.svd import SVDFactors
from adarank_jax.tree import Tree


def shard_factors(factors: Tree, devices: Sequence[jax.Device]) -> Tree:
    """Puts a part of every decomposed matrix on each device, the rest on all.

    Args:
        factors: as `svd.decompose_tree` returns.
        devices: N of them.

    Returns:
        The same tree; at a matrix `u (N, rows, tasks * k)`, `s (N, tasks, k)` and
        `vt (N, tasks * k, cols)`, where k is the rank over N, rounded up. What other
        processes hold is not copied; on one device nothing is.
    """
    count = len(devices)

    def leaf_shards(_, leaf):
        if not svd.is_factors(leaf):
            return replicate(leaf, devices)
        tasks, rank = leaf.s.shape
        s = np.asarray(leaf.s)
        u = np.asarray(leaf.u).reshape(-1, tasks, rank)
        vt = np.asarray(leaf.vt).reshape(tasks, rank, -1)
        u_part = lambda i: _dealt(u, 2, i, count).reshape(len(u), -1)
        vt_part = lambda i: _dealt(vt, 1, i, count).reshape(-1, vt.shape[-1])
        pieces = u_part, lambda i: _dealt(s, 1, i, count), vt_part
        # A step never donates factors, so those on one device are the caller's own.
        return SVDFactors(*(put(piece, devices, may_alias=True) for piece in pieces))

    return tree.map_with_path(leaf_shards, factors)


def replicate(arrays: Tree, devices: Sequence[jax.Device]) -> Tree:
    """Puts a copy of every array on each device."""
    everywhere = NamedSharding(device_mesh(devices), COPIED)
    if jax.process_count() == 1:
        # A step donates its state, so what it is given must not be the caller's own.
        return jax.device_put(arrays, everywhere, may_alias=False)

    def leaf_copies(leaf):
        array = np.asarray(leaf, jax.dtypes.canonicalize_dtype(np.result_type(leaf)))
        return jax.make_array_from_callback(
            array.shape, everywhere, lambda index: np.array(array[index])
        )

    return jax.tree.map(leaf_copies, arrays)


def shard_state(state: State, devices: Sequence[jax.Device]) -> State:
    """Splits mask logits and their optimiser state along the rank axis.

    Args:
        state: as on one device.
        devices: N of them.

    Returns:
        The same state, `(N, tasks, k)` wherever it had `(tasks, rank)` mask logits or
        moments of them; everything else is replicated.
    """

    def leaf_shards(path, leaf):
        if not _is_mask(path):
            return replicate(leaf, devices)
        whole = np.array(leaf)  # a step donates its state, so not the caller's own
        return put(lambda i: _dealt(whole, 1, i, len(devices)), devices)

    return jax.tree_util.tree_map_with_path(leaf_shards, state)


def gather_state(state: State, like: State) -> State:
    """Undoes `shard_state`, so that what is saved does not depend on the devices.

    Args:
        state: sharded.
        like: arrays or shapes of the state on one device.

    Returns:
        Arrays of the shapes of `like`, on the default device of every process.
    """

    def leaf_whole(path, leaf, shape):
        is_here = leaf.is_fully_addressable or leaf.is_fully_replicated
        gather = multihost_utils.process_allgather
        array = np.asarray(leaf) if is_here else gather(leaf, tiled=True)
        if not _is_mask(path):
            return jnp.asarray(array)
        whole = np.moveaxis(array, 0, 2).reshape(array.shape[1], -1)
        return jnp.asarray(whole[:, : shape.shape[1]])

    return jax.tree_util.tree_map_with_path(leaf_whole, state, like)


def shard_batch(batch: Batch, devices: Sequence[jax.Device]) -> Batch:
    """Splits the examples of every task over the devices.

    Args:
        batch: leaves `(tasks, batch, ...)`: the examples of this process, those of the
            first process first.
        devices: N of them; those of this process divide its batch.

    Returns:
        Leaves `(N, tasks, batch / N, ...)`, where batch is that of all processes.

    Raises:
        ValueError: the batch does not divide.
    """
    here = [i for i, d in enumerate(devices) if d.process_index == jax.process_index()]

    def leaf_shards(leaf):
        leaf = np.asarray(leaf)
        check_batch_size(leaf.shape[1], here)
        parts = np.split(leaf, len(here), axis=1)
        return put(lambda i: parts[here.index(i)], devices)

    return jax.tree.map(leaf_shards, batch)


def check_batch_size(batch_size: int, devices: Sequence[Any]) -> None:
    """Checks that every device gets as many examples as the others.

    Raises:
        ValueError: the batch does not divide by the number of devices.
    """
    count = len(devices)
    if batch_size % count:
        raise ValueError(
            f"`batch_size` must divide by the number of devices, got {batch_size} "
            f"examples a task for {count} devices; choose a multiple of {count}."
        )


def compile_step(
    step: Step,
    state: State,
    factors: Tree,
    devices: Sequence[jax.Device],
    wrapper: Wrapper = "pmap",
) -> Step:
    """Compiles a per-device step for all devices.

    Args:
        step: built with ``axis_name=parallel.AXIS``.
        state: sharded; its structure tells which leaves are split.
        factors: sharded.
        devices: those that the arrays were put on, in the same order in every process.
        wrapper: what it runs under.

    Returns:
        The same step on sharded arguments; the state that it is given is donated.
    """
    states = _state_specs(state)
    return compiled(
        step,
        (states, COPIED, _factor_specs(factors), COPIED, SPLIT),
        (states, Metrics(COPIED, COPIED, COPIED)),
        devices,
        wrapper,
        donate_argnums=0,
    )


def merged_params(
    origin: Tree,
    factors: Tree,
    variables: Variables,
    mask: Mask,
    devices: Sequence[jax.Device],
    wrapper: Wrapper = "pmap",
) -> Tree:
    """Merges a model whose factors and mask logits are sharded.

    Args:
        origin: replicated.
        factors: sharded.
        variables: sharded.
        mask: turns mask logits into a mask.
        devices: those that the arrays were put on.
        wrapper: what it runs under.

    Returns:
        Parameters as `origin`, as host arrays of every process.
    """

    def merged(_, origin, factors, variables):
        return merge.merged_params(origin, factors, variables, mask, AXIS)

    specs = (SPLIT, COPIED, _factor_specs(factors), _state_specs(variables))
    mapped = compiled(merged, specs, COPIED, devices, wrapper)
    # pmap wants a split argument even where nothing is decomposed, hence the numbers.
    numbers = put(np.int32, devices)
    return jax.tree.map(np.asarray, mapped(numbers, origin, factors, variables))


def _dealt(array, axis, index, count):
    """Takes every `count`-th place of an axis from one on, filled up with a zero."""
    places = [slice(None)] * array.ndim
    places[axis] = slice(index, None, count)
    part = array[tuple(places)]
    missing = -(-array.shape[axis] // count) - part.shape[axis]
    if not missing:  # a view: a mapped file is not read before it is used
        return part
    return np.pad(part, [(0, missing if i == axis else 0) for i in range(array.ndim)])


def _is_mask(path):
    """Tells whether a leaf of a state belongs to mask logits."""
    return any(getattr(key, "name", None) == "mask_logits" for key in path)


def _state_specs(state):
    """Says which leaves of a state are split over the devices."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: SPLIT if _is_mask(path) else COPIED, state
    )


def _factor_specs(factors):
    """Says which leaves of sharded factors are split over the devices."""
    return tree.map_with_path(
        lambda _, leaf: SPLIT if svd.is_factors(leaf) else COPIED, factors
    )
