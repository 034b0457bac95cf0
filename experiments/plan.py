"""What a run would need: shapes, memory, disk and time, before anything is changed.

Sizes are counted from shapes. Times are estimates from one matrix product and one SVD
that are timed here, and say so.
"""

import pathlib
import shutil
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from rich.console import Console

from adarank_jax import tree
from experiments import starts
from experiments.merge_config import MergeConfig
from experiments.messages import printable
from experiments.suite import Inputs


class Plan(NamedTuple):
    """A checked configuration.

    Attributes:
        problems: everything that stops the run.
        warnings: what a user should know.
        lines: pairs of a heading and a text.
    """

    problems: list[str]
    warnings: list[str]
    lines: list[tuple[str, str]]


class Sizes(NamedTuple):
    """What a run of one configuration counts.

    Attributes:
        num_tasks: experts.
        parameters: of one model.
        matrices: that are decomposed, of one model.
        logits: mask logits of all tasks.
        factors: bytes of the singular vectors and values of all tasks.
        dense: bytes of the task vectors that are not decomposed, of all tasks.
        step_flops: of one optimiser step, forward and backward.
        image_flops: of the forward pass of one image.
        svd_flops: of the decomposition, in units of rows x cols x rank.
    """

    num_tasks: int
    parameters: int
    matrices: int
    logits: int
    factors: int
    dense: int
    step_flops: float
    image_flops: float
    svd_flops: float


