"""The step on several devices: `jax.pmap` with the rank axis sharded.

Factors, mask logits and their optimiser state are split along the rank axis, never
replicated; ranks that do not divide are padded with zero singular values, whose mask
logits get no gradient. A sharded array has a leading device axis.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from adarank_jax import tree
from adarank_jax.adaptation.step import Batch, Metrics, State, Step
from adarank_jax.core import merge, svd
from adarank_jax.core.merge import Mask, Variables
from adarank_jax.core.svd import SVDFactors
from adarank_jax.tree import Tree

AXIS = "devices"


def shard_factors(factors: Tree, devices: Sequence[jax.Device]) -> Tree:
    """Puts a slice of every decomposed matrix on each device, the rest on all.

    Args:
        factors: as `svd.decompose_tree` returns.
        devices: N of them.

    Returns:
        The same tree; at a matrix `u (N, rows, tasks * k)`, `s (N, tasks, k)` and
        `vt (N, tasks * k, cols)`, where k is the rank over N, rounded up.
    """
    count = len(devices)

    def leaf_shards(_, leaf):
        if not svd.is_factors(leaf):
            return _put(leaf, devices, sharded=False)
        tasks, rank = leaf.s.shape
        u = _split(np.asarray(leaf.u).reshape(-1, tasks, rank), 2, count)
        vt = _split(np.asarray(leaf.vt).reshape(tasks, rank, -1), 1, count)
        shards = SVDFactors(
            u.reshape(count, u.shape[1], -1),
            _split(np.asarray(leaf.s), 1, count),
            vt.reshape(count, -1, vt.shape[-1]),
        )
        return _put(shards, devices, sharded=True)

    return tree.map_with_path(leaf_shards, factors)


def replicate(arrays: Tree, devices: Sequence[jax.Device]) -> Tree:
    """Puts a copy of every array on each device."""
    return _put(arrays, devices, sharded=False)


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
            return _put(leaf, devices, sharded=False)
        return _put(_split(np.asarray(leaf), 1, len(devices)), devices, sharded=True)

    return jax.tree_util.tree_map_with_path(leaf_shards, state)


def gather_state(state: State, like: State) -> State:
    """Undoes `shard_state`, so that what is saved does not depend on the devices.

    Args:
        state: sharded.
        like: arrays or shapes of the state on one device.

    Returns:
        Arrays of the shapes of `like`, on the default device.
    """

    def leaf_whole(path, leaf, shape):
        array = np.asarray(leaf)
        if not _is_mask(path):
            return jnp.asarray(array)
        whole = np.moveaxis(array, 0, 1).reshape(array.shape[1], -1)
        return jnp.asarray(whole[:, : shape.shape[1]])

    return jax.tree_util.tree_map_with_path(leaf_whole, state, like)


def shard_batch(batch: Batch, devices: Sequence[jax.Device]) -> Batch:
    """Splits the examples of every task over the devices.

    Args:
        batch: leaves `(tasks, batch, ...)`.
        devices: N of them; N divides the batch.

    Returns:
        Leaves `(N, tasks, batch / N, ...)`.

    Raises:
        ValueError: the batch does not divide.
    """
    count = len(devices)

    def leaf_shards(leaf):
        check_batch_size(leaf.shape[1], devices)
        return np.stack(np.split(np.asarray(leaf), count, axis=1))

    return _put(jax.tree.map(leaf_shards, batch), devices, sharded=True)


def check_batch_size(batch_size: int, devices: Sequence[jax.Device]) -> None:
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


def pmap_step(
    step: Step, state: State, factors: Tree, devices: Sequence[jax.Device]
) -> Step:
    """Compiles a per-device step for several devices.

    Args:
        step: built with ``axis_name=parallel.AXIS``.
        state: sharded; its structure tells which leaves are split.
        factors: sharded.
        devices: those that the arrays were put on.

    Returns:
        The same step on sharded arguments; the state that it is given is donated.
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(_state_axes(state), None, _factor_axes(factors), None, 0),
        out_axes=(_state_axes(state), Metrics(None, None, None)),
        donate_argnums=0,
        devices=devices,
    )


def merged_params(
    origin: Tree,
    factors: Tree,
    variables: Variables,
    mask: Mask,
    devices: Sequence[jax.Device],
) -> Tree:
    """Merges a model whose factors and mask logits are sharded.

    Args:
        origin: replicated.
        factors: sharded.
        variables: sharded.
        mask: turns mask logits into a mask.
        devices: those that the arrays were put on.

    Returns:
        Parameters as `origin`, as host arrays.
    """

    def merged(_, origin, factors, variables):
        return merge.merged_params(origin, factors, variables, mask, AXIS)

    mapped = jax.pmap(
        merged,
        axis_name=AXIS,
        in_axes=(0, None, _factor_axes(factors), _state_axes(variables)),
        out_axes=None,
        devices=devices,
    )
    # pmap wants a mapped argument even where nothing is decomposed, hence the numbers.
    numbers = _put(np.arange(len(devices)), devices, sharded=True)
    return jax.tree.map(np.asarray, mapped(numbers, origin, factors, variables))


def _split(array, axis, count):
    """Pads an axis with zeros and splits it into a new leading device axis."""
    missing = -array.shape[axis] % count
    widths = [(0, missing if i == axis else 0) for i in range(array.ndim)]
    return np.stack(np.split(np.pad(array, widths), count, axis=axis))


def _put(arrays, devices, sharded):
    """Places arrays on the devices: split along the leading axis, or copied."""
    mesh = Mesh(np.asarray(devices), (AXIS,))
    spec = PartitionSpec(AXIS) if sharded else PartitionSpec()
    # A step donates its state, so what it is given must not be the caller's own.
    return jax.device_put(arrays, NamedSharding(mesh, spec), may_alias=False)


def _is_mask(path):
    """Tells whether a leaf of a state belongs to mask logits."""
    return any(getattr(key, "name", None) == "mask_logits" for key in path)


def _state_axes(state):
    """Says along which axis each leaf of a state is mapped: 0, or None for copies."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: 0 if _is_mask(path) else None, state
    )


def _factor_axes(factors):
    """Says along which axis each leaf of sharded factors is mapped."""
    return tree.map_with_path(
        lambda _, leaf: 0 if svd.is_factors(leaf) else None, factors
    )
