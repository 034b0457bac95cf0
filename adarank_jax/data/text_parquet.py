"""Texts of parquet files, local or from the Hugging Face Hub."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from adarank_jax import errors
from adarank_jax.data import arrow_copy, parquet
from adarank_jax.data.text_source import (
    Texts,
    check_columns,
    check_label_column,
    missing,
    no_column,
)


def open_parquet(
    files: str | os.PathLike | Sequence[str | os.PathLike],
    columns: str | Sequence[str],
    label_column: str | None = None,
    class_names: Sequence[str] | None = None,
    split: str = "validation",
    config: str | None = None,
    name: str | None = None,
) -> Texts:
    """Reads texts from parquet files.

    Args:
        files: one file, several in the order of their rows, or a folder laid out as a
            data set on the Hub.
        columns: of the texts: one, or two for pairs.
        label_column: of class numbers or names; by default `label`, if there is one.
        class_names: as for `Texts`; by default those that `datasets` wrote into the
            files, if it did.
        split: of a folder.
        config: of a folder with several data sets.
        name: of the source in messages.

    Returns:
        The texts.

    Raises:
        MissingError: a file or folder is missing.
        InputError: a file is damaged, has no such column or one of another type, or as
            for `Texts`.
        UsageError: two columns are one.
    """
    names = check_columns(columns)
    is_one = isinstance(files, str | os.PathLike)
    paths = [pathlib.Path(each) for each in ([files] if is_one else files)]
    if is_one and paths[0].is_dir():
        paths = parquet.find_files(paths[0], split, config)
    if not paths:
        raise ValueError("`files` must name at least one parquet file, got none.")
    texts: list[list[Any]] = [[] for _ in names]
    labels: list[Any] = []
    places: list[tuple[pathlib.Path, int]] = []
    label: str | None = None
    for path in paths:
        found = label_column
        table = _read(path, names, label_column)
        if found is None and "label" in table.column_names and "label" not in names:
            found = "label"
        if places and found != label:
            raise errors.InputError(
                "E166",
                f"it and `{paths[0]}` differ: one has a column of labels and one has "
                "none",
                where=f"`{path}`",
                remedy="are they of one data set?",
            )
        label = found
        for column, each in zip(texts, names, strict=True):
            column.extend(_strings(path, table, each))
        if label is not None:
            labels.extend(_labels(path, table, label))
        places.extend((path, row) for row in range(table.num_rows))
    if class_names is None and label is not None:
        class_names = parquet.class_names(paths[0], label) or None
    return Texts(
        texts,
        labels if label is not None else None,
        class_names,
        name or f"`{paths[0] if len(paths) == 1 else paths[0].parent}`",
        lambda index: "row {1} of `{0}`".format(*places[index]),
    )


def from_hub(
    repo: str,
    columns: str | Sequence[str],
    label_column: str | None = None,
    class_names: Sequence[str] | None = None,
    split: str = "validation",
    config: str | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> Texts:
    """Reads one split of a data set on the Hub; fetches what is not there yet.

    Args:
        repo: ``owner/name``, or ``owner/name@revision``.
        columns: as for `open_parquet`.
        label_column: as for `open_parquet`.
        class_names: as for `open_parquet`.
        split: of the data set.
        config: of the data set, if it has several.
        revision: branch, tag or commit.
        offline: never use the network.

    Returns:
        The texts.

    Raises:
        MissingError: the data set is not there and cannot be fetched.
        InputError: as for `open_parquet`.
        UsageError: as for `open_parquet`.
    """
    repo, _, after = repo.partition("@")
    folder = parquet.fetch(repo, split, config, revision or after or None, offline)
    files = parquet.find_files(folder, split, config)
    inside = f" {config}" if config else ""
    name = f"`{repo}`{inside} ({split})"
    return open_parquet(files, columns, label_column, class_names, name=name)


def _read(path, columns, label):
    """Reads the columns that are wanted."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise missing(path)
    check_label_column(label, columns)
    try:
        with pq.ParquetFile(path) as file:
            found = file.schema_arrow.names
            wanted = [*columns, *([] if label is None else [label])]
            for each in wanted:
                if each not in found:
                    raise no_column(f"`{path}`", each, found)
            if label is None and "label" in found and "label" not in columns:
                wanted.append("label")
            return file.read(columns=wanted)
    except (pa.ArrowInvalid, OSError) as error:
        raise arrow_copy.not_whole(path, error) from error


def _strings(path, table, name):
    """Returns a column of texts."""
    import pyarrow as pa

    kind = table.column(name).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not any(test(kind) for test in tests):
        raise errors.InputError(
            "E350",
            f"it is {kind}",
            where=f"column {name!r} of `{path}`",
            expected="texts (string)",
            remedy="is this the right column?",
        )
    return _values(path, table, name)


def _labels(path, table, name):
    """Returns a column of labels."""
    import pyarrow as pa

    kind = table.column(name).type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        raise errors.InputError(
            "E308",
            f"it is {kind}",
            where=f"column {name!r} of `{path}`",
            expected="class numbers or names",
            remedy="a task of numbers (regression, as STS-B) cannot be merged here",
        )
    return _values(path, table, name)


def _values(path, table, name):
    """Returns a column as Python's values."""
    try:
        return table.column(name).to_pylist()
    except UnicodeDecodeError as error:
        raise errors.InputError(
            "E343",
            f"it holds what is not UTF-8: {error}",
            where=f"column {name!r} of `{path}`",
            remedy="write the file again",
        ) from error