def count(config: MergeConfig, inputs: Inputs) -> Sizes:
    """Counts tensors, bytes and operations from shapes alone.

    Args:
        config: of the run.
        inputs: with shapes.
    """
    flat = tree.flatten(inputs.shapes)
    decomposed = [x.shape for k, x in flat.items() if inputs.is_decomposed(k, x)]
    tasks = len(config.task_names)
    is_masked = config.method.name == "adarank"
    is_leading = is_masked and starts.get(config.method).is_decorrelated
    ranks = [min(shape) // (tasks if is_leading else 1) or 1 for shape in decomposed]
    places = [(m, n, r) for (m, n), r in zip(decomposed, ranks, strict=True)]
    parameters = sum(int(np.prod(x.shape)) for x in flat.values())
    inside = sum(m * n for m, n in decomposed)
    tokens = flat["positional_embedding"].shape[0]
    # A product of every token with every block kernel, and attention between tokens.
    outputs = [x.shape[1] for k, x in flat.items() if k.endswith("out_proj/kernel")]
    image_flops = 2.0 * tokens * inside + 4.0 * tokens**2 * sum(outputs)
    batch = config.adaptation.batch_size * tasks
    merge_flops = sum(6.0 * tasks * r * m * n for m, n, r in places)
    return Sizes(
        num_tasks=tasks,
        parameters=parameters,
        matrices=len(decomposed),
        logits=sum(tasks * r for _, _, r in places),
        factors=4 * sum(tasks * r * (m + n + 1) for m, n, r in places),
        dense=4 * tasks * (parameters - inside),
        step_flops=3.0 * batch * image_flops + merge_flops,
        image_flops=image_flops,
        svd_flops=sum(float(tasks) * m * n * min(m, n) for m, n, _ in places),
    )


def describe(config: MergeConfig, inputs: Inputs, run_dir: pathlib.Path) -> Plan:
    """Says what a run would do and need; changes nothing.

    Args:
        config: of the run.
        inputs: what was found.
        run_dir: folder of the run.
    """
    problems, warnings = list(inputs.problems), list(inputs.warnings)
    method = config.method
    details = [method.name]
    if method.is_adapted:
        start = starts.get(method)
        details += [
            f"from {start.origin}",
            f"coefficient {start.coefficient:g}, rank ratio {start.rank_ratio:g}",
            method.objective,
            f"{config.adaptation.num_steps:,} steps of "
            f"{config.adaptation.batch_size} images a task",
        ]
    lines = [
        ("base", config.base),
        ("experts", f"{len(config.task_names)}: {', '.join(config.task_names)}"),
        ("method", "; ".join(details)),
        ("compare", ", ".join(dict.fromkeys(m.name for m in config.compare)) or "–"),
        ("layout", f"query, key and value {config.qkv}; prompts {config.prompts}"),
    ]
    if inputs.num_images:
        sizes = [
            f"{name} {number:,}" if number else f"{name} ?"
            for name, number in inputs.num_images.items()
        ]
        lines.append(("images", " · ".join(sizes)))
    if config.published is not None:
        mean = config.published.mean
        number = "no number" if mean is None else f"{mean:.1f} %"
        league = config.published.league
        lines.append(("published", f"{number}, league {league}; not reproduced here"))
    if inputs.to_fetch:
        lines.append(("fetch", f"from the Hub: {', '.join(inputs.to_fetch)}"))
    if inputs.shapes is not None:
        lines += _needs(config, inputs, run_dir, warnings)
    if not problems:
        lines.append(("next", "the same command without --plan"))
    return Plan(problems, warnings, lines)


def show(plan: Plan, console: Console) -> None:
    """Prints a plan."""
    found = f"{_some(plan.problems, 'problem')}, {_some(plan.warnings, 'warning')}"
    console.print(f"PLAN  {found}; nothing was changed", **_PLAIN)
    for heading, text in plan.lines:
        console.print(f"{heading:<9} {printable(text)}", **_PLAIN)
    for warning in plan.warnings:
        console.print(f"warning   {printable(warning)}", **_PLAIN)
    for problem in plan.problems:
        console.print(f"problem   {printable(problem)}", **_PLAIN)


def _some(things, name):
    """Counts things in words."""
    return f"{len(things) or 'no'} {name}{'' if len(things) == 1 else 's'}"


def _needs(config, inputs, run_dir, warnings):
    """Lists matrices, memory, disk and time, and warns of what does not fit."""
    sizes = count(config, inputs)
    devices = jax.local_devices()
    whole = 4 * sizes.parameters
    updates = sizes.factors + sizes.dense
    variables = 4 * sizes.logits
    # Experts, task vectors and factors are in host memory together.
    host = whole * (1 + 2 * sizes.num_tasks) + updates
    # Origin, merged weights and their gradient are whole on each device.
    device = 3 * whole + (updates + 4 * variables) // len(devices)
    device += _activations(config, inputs) // len(devices)
    if devices[0].platform == "cpu":
        host, device = host + device * len(devices), 0
    disk = sizes.factors + sizes.dense + 8 * variables + 3 * whole
    free_host = psutil.virtual_memory().available
    free_disk = shutil.disk_usage(_existing(run_dir)).free
    for what, need, free, hint in (
        ("host memory", host, free_host, "merge fewer tasks at once"),
        ("disk", disk, free_disk, "choose another --run-dir"),
    ):
        if need > free:
            warnings.append(
                f"{what}: about {_bytes(need)} needed, {_bytes(free)} free; {hint}."
            )
    memory = f"host about {_bytes(host)} of {_bytes(free_host)} free"
    if device:
        memory += f"; each of {len(devices)} devices about {_bytes(device)}"
    model = f"{sizes.parameters:,} parameters, {sizes.matrices} matrices with SVD"
    masks = f"{sizes.logits:,} logits; factors {_bytes(sizes.factors)}"
    if config.method.name != "adarank":
        masks = f"none, {config.method.name} has no masks"
    return [
        ("model", model),
        ("masks", masks),
        ("memory", memory),
        ("disk", f"about {_bytes(disk)} of {_bytes(free_disk)} free in {run_dir}"),
        ("time", _times(config, inputs, sizes)),
    ]


def _activations(config, inputs):
    """Estimates what the backward pass keeps, in bytes, over all devices."""
    flat = tree.flatten(inputs.shapes)
    tokens, width = flat["positional_embedding"].shape
    layers = len({path.split("/")[0] for path in flat if path.startswith("resblocks")})
    images = config.adaptation.batch_size * len(config.task_names)
    return 4 * images * tokens * layers * width * _KEPT_PER_BLOCK


def _times(config, inputs, sizes):
    """Estimates times from one product and one SVD on this machine."""
    size = 512
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    product_seconds = _seconds(lambda: product(x).block_until_ready())
    noise = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    svd_seconds = _seconds(lambda: np.linalg.svd(noise))
    flops = 2.0 * size**3 / product_seconds * len(jax.local_devices())
    svd = sizes.svd_flops / size**3 * svd_seconds
    adapted = [m for m in {*config.compare, config.method} if m.is_adapted]
    step = sizes.step_flops / flops
    images = sum(inputs.num_images.values())
    rows = len({*config.compare, config.method}) + len(adapted)
    evaluation = images * sizes.image_flops / flops
    total = rows * evaluation + len(adapted) * config.adaptation.num_steps * step
    total += svd if any(m.name == "adarank" for m in adapted) else 0.0
    return (
        f"roughly {_duration(total)}: SVD {_duration(svd)}, {len(adapted)} x "
        f"{config.adaptation.num_steps:,} steps of {_duration(step)}, {rows} "
        f"evaluations of {_duration(evaluation)} (from one product and one SVD timed "
        "here; reading images is not counted)"
    )


def _seconds(call):
    """Times a call after a first one."""
    call()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _existing(path):
    """Returns the nearest folder that is there."""
    path = pathlib.Path(path).absolute()
    while not path.exists():
        path = path.parent
    return path


def _bytes(number):
    """Shows a number of bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def _duration(seconds):
    """Shows a duration."""
    if seconds < 120:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


_KEPT_PER_BLOCK = 20
"""Activations of a block that the backward pass reads, in multiples of the width."""

_PLAIN = {"highlight": False, "markup": False, "soft_wrap": True}
