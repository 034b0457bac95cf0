"""The adaptation loop: batches in, adapted variables out, resumable at any step."""

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import jax
import numpy as np
import optax
from rich.console import Console

from adarank_jax import tree
from adarank_jax.adaptation import hosts, parallel, per_device, precision, prefetch
from adarank_jax.adaptation.objectives import Objective
from adarank_jax.adaptation.progress import AdaptationProgress
from adarank_jax.adaptation.run_folder import Checkpoints, RunFolder
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
    """Trains masks and coefficients, from the newest checkpoint if there is one.

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
        folder: gets checkpoints and `metrics.jsonl`, from process 0 alone; no other
            reads or writes it.
        name: of this run in the folder.
        devices: those of all processes by default.
        console: for progress; standard error of process 0 by default.

    Returns:
        The variables after the last step, and the parameters that they merge to.

    Raises:
        FloatingPointError: a loss or a variable is not finite; the message names the
            step.
        ValueError: the batch does not divide by the number of devices, or pmap was
            asked for with several processes.
    """
    devices = devices or hosts.devices()
    console = console or Console(stderr=True, quiet=not hosts.is_lead())
    optimizer = optax.adam(config.learning_rate)
    start = State(variables, optimizer.init(variables))

    parallel.check_batch_size(config.batch_size, devices)
    wrapper = per_device.choose(config.parallel)

    with contextlib.ExitStack() as stack:
        checkpoints, restored = None, None
        if hosts.is_lead():
            checkpoints = Checkpoints(folder.path / "checkpoints" / name)
            stack.callback(checkpoints.close)
            restored = checkpoints.restore(start)
        first, state = hosts.from_lead(restored or (0, start))
        first = int(first)
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

        log = _Log(folder, name, problem.tasks, first)
        progress = AdaptationProgress(name, first, config.num_steps, console)
        stack.enter_context(progress)
        examples = prefetch.ahead(
            itertools.islice(batches(first), config.num_steps - first),
            lambda batch: parallel.shard_batch(batch, devices),
        )
        stack.enter_context(contextlib.closing(examples))
        late = None
        for number, (batch, waited) in enumerate(examples, start=first):
            state, metrics = step(state, origin, factors, heads, batch)
            if late is not None:  # one step late, so that the device never waits
                progress.update(number, log.write(*late))
            late, done = (number, metrics, waited), number + 1
            if done % config.checkpoint_every == 0 or done == config.num_steps:
                progress.update(done, log.write(*late))
                late = None
                whole = _finite(parallel.gather_state(state, start), done)
                if checkpoints is not None:
                    checkpoints.save(done, whole)

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


class _Log:
    """Writes the rows of a run, in order."""

    def __init__(self, folder, name, tasks, first):
        """Drops what an earlier start wrote after its last checkpoint."""
        self._folder, self._name, self._tasks = folder, name, tasks
        if hosts.is_lead():
            folder.cut_metrics(name, first)
        self._told = time.perf_counter()

    def write(self, number, metrics, waited):
        """Waits for the metrics of a step, writes them, and returns the entropy."""
        metrics = jax.tree.map(np.asarray, metrics)
        now = time.perf_counter()
        seconds, self._told = now - self._told, now
        row = _row(self._name, number, self._tasks, metrics)
        if hosts.is_lead():
            timing = {"seconds": round(seconds, 6), "waited": round(waited, 6)}
            self._folder.append_metrics(row | timing)
        return row["mean_entropy"]


def _row(name, number, tasks, metrics):
    """Turns the metrics of a step into a row, or raises if the loss is not finite."""
    bad = [t for t, v in zip(tasks, metrics.loss, strict=True) if not np.isfinite(v)]
    if bad:
        raise FloatingPointError(
            f"The loss of {bad} is not finite at step {number} of {name!r}; lower the "
            "learning rate, or check the inputs and heads of these tasks."
        )
    return {
        "run": name,
        "step": number,
        "loss": float(metrics.loss.sum()),
        "mean_entropy": float(metrics.entropy.mean()),
        "entropy": dict(zip(tasks, metrics.entropy.tolist(), strict=True)),
        "marginal_entropy": dict(
            zip(tasks, metrics.marginal_entropy.tolist(), strict=True)
        ),
    }


def _finite(state, step):
    """Returns the state, or raises if it must not be saved."""
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)):
        raise FloatingPointError(
            f"Masks or coefficients are not finite after step {step}; the newest "
            "checkpoint is still good. Lower the learning rate."
        )
    return state


_CHOICES = {
    "parallel": ("auto", "pmap", "shard_map"),
    "factor_dtype": ("float32", "bfloat16"),
    "encoder_dtype": ("float32", "bfloat16"),
}
