"""Processes report to process 0 before JAX connects them, so that errors can be told.

JAX ends a process that cannot join in time, with nothing to catch, and does not compare
how many processes each one expects. So they meet first, at the address and the port
that JAX will use, say which one of how many they are, and hear what process 0 found.
"""

import contextlib
import errno
import json
import math
import select
import socket
import time
from typing import Any


def hold(coordinator: str, num_processes: int, process_id: int, timeout: float) -> None:
    """Waits until every process has reported.

    Args:
        coordinator: address of process 0 and a free port there, ``10.0.0.1:1234``.
        num_processes: of the run.
        process_id: of this process, from 0.
        timeout: seconds to wait for the others.

    Raises:
        ConnectionError: process 0 cannot be reached, cannot listen, or waited in vain
            for others; the message says which.
        ValueError: the processes were given other numbers of processes, or one number
            twice.
    """
    deadline = time.monotonic() + timeout
    host, _, port = coordinator.rpartition(":")
    place = host.strip("[]"), int(port)
    if process_id == 0:
        with _listen(place[1]) as listener:
            # Found by itself, it can be found by others.
            _call(place, 0, deadline, _OWN_SECONDS).close()
            found = _gather(listener, num_processes, timeout, deadline)
    else:
        with _call(place, process_id, deadline) as line:
            line.sendall(_said(process=process_id, of=num_processes))
            found = _verdict(line, coordinator, deadline)
    if found is not None:
        kind = ValueError if found["is_mistake"] else ConnectionError
        raise kind(found["text"])


def _listen(port):
    """Opens the port, for every address of this machine."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        found = {
            errno.EADDRINUSE: "another program uses it",
            errno.EACCES: "this user may not open it",
        }.get(error.errno, error.strerror)
        raise ConnectionError(
            f"Process 0 cannot listen at port {port} of its machine: {found}; give "
            "every process the same other port in `coordinator`, or free this one."
        ) from error


def _call(place, process_id, deadline, seconds=math.inf):
    """Connects to process 0, which may not have been started yet.

    It gives up `seconds` after process 0 has an address, or at the deadline.
    """
    known = time.monotonic()
    while True:
        left = min(deadline, known + seconds) - time.monotonic()
        try:
            return socket.create_connection(place, min(max(left, 0.1), _TRY_SECONDS))
        except OSError as error:
            if isinstance(error, socket.gaierror):
                # A name may be entered after the process that bears it has started.
                known = time.monotonic()
                left = deadline - known
            if left <= 0:
                text = _unreached(error, *place, process_id)
                raise ConnectionError(text) from error
        time.sleep(min(_PAUSE_SECONDS, max(left, 0.0)))


def _unreached(error, host, port, process_id):
    """Says why a process could not connect, as far as that can be told."""
    who = f"Process {process_id} does not reach process 0 at {host}:{port}"
    if process_id == 0:
        who = f"Process 0 listens at port {port}, but not at {host}"
    if isinstance(error, socket.gaierror):
        return (
            f"{who}: there is no address for {host!r} ({error.strerror}); correct "
            "`coordinator`."
        )
    if isinstance(error, ConnectionRefusedError) and process_id:
        return (
            f"{who}: connection refused, because nothing listens at the port or a "
            "firewall rejects it; start process 0 there, with the same `coordinator`, "
            "and open the port."
        )
    found = "no answer" if isinstance(error, TimeoutError) else error.strerror
    if process_id == 0:
        return f"{who}: {found}; give an address of this machine as `coordinator`."
    return (
        f"{who}: {found}; check the address, and that the port is open between the "
        "machines."
    )


def _gather(listener, num_processes, timeout, deadline):
    """Waits in process 0 for all others; tells them and returns what is wrong."""
    present, lines, found = {}, [], None
    with contextlib.ExitStack() as stack:
        while found is None and len(_still(present)) < num_processes - 1:
            listener.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                line = stack.enter_context(listener.accept()[0])
            except TimeoutError:
                missing = sorted({*range(1, num_processes)} - {*_still(present)})
                found = _problem(
                    f"Process 0 waited {timeout:.0f} s for {num_processes} processes, "
                    f"but {listed(missing)} did not report; start them with the same "
                    "`coordinator`, or see what they printed.",
                    is_mistake=False,
                )
                break
            said = _heard(line, _HELLO_SECONDS)
            if not isinstance(said, dict):
                continue  # something else that looked at the port
            number, count = said["process"], said["of"]
            if count != num_processes:
                found = _problem(
                    f"`num_processes` is {num_processes} in process 0, but {count} in "
                    f"process {number}; give every process the same."
                )
            elif number in _still(present):
                found = _problem(
                    f"Two processes have the `process_id` {number}; number them from "
                    f"0 to {num_processes - 1}."
                )
            present[number] = line
            lines.append(line)
        for line in lines:
            with contextlib.suppress(OSError):  # it has gone meanwhile
                line.sendall(_said(problem=found))
    return found


def _problem(text, is_mistake=True):
    """Describes what keeps the processes from joining."""
    return {"text": text, "is_mistake": is_mistake}


def listed(processes: Any) -> str:
    """Names processes.

    Examples:
        >>> listed([1, 3])
        'process 1 and process 3'
    """
    return " and ".join(f"process {i}" for i in processes)


def _still(present):
    """Leaves out processes that have ended; a line that can be read was closed."""
    gone, _, _ = select.select(list(present.values()), [], [], 0)
    return {number: line for number, line in present.items() if line not in gone}


def _verdict(line, coordinator, deadline):
    """Waits until process 0 says what is wrong, or None."""
    said = _heard(line, max(deadline - time.monotonic(), 0) + _GRACE_SECONDS)
    if isinstance(said, dict):
        return said["problem"]
    if said is None:
        raise ConnectionError(
            f"Process 0 at {coordinator} went away, or did not answer in time, before "
            "all processes had reported; see what it printed."
        )
    raise ConnectionError(
        f"What listens at {coordinator} is not a process 0 that waits for others: it "
        f"said {said[:20]!r}; start process 0 there, or choose another port."
    )


def _said(**content):
    """Writes a message."""
    return _BEGIN + json.dumps(content).encode() + b"\n"


def _heard(line, seconds) -> dict | bytes | None:
    """Reads a message; bytes are none of ours, None is silence."""
    line.settimeout(seconds)
    read = b""
    with contextlib.suppress(OSError):  # too late, or the other end has gone
        while not read.endswith(b"\n") and _BEGIN.startswith(read[: len(_BEGIN)]):
            part = line.recv(4096)
            if not part:
                break
            read += part
    if read.startswith(_BEGIN) and read.endswith(b"\n"):
        return json.loads(read[len(_BEGIN) :])
    return read or None


_BEGIN = b"adarank_jax roll call "
"""Of every message."""
_TRY_SECONDS, _PAUSE_SECONDS = 10.0, 0.2
"""Of one try to connect, and between two."""
_OWN_SECONDS = 10.0
"""For process 0 to reach itself, once its name has an address."""
_HELLO_SECONDS = 5.0
"""Between connecting and saying something."""
_GRACE_SECONDS = 15.0
"""For process 0 to answer after the time is up."""
