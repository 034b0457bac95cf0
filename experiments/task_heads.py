"""The head of a task: class names and prompts to build one from, or an imported one."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from adarank_jax import errors
from adarank_jax.checkpoints import formats, head_files
from adarank_jax.checkpoints.head_files import HeadFile
from adarank_jax.data import class_order, prompts, registry
from experiments.image_config import Expert


class Wording(NamedTuple):
    """What a zero-shot head is built from.

    Attributes:
        class_names: in the order of the labels.
        templates: with one ``{}`` each.
    """

    class_names: Sequence[str]
    templates: Sequence[str]


def find_wording(expert: Expert, profile: str) -> Wording | None:
    """Finds class names and templates of a task.

    Args:
        expert: of the configuration.
        profile: of registered class names and templates.

    Returns:
        The wording; None if there are no class names, only an imported head.

    Raises:
        MissingError: there is no file of class names.
        InputError: there is no such data set; the message has the nearest. Or there are
            fewer than two classes, or the file is no text.
    """
    dataset = expert.data.dataset
    names, templates = expert.classes, expert.templates
    if isinstance(names, str):
        file = pathlib.Path(names).expanduser()
        if file.is_file() or file.suffix or "/" in names:
            formats.check_exists(file)
            names = read_names(file)
        else:
            dataset, names = names, None
    if names is None:
        if dataset is None:
            return None
        names = prompts.class_names(prompts_key(dataset, profile), profile)
    if len(names) < 2:
        found = f"at least two classes are needed, got {list(names)}"
        raise errors.InputError("E304", found)
    if templates is None and dataset is not None:
        templates = prompts.templates(prompts_key(dataset, profile), profile)
    return Wording(tuple(names), tuple(templates or TEMPLATES))


def read_names(file: pathlib.Path) -> tuple[str, ...]:
    """Reads class names from a text file.

    Args:
        file: with a name a line; empty lines are passed over.

    Raises:
        InputError: it is no text in UTF-8.
    """
    try:
        lines = file.read_bytes().decode().splitlines()
    except UnicodeDecodeError as error:
        raise errors.InputError(
            "E343",
            f"it is not UTF-8: {error}",
            where=f"`{file}`",
            expected="a text file with the name of a class a line",
            remedy="write the file in UTF-8",
        ) from error
    return tuple(line.strip() for line in lines if line.strip())


def prompts_key(dataset: str, profile: str) -> str:
    """Finds the name that the prompts of a data set are filed under.

    Args:
        dataset: any of its names.
        profile: of registered class names and templates.

    Raises:
        InputError: there is no such data set; the message has the nearest.
    """
    try:
        return registry.get(dataset, profile).key
    except errors.InputError as error:
        remedy = f"{error.message.remedy}. For a folder, write `./{dataset}`"
        told = error.message._replace(remedy=remedy)
        raise errors.InputError(*told) from error


def read_head(
    path: pathlib.Path, width: int | None, wording: Wording | None
) -> HeadFile:
    """Reads an imported head and compares its rows with the class names.

    Args:
        path: of the file.
        width: length of the embeddings; None if it is not known.
        wording: class names of the task, if there are any.

    Raises:
        MissingError: there is no such file.
        InputError: the head cannot be used, or has another number of classes.
    """
    head = head_files.read_head(path, width)
    given = wording.class_names if wording else None
    if given is not None and head.class_names not in (None, tuple(given)):
        raise errors.InputError(
            "E310",
            f"it names its classes {class_order.listed(head.class_names)}, but "
            f"`classes` are {class_order.listed(given)}",
            where=f"`{path}`",
            remedy="drop `classes`, or give them as the head does",
        )
    names = head.class_names or given
    if names is not None and len(names) != len(head.weight):
        raise errors.InputError(
            "E305",
            f"it has {len(head.weight)} rows, but there are {len(names)} class names",
            where=f"`{path}`",
            remedy="take both from the same task",
        )
    return head._replace(class_names=names)


def doubts(path: pathlib.Path, head: HeadFile) -> Iterator[errors.Message]:
    """Warns of a head whose logits would all be nearly the same.

    Args:
        path: of its file.
        head: as read.

    Yields:
        Warnings.
    """
    lengths = np.linalg.norm(head.weight, axis=1)
    if np.abs(lengths - 1).max() < 1e-3:
        yield errors.Message(
            "W307",
            "its rows are of length 1, so its entropy stays near the log of the number "
            "of classes",
            where=f"`{path}`",
            remedy="was the logit scale (100 for CLIP) left out?",
        )


def class_names(head: HeadFile | None, wording: Wording | None) -> Sequence[str] | None:
    """Returns the class names of a task, if any are known.

    Args:
        head: imported, if there is one.
        wording: of the configuration, if there is one.
    """
    if head is not None and head.class_names is not None:
        return head.class_names
    return wording.class_names if wording is not None else None


TEMPLATES = ("a photo of a {}.",)
"""For class names that no registered data set has templates for."""
