"""Texts with labels, wherever they came from, and what may be asked of them.

A source has a length, and `source[index]` is `((first, second), label)`: the second
text is None where a task has one text an example, the label is a class number or
`NO_LABEL`. Files, parquet sets and tfds have a file of their own beside this one; each
ends in a `Texts`, which says in one way what is wrong with a text or a label.
"""

import copy
import difflib
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from adarank_jax import errors
from adarank_jax.data import class_order
from adarank_jax.data.class_order import listed
from adarank_jax.data.sources import NO_LABEL

Pair = tuple[str, str | None]


@runtime_checkable
class TextSource(Protocol):
    """What texts are read from."""

    def __len__(self) -> int:
        """Returns the number of examples."""
        ...

    def __getitem__(self, index: int) -> tuple[Pair, int]:
        """Returns one text or two, and the label or `NO_LABEL`."""
        ...


class Texts:
    """Texts in memory.

    Args:
        columns: one list of texts, or two of the same length for pairs.
        labels: of each example a class number, the name of a class, or None or
            `NO_LABEL` if it has none; None if no example has one.
        class_names: in the order of the numbers; None if they are not known. Without
            them, names of labels are numbered in the order of the alphabet.
        name: of the source in messages.
        place: says where an example is, for messages: "line 7 of `x.csv`".
        warnings: of the file.

    Attributes:
        labels: `(examples,)` int32.
        class_names: in the order of the numbers, or None.
        is_ordered: whether the source itself says how the classes are numbered; False
            if they are only in the order of the alphabet.
        is_pair: whether an example has two texts.
        name: of the source in messages.

    Raises:
        InputError: there is no example, a text is no string or holds what no text
            should, or a label is none of the classes.
        ValueError: the columns or the labels differ in length.

    Examples:
        >>> source = Texts([["fine", "awful"]], ["good", "bad"])
        >>> source[0], source.class_names
        ((('fine', None), 1), ('bad', 'good'))
    """

    def __init__(
        self,
        columns: Sequence[Sequence[Any]],
        labels: Sequence[Any] | np.ndarray | None = None,
        class_names: Sequence[str] | None = None,
        name: str = "the texts",
        place: Callable[[int], str] | None = None,
        warnings: Sequence[errors.Message] = (),
    ):
        """Checks every text and every label."""
        place = place or (lambda index: f"example {index} of {name}")
        lengths = {len(column) for column in columns}
        if len(columns) not in (1, 2) or len(lengths) != 1:
            raise ValueError(
                f"`columns` of {name} must be one list of texts, or two of one length, "
                f"got {len(columns)} of lengths {sorted(lengths)}."
            )
        if lengths == {0}:
            raise errors.InputError("E320", "it has no example", name)
        for column in columns:
            for index, text in enumerate(column):
                _check_text(text, index, place)
        self.name, self.is_pair = name, len(columns) == 2
        self._columns = [list(column) for column in columns]
        self.labels, self.class_names, self.is_ordered = _numbered(
            labels, class_names, len(self), place
        )
        self._warnings = tuple(warnings)

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._columns[0])

    def __getitem__(self, index: int) -> tuple[Pair, int]:
        """Returns one text or two, and the label."""
        first = self._columns[0][index]
        second = self._columns[1][index] if self.is_pair else None
        return (first, second), int(self.labels[index])

    @property
    def warnings(self) -> list[errors.Message]:
        """What is odd and stops nothing."""
        return [*self._warnings, *self._oddities()]

    def content(self) -> Iterator[bytes]:
        """Yields all texts, the labels and the class names, for a fingerprint."""
        for column in self._columns:
            yield b"%d texts" % len(column)
            for text in column:
                yield text.encode()
        yield repr(self.class_names).encode()
        yield self.labels.astype("<i4").tobytes()

    def _oddities(self):
        """Says what is odd about texts and labels."""
        total = len(self)
        for number, column in enumerate(self._columns, 1):
            if count := sum(not text.strip() for text in column):
                which = f" (column {number})" if self.is_pair else ""
                found = f"{count} of {total} texts{which} are empty"
                yield errors.Message("W343", found, self.name)
        known = self.labels[self.labels != NO_LABEL]
        if 0 < len(known) < total:
            found = f"{total - len(known)} of {total} examples have no label"
            yield errors.Message("W312", found, self.name)
        if len(known) and (known == known[0]).all():
            called = int(known[0])
            if self.class_names is not None:
                called = repr(self.class_names[called])
            yield errors.Message(
                "W306",
                f"all labels are of one class, {called}, so an accuracy says little",
                where=self.name,
            )
        elif len(known) and self.class_names:
            there = {*known.tolist()}
            none = [n for i, n in enumerate(self.class_names) if i not in there]
            if none:
                yield errors.Message(
                    "W305",
                    f"{len(none)} of {len(self.class_names)} classes have no example: "
                    f"{listed(none)}",
                    where=self.name,
                )


