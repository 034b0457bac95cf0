"""The seven GLUE tasks of the model merging papers: columns, classes, sizes, sources.

Wang et al., `GLUE <https://arxiv.org/abs/1804.07461>`_, ICLR 2019. Models are judged on
the validation splits, because the labels of the test splits are not public; MNLI on the
matched one.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from adarank_jax import errors
from adarank_jax.data import parquet, text_files, text_parquet, text_tfds
from adarank_jax.data.class_order import plain
from adarank_jax.data.text_source import Texts, nearest, renumbered

REPO = "nyu-mll/glue"


class Task(NamedTuple):
    """One task.

    Attributes:
        name: its configuration on the Hub and in tfds.
        columns: of the texts.
        class_names: in the order of the labels.
        split: that models are judged on.
        sizes: of the splits with labels.
        metric: of the papers: "matthews" or "accuracy".
    """

    name: str
    columns: tuple[str, ...]
    class_names: tuple[str, ...]
    split: str
    sizes: Mapping[str, int]
    metric: str


def names() -> list[str]:
    """Returns the tasks in the order of the papers."""
    return [*_TASKS]


def get(name: str) -> Task:
    """Finds a task.

    Args:
        name: case, hyphens and underscores do not matter; ``glue/`` may be before it.

    Returns:
        Its row.

    Raises:
        InputError: there is no such task, or it is STS-B, which is no classification.

    Examples:
        >>> get("SST-2").columns, get("glue/cola").name
        (('sentence',), 'cola')
    """
    bare = name.removeprefix("glue/")
    short = plain(bare)
    if short == "stsb":
        raise errors.InputError(
            "E308",
            "STS-B is a regression (its labels are similarities from 0 to 5): there "
            "are no classes whose entropy could be lowered, so it cannot be adapted",
            remedy=f"exclude it; the tasks are {', '.join(_TASKS)}",
        )
    found = next((task for key, task in _TASKS.items() if key == short), None)
    if found is None:
        raise errors.InputError(
            "E314",
            f"there is no GLUE task {bare!r} here",
            remedy=nearest(short, [*_TASKS]),
        )
    return found


def is_task(name: str) -> bool:
    """Tells whether `get` knows a name, be it as STS-B, which it refuses.

    Args:
        name: as `get` takes it.

    Examples:
        >>> is_task("CoLA"), is_task("glue/stsb"), is_task("glue/animals")
        (True, True, False)
    """
    return plain(name.removeprefix("glue/")) in {*_TASKS, "stsb"}


def load(
    name: str,
    split: str | None = None,
    data_dir: str | os.PathLike | None = None,
    kind: str = "auto",
    columns: str | Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    offline: bool = False,
    quotes: bool | None = None,
) -> Texts:
    """Opens a task and checks its size and its classes.

    Looks first into `data_dir/<name>`, which may hold `<split>.csv`, `.tsv` or `.jsonl`
    with the columns of the task, or parquet files as on the Hub; then among the sets
    that tfds prepared in `data_dir`; then on the Hub. Where there is such a folder, its
    files are meant, and nothing else is looked for.

    Args:
        name: of the task, as `get` takes it.
        split: of the task; by default the one that models are judged on.
        data_dir: of your own files and of prepared tfds sets.
        kind: where to look: "local", "tfds", "hub", or "auto" for everywhere.
        columns: if they are called otherwise in your own files.
        class_names: of a head, in the order of its rows; the labels are numbered so.
        offline: never use the network.
        quotes: of your own CSV or TSV, as for `texts.open_csv`; by default they are
            plain characters in a TSV, as in GLUE's own.

    Returns:
        The texts.

    Raises:
        MissingError: the task is nowhere, or its folder lacks the split; the message
            lists where it was looked for, and how to get it.
        InputError: there is no such task, or the source is damaged, has another size,
            columns or classes.
    """
    task = get(name)
    split = split or task.split
    if kind not in ("auto", "local", "tfds", "hub"):
        raise ValueError(f"`kind` must be auto, local, tfds or hub, got {kind!r}.")
    wanted = _check_columns(task, columns)
    openers = {
        "local": lambda: _open_local(task, split, data_dir, wanted, quotes),
        "tfds": lambda: text_tfds.open_tfds(
            f"glue/{task.name}", task.columns, split=split, data_dir=data_dir
        ),
        "hub": lambda: text_parquet.from_hub(
            REPO, task.columns, split=split, config=task.name, offline=offline
        ),
    }
    tried, source, each = [], None, kind
    for each in openers if kind == "auto" else (kind,):
        try:
            source = openers[each]()
            break
        except FileNotFoundError as error:
            if each == "local" and _folder(task, data_dir) is not None:
                raise
            tried.append(f"{each}: {error}")
    if source is None:
        raise errors.MissingError(
            "E315",
            "it was not found:\n  " + "\n  ".join(tried),
            where=f"GLUE's {task.name} ({split})",
        )
    size = task.sizes.get(split)
    if size is not None and len(source) != size:
        raise errors.InputError(
            "E316",
            f"it has {len(source)} examples",
            where=f"{task.name} ({split}) from {each}",
            expected=str(size),
            remedy="is this the right split, and the whole of it?",
        )
    source = renumbered(source, task.class_names)
    return source if class_names is None else renumbered(source, class_names)


def _check_columns(task, columns):
    """Refuses one text where a task has two."""
    if columns is None:
        return task.columns
    given = [columns] if isinstance(columns, str) else [*columns]
    if len(given) != len(task.columns):
        raise errors.UsageError(
            "E351",
            f"`columns` of {task.name} must name {len(task.columns)} columns, in place "
            f"of {list(task.columns)}, got {given}",
        )
    return given


def _folder(task, data_dir):
    """Returns the folder of the user's own files, if there is one."""
    if data_dir is None:
        return None
    folder = pathlib.Path(data_dir).expanduser() / task.name
    return folder if folder.is_dir() else None


