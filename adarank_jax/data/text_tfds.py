"""Texts of prepared TensorFlow Datasets, without TensorFlow."""

import os
from collections.abc import Sequence

from adarank_jax import errors
from adarank_jax.data import tfds_source
from adarank_jax.data.text_source import Texts, check_columns, no_column


def open_tfds(
    builder: str,
    columns: str | Sequence[str],
    label_column: str = "label",
    class_names: Sequence[str] | None = None,
    split: str = "validation",
    data_dir: str | os.PathLike | None = None,
) -> Texts:
    """Reads texts that tfds prepared.

    Args:
        builder: name, with its configuration: ``glue/cola``.
        columns: of the texts: one, or two for pairs.
        label_column: of the class numbers.
        class_names: as for `Texts`; by default those of the builder.
        split: of the data set.
        data_dir: of all prepared data sets; `~/tensorflow_datasets` by default.

    Returns:
        The texts.

    Raises:
        MissingError: the data set is not prepared.
        InputError: there is no such builder, its labels are no classes, as those of
            STS-B, it is prepared without random access, has no such split or column,
            or as for `Texts`.
    """
    names, name = check_columns(columns), f"`{builder}` ({split})"
    made = tfds_source.make_builder(builder, data_dir)
    features = made.info.features
    for each in (*names, label_column):
        if each not in features:
            raise no_column(name, each, [*features])
    if not hasattr(features[label_column], "names"):
        raise errors.InputError(
            "E308",
            f"it is {features[label_column]}",
            where=f"column {label_column!r} of {name}",
            expected="classes",
            remedy="a task of numbers (regression, as STS-B) cannot be merged here",
        )
    source = tfds_source.open_split(
        made, builder, split, data_dir, needs_tensorflow=False
    )
    rows = [source[index] for index in range(len(source))]
    texts = [
        [_text(row[each], index, name) for index, row in enumerate(rows)]
        for each in names
    ]
    labels = [int(row[label_column]) for row in rows]
    named = class_names or features[label_column].names
    return Texts(texts, labels, named, name)


def _text(value, index, name):
    """Decodes what tfds gives as bytes."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise errors.InputError(
            "E343",
            f"it is not UTF-8: {error}",
            where=f"example {index} of {name}",
            remedy="prepare it again",
        ) from error
