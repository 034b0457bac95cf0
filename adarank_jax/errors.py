"""Everything that can be refused: one family of exceptions, each with a stable code.

A code never changes its meaning. `TITLES` lists all of them, and ``docs/errors.md``
explains each under an anchor of its own. Errors about arguments of a function, which no
file and no setting of a user can cause, stay plain `ValueError` and `TypeError`.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Message(NamedTuple):
    """What is told about one problem.

    Attributes:
        code: ``E`` or ``W`` and three digits, one of `TITLES`.
        found: what is there, with the file, tensor or key if `where` lacks it.
        where: file, field of the configuration, or both.
        expected: what should be there instead.
        remedy: what to do next, as an order: "download it again".
    """

    code: str
    found: str
    where: str = ""
    expected: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """Writes one sentence.

        Examples:
            >>> str(Message("E110", "0 bytes", "`a.pt`", "a file", "fetch it again"))
            'E110 `a.pt`: 0 bytes, expected a file; fetch it again.'
        """
        where = f"{self.where}: " if self.where else ""
        expected = f", expected {self.expected}" if self.expected else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        text = f"{self.code} {where}{self.found}{expected}{remedy}"
        return text if text.endswith((".", "?", "!")) else f"{text}."

    def within(self, where: str) -> "Message":
        """Returns the message with a place around its own.

        Args:
            where: the field of a configuration, say.

        Examples:
            >>> Message("E110", "0 bytes", "`a.pt`").within("experts.cars").where
            'experts.cars: `a.pt`'
        """
        return self._replace(where=f"{where}: {self.where}" if self.where else where)


class AdaRankError(Exception):
    """A problem that a user can act on.

    Args:
        code: as in `Message`; so are all others.
        found: what is there.
        where: file, field, or both.
        expected: what should be there.
        remedy: what to do next.

    Attributes:
        message: all of these.
        exit_code: that a command ends with.
    """

    exit_code = 1

    def __init__(
        self,
        code: str,
        found: str,
        where: str = "",
        expected: str = "",
        remedy: str = "",
    ):
        """Notes what is wrong."""
        self.message = Message(code, found, where, expected, remedy)
        super().__init__(str(self.message))

    def __str__(self) -> str:
        """Writes one sentence, whatever the built-in class would write."""
        return str(self.message)


class UsageError(AdaRankError, ValueError):
    """A mistake in options or configuration."""

    exit_code = 2


class InputError(AdaRankError, ValueError):
    """An input that cannot be used."""

    exit_code = 3


class MissingError(InputError, FileNotFoundError):
    """An input that is not there."""


class UnreachableError(InputError, ConnectionError):
    """An input that cannot be fetched."""


class MachineError(AdaRankError, OSError):
    """A disk, a permission, memory or a device that is not there."""

    exit_code = 4


class NumericsError(AdaRankError, FloatingPointError):
    """Numbers that are not finite, or predictions that have collapsed."""

    exit_code = 5


class DamageError(AdaRankError, ValueError):
    """A run, a checkpoint or an export that is damaged."""

    exit_code = 6


class Problems(AdaRankError):
    """All problems of a run at once.

    Args:
        messages: one a problem, at least one.
        exit_code: that a command ends with.

    Attributes:
        messages: the same.
    """

    def __init__(self, messages: Sequence[Message], exit_code: int):
        """Notes the problems; the first stands for all where one is asked for."""
        super().__init__(*messages[0])
        self.messages, self.exit_code = tuple(messages), exit_code

    def __str__(self) -> str:
        """Writes a line a problem."""
        return "\n".join(map(str, self.messages))


TITLES = {
    # E0: options and configuration
    "E011": "A value does not fit",
    # E1: files and containers
    "E101": "The path does not exist",
    "E160": "The npz file cannot be read",
    "E161": "The npz file is too large",
    "E162": "The parquet file is damaged",
    "E163": "The data set has no such split",
    "E164": "Parquet files of the split are missing",
    "E165": "Several configurations have the split",
    "E166": "The files differ in their columns",
    "E167": "The data set cannot be fetched",
    "E168": "The data set is not prepared",
    # E2: tensors, shapes, values and the base that experts share
    "E220": "A tensor holds NaN or infinity",
    # E3: tasks, heads, images and texts
    "E304": "There are fewer than two classes",
    "E305": "The numbers of classes differ",
    "E306": "The head does not fit the model",
    "E308": "The entropy of the task is undefined",
    "E309": "The task has no head",
    "E310": "The classes are not those of the head",
    "E311": "Nothing tells which class is which row",
    "E312": "Some examples have no label",
    "E313": "A label is no class",
    "E314": "There is no such data set",
    "E315": "The data set was found nowhere",
    "E316": "The data set has another size",
    "E317": "The file holds no head",
    "E318": "A template is not usable",
    "E319": "The logit scale is no logarithm",
    "E320": "There are no examples",
    "E322": "Too many images would be skipped",
    "E324": "The values of the image have no known range",
    "E326": "The image has too many pixels",
    "E328": "The entry is no regular file of the folder",
    "E330": "The preprocessing cannot be used",
    "E331": "An image cannot be read",
    "E332": "Images lie beside the folders of classes",
    "E333": "The images have another shape or type",
    "E340": "The tokenizer is not that of the model",
    "E341": "A token has no row in the model",
    "E343": "The text is not plain UTF-8",
    "E344": "There is no such column",
    "E345": "A line cannot be read",
    "E346": "There is no tokenizer",
    "E347": "The tokenizer cannot be read",
    "E348": "The tokenizer cannot pad",
    "E349": "`max_length` does not fit",
    "E350": "A column has another type",
    "E351": "The columns do not fit the task",
    # E4: the machine
    # E5: numbers
    # E6: run folders and exports
    # W0, W1, W2, W3, W4, W5, W6: warnings, grouped as the errors are
    "W301": "There is one task",
    "W305": "Classes have no example",
    "W306": "All labels are of one class",
    "W307": "The head is not scaled",
    "W310": "The class names are not those of the checkpoint",
    "W311": "The order of the classes is taken on trust",
    "W312": "Some examples have no label",
    "W321": "A batch is larger than a task",
    "W322": "Images are left out",
    "W323": "Images are transparent",
    "W325": "Images have several frames",
    "W327": "Images are tiny",
    "W328": "Entries are no regular files",
    "W329": "Two tasks share examples",
    "W330": "Images may be preprocessed by halves",
    "W342": "Texts are cut",
    "W343": "Texts are empty",
    "W344": "Empty lines are left out",
    "W345": "Rows have several lines",
}
"""Title by code."""
