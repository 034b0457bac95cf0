"""What a run would need: shapes, memory, disk and time, before anything is changed.

Sizes are counted from shapes. Times are estimates from one matrix product and one SVD
that are timed here, and say so; nothing is timed for a run that cannot start.
"""

import os
import pathlib
import shutil
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from rich.console import Console

from adarank_jax.core import svd
from experiments import results, sizes, starts
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


def describe(config: MergeConfig, inputs: Inputs, run_dir: pathlib.Path) -> Plan:
    """Says what a run would do and need; changes nothing.

    Args:
        config: of the run.
        inputs: what was found.
        run_dir: folder of the run.
    """
    problems, warnings = list(inputs.problems), list(inputs.warnings)
    method = config.method
    details = [results.label(results.names(method))]
    if method.is_adapted:
        start = starts.get(method)
        plain = method.model_copy(update={"coefficient": None, "rank_ratio": None})
        details = [results.label(results.names(plain))]
        details += [
            f"coefficient {start.coefficient:g}, rank ratio {start.rank_ratio:g}",
            f"{config.adaptation.num_steps:,} steps of "
            f"{config.adaptation.batch_size} {inputs.unit} a task",
        ]
    lines = [
        ("base", config.base),
        ("experts", f"{len(config.task_names)}: {', '.join(config.task_names)}"),
        ("method", "; ".join(details)),
        ("compare", ", ".join(results.label(results.names(m)) for m in config.compare)),
        *inputs.lines,
    ]
    if inputs.num_examples:
        counts = [
            f"{name} {number:,}" if number else f"{name} ?"
            for name, number in inputs.num_examples.items()
        ]
        lines.append((inputs.unit, " · ".join(counts)))
    if config.published is not None:
        mean = config.published.mean
        number = "no number" if mean is None else f"{mean:.1f} %"
        if mean is not None and config.published.source:
            number += f" ({config.published.source})"
        league = config.published.league
        lines.append(("published", f"{number}, league {league}; not reproduced here"))
    if inputs.to_fetch:
        lines.append(("fetch", f"from the Hub: {', '.join(inputs.to_fetch)}"))
    if inputs.shapes is not None:
        lines += _needs(config, inputs, run_dir, warnings)
    if inputs.shapes is not None and not problems:
        lines.append(("time", _times(config, inputs)))
    if not problems:
        lines.append(("next", "the same command without --plan"))
    return Plan(problems, warnings, lines)


def show(plan: Plan, console: Console) -> None:
    """Prints a plan: problems first, because without them all the rest is idle."""
    found = f"{_some(plan.problems, 'problem')}, {_some(plan.warnings, 'warning')}"
    console.print(f"PLAN  {found}; nothing was changed", **_PLAIN)
    for problem in plan.problems:
        console.print(f"problem   {printable(problem)}", **_PLAIN)
    for heading, text in plan.lines:
        console.print(f"{heading:<9} {printable(text)}", **_PLAIN)
    for warning in plan.warnings:
        console.print(f"warning   {printable(warning)}", **_PLAIN)


def _some(things, name):
    """Counts things in words."""
    return f"{len(things) or 'no'} {name}{'' if len(things) == 1 else 's'}"


