"""Errors and warnings as text that is safe to show.

Names come from files of strangers: what would move the cursor, clear the screen or turn
the direction of writing is shown as an escape instead.
"""

from collections.abc import Sequence

from adarank_jax import errors
from adarank_jax.errors import Message


def block(message: Message) -> str:
    """Shows an error, one line a field; fields that say nothing are left out.

    Args:
        message: of the error.

    Examples:
        >>> print(block(Message("E010", "`sead`", "my.yaml:3:1", "", "write `seed`")))
        error E010: There is no such key
          where     my.yaml:3:1
          found     `sead`
          try       write `seed`
          docs      docs/errors.md#e010
    """
    lines = [f"error {message.code}: {errors.TITLES[message.code]}"]
    for heading, text in (
        ("where", message.where),
        ("found", message.found),
        ("expected", message.expected),
        ("try", message.remedy),
        ("docs", f"docs/errors.md#{message.code.lower()}"),
    ):
        if text:
            below = "\n" + 12 * " "
            lines.append(f"  {heading:<10}{below.join(text.splitlines())}")
    return printable("\n".join(lines))


def warning(message: Message) -> str:
    """Shows a warning in one line.

    Args:
        message: of the warning.

    Examples:
        >>> warning(Message("W011", "they cancel", "method", remedy="take another"))
        'warning W011: method: they cancel; take another.'
    """
    text = str(message).removeprefix(message.code)
    return printable(f"warning {message.code}:{text}")


def told(found: Message | str) -> Message:
    """Gives a warning that is only a sentence the code of all such.

    Args:
        found: a warning.
    """
    return found if isinstance(found, Message) else Message("W100", found)


def of_error(error: errors.AdaRankError) -> Sequence[Message]:
    """Returns all that one of our errors says.

    Args:
        error: about one problem or several.
    """
    return error.messages if isinstance(error, errors.Problems) else (error.message,)


def explain(error: BaseException) -> str:
    """Says what an error says, without the quotes and numbers that Python adds.

    Args:
        error: any exception.

    Examples:
        >>> explain(KeyError("There is no task 'mnits'."))
        "There is no task 'mnits'."
        >>> explain(PermissionError(13, "Permission denied", "a.pt"))
        '`a.pt`: permission denied'
    """
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        reason = error.strerror[:1].lower() + error.strerror[1:]
        return f"`{error.filename}`: {reason}"
    return str(error) or type(error).__name__


def printable(text: object) -> str:
    r"""Escapes every character that is not shown as itself; lines stay lines.

    Args:
        text: or a message, from anywhere.

    Examples:
        >>> printable("caf\u00e9 \x1b[2J")
        'café \\x1b[2J'
    """
    return "".join(
        char if char.isprintable() or char == "\n" else ascii(char)[1:-1]
        for char in str(text)
    )
