"""Texts of CSV, TSV and JSONL files, read strictly: errors name the line.

Nothing is repaired and nothing is guessed, because a label that slips by one row looks
like a bad model. Lines are counted from 1, as editors do.
"""

import contextlib
import csv
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

from adarank_jax import errors
from adarank_jax.data.class_order import listed
from adarank_jax.data.text_source import (
    Texts,
    check_columns,
    check_label_column,
    missing,
    no_column,
)


def open_csv(
    path: str | os.PathLike,
    columns: str | Sequence[str],
    label_column: str | None = None,
    class_names: Sequence[str] | None = None,
    delimiter: str | None = None,
    quotes: bool = True,
) -> Texts:
    """Reads texts from a CSV or TSV file with the names of its columns in line 1.

    Args:
        path: of the file, in UTF-8.
        columns: of the texts: one, or two for pairs.
        label_column: of class numbers or names; by default `label`, if there is one.
        class_names: as for `Texts`.
        delimiter: between the fields; by default a tab in files called `.tsv`, else a
            comma.
        quotes: whether `"` around a field may hold delimiters and line ends; False if
            it is a character like any other, as in GLUE's own TSV files.

    Returns:
        The texts.

    Raises:
        MissingError: there is no such file.
        InputError: the file is not what it should be; the message names the line.
        UsageError: two columns are one.
    """
    path, names = pathlib.Path(path), check_columns(columns)
    delimiter = delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
    with _whole_fields():
        lines, rows, blank, long = _read_csv(path, delimiter, quotes)
    header = rows.pop(0)
    first_lines = lines[1:]
    _check_header(path, header, lines[0])
    wanted = [_find(f"`{path}`", header, name) for name in names]
    label = _label_column(path, header, label_column, wanted)
    for line, row in zip(first_lines, rows, strict=True):
        if len(row) != len(header):
            raise errors.InputError(
                "E345",
                f"it has {len(row)} fields",
                where=f"line {line} of `{path}`",
                expected=f"{len(header)}, as line 1 has",
                remedy=f"is a delimiter ({delimiter!r}) in a text, or does a quote "
                "begin that does not end?",
            )
    return Texts(
        [[row[header.index(name)] for row in rows] for name in wanted],
        None if label is None else [row[header.index(label)] for row in rows],
        class_names,
        f"`{path}`",
        lambda index: f"line {first_lines[index]} of `{path}`",
        _oddities(path, blank, long if delimiter == "\t" else []),
    )


def _oddities(path, blank, long):
    """Returns warnings of empty lines, and of rows of several lines."""
    warnings = _left_out(path, blank)
    if long:
        warnings.append(
            errors.Message(
                "W345",
                f"{len(long)} rows have quoted fields with line ends, the first in "
                f"line {long[0]}, which is rare in a TSV file",
                where=f"`{path}`",
                remedy="if quotes are plain characters in it, several examples became "
                "one: say `quotes=False`",
            )
        )
    return warnings


def _left_out(path, blank):
    """Says how many lines were empty."""
    found = f"{blank} empty lines are left out"
    return [errors.Message("W344", found, f"`{path}`")] if blank else []


def _read_csv(path, delimiter, quotes):
    """Returns where rows begin, the rows, how many lines are empty, and long rows."""
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    reader = csv.reader(_lines(path), delimiter=delimiter, quoting=quoting, strict=True)
    starts, rows, blank, long, line = [], [], 0, [], 1
    try:
        for row in reader:
            if row:
                starts.append(line)
                rows.append(row)
                long += [line] if reader.line_num > line else []
            else:
                blank += 1
            line = reader.line_num + 1
    except csv.Error as error:
        raise errors.InputError(
            "E345",
            f"it is no row of fields between {delimiter!r}: {error}",
            where=f"line {line} of `{path}`",
            remedy="if quotes are plain characters in this file, say `quotes=False`",
        ) from error
    if not rows:
        raise errors.InputError(
            "E320", "it is empty, without even names of columns", f"`{path}`"
        )
    return starts, rows, blank, long


