"""What a run would need: shapes, memory, disk and time, before anything is changed.

Sizes are counted from shapes. Times are estimates from one matrix product and one SVD
that are timed here, and say so; nothing is timed for a run that cannot start.
"""

import os
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from adarank_jax.core import svd
from adarank_jax.errors import Message
from experiments import needs, results, sizes, starts
from experiments.merge_config import MergeConfig
from experiments.messages import printable, warning
from experiments.suite import Inputs


class Plan(NamedTuple):
    """A checked configuration.

    Attributes:
        problems: everything that stops the run.
        warnings: what a user should know.
        lines: pairs of a heading and a text.
    """

    problems: list[Message]
    warnings: list[Message]
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
        lines += _needs(config, inputs, run_dir)
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
        console.print(f"problem   {printable(str(problem))}", **_PLAIN)
    for heading, text in plan.lines:
        console.print(f"{heading:<9} {printable(text)}", **_PLAIN)
    for each in plan.warnings:
        console.print(warning(each), **_PLAIN)


def _some(things, name):
    """Counts things in words."""
    return f"{len(things) or 'no'} {name}{'' if len(things) == 1 else 's'}"


def _needs(config, inputs, run_dir):
    """Lists matrices, memory and disk."""
    chosen, need = sizes.count(config, inputs), needs.count(config, inputs)
    shown, free = needs.in_words, needs.free(run_dir)
    memory = f"host about {shown(need.host)} of {shown(free.host)} free"
    if need.device:
        memory += f"; each of {len(jax.devices())} devices about {shown(need.device)}"
    model = f"{chosen.parameters:,} parameters"
    if chosen.matrices:
        model += f", {chosen.matrices} matrices with SVD"
    masks = f"{chosen.logits:,} logits; factors {shown(chosen.factors)}"
    if not chosen.logits:
        masks = f"none, {config.method.name} has no masks"
    room = f"about {shown(need.disk)} of {shown(free.disk)} free in {run_dir}"
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


def _duration(seconds):
    """Shows a duration."""
    if seconds < 9.95:
        return f"{seconds:.1g} s" if seconds < 0.095 else f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


_SECONDS_OF_TIMING = 1.0
_PLAIN = {"highlight": False, "markup": False, "soft_wrap": True}
