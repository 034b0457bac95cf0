"""A function of one device's arrays, run on all devices: by pmap or by shard_map.

An array is split, with a leading device axis, or copied to every device; a spec says
which, for a whole branch of a tree. Since JAX 0.8 `jax.pmap` is itself
`jax.jit(jax.shard_map)`; only the latter reaches over several processes at no cost.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"
"""Name of the device axis, for the collectives of a per-device function."""

SPLIT = PartitionSpec(AXIS)
"""Spec of an array with a leading device axis."""

COPIED = PartitionSpec()
"""Spec of an array that every device has."""

Wrapper = Literal["pmap", "shard_map"]
"""What runs the per-device step on all devices."""


def choose(wrapper: Literal["auto", "pmap", "shard_map"]) -> Wrapper:
    """Chooses what a step runs under.

    Args:
        wrapper: "auto" for pmap, and for shard_map if there are several processes.

    Raises:
        ValueError: pmap was asked for with several processes.
    """
    count = jax.process_count()
    if wrapper == "pmap" and count > 1:
        raise ValueError(
            f"`parallel` must not be pmap with {count} processes, because it moves all "
            "arguments between them in every step; leave it at auto."
        )
    if wrapper == "auto":
        return "pmap" if count == 1 else "shard_map"
    return wrapper


def compiled(
    function: Callable[..., Any],
    in_specs: tuple[Any, ...],
    out_specs: Any,
    devices: Sequence[jax.Device],
    wrapper: Wrapper,
    donate_argnums: int | tuple[int, ...] = (),
) -> Callable[..., Any]:
    """Compiles a per-device function.

    Args:
        function: of the arrays of one device; its collectives are over `AXIS`.
        in_specs: of its arguments.
        out_specs: of what it returns.
        devices: that the arguments were put on.
        wrapper: what it runs under.
        donate_argnums: arguments whose memory it may use.

    Returns:
        The function of the arrays of all devices.
    """
    if wrapper == "pmap":
        in_axes, out_axes = (_map_specs(_axis, s, s) for s in (in_specs, out_specs))
        return jax.pmap(
            function,
            axis_name=AXIS,
            in_axes=in_axes,
            out_axes=out_axes,
            donate_argnums=donate_argnums,
            devices=devices,
        )

    def block(*arguments):
        arguments = _map_specs(_without_device_axis, in_specs, arguments)
        return _map_specs(_with_device_axis, out_specs, function(*arguments))

    # The step sums its own gradients over devices, as pmap needs it; the check would
    # have them summed a second time.
    mapped = jax.shard_map(
        block,
        mesh=device_mesh(devices),
        in_specs=in_specs,
        out_specs=out_specs,
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=donate_argnums)


def _map_specs(function, specs, arrays):
    """Maps a function of a spec and an array, each spec for a whole branch."""

    def branch(spec, branch_arrays):
        return jax.tree.map(functools.partial(function, spec), branch_arrays)

    return jax.tree.map(branch, specs, arrays)


def _axis(spec, _):
    """Says along which axis an array is mapped: 0, or None for copies."""
    return 0 if spec == SPLIT else None


def _without_device_axis(spec, array):
    """Turns the block of a device into what the device's step works on."""
    return array[0] if spec == SPLIT else array


def _with_device_axis(spec, array):
    """Undoes `_without_device_axis`."""
    return array[None] if spec == SPLIT else array


def put(
    piece: Callable[[int], Any],
    devices: Sequence[jax.Device],
    may_alias: bool = False,
) -> jax.Array:
    """Puts a piece on each device.

    Args:
        piece: makes that of the i-th device; called for those of this process only.
        devices: N of them.
        may_alias: whether a piece on a CPU may stay the caller's memory, which then
            must not change, and what is returned must not be donated. Without it JAX
            still aliases NumPy arrays that are aligned to 64 bytes (0.10 does), so
            what may change or is donated must be a copy already.

    Returns:
        One array `(N, ...)`, split.
    """
    here = [i for i, d in enumerate(devices) if d.process_index == jax.process_index()]
    pieces = [
        jax.device_put(np.asarray(piece(i))[None], devices[i], may_alias=may_alias)
        for i in here
    ]
    return jax.make_array_from_single_device_arrays(
        (len(devices), *pieces[0].shape[1:]),
        NamedSharding(device_mesh(devices), SPLIT),
        pieces,
    )


def device_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """Lines the devices up."""
    return Mesh(np.asarray(devices), (AXIS,))