@contextlib.contextmanager
def _whole_fields():
    """Lets a field be as long as it is; the library's usual limit is 131,072."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_header(path, header, line):
    """Refuses two columns of one name."""
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise errors.InputError(
            "E345",
            f"it names columns twice: {listed(twice)}",
            where=f"line {line} of `{path}`",
            remedy="call each by a name of its own",
        )


def open_jsonl(
    path: str | os.PathLike,
    columns: str | Sequence[str],
    label_column: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Texts:
    """Reads texts from a file with one JSON object a line.

    Args:
        path: of the file, in UTF-8.
        columns: of the texts: one, or two for pairs.
        label_column: of class numbers or names; by default `label`, if the first line
            has it. `null` means that an example has none.
        class_names: as for `Texts`.

    Returns:
        The texts.

    Raises:
        MissingError: there is no such file.
        InputError: the file is not what it should be; the message names the line.
        UsageError: two columns are one.
    """
    path, names = pathlib.Path(path), check_columns(columns)
    lines, texts, labels, blank, label = [], [[] for _ in names], [], 0, None
    for line, text in enumerate(_lines(path), 1):
        if not text.strip():
            blank += 1
            continue
        row = _parse(path, line, text)
        if not lines:
            label = _label_column(path, [*row], label_column, names)
        for name, column in zip(names, texts, strict=True):
            column.append(row[_find(f"line {line} of `{path}`", row, name)])
        if label is not None:
            labels.append(row[_find(f"line {line} of `{path}`", row, label)])
        elif _label_column(path, row, label_column, names) is not None:
            raise errors.InputError(
                "E312",
                f"it has a 'label', but line {lines[0]} has none",
                where=f"line {line} of `{path}`",
                remedy="give every line one, `null` where an example has none",
            )
        lines.append(line)
    return Texts(
        texts,
        None if label is None else labels,
        class_names,
        f"`{path}`",
        lambda index: f"line {lines[index]} of `{path}`",
        _left_out(path, blank),
    )


def _parse(path, line, text):
    """Reads one JSON object."""
    try:
        row = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or str(error)
        raise errors.InputError(
            "E345",
            f"it is no JSON: {reason}",
            where=f"line {line} of `{path}`",
            remedy="write one object a line",
        ) from error
    if not isinstance(row, dict):
        raise errors.InputError(
            "E345",
            f"it is a JSON {type(row).__name__}",
            where=f"line {line} of `{path}`",
            expected="an object",
            remedy="write one object a line",
        )
    return row


def _unique(pairs):
    """Makes a dict of the pairs of an object, each name once."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"it names {listed(twice)} twice")
    return row


def _label_column(path, header, wanted, columns):
    """Returns the column of labels, or None if none is named and none is there."""
    if wanted is None:
        return "label" if "label" in header and "label" not in columns else None
    check_label_column(wanted, columns)
    return _find(f"`{path}`", header, wanted)


def _find(where, header, name):
    """Returns the name if there is such a column."""
    if name not in header:
        raise no_column(where, name, [*header])
    return name


def _lines(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a file, and says where it is not UTF-8."""
    if not path.is_file():
        raise missing(path)
    with open(path, "rb") as stream:
        head = stream.read(4)
        kind = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
        if kind is not None:
            what, _, remedy = kind.partition("; ")
            raise errors.InputError(
                "E343", f"it is {what}", f"`{path}`", "plain text in UTF-8", remedy
            )
        stream.seek(3 if head.startswith(b"\xef\xbb\xbf") else 0)
        for number, line in enumerate(stream, 1):
            yield _decode(path, number, line)


def _decode(path: pathlib.Path, number: int, line: bytes) -> str:
    """Decodes one line."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise errors.InputError(
            "E343",
            f"it is not UTF-8: byte 0x{line[error.start]:02X}, number {error.start} of "
            f"the line ({error.reason})",
            where=f"line {number} of `{path}`",
            remedy="write the file in UTF-8",
        ) from error
    if "\0" in text:
        raise errors.InputError(
            "E343",
            f"it holds a NUL character at {text.index(chr(0))}",
            where=f"line {number} of `{path}`",
            remedy="is it a file of text? Remove it, or write the file in UTF-8",
        )
    return text


_MAGIC = (
    (b"\x1f\x8b", "packed with gzip; unpack it first"),
    (b"BZh", "packed with bzip2; unpack it first"),
    (b"\xfd7zX", "packed with xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd; unpack it first"),
    (b"PK\x03\x04", "a zip archive or a workbook; unpack or export it first"),
    (b"PAR1", "a parquet file; open it as one"),
    (b"\xff\xfe", "in UTF-16; convert it first"),
    (b"\xfe\xff", "in UTF-16; convert it first"),
)
