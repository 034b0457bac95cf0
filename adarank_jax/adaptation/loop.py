"""The adaptation loop: batches in, adapted variables out, resumable at any step."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import jax
import numpy as np
import optax
from rich.console import Console

from adarank_jax import errors, tree
from adarank_jax.adaptation import (
    canaries,
    hosts,
    memory,
    parallel,
    per_device,
    precision,
    prefetch,
    signals,
)
from adarank_jax.adaptation.objectives import Objective
from adarank_jax.adaptation.progress import AdaptationProgress
from adarank_jax.adaptation.record import Record
from adarank_jax.adaptation.rows import Rows
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.adaptation.signals import Wish
from adarank_jax.adaptation.step import (
    Batch,
    Classify,
    Encode,
    State,
    make_step,
)
from adarank_jax.core import svd
from adarank_jax.core.merge import Mask, Variables
from adarank_jax.tree import Tree


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
    """How the variables are trained; the defaults are the paper's for CLIP ViT-B/32.

    Attributes:
        num_steps: optimiser steps; the last one is the result.
        batch_size: unlabelled images of each task a step.
        learning_rate: of Adam, for masks and coefficients alike.
        temperature: divisor of the mask logits before the sigmoid.
        checkpoint_every: steps between two saved states.
        on_collapse: what to do when the predictions of a task become one class: warn,
            or stop with the newest saved state kept.
        parallel: what the step of each device runs under: pmap, or shard_map, which
            several processes need; "auto" for the one that fits. The result does not
            depend on it.
        tasks_at_once: tasks whose activations are in memory together; None: one on a
            CPU, where that is also faster, and all on an accelerator.
        remat: compute merged matrices, attention and activations again in the backward
            pass rather than keep them.
        factor_dtype: of singular directions on the devices.
        encoder_dtype: of the encoder's parameters and activations.
    """

    num_steps: int = 10_000
    batch_size: int = 16
    learning_rate: float = 1e-3
    temperature: float = 10.0
    checkpoint_every: int = 500
    on_collapse: Literal["warn", "stop"] = "warn"
    parallel: Literal["auto", "pmap", "shard_map"] = "auto"
    tasks_at_once: int | None = None
    remat: bool = False
    factor_dtype: Literal["float32", "bfloat16"] = "float32"
    encoder_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        """Checks the ranges, all at once."""
        least = {"num_steps": 0, "batch_size": 1, "checkpoint_every": 1}
        least |= {} if self.tasks_at_once is None else {"tasks_at_once": 1}
        problems = [
            f"`{name}` must be at least {bound}, got {getattr(self, name)}."
            for name, bound in least.items()
            if getattr(self, name) < bound
        ]
        problems += [
            f"`{name}` must be above 0 and finite, got {getattr(self, name)}."
            for name in ("learning_rate", "temperature")
            if not 0.0 < getattr(self, name) < math.inf
        ]
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                known = f"{', '.join(choices[:-1])} or {choices[-1]}"
                problems.append(
                    f"`{name}` must be {known}, got {getattr(self, name)!r}."
                )
        if problems:
            raise ValueError("\n".join(problems))


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is merged and adapted.

    Attributes:
        tasks: names, in the order of every task axis.
        encode: the model without its head.
        classify: the head of one task.
        heads: one a task.
        origin: parameters that the updates are added to.
        factors: as `svd.decompose_tree` returns; None at a tensor that stays that of
            the origin.
        mask: turns mask logits into a mask.
    """

    tasks: Sequence[str]
    encode: Encode
    classify: Classify
    heads: Sequence[Any]
    origin: Tree
    factors: Tree
    mask: Mask

    def __post_init__(self):
        """Checks that there are tasks, each once, each with a head and factors."""
        tasks = list(self.tasks)
        if not tasks:
            raise ValueError("`tasks` must name at least one task, got none.")
        twice = sorted({task for task in tasks if tasks.count(task) > 1})
        if twice:
            raise ValueError(f"`tasks` must name each task once, got {twice} twice.")
        if len(self.heads) != len(tasks):
            raise ValueError(
                f"`heads` must hold one head a task, got {len(self.heads)} for "
                f"{len(tasks)} tasks."
            )
        for path, leaf in tree.flatten(self.factors).items():
            if leaf is None:  # not merged
                continue
            found = len(leaf.s if svd.is_factors(leaf) else leaf)
            if found != len(tasks):
                raise ValueError(
                    f"`factors` must hold {len(tasks)} tasks, got {found} at {path!r}."
                )