def _needs(config, inputs, run_dir, warnings):
    """Lists matrices, memory and disk, and warns of what does not fit."""
    chosen = sizes.count(config, inputs)
    every = {m: sizes.count(config, inputs, m) for m in sizes.methods(config)}
    devices = jax.local_devices()
    whole = 4 * chosen.parameters
    # Base and experts, and beside them what the hungriest method adds.
    vectors = max(2 * each.dense + each.factors for each in every.values())
    host = whole * (1 + chosen.num_tasks) + vectors
    # Origin, merged weights and their gradient are whole on each device.
    adapted = [each for method, each in every.items() if method.is_adapted]
    halved = 2 if config.adaptation.factor_dtype == "bfloat16" else 1
    device = max(
        (
            3 * whole
            + (a.factors // halved + a.dense + 16 * a.logits + a.activations)
            // len(jax.devices())
            for a in adapted
        ),
        default=0,
    )
    if devices[0].platform == "cpu":
        host, device = host + device * len(devices), 0
    cached = {
        starts.get(method): each.factors + each.dense
        for method, each in every.items()
        if method.is_adapted and each.factors
    }
    states = sum(2 * 12 * each.logits for each in adapted)
    copies = 2 * len(adapted) + config.export.num_copies(chosen.num_tasks)
    disk = sum(cached.values()) + states + copies * whole
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
        memory += f"; each of {len(jax.devices())} devices about {_bytes(device)}"
    model = f"{chosen.parameters:,} parameters"
    if chosen.matrices:
        model += f", {chosen.matrices} matrices with SVD"
    masks = f"{chosen.logits:,} logits; factors {_bytes(chosen.factors)}"
    if not chosen.logits:
        masks = f"none, {config.method.name} has no masks"
    room = f"about {_bytes(disk)} of {_bytes(free_disk)} free in {run_dir}"
    if inputs.to_fetch:
        room += ", without what is fetched"
    return [
        ("model", model),
        ("masks", masks),
        ("memory", memory),
        ("disk", room),
    ]


def _times(config, inputs):
    """Estimates times from one product and one SVD on this machine."""
    every = {m: sizes.count(config, inputs, m) for m in sizes.methods(config)}
    devices = jax.local_devices()
    is_cpu = devices[0].platform == "cpu"
    size = 1024 if is_cpu else 8192
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    product_seconds = _seconds(lambda: product(x).block_until_ready())
    flops = 2.0 * size**3 / product_seconds * (1 if is_cpu else len(jax.devices()))
    count = os.cpu_count() or 1  # matrices are decomposed side by side, one a core
    noise = np.random.default_rng(0).normal(size=(count, 512, 512)).astype(np.float32)
    svd_seconds = _seconds(lambda: svd.decompose(noise, config.svd_backend))
    svds = sum(each.svd_flops for each in every.values())
    splitting = svd_seconds / noise[0].size ** 1.5 / count * svds
    adapted = [each for each in every.values() if each.step_flops]
    steps = [config.adaptation.num_steps * each.step_flops / flops for each in adapted]
    # Every AdaRank row has one of its start beside it.
    rows = len(every) + sum(1 for method in every if method.name == "adarank")
    examples = sum(inputs.num_examples.values())
    evaluation = examples * next(iter(every.values())).example_flops / flops
    parts = [f"SVD {_duration(splitting)}"] if splitting else []
    if adapted:
        parts.append(
            f"{len(adapted)} x {config.adaptation.num_steps:,} steps, "
            f"{_duration(sum(steps))}"
        )
    parts.append(f"{rows} evaluations of {_duration(evaluation)}")
    total = splitting + sum(steps) + rows * evaluation
    return (
        f"very roughly {_duration(total)}: {'; '.join(parts)} (from a product and an "
        f"SVD timed here and now{_busy()}; reading {inputs.unit} is not counted)"
    )


def _busy():
    """Says that other work slows the machine down, and with it what was timed."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load <= cores:
        return ""
    return f", while the machine was busy: load {load:.1f} on {cores} cores"


def _seconds(call):
    """Times a call: the best of several after a first one.

    Other work on the machine only ever adds to a time.
    """
    call()
    found, begun = [], time.perf_counter()
    while len(found) < 3 or (
        len(found) < 20 and time.perf_counter() - begun < _SECONDS_OF_TIMING
    ):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found)


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
    if seconds < 9.95:
        return f"{seconds:.1g} s" if seconds < 0.095 else f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


_SECONDS_OF_TIMING = 1.0
_PLAIN = {"highlight": False, "markup": False, "soft_wrap": True}