def _open_local(task, split, data_dir, columns, quotes):
    """Opens files of the user's own."""
    if data_dir is None:
        raise FileNotFoundError("no `data_dir` is given.")
    folder = _folder(task, data_dir)
    if folder is None:
        raise FileNotFoundError(
            f"there is no folder `{pathlib.Path(data_dir).expanduser() / task.name}`."
        )
    for ending in ("csv", "tsv"):
        file = folder / f"{split}.{ending}"
        if file.is_file():
            own = ending == "csv" if quotes is None else quotes
            return text_files.open_csv(file, columns, quotes=own)
    if (folder / f"{split}.jsonl").is_file():
        return text_files.open_jsonl(folder / f"{split}.jsonl", columns)
    if any(folder.rglob("*.parquet")):
        files = parquet.find_files(folder, split)
        return text_parquet.open_parquet(files, columns)
    raise errors.MissingError(
        "E163",
        f"it holds none of {split}.csv, {split}.tsv, {split}.jsonl, parquet files",
        where=f"`{folder}`",
        remedy="put the split there, or move the folder away to look elsewhere",
    )


def _task(name, columns, class_names, train, validation, metric="accuracy"):
    """Makes a row with the usual splits."""
    sizes = {"train": train, "validation": validation}
    return Task(name, columns, class_names, "validation", sizes, metric)


_SENTENCES = ("sentence1", "sentence2")
_FOLLOWS = ("entailment", "not_entailment")
_TASKS = {
    task.name: task
    for task in (
        _task(
            "cola",
            ("sentence",),
            ("unacceptable", "acceptable"),
            8_551,
            1_043,
            "matthews",
        ),
        _task("sst2", ("sentence",), ("negative", "positive"), 67_349, 872),
        _task("mrpc", _SENTENCES, ("not_equivalent", "equivalent"), 3_668, 408),
        _task(
            "qqp",
            ("question1", "question2"),
            ("not_duplicate", "duplicate"),
            363_846,
            40_430,
        ),
        Task(
            "mnli",
            ("premise", "hypothesis"),
            ("entailment", "neutral", "contradiction"),
            "validation_matched",
            {
                "train": 392_702,
                "validation_matched": 9_815,
                "validation_mismatched": 9_832,
            },
            "accuracy",
        ),
        _task("qnli", ("question", "sentence"), _FOLLOWS, 104_743, 5_463),
        _task("rte", _SENTENCES, _FOLLOWS, 2_490, 277),
    )
}
