"""From a command line to a run: options in, a clear message out when it cannot be."""

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import tyro

from adarank_jax import errors
from adarank_jax.adaptation import memory, signals
from adarank_jax.errors import AdaRankError, Message
from experiments import messages

UNEXPECTED = 1
"""Exit code for an error that nobody foresaw; its traceback is shown."""
INTERRUPTED = 130
"""Exit code for a run that was stopped."""

EXIT_CODES = (
    "Exit codes: 0 done; 1 an error that nobody foresaw; 2 a mistake in options or "
    "configuration; 3 inputs refused; 4 disk, permission or memory; 5 numbers that are "
    "not finite; 6 a damaged run or export; 130 and 143 stopped by SIGINT and SIGTERM, "
    "with the state saved. docs/errors.md explains the code of every error. --debug "
    "adds the traceback to an error."
)


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Takes errors without a code for mistakes in options or configuration.

    Raises:
        UsageError: with the message of the error inside.
    """
    try:
        yield
    except AdaRankError:
        raise
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise errors.UsageError("E011", messages.explain(error)) from error


def run(
    main: Callable[[Any], None],
    config_type: type,
    words: Sequence[str] | None = None,
    leave: Callable[[int], NoReturn] = sys.exit,
) -> None:
    """Reads the options and runs a command.

    Args:
        main: takes the configuration.
        config_type: dataclass of the options.
        words: of the command line; those of this process by default. ``--debug`` among
            them shows the traceback of every error.
        leave: ends the process with a code, after an error.

    Raises:
        SystemExit: the command cannot do what was asked, or was stopped; the message
            is one that a user can act on, and the code is one of `EXIT_CODES`.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its errors are explained here
    description = f"{(config_type.__doc__ or '').strip()}\n\n{EXIT_CODES}"
    given = list(sys.argv[1:] if words is None else words)
    plain = [word for word in given if word != _DEBUG]
    try:
        name = getattr(sys.modules["__main__"].__spec__, "name", None)
        prog = f"python -m {name}" if name else None
        with signals.raised():
            main(tyro.cli(config_type, prog=prog, description=description, args=plain))
    except KeyboardInterrupt as stopped:
        sys.stderr.write("Stopped; the same command goes on from the newest state.\n")
        leave(getattr(stopped, "exit_code", INTERRUPTED))
    except Exception as error:  # noqa: BLE001  every error ends in a message and a code
        found = refusal(error)
        code = UNEXPECTED if found is None else found.exit_code
        if found is None or len(plain) < len(given):
            lines = traceback.format_exception(error)
            sys.stderr.write(messages.printable("".join(lines)))
        shown = [_unforeseen(error)] if found is None else messages.of_error(found)
        for each in shown:
            sys.stderr.write(f"{messages.block(each)}\n")
        if len(shown) > 1:
            sys.stderr.write(f"{len(shown)} problems.\n")
        leave(code)


def refusal(error: Exception) -> AdaRankError | None:
    """Returns an error as one of ours; None if nobody foresaw it.

    Args:
        error: that stopped a command.
    """
    if isinstance(error, AdaRankError):
        return error
    text = messages.explain(error)
    if isinstance(error, FloatingPointError):
        return errors.NumericsError("E500", text)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY in text
    ):
        return errors.MachineError("E411", text, remedy=memory.LESS)
    if isinstance(error, RuntimeError) and _NO_BACKEND in text:
        platforms = os.environ.get("JAX_PLATFORMS")
        where = f"JAX_PLATFORMS={platforms}" if platforms else ""
        remedy = (
            "name a device that this machine has, unset JAX_PLATFORMS, or install the "
            "extra for the device: cuda12, cuda13 or tpu"
        )
        return errors.MachineError("E412", text, where, remedy=remedy)
    return _of_system(error) if isinstance(error, OSError) else None


def _of_system(error):
    """Explains what the operating system refused."""
    where = "" if error.filename is None else f"`{error.filename}`"
    reason = error.strerror or str(error) or type(error).__name__
    reason = reason[:1].lower() + reason[1:]
    code, remedy = _SYSTEM.get(error.errno or 0, ("E400", ""))
    return errors.MachineError(code, reason, where, remedy=remedy)


def _unforeseen(error):
    """Asks for a report of an error that is a mistake of this program."""
    text = f"{type(error).__name__}: {messages.explain(error)}"
    remedy = "report it, with the command, the configuration and the lines above"
    return Message("E001", text, remedy=remedy)


_DEBUG = "--debug"
_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
_NO_BACKEND = "Unable to initialize backend"
_ROOM = (
    "E401",
    "make room on that disk, or choose a folder on another; what was written is kept "
    "and the same command goes on",
)
_RIGHTS = ("E402", "choose another folder, or change its permissions")
_SYSTEM = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
}
