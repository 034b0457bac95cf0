"""What the kernel says of the processor."""

import pathlib


def first_row(*names: str) -> str:
    """Returns the first row of the kernel's list that begins with a name.

    Args:
        *names: of rows; which ones there are differs between kinds of processors.

    Returns:
        The row, its name before a colon; nothing where there is no row or no list.
    """
    rows = FILE.read_text().splitlines() if FILE.is_file() else []
    return next((row for row in rows if row.startswith(names)), "")


FILE = pathlib.Path("/proc/cpuinfo")
