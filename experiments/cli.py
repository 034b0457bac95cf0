"""From a command line to a run: options in, a clear message out when it cannot be."""

import sys
from collections.abc import Callable
from typing import Any

import tyro


def run(main: Callable[[Any], None], config_type: type) -> None:
    """Reads the options and runs a command.

    Args:
        main: takes the configuration.
        config_type: dataclass of the options.

    Raises:
        SystemExit: the command cannot do what was asked, or was stopped; the message
            is one that a user can act on.
    """
    try:
        main(tyro.cli(config_type))
    except (FloatingPointError, KeyError, OSError, TypeError, ValueError) as error:
        sys.exit(f"error: {error.args[0] if isinstance(error, KeyError) else error}")
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on from the newest checkpoint.")
