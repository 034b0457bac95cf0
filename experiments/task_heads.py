"""The head of a task: class names and prompts to build one from, or an imported one."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from adarank_jax.checkpoints import formats, head_files
from adarank_jax.checkpoints.head_files import HeadFile
from adarank_jax.data import class_order, prompts, registry
from experiments.image_config import Expert
from experiments.messages import explain


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
        KeyError: there is no such data set; the message has the nearest.
        ValueError: there are fewer than two classes.
    """
    dataset = expert.data.dataset
    names, templates = expert.classes, expert.templates
    if isinstance(names, str):
        file = pathlib.Path(names).expanduser()
        if file.is_file() or file.suffix or "/" in names:
            formats.check_exists(file)
            lines = file.read_text(encoding="utf-8").splitlines()
            names = tuple(line.strip() for line in lines if line.strip())
        else:
            dataset, names = names, None
    if names is None:
        if dataset is None:
            return None
        names = prompts.class_names(prompts_key(dataset, profile), profile)
    if len(names) < 2:
        raise ValueError(f"at least two classes are needed, got {list(names)}.")
    if templates is None and dataset is not None:
        templates = prompts.templates(prompts_key(dataset, profile), profile)
    return Wording(tuple(names), tuple(templates or TEMPLATES))


def prompts_key(dataset: str, profile: str) -> str:
    """Finds the name that the prompts of a data set are filed under.

    Args:
        dataset: any of its names.
        profile: of registered class names and templates.

    Raises:
        KeyError: there is no such data set; the message has the nearest.
    """
    try:
        return registry.get(dataset, profile).key
    except KeyError as error:
        raise KeyError(
            f"{explain(error)} For a folder, write `./{dataset}`."
        ) from error


def read_head(
    path: pathlib.Path, width: int | None, wording: Wording | None
) -> HeadFile:
    """Reads an imported head and compares its rows with the class names.

    Args:
        path: of the file.
        width: length of the embeddings; None if it is not known.
        wording: class names of the task, if there are any.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the head cannot be used, or has another number of classes.
    """
    head = head_files.read_head(path, width)
    given = wording.class_names if wording else None
    if given is not None and head.class_names not in (None, tuple(given)):
        raise ValueError(
            f"`{path}` names its classes {class_order.listed(head.class_names)}, but "
            f"`classes` are {class_order.listed(given)}; drop `classes`, or give them "
            "as the head does."
        )
    names = head.class_names or given
    if names is not None and len(names) != len(head.weight):
        raise ValueError(
            f"`{path}` has {len(head.weight)} rows, but there are {len(names)} class "
            "names; take both from the same task."
        )
    return head._replace(class_names=names)


def doubts(path: pathlib.Path, head: HeadFile) -> Iterator[str]:
    """Warns of a head whose logits would all be nearly the same.

    Args:
        path: of its file.
        head: as read.

    Yields:
        Warnings.
    """
    lengths = np.linalg.norm(head.weight, axis=1)
    if np.abs(lengths - 1).max() < 1e-3:
        yield (
            f"the rows of `{path}` are of length 1, so its entropy stays near the log "
            "of the number of classes; was the logit scale (100 for CLIP) left out?"
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
