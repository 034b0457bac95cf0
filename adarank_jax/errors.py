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
    "E001": "An error that nobody foresaw",
    "E010": "There is no such key",
    "E011": "A value does not fit",
    "E012": "The file is not plain YAML",
    "E013": "Two settings do not fit together",
    "E015": "Something that is needed is missing",
    "E016": "There is no such name",
    "E017": "There is no such configuration",
    "E018": "The command line is not understood",
    # E1: files and containers
    "E100": "The input cannot be used",
    "E101": "The path does not exist",
    "E102": "The file cannot be read",
    "E130": "The digest is not the expected one",
    "E180": "A package cannot be downloaded",
    "E181": "The text demo is not made yet",
    # E2: tensors, shapes, values and the base that experts share
    "E215": "Fields of the two configurations differ",
    # E3: tasks, heads, images and texts
    "E301": "There are no experts",
    "E302": "Two tasks have one name",
    "E303": "A task has no name that can be shown",
    "E304": "There are fewer than two classes",
    "E309": "The task has no head",
    # E4: the machine
    "E400": "The operating system refused",
    "E401": "The disk has no room",
    "E402": "The folder cannot be written to",
    "E404": "The folder holds something else",
    "E410": "The memory is too small",
    "E411": "The memory ran out",
    "E412": "The device is not there",
    "E420": "A package is not installed",
    # E5: numbers
    "E500": "A number is not finite",
    "E510": "Fine-tuning diverged",
    "E520": "The rebuilt weights differ in their last bits",
    # E6: run folders and exports
    "E620": "The folder holds another run",
    "E650": "A folder of the cache is damaged",
    # W0, W1, W2, W3, W4, W5, W6: warnings, grouped as the errors are
    "W011": "CART of two experts is their average",
    "W012": "Too few steps to flip a mask",
    "W013": "The settings are those of another model",
    "W100": "Something to know",
    "W402": "Compiled programs are not kept",
    "W410": "The memory may be too small",
    "W412": "A GPU is not used",
}
"""Title by code."""
