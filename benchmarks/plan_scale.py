"""Compiles the step of a merge that is larger than this machine, and counts its cost.

``python -m benchmarks.plan_scale`` lowers and compiles the step of ViT-L/14 with 20
tasks for 8, 16 and 32 virtual devices. All arrays are abstract: no number is drawn and
nothing is run. Bytes and operations are those of the program that XLA makes for a CPU;
what an accelerator would take is computed from them and from published rates.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding

from adarank_jax import tree
from adarank_jax.adaptation import objectives, parallel, per_device
from adarank_jax.adaptation.step import Batch, State, make_step
from adarank_jax.core import masks, merge, svd
from adarank_jax.core.svd import SVDFactors
from adarank_jax.models import clip_vision, heads

CLASSES = 100
"""Of every head; what a head costs is next to nothing."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; exits with a message if it is wrong."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.plan_scale", description=__doc__
    )
    parser.add_argument("--variant", choices=clip_vision.VARIANTS, default="vit-l-14")
    parser.add_argument("--layers", type=int, help="default: all of them")
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32, help="images a task")
    parser.add_argument("--tasks-at-once", type=int, help="default: all")
    parser.add_argument("--remat", action="store_true")
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 16, 32])
    return parser.parse_args(arguments)


def plan(options: argparse.Namespace) -> dict:
    """Compiles the step for all devices that JAX has and counts.

    Args:
        options: as `parse` returns.

    Returns:
        Bytes and operations of one device and step.
    """
    devices = jax.devices()
    config = clip_vision.variant(options.variant)
    if options.layers:
        config = config.__class__(**{**vars(config), "num_layers": options.layers})
    module, size, tasks = (
        clip_vision.ClipVision(config),
        config.image_size,
        options.tasks,
    )
    images = _abstract((1, size, size, 3))
    origin = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
    factors = tree.map_with_path(lambda p, leaf: _factors(p, leaf, tasks), origin)
    variables = merge.init_variables(factors, 0.3)
    optimizer = optax.adam(1e-3)
    head = heads.make_head(np.ones((config.output_size, CLASSES), np.float32), 100.0)
    step = make_step(
        lambda params, inputs: module.apply({"params": params}, inputs),
        heads.cosine_logits,
        objectives.entropy,
        masks.straight_through,
        optimizer,
        parallel.AXIS,
        options.tasks_at_once,
        options.remat,
    )
    state = parallel.shard_state(State(variables, optimizer.init(variables)), devices)
    count = len(devices)
    shards = tree.map_with_path(lambda _, leaf: _shards(leaf, devices), factors)
    share = (count, tasks, options.batch // count, size, size, 3)
    program = (
        parallel.compile_step(step, state, shards, devices, "shard_map")
        .lower(
            state,
            jax.tree.map(lambda leaf: _place(leaf.shape, devices), origin),
            shards,
            parallel.replicate([head] * tasks, devices),
            Batch(_place(share, devices, per_device.SPLIT)),
        )
        .compile()
    )
    memory = program.memory_analysis()
    flat = tree.flatten(factors)
    matrices = [leaf for leaf in flat.values() if svd.is_factors(leaf)]
    return {
        "devices": count,
        "batch": options.batch,
        "mask_logits": sum(leaf.s.size for leaf in matrices),
        "factor_bytes": 4 * sum(x.size for leaf in matrices for x in leaf),
        "base_bytes": 4 * sum(leaf.size for leaf in jax.tree.leaves(origin)),
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "collective_bytes": collective_bytes(program.as_text()),
        "flops": program.cost_analysis()["flops"],
        "merge_flops": sum(_merge_flops(leaf) for leaf in matrices) / count,
    }


def collective_bytes(text: str) -> int:
    """Sums the bytes that the all-reduces of a compiled program put out.

    Args:
        text: the program, as `as_text` prints it.

    Examples:
        >>> collective_bytes("%a = (f32[2,3]{1,0}, f32[]) all-reduce(%b, %c), x")
        28
    """
    total = 0
    for line in text.splitlines():
        result, found, _ = line.partition(" all-reduce(")
        for shape in re.findall(r"f32\[([\d,]*)\]", result) if found else ():
            total += 4 * int(np.prod([int(n) for n in shape.split(",") if n]))
    return total


def _abstract(shape):
    """Describes a float32 array."""
    return jax.ShapeDtypeStruct(shape, np.float32)


def _place(shape, devices, spec=per_device.COPIED):
    """Describes a float32 array that lies on the devices."""
    sharding = NamedSharding(per_device.device_mesh(devices), spec)
    return jax.ShapeDtypeStruct(shape, np.float32, sharding=sharding)


def _factors(path, leaf, tasks):
    """Describes the factors of one tensor."""
    if not clip_vision.is_decomposed(path, leaf):
        return _abstract((tasks, *leaf.shape))
    (rows, cols), rank = leaf.shape, min(leaf.shape)
    shapes = (rows, tasks * rank), (tasks, rank), (tasks * rank, cols)
    return SVDFactors(*(_abstract(shape) for shape in shapes))


def _shards(leaf, devices):
    """Describes factors as `parallel.shard_factors` puts them."""
    if not svd.is_factors(leaf):
        return _place(leaf.shape, devices)
    (tasks, rank), count = leaf.s.shape, len(devices)
    k = -(-rank // count)
    rows, cols = leaf.u.shape[0], leaf.vt.shape[1]
    shapes = (count, rows, tasks * k), (count, tasks, k), (count, tasks * k, cols)
    return SVDFactors(*(_place(shape, devices, per_device.SPLIT) for shape in shapes))


def _merge_flops(leaf):
    """Counts the two products of a matrix's factors, forward and backward."""
    return 2 * 2.0 * leaf.u.shape[0] * leaf.vt.shape[1] * leaf.s.size


def main(arguments: Sequence[str] | None = None) -> None:
    """Plans every number of devices in a process of its own, and prints JSON lines."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = parse(arguments)
    if wrong := [n for n in options.devices if n < 1 or options.batch % n]:
        raise SystemExit(f"--batch {options.batch} does not divide by {wrong} devices")
    if len(options.devices) == 1 and os.environ.get(_IS_CHILD):
        sys.stdout.write(json.dumps(plan(options)) + "\n")
        return
    for count in options.devices:
        environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(count)}
        subprocess.run(
            [sys.executable, "-m", "benchmarks.plan_scale", *arguments]
            + ["--devices", str(count)],
            env=os.environ | environment | {_IS_CHILD: "1"},
            check=True,
        )


_IS_CHILD = "ADARANK_PLAN_SCALE_CHILD"

if __name__ == "__main__":
    main()
