"""The head of a task of a language model: that of its expert, or one from a file."""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from adarank_jax import errors, tree
from adarank_jax.checkpoints import containers, formats, language_names
from adarank_jax.checkpoints.language import LanguageCheckpoint
from adarank_jax.data.class_order import listed, plain
from adarank_jax.data.texts import generic_numbers
from adarank_jax.models import sequence_heads
from adarank_jax.models.language import Family
from adarank_jax.tree import Tree


def of_expert(expert: LanguageCheckpoint, family: Family) -> Tree:
    """Returns the head that an expert brings.

    Args:
        expert: a checkpoint.
        family: of its encoder.

    Raises:
        InputError: it has none, or one that does not fit.
    """
    if expert.head is None:
        wanted = [
            entry.name
            for entry in language_names.head_entries(
                language_names.full_layout(family.name, 0)
            )
        ]
        raise errors.InputError(
            "E309",
            f"no head for classification ({', '.join(wanted)})",
            where=f"`{expert.source}`",
            remedy="take a checkpoint fine-tuned with one, or name a file with `head`",
        )
    name = f"the head of `{expert.source}`"
    family.check_head(expert.head, expert.config["width"], name)
    return expert.head


def read_head(path: pathlib.Path, family: Family, width: int) -> Tree:
    """Reads a head from a file of its own, named as in a checkpoint.

    Args:
        path: of a safetensors or torch file; tensors beside the head are left alone.
        family: that the head belongs to.
        width: length of the features.

    Raises:
        MissingError: there is no such file.
        InputError: it holds no head of the family, or one that does not fit.
    """
    path = path.expanduser()
    formats.check_exists(path)
    tensors = containers.read_state(path).tensors
    layout = language_names.full_layout(family.name, 0)
    flat = {}
    for entry in language_names.head_entries(layout):
        if entry.name not in tensors:
            raise errors.InputError(
                "E317",
                f"it holds {listed(sorted(tensors))}",
                where=f"`{path}`",
                expected=f"{entry.name}, as a head of {family.name} has",
                remedy="give the file of the head",
            )
        array = np.array(tensors[entry.name], np.float32)
        flat[entry.path] = np.ascontiguousarray(array.T) if entry.is_turned else array
    head = tree.unflatten(flat)
    family.check_head(head, width, f"`{path}`")
    return head


def row_names(names: Sequence[str] | None, head: Tree | None) -> Sequence[str] | None:
    """Names the rows of a head for its texts, by number where nothing names them.

    Args:
        names: of the classes; None if they are not known.
        head: of the task; None if it could not be read.

    Returns:
        A name a row; None if neither is known.

    Examples:
        >>> row_names(None, {"kernel": np.zeros((4, 2))})
        ('LABEL_0', 'LABEL_1')
    """
    if names is not None or head is None:
        return names
    return tuple(f"LABEL_{i}" for i in range(sequence_heads.num_classes(head)))


def doubts(
    given: Sequence[str] | None, stated: Sequence[str] | None
) -> Iterator[errors.Message]:
    """Says that a configuration names the rows of a head otherwise than its checkpoint.

    Args:
        given: by the configuration.
        stated: by the checkpoint; nothing is said of numbers, such as ``LABEL_0``.

    Yields:
        A warning, if so.
    """
    if given is None or stated is None or generic_numbers(stated) is not None:
        return
    if len(given) != len(stated) or [*map(plain, given)] == [*map(plain, stated)]:
        return
    is_same = {*map(plain, given)} == {*map(plain, stated)}
    yield errors.Message(
        "W310",
        f"the names are {listed(given)}, but config.json of the checkpoint has "
        f"{listed(stated)}{', the same in another order' if is_same else ''}; those "
        "given here are taken",
        remedy="in a wrong order every score is wrong: leave `classes` out to take the "
        "checkpoint's",
    )


def class_names(
    given: Sequence[str] | None, stated: Sequence[str] | None, head: Tree | None
) -> tuple[str, ...] | None:
    """Returns the names of the classes, in the order of the rows of a head.

    Args:
        given: by the configuration.
        stated: by the checkpoint.
        head: of the task; None if it could not be read.

    Raises:
        InputError: there are not as many names as classes.
    """
    names = given if given is not None else stated
    if names is None:
        return None
    rows = len(names) if head is None else sequence_heads.num_classes(head)
    if len(names) != rows:
        raise errors.InputError(
            "E305",
            f"the head has {rows} classes, but {len(names)} are named, {listed(names)}",
            remedy="name each once, in the order of its rows",
        )
    return tuple(names)
