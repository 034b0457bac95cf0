"""Named places at which a test kills this process, as a power cut would.

``ADARANK_FAULT=state-saved:2`` kills it when it comes to ``state-saved`` for the second
time. Without the variable nothing happens.
"""

import collections
import os
import signal

POINTS = (
    "file-half-written",
    "file-in-place",
    "row-half-written",
    "row-written",
    "state-before-save",
    "state-saved",
    "state-committed",
    "state-dropped",
    "measured",
    "export-half-written",
    "export-in-place",
    "export-old-aside",
)
"""Every place; a run comes to most of them many times."""


def point(name: str) -> None:
    """Kills this process if the environment asks for it here.

    Args:
        name: one of `POINTS`.
    """
    wanted, _, count = os.environ.get("ADARANK_FAULT", "").partition(":")
    if wanted != name:
        return
    assert name in POINTS
    _PASSED[name] += 1
    if _PASSED[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)


_PASSED: collections.Counter[str] = collections.Counter()
