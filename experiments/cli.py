"""From a command line to a run: options in, a clear message out when it cannot be."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import tyro

from experiments.messages import explain, printable

USAGE = 2
"""Exit code for a mistake in options or configuration."""
REFUSED = 3
"""Exit code for inputs that cannot be used."""
MACHINE = 4
"""Exit code for a disk, a permission or memory that is not there."""
NUMERICS = 5
"""Exit code for numbers that are not finite."""
UNEXPECTED = 1
"""Exit code for an error that nobody foresaw; its traceback is shown."""
INTERRUPTED = 130
"""Exit code for a run that was stopped."""

EXIT_CODES = (
    "Exit codes: 0 done; 1 an error that nobody foresaw; 2 a mistake in options or "
    "configuration; 3 inputs refused; 4 disk, permission or memory; 5 numbers that are "
    "not finite; 130 stopped."
)


class UsageError(ValueError):
    """A mistake in options or configuration."""


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Tells mistakes in options or configuration from all others.

    Raises:
        UsageError: with the message of the error inside.
    """
    try:
        yield
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise UsageError(explain(error)) from error


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
        words: of the command line; those of this process by default.
        leave: ends the process with a code, after an error.

    Raises:
        SystemExit: the command cannot do what was asked, or was stopped; the message
            is one that a user can act on, and the code is one of `EXIT_CODES`.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its errors are explained here
    description = f"{(config_type.__doc__ or '').strip()}\n\n{EXIT_CODES}"
    try:
        name = getattr(sys.modules["__main__"].__spec__, "name", None)
        prog = f"python -m {name}" if name else None
        main(tyro.cli(config_type, prog=prog, description=description, args=words))
    except UsageError as error:
        _stop(USAGE, error, leave)
    except FloatingPointError as error:
        _stop(NUMERICS, error, leave)
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        _stop(REFUSED, error, leave)
    except (MemoryError, OSError) as error:
        _stop(MACHINE, error, leave)
    except KeyboardInterrupt:
        sys.stderr.write(
            "Stopped; the same command goes on from the newest checkpoint.\n"
        )
        leave(INTERRUPTED)
    except Exception:  # noqa: BLE001  the other processes of a run must not wait
        traceback.print_exc()
        leave(UNEXPECTED)


def _stop(code, error, leave):
    """Shows an error and leaves."""
    sys.stderr.write(f"error: {printable(explain(error))}\n")
    leave(code)
