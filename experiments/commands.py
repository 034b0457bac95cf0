"""Which command a configuration is written for, where it was given to the other.

A file says so by keys that only one kind of run has, by registered data sets, or by the
model type of a base on this machine. Where it says nothing, or both, nobody guesses.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from adarank_jax import errors
from adarank_jax.data import glue, registry
from experiments import yaml_config
from experiments.image_config import EMBEDDED, Data, Expert, ImageMergeConfig
from experiments.merge_config import MergeConfig
from experiments.text_config import TextData, TextExpert, TextMergeConfig

COMMANDS: dict[str, type[MergeConfig]] = {
    "run_vit": ImageMergeConfig,
    "run_glue": TextMergeConfig,
}


def check_file(file: pathlib.Path, kind: type[MergeConfig]) -> None:
    """Refuses a file that is written for the other command.

    Args:
        file: in YAML; one that cannot be read is left to who reads it.
        kind: of configuration that the command takes.

    Raises:
        UsageError: it is written for the other command.
    """
    try:
        values = yaml_config.parse(file.read_text("utf-8"), str(file), kind)[0]
    except (OSError, ValueError):
        return
    found = other(values, kind)
    if found is not None:
        command, sign = found
        raise errors.UsageError(
            "E013",
            f"looks like a file for {command}: {sign}",
            f"`{file}`",
            remedy=f"give it to `python -m experiments.{command}`",
        )


def check_folder(
    path: pathlib.Path, saved: Mapping[str, Any] | None, kind: type[MergeConfig]
) -> None:
    """Refuses a folder that holds a run of the other command.

    Args:
        path: of the folder.
        saved: configuration of the run that it holds; None for a new one.
        kind: of configuration that the command takes.

    Raises:
        UsageError: it holds such a run.
    """
    merge = (saved or {}).get("merge")
    found = other(merge, kind) if isinstance(merge, Mapping) else None
    if found is not None:
        raise errors.UsageError(
            "E620",
            f"holds a run of {found[0]}",
            f"`{path}`",
            remedy="choose another folder with --run-dir",
        )


def other(values: Mapping[str, Any], kind: type[MergeConfig]) -> tuple[str, str] | None:
    """Tells which other command values are for, and by what that shows.

    Args:
        values: of a configuration, as plain values.
        kind: of configuration that the command takes.

    Returns:
        Name of the command, and a sign; None if nothing shows it.

    Examples:
        >>> other({"qkv": "split"}, TextMergeConfig)
        ('run_vit', 'it has the key `qkv`')
        >>> other({"seed": 1}, TextMergeConfig)
    """
    signs = {command: next(_signs(values, command), None) for command in COMMANDS}
    (own,) = [name for name, each in COMMANDS.items() if each is kind]
    (rest,) = [name for name in COMMANDS if name != own]
    return (rest, signs[rest]) if signs[rest] and not signs[own] else None


def _signs(values, command):
    """Yields what only the configuration of a command has."""
    for key in _only(values, COMMANDS, command):
        yield f"it has the key `{key}`"
    base = values.get("base")
    if isinstance(base, str) and base.startswith(_BASES[command]):
        yield f"its base is {base}"
    model = _model_type(base)
    if model is not None and model.startswith("clip") == (command == "run_vit"):
        yield f"its base is a model of type {model}"
    experts = values.get("experts")
    for name, expert in (experts if isinstance(experts, Mapping) else {}).items():
        if isinstance(expert, Mapping):
            yield from _signs_of_expert(f"experts.{name}", expert, command)


def _signs_of_expert(where, expert, command):
    """Yields what only the expert of a command has."""
    for key in _only(expert, _EXPERTS, command):
        yield f"it has the key `{where}.{key}`"
    named = data = expert.get("data")
    if isinstance(data, Mapping):
        for key in _only(data, _DATA, command):
            yield f"it has the key `{where}.data.{key}`"
        named = data.get("dataset")
    if isinstance(named, str):
        knows = [each for each, is_known in _KNOWS.items() if is_known(named)]
        if knows == [command]:
            yield f"`{where}.data` is {named}"


def _only(values, kinds, command):
    """Lists the keys that only the model of one command has."""
    (own,) = [each for name, each in kinds.items() if name == command]
    (rest,) = [each for name, each in kinds.items() if name != command]
    return sorted(values.keys() & {*own.model_fields} - {*rest.model_fields})


def _is_registered(name):
    """Tells whether a name is that of a data set of images."""
    try:
        registry.get(name)
    except (KeyError, ValueError):
        return False
    return True


def _model_type(base: object) -> str | None:
    """Reads the model type of a base that is a folder on this machine."""
    if not isinstance(base, str) or "\0" in base:
        return None
    try:
        text = (pathlib.Path(base).expanduser() / "config.json").read_text("utf-8")
        values = json.loads(text)
    except (OSError, RuntimeError, ValueError):
        return None
    found = values.get("model_type") if isinstance(values, dict) else None
    return found if found in _TYPES else None


_TYPES = ("clip", "clip_vision_model", "bert", "roberta", "gpt2")
_BASES = {
    "run_vit": (EMBEDDED, "openai/clip-", "laion/CLIP-"),
    "run_glue": ("FacebookAI/", "google-bert/", "openai-community/gpt2"),
}
_EXPERTS = {"run_vit": Expert, "run_glue": TextExpert}
_DATA = {"run_vit": Data, "run_glue": TextData}
_KNOWS = {"run_vit": _is_registered, "run_glue": glue.is_task}