def _check_text(text, index, place):
    """Refuses what is no text."""
    if not isinstance(text, str):
        raise errors.InputError(
            "E350",
            f"it holds {text!r:.80}",
            where=place(index),
            expected="a text",
            remedy="is this the right column?",
        )
    if "\0" in text:
        raise errors.InputError(
            "E343",
            f"it holds a NUL character at {text.index(chr(0))}",
            where=place(index),
            remedy="a text has none, so remove it",
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise errors.InputError(
            "E343",
            f"it holds half of a character (surrogate U+{ord(text[error.start]):04X}) "
            f"at {error.start}",
            where=place(index),
            remedy="write the file again in UTF-8",
        ) from error


def _numbered(labels, class_names, count, place):
    """Turns labels into numbers; returns them, the names, and if these are ordered."""
    names = None if class_names is None else tuple(map(str, class_names))
    if names is not None and (len(names) < 2 or len({*names}) < len(names)):
        raise errors.InputError(
            "E304",
            f"`class_names` must be at least two different names, got {list(names)}",
        )
    if labels is None:
        return np.full(count, NO_LABEL, np.int32), names, names is not None
    if len(labels) != count:
        raise ValueError(
            f"`labels` must hold one label an example, got {len(labels)} for {count}."
        )
    is_named = names is not None
    values = [
        _clean(label, index, place, is_named) for index, label in enumerate(labels)
    ]
    words = {value for value in values if isinstance(value, str)}
    is_numeric = all(_NUMBER.fullmatch(word) for word in words)
    is_ordered = names is not None
    if is_numeric and not (words and words <= {*(names or ())}):
        numbers = {word: int(word) for word in words}
    else:
        names = names or tuple(sorted(words))
        numbers = _by_name(words, names)
    limit = len(names) if names is not None else _MOST
    found = np.full(count, NO_LABEL, np.int32)
    for index, value in enumerate(values):
        number = numbers.get(value) if isinstance(value, str) else value
        is_plain = not isinstance(value, str) and value >= 0
        is_mixed = names is not None and not is_ordered and is_plain
        if number is None or not NO_LABEL <= number < limit or is_mixed:
            raise _unknown(value, names, place(index))
        found[index] = number
    return found, names, is_ordered


def _by_name(words, names):
    """Finds words among class names, as they are or else by letters and digits."""
    plain = [class_order.plain(name) for name in names]
    numbers = {}
    for word in words:
        if word in names:
            numbers[word] = names.index(word)
        elif plain.count(class_order.plain(word)) == 1:
            numbers[word] = plain.index(class_order.plain(word))
    return numbers


def _clean(label, index, place, is_named):
    """Returns a label as a number or a word."""
    if label is None or (isinstance(label, str) and not label.strip()):
        return NO_LABEL
    if isinstance(label, str):
        word = label.strip()
        if is_named or _NUMBER.fullmatch(word) or not _is_real(word):
            return word
    elif isinstance(label, bool | int | np.integer | np.bool_):
        return int(label)
    is_real = isinstance(label, float | np.floating | str)
    raise errors.InputError(
        "E308" if is_real else "E313",
        f"it has the label {label!r:.80}",
        where=place(index),
        expected="a class number or the name of a class",
        remedy="a task of numbers (regression) cannot be merged here",
    )


def _is_real(word):
    """Tells whether a word is a number with a point or an exponent, as ``2.5``."""
    try:
        return math.isfinite(float(word)) and not word.lstrip("+-").isdecimal()
    except ValueError:
        return False


def _unknown(value, names, where):
    """Says that a label is no class."""
    found = f"it has the label {value!r:.80}"
    if names is None:
        expected = "a class number from 0, or -1 for none"
        return errors.InputError("E313", found, where, expected)
    close = isinstance(value, str) and difflib.get_close_matches(value, names, n=1)
    return errors.InputError(
        "E313",
        found,
        where=where,
        expected=f"one of {listed(names)}, or a number from 0 to {len(names) - 1}",
        remedy=f"did you mean {close[0]!r}?" if close else "",
    )


def renumbered(source: Texts, class_names: Sequence[str]) -> Texts:
    """Numbers the classes of a source as a head does.

    A head whose names say nothing (`LABEL_0`, `LABEL_1`) is taken to have the order of
    the source, if that has one; so is every head where the source names no class.

    Args:
        source: of texts.
        class_names: of the head, in the order of its rows.

    Returns:
        The source with the head's names and numbers; its `warnings` say so if the order
        is taken on trust.

    Raises:
        InputError: the classes are not those of the head, or nothing tells which is
            which.

    Examples:
        >>> source = Texts([["a", "b"]], [0, 1], ("entailment", "contradiction"))
        >>> renumbered(source, ("CONTRADICTION", "ENTAILMENT")).labels.tolist()
        [1, 0]
    """
    names = tuple(map(str, class_names))
    if source.class_names is None:
        most = int(source.labels.max())
        if most >= len(names):
            raise errors.InputError(
                "E305",
                f"`labels` go up to {most}, but the head has {len(names)} classes: "
                f"{listed(names)}",
                where=source.name,
                remedy="does it count from 0, and is it the right head?",
            )
        return _with(source, source.labels, names)
    numbers = _numbers(source, names)
    table = np.array([*numbers, NO_LABEL], np.int32)  # the last is the place of -1
    generic = generic_numbers(names)
    if generic is not None and source.is_ordered:  # the names of the source say more
        shown = tuple(source.class_names[k] for k in generic)
        return _with(source, table[source.labels], shown, _trust(source))
    doubts = class_order.doubts(source.class_names, names, source.name)
    return _with(source, table[source.labels], names, doubts)


def _trust(source):
    """Warns that rows of a head without names are taken to be in a source's order."""
    is_labelled = bool((source.labels != NO_LABEL).any())
    if is_labelled and generic_numbers(source.class_names) is None:
        yield errors.Message(
            "W311",
            f"the head names no classes, so the order of {source.name} is taken for "
            f"that of its rows, on trust: {listed(source.class_names)}",
            remedy="name them (`classes`) if that is wrong: in another order every "
            "score would be",
        )


def _with(source, labels, names, warnings=()):
    """Returns a source with other labels."""
    other = copy.copy(source)
    other.labels, other.class_names, other.is_ordered = labels, names, True
    other._warnings = (*source._warnings, *warnings)
    return other


def _numbers(source, names):
    """Returns the head's number of each class of a source."""
    found = source.class_names
    both = (
        f"it has {len(found)} classes, {listed(found)}; the head has {len(names)}, "
        f"{listed(names)}"
    )
    generic = generic_numbers(names)
    if generic is not None and source.is_ordered and len(found) == len(names):
        return [generic.index(k) for k in range(len(found))]
    matched = class_order.match(found, names)
    if generic is not None and matched is None and len(found) <= len(names):
        raise errors.InputError(
            "E311",
            f"{both}. Nothing tells which is which",
            where=source.name,
            remedy="name the classes of the head in the order of its rows "
            "(`classes`), or write the labels as numbers",
        )
    if matched is not None and (len(found) == len(names) or not source.is_ordered):
        return matched
    if len(found) != len(names) or not source.is_ordered:
        raise errors.InputError(
            "E305" if len(found) != len(names) else "E310",
            both,
            where=source.name,
            remedy="is it the head of this task? Else name its classes (`classes`) in "
            "the order of its rows, as the labels are called",
        )
    try:
        return class_order.renumbering(found, names, source.name)
    except errors.InputError as error:
        raise errors.InputError(
            "E310",
            f"{both}. Some have the same name and another number",
            where=source.name,
            remedy="name the classes of the head (`classes`) in the order of its "
            "rows, as the labels are called",
        ) from error


def generic_numbers(names: Sequence[str]) -> list[int] | None:
    """Reads the numbers out of class names that are nothing but numbers.

    Args:
        names: of a head.

    Returns:
        The number of each; None if the names say more, or not every number once.

    Examples:
        >>> generic_numbers(["LABEL_0", "LABEL_1"]), generic_numbers(["no", "yes"])
        ([0, 1], None)
    """
    found = [re.fullmatch(r"(?:label[_ ]?)?([0-9]{1,6})", n, re.I) for n in names]
    numbers = [int(each[1]) for each in found if each]
    return numbers if sorted(numbers) == [*range(len(names))] else None


def nearest(name: str, known: Sequence[str]) -> str:
    """Lists what is there and the name that is spelt most like a missing one.

    Args:
        name: that is missing.
        known: all there are.

    Examples:
        >>> nearest("sentense", ["sentence", "label"])
        "it has 'sentence', 'label'; did you mean 'sentence'?"
    """
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    more = f"; did you mean {close[0]!r}?" if close else ""
    return f"it has {listed(known)}{more}"


def no_column(where: str, name: str, known: Sequence[str]) -> errors.InputError:
    """Says that there is no such column, and what is there instead.

    Args:
        where: the file, or a line of it.
        name: of the column.
        known: names of all there are.

    Returns:
        An error.
    """
    found = f"no column {name!r}"
    return errors.InputError("E344", found, where, remedy=nearest(name, known))


def missing(path: pathlib.Path) -> errors.MissingError:
    """Says that there is no such file, and what is there instead.

    Args:
        path: of a file or folder that does not exist.

    Returns:
        An error; its message has the name in the same folder that is spelt most alike.
    """
    there, name = path.parent, path.name
    while not there.is_dir() and there != there.parent:
        there, name = there.parent, there.name
    names = sorted(each.name for each in there.iterdir()) if there.is_dir() else []
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean `{there / close[0]}`?" if close else ""
    if not close:
        few = ", ".join(names[:6]) or "nothing"
        hint = f"`{there}` holds {few}{', …' if len(names) > 6 else ''}"
    found = "there is no such file or folder"
    return errors.MissingError("E101", found, f"`{path}`", remedy=hint)


def check_columns(columns: str | Sequence[str]) -> list[str]:
    """Checks the names of the columns of texts.

    Args:
        columns: one name, or one or two in a list.

    Returns:
        The list.

    Raises:
        UsageError: there is none, there are more than two, or one is there twice.
    """
    names = [columns] if isinstance(columns, str) else [*columns]
    if len(names) not in (1, 2) or len({*names}) < len(names):
        raise errors.UsageError(
            "E351",
            "`columns` must name one column of texts, or two different ones for pairs, "
            f"got {names}",
        )
    return names


def check_label_column(label: str | None, columns: Sequence[str]) -> None:
    """Checks that the column of the labels is none of those of the texts.

    Args:
        label: its name; None if there is none.
        columns: names of those of the texts.

    Raises:
        UsageError: it is one of them.
    """
    if label in columns:
        raise errors.UsageError(
            "E351",
            f"`label_column` is {label!r}, which `columns` names as texts",
            remedy="name the column of the classes, or leave it out if there is none",
        )


def shared_texts(sources: Mapping[str, TextSource]) -> list[errors.Message]:
    """Looks for texts that two tasks have in common.

    Args:
        sources: of each task.

    Returns:
        A warning for each pair of tasks of which one has a hundredth or more of its
        texts in common with the other; a few short ones may be the same by chance.
    """
    seen = {
        task: {source[index][0] for index in range(len(source))}
        for task, source in sources.items()
    }
    tasks = list(sources)
    return [
        errors.Message(
            "W329",
            f"{common} texts in common, of {len(seen[one])} and {len(seen[two])}",
            where=f"tasks {one!r} and {two!r}",
            remedy="a merge gains nothing from the same texts twice",
        )
        for i, one in enumerate(tasks)
        for two in tasks[i + 1 :]
        if (common := len(seen[one] & seen[two]))
        and 100 * common >= min(len(seen[one]), len(seen[two]))
    ]


_MOST = 1_000_000  # classes
_NUMBER = re.compile(r"-1|[0-9]{1,9}")