def adapt(
    problem: Problem,
    variables: Variables,
    objective: Objective,
    batches: Callable[[int], Iterable[Batch]],
    config: AdaptationConfig,
    folder: RunFolder,
    name: str,
    devices: Sequence[jax.Device] | None = None,
    console: Console | None = None,
) -> tuple[Variables, Tree]:
    """Trains masks and coefficients, from the newest intact state if there is one.

    SIGTERM and SIGINT save at the next step and stop, SIGUSR1 saves and goes on;
    several processes agree about it every few steps.

    With several processes (`hosts.start`) every one calls this with the same arguments
    but its own examples.

    Args:
        problem: what is merged.
        variables: where to start.
        objective: loss an example.
        batches: takes the step to begin with and yields the examples of that step and
            of every later one; each a pure function of its number. They are read in
            another thread, ahead of their step. Of several processes each yields its
            part of every batch, the first process the first examples.
        config: how to train; its batch is that of all processes.
        folder: gets states and `metrics.jsonl`, from process 0 alone; no other reads
            or writes it.
        name: of this run in the folder.
        devices: those of all processes by default.
        console: for progress; standard error of process 0 by default.

    Returns:
        The variables after the last step, and the parameters that they merge to.

    Raises:
        DamageError: no saved state is intact.
        MachineError: a state could not be saved, or a step does not fit into memory.
        NumericsError: a loss or a variable is not finite, or predictions collapsed and
            that shall stop the run (the message names the step and the tasks), or the
            device computes wrongly.
        Stopped: a signal asked for it; the state is saved.
        ValueError: the batch does not divide by the number of devices, or pmap was
            asked for with several processes.
    """
    devices = devices or hosts.devices()
    console = console or Console(stderr=True, quiet=not hosts.is_lead())
    optimizer = optax.adam(config.learning_rate)
    start = State(variables, optimizer.init(variables))

    parallel.check_batch_size(config.batch_size, devices)
    wrapper = per_device.choose(config.parallel)
    for device in devices:
        if device.process_index == jax.process_index():
            canaries.check(device)

    with contextlib.ExitStack() as stack:
        record, restored = None, None
        if hosts.is_lead():
            options = {key: getattr(config, key) for key in _ROUNDING}
            record = Record(folder, name, problem.factors, devices, options)
            restored = record.restore(start, console)
        first, state = hosts.from_lead(restored or (0, start))
        first = int(first)
        before = np.zeros((first, 2, len(problem.tasks)))
        if record is not None:
            before = record.entropies(problem.tasks, first)
        before = hosts.from_lead(before)
        if first:
            text = f"{name}: resuming at step {first:,} of {config.num_steps:,}"
            console.print(text, highlight=False, markup=False)

        factors, encode = problem.factors, problem.encode
        if config.factor_dtype == "bfloat16":
            factors = precision.bfloat16_factors(factors)
        if config.encoder_dtype == "bfloat16":
            encode = precision.bfloat16_encoder(encode)
        factors = parallel.shard_factors(factors, devices)
        origin, heads = parallel.replicate((problem.origin, problem.heads), devices)
        state = parallel.shard_state(state, devices)
        step = make_step(
            encode,
            problem.classify,
            objective,
            problem.mask,
            optimizer,
            parallel.AXIS,
            tasks_at_once(config, devices),
            config.remat,
        )
        step = parallel.compile_step(step, state, factors, devices, wrapper)

        progress = AdaptationProgress(name, first, config.num_steps, console)
        stack.enter_context(progress)
        examples = prefetch.ahead(
            itertools.islice(batches(first), config.num_steps - first),
            lambda batch: parallel.shard_batch(batch, devices),
        )
        stack.enter_context(contextlib.closing(examples))
        requests = stack.enter_context(signals.noted())
        rows = Rows(name, problem.tasks, config.on_collapse, record, console)
        late, saving = None, 0.0
        for number, (batch, waited) in enumerate(examples, start=first):
            if number == first:
                classes = _num_classes(encode, problem, batch)
                rows.watch(classes, config.batch_size, before)
                needs = memory.needs(step, state, origin, factors, heads, batch)
                memory.check(needs, devices)
            state, metrics = step(state, origin, factors, heads, batch)
            if late is not None:  # one step late, so that the device never waits
                progress.update(number, rows.write(*late))
            late, done = (number, metrics, waited, saving), number + 1
            saving = 0.0
            wish = _agreed(requests, done)
            if wish or done % config.checkpoint_every == 0 or done == config.num_steps:
                progress.update(done, rows.write(*late))
                late = None
                whole = _finite(parallel.gather_state(state, start), done)
                if record is not None:
                    saving = record.save(done, whole)
            if wish is Wish.STOP:
                hosts.wait()  # until process 0 has saved
                raise requests.stopped()

    merged = parallel.merged_params(
        origin, factors, state.variables, problem.mask, devices, wrapper
    )
    return parallel.gather_state(state, start).variables, merged


def tasks_at_once(
    config: AdaptationConfig, devices: Sequence[jax.Device]
) -> int | None:
    """Returns how many tasks go through the encoder together; None for all.

    A CPU is fastest with one: the activations then stay in its caches.
    """
    if config.tasks_at_once is None and devices[0].platform == "cpu":
        return 1
    return config.tasks_at_once


def _num_classes(encode, problem, batch):
    """Counts the classes of every task; computes nothing."""
    examples = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[2:], leaf.dtype), batch.inputs
    )
    features = jax.eval_shape(encode, problem.origin, examples)
    logits = [jax.eval_shape(problem.classify, features, h) for h in problem.heads]
    return [each.shape[-1] for each in logits]


def _agreed(requests, done):
    """Returns what this process was asked for, or any of several that agree about it.

    To agree they wait for each other and for the device, so they do it now and then.
    """
    if jax.process_count() == 1:
        return requests.take()
    if done % _STEPS_TO_AGREE:
        return Wish.NOTHING
    wish, number = divmod(hosts.largest(1000 * requests.take() + requests.number), 1000)
    requests.number = number
    return Wish(wish)


def _finite(state, step):
    """Returns the state, or raises if it must not be saved."""
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)):
        raise errors.NumericsError(
            "E503",
            f"Masks or coefficients are not finite after step {step}",
            remedy="the newest saved state is still good: lower the learning rate",
        )
    return state


_CHOICES = {
    "parallel": ("auto", "pmap", "shard_map"),
    "on_collapse": ("warn", "stop"),
    "factor_dtype": ("float32", "bfloat16"),
    "encoder_dtype": ("float32", "bfloat16"),
}
_ROUNDING = ("parallel", "tasks_at_once", "remat")
_STEPS_TO_AGREE = 10
