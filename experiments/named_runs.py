"""Runs by name: a table of them, and what is left of one when single values change."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console

from adarank_jax.errors import Message
from experiments import lookup, yaml_config
from experiments.yaml_config import Config


class Preset(NamedTuple):
    """A run by name.

    Attributes:
        summary: one line.
        values: of its configuration, as plain values.
    """

    summary: str
    values: dict[str, Any]


class Unmade(NamedTuple):
    """What a preset needs and what is made here before its first run.

    Attributes:
        lines: of a plan: pairs of a heading and a text.
        problem: says what is missing, and how it is made where a run may not.
        make: makes it; takes a console for progress.
    """

    lines: Sequence[tuple[str, str]]
    problem: Message
    make: Callable[[Console], object]


def get(table: Mapping[str, Preset], name: str) -> Preset:
    """Looks a preset up.

    Args:
        table: of all presets of a command.
        name: of one.

    Raises:
        UsageError: there is no such preset; the message has the nearest.
    """
    return lookup.nearest("preset", name, table)


def configure(
    kind: type[Config],
    table: Mapping[str, Preset],
    name: str,
    overrides: Sequence[str] = (),
) -> Config:
    """Builds the configuration of a preset, with single values changed.

    A run with other settings than the seed is no longer the published row, so it loses
    the number.

    Args:
        kind: of the configuration.
        table: of all presets of a command.
        name: of the preset.
        overrides: ``dotted.key=value``.

    Raises:
        UsageError: there is no such preset; the message has the nearest.
        Problems: values do not fit.
    """
    values, where = get(table, name).values, f"preset {name}"
    published = yaml_config.validate(kind, values, {}, (), where)
    config = yaml_config.validate(kind, values, {}, overrides, where)
    if config.decisive | {"seed": 0} == published.decisive | {"seed": 0}:
        return config
    return config.model_copy(update={"published": None})
