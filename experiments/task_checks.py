"""What is checked alike of images and of texts: experts, their base, and each other."""

import functools
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from adarank_jax import errors
from adarank_jax.checkpoints import all_cores, containers, hub
from experiments.check_log import CheckLog


def read_expert(
    log: CheckLog, source: str, base: Any, read: Callable[[], Any]
) -> Any | None:
    """Reads an expert; without a base, only looks whether its files can be read.

    Args:
        log: of the check.
        source: of the expert.
        base: None if it could not be read.
        read: reads the expert against the base.

    Raises:
        MissingError: there are no such files.
        InputError: they cannot be read.
    """
    if base is None:
        containers.read_state(hub.resolve(source, log.offline).path)
        return None
    return read()


def check_relations(
    log: CheckLog,
    base: Any,
    tasks: Mapping[str, Any],
    bases: ModuleType,
    find_shared: Callable[[Mapping[str, Any]], list[errors.Message]],
) -> None:
    """Compares the experts with the base and with each other.

    Args:
        log: gets problems and warnings.
        base: checkpoint of the pretrained model; None if it could not be read.
        tasks: what was found of each, with `expert` and `source`.
        bases: has `check_same_base` and `find_twins` for these checkpoints.
        find_shared: warns of examples that two sources have in common.
    """
    experts = {n: task.expert for n, task in tasks.items() if task.expert is not None}
    for name, expert in experts.items():
        where = f"experts.{name}.model"
        check = functools.partial(bases.check_same_base, base, expert)
        log.warn(where, *(log.attempt(where, check) or ()))
    log.warn("experts", *bases.find_twins(experts))
    if len(tasks) == 1:
        found = "there is one task, so there is nothing to merge it with"
        log.warn("experts", errors.Message("W301", found))
    opened = {n: task.source for n, task in tasks.items() if task.source is not None}
    if len(opened) > 1:
        log.warn("data", *(log.attempt("data", lambda: find_shared(opened)) or ()))


def describe_experts(
    tasks: Mapping[str, Any], describe: Callable[[Any], Any]
) -> dict[str, Any]:
    """Says what every expert is; they are hashed side by side.

    Args:
        tasks: what was found of each, with `expert`.
        describe: an expert, as plain values.

    Returns:
        What `describe` returns by task, None where there is no expert.
    """
    return all_cores.map_values(
        lambda expert: None if expert is None else describe(expert),
        {name: task.expert for name, task in tasks.items()},
    )


def shortage(count: int, batch_size: int, unit: str) -> Iterator[errors.Message]:
    """Says that a task has too few examples.

    Args:
        count: of examples.
        batch_size: examples a step.
        unit: what they are.

    Yields:
        A warning, if so.
    """
    if count < batch_size:
        yield errors.Message(
            "W321",
            f"{count} {unit} are fewer than a batch of {batch_size}, so a step sees "
            "some of them twice",
        )
