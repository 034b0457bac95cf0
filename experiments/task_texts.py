"""The texts of a task: opened, numbered as the head is, with what is odd."""

import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

from adarank_jax import errors
from adarank_jax.data import glue, texts
from adarank_jax.data.texts import NO_LABEL, Texts
from adarank_jax.data.tokens import Tokens
from experiments import task_checks
from experiments.suite import Metric
from experiments.text_config import TextData, TextExpert


def hub_name(data: TextData) -> str:
    """Names the data set on the Hub that texts may have to be fetched from.

    Args:
        data: of the configuration.

    Returns:
        ``org/name``, or an empty text.
    """
    if data.dataset is not None:
        return glue.REPO if data.source in ("auto", "hub") else ""
    return data.parquet or ""


def open_texts(
    data: TextData,
    names: Sequence[str] | None,
    data_dir: pathlib.Path | None = None,
    offline: bool = False,
) -> Texts:
    """Opens the texts of a task.

    Args:
        data: of the configuration.
        names: of the classes, in the order of the head's rows, ``LABEL_0``, … if it
            does not name them; None if there is no head yet.
        data_dir: folder of registered data sets.
        offline: take data sets of the Hub from its cache only.

    Returns:
        A source whose labels are rows of the head.

    Raises:
        MissingError: the texts are not there.
        InputError: there is no such data set, texts cannot be used, a column holds no
            texts, or labels that are no classes, or those of another head.
        UsageError: the columns do not fit.
    """
    if data.dataset is not None:
        _check_task(data.dataset)
        return glue.load(
            data.dataset,
            data.split,
            data_dir=data_dir,
            kind=data.source,
            class_names=names,
            offline=offline,
            quotes=data.quotes,
        )
    options = (data.columns, data.label_column)
    if data.csv is not None:
        quotes = data.quotes is not False
        source = texts.open_csv(data.csv.expanduser(), *options, quotes=quotes)
    elif data.jsonl is not None:
        source = texts.open_jsonl(data.jsonl.expanduser(), *options)
    else:
        split, place = data.split or "validation", data.parquet or ""
        path = pathlib.Path(place).expanduser()
        at = {"split": split, "config": data.subset}
        if not path.exists() and not _is_name(place):
            raise texts.missing(path)
        if path.exists() or path.suffix == ".parquet":
            source = texts.open_parquet(path, *options, **at)
        else:
            source = texts.from_hub(place, *options, **at, offline=offline)
    return source if names is None else texts.renumbered(source, names)


def _is_name(place):
    """Tells what may be a data set on the Hub; all else is a path on this machine."""
    name = place.partition("@")[0]
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None and (
        not name.endswith(_ENDINGS)
    )


def find_labels(source: Texts, rows: int) -> np.ndarray | None:
    """Returns the labels of a task, and checks that the head has their classes.

    Args:
        source: of texts.
        rows: number of classes of the head; 0 if it is not known.

    Returns:
        `(texts,)` class numbers; None if there are no labels.

    Raises:
        InputError: some texts have no label, or the head has no such class.
    """
    labels = source.labels
    if (labels == NO_LABEL).all():
        return None
    if (labels == NO_LABEL).any():
        raise errors.InputError(
            "E312",
            f"{int((labels == NO_LABEL).sum())} of {len(labels)} texts have no label",
            where=source.name,
            remedy="give labels for all texts or for none",
        )
    if rows and labels.max() >= rows:
        raise errors.InputError(
            "E305",
            f"it has labels from {labels.min()} to {labels.max()}, but the head has "
            f"{rows} classes",
            where=source.name,
            expected=f"0 to {rows - 1}",
            remedy="take head and data from the same task",
        )
    return labels


def metric(expert: TextExpert) -> Metric:
    """Returns the metric of a task.

    Args:
        expert: of the configuration.

    Raises:
        InputError: there is no such data set, or it is a regression; the message says
            how else texts are named.
    """
    if expert.metric is not None or expert.data.dataset is None:
        return expert.metric or "accuracy"
    _check_task(expert.data.dataset)
    return glue.get(expert.data.dataset).metric


def _check_task(name):
    """Says how else texts are named, where a single word is no task of GLUE."""
    if not glue.is_task(name):
        try:
            glue.get(name)
        except errors.InputError as error:
            also = (
                f"{error.message.remedy}. Texts of your own are a path with a dot or a "
                f"slash, `./{name}.csv`, and those on the Hub `org/{name}`"
            )
            told = error.message._replace(remedy=also.replace("?.", "?"))
            raise errors.InputError(*told) from None


def known_size(data: TextData) -> int:
    """Returns how many texts a data set of GLUE has; 0 where that is not known.

    Args:
        data: of the configuration.
    """
    try:
        task = glue.get(data.dataset or "")
    except errors.InputError:
        return 0
    return task.sizes.get(data.split or task.split, 0)


def doubts(tokens: Tokens, batch_size: int) -> Iterator[errors.Message]:
    """Says what was cut, what is empty, and what a task has too little of.

    Args:
        tokens: of a task.
        batch_size: texts a step.

    Yields:
        Warnings.
    """
    total = len(tokens)
    if tokens.num_truncated:
        yield errors.Message(
            "W342",
            f"{tokens.num_truncated} of {total} texts have more than "
            f"{tokens.max_length} tokens and are cut (`max_length`)",
        )
    if tokens.num_empty:
        found = f"{tokens.num_empty} of {total} texts have no token of their own"
        yield errors.Message("W343", found)
    yield from task_checks.shortage(total, batch_size, "texts")


_ENDINGS = (".parquet", ".csv", ".tsv", ".json", ".jsonl", ".txt", ".gz", ".zip")
