"""Errors and warnings as text that is safe to show.

Names come from files of strangers: what would move the cursor, clear the screen or turn
the direction of writing is shown as an escape instead.
"""


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
