"""Requests to stop or to save, as a shell, a scheduler or a cloud sends them.

SIGTERM and SIGINT (Ctrl-C) stop; SIGUSR1 saves and goes on. Outside of the steps of an
adaptation there is nothing to save, and a stop is an exception at once. In the steps it
is a note that the loop looks at. A second stop ends the process there and then: what
was saved before stays whole.
"""

import contextlib
import enum
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator


class Wish(enum.IntEnum):
    """What was asked for; the larger one counts."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


class Stopped(KeyboardInterrupt):
    """A stop that was asked for.

    Args:
        number: of the signal.

    Attributes:
        exit_code: 128 more than the number, as shells have it.
    """

    def __init__(self, number: int = signal.SIGINT):
        """Notes the signal."""
        super().__init__(signal.Signals(number).name)
        self.number, self.exit_code = number, 128 + number


class Requests:
    """What was asked for and not done yet.

    Attributes:
        number: of the signal that asked for a stop.
    """

    def __init__(self):
        """Starts with nothing."""
        self._wish, self.number = Wish.NOTHING, int(signal.SIGINT)
        self._since = 0.0

    def take(self) -> Wish:
        """Returns what was asked for; only a stop is asked for on and on."""
        found = self._wish
        if found is Wish.SAVE:
            self._wish = Wish.NOTHING
        return found

    def stopped(self) -> Stopped:
        """Returns the exception for a stop."""
        return Stopped(self.number)

    def note(self, number: int) -> None:
        """Notes a signal; ends the process at the second stop.

        Args:
            number: of the signal.
        """
        if number not in _STOPS:
            self._wish = max(self._wish, Wish.SAVE)
            return
        now = time.monotonic()
        if self._wish is Wish.STOP:
            if now - self._since < _ONE_STOP:
                return
            sys.stderr.write("\nStopped at once.\n")
            sys.stderr.flush()
            os._exit(128 + number)
        self._wish, self.number, self._since = Wish.STOP, number, now


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Turns SIGTERM into `Stopped`, as Python turns SIGINT into `KeyboardInterrupt`.

    SIGUSR1, which would end the process, does nothing.
    """

    def stop(number, _):
        raise Stopped(number)

    with _handlers({signal.SIGTERM: stop, **dict.fromkeys(_SAVES, _ignore)}):
        yield


@contextlib.contextmanager
def noted() -> Iterator[Requests]:
    """Notes signals rather than raise them, for as long as the context is open.

    Python calls its handlers only between two of its own instructions, and a step may
    last for seconds; so a thread reads the numbers that the interpreter writes to a
    socket as soon as they come.

    Yields:
        What is asked for. In another thread than the main one nothing ever is.
    """
    requests = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    read, write = socket.socketpair()
    write.setblocking(False)
    thread = threading.Thread(target=_listen, args=(read, requests), daemon=True)
    chosen = {number: _ignore for number in (*_STOPS, *_SAVES) if _is_wanted(number)}
    with read, write:
        before = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        thread.start()
        try:
            with _handlers(chosen):
                yield requests
        finally:
            signal.set_wakeup_fd(before)
            write.send(b"\0")  # the thread ends
            thread.join()
    if requests.take() is Wish.STOP:  # it came after the last look
        raise requests.stopped()


def _listen(read, requests):
    """Notes signals until a zero comes."""
    while (number := read.recv(1)[0]) != 0:
        if number in (*_STOPS, *_SAVES):
            requests.note(number)


def _ignore(number, frame):
    """Does nothing: the number has gone to the socket already."""


def _is_wanted(number):
    """Tells whether a signal is looked at: one that a shell has turned off is not."""
    return signal.getsignal(number) is not signal.SIG_IGN


@contextlib.contextmanager
def _handlers(chosen):
    """Sets handlers, and sets those before them again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, call) for number, call in chosen.items()}
    try:
        yield
    finally:
        for number, call in before.items():
            signal.signal(number, call)


_STOPS = (signal.SIGTERM, signal.SIGINT)
_ONE_STOP = 0.5
"""Seconds in which several stops are one: `timeout` sends each of them twice."""
_SAVES = tuple(getattr(signal, name) for name in ("SIGUSR1",) if hasattr(signal, name))
