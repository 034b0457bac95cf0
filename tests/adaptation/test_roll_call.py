"""Processes that report to process 0, as threads of one process with real sockets."""

import concurrent.futures
import math
import socket
import time

import pytest

from adarank_jax.adaptation import roll_call
from tests import processes

PATIENT, SHORT = 20.0, 0.5
"""Seconds to wait, where everybody comes and where nobody does."""


def call(*callers, timeout=PATIENT, coordinator=None):
    """Runs `(process, of how many)` side by side; returns what each one raised."""
    coordinator = coordinator or processes.free_address()

    def caller(number, count):
        try:
            roll_call.hold(coordinator, count, number, timeout)
        except (ConnectionError, ValueError) as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(callers)) as pool:
        return list(pool.map(caller, *zip(*callers, strict=True)))


def connect(coordinator):
    """Connects to a process 0 that may not listen yet."""
    host, _, port = coordinator.partition(":")
    return roll_call._call((host, int(port)), 1, time.monotonic() + PATIENT)


@pytest.fixture
def server():
    """Something else that listens."""
    with socket.create_server(("localhost", 0)) as listener:
        yield listener


def address(listener):
    return f"localhost:{listener.getsockname()[1]}"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_that_all_report_go_on(count):
    assert call(*((i, count) for i in range(count))) == [None] * count


def test_processes_may_come_before_process_0():
    coordinator = processes.free_address()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        early = pool.submit(roll_call.hold, coordinator, 2, 1, PATIENT)
        with pytest.raises(concurrent.futures.TimeoutError):
            early.result(0.3)
        roll_call.hold(coordinator, 2, 0, PATIENT)
        assert early.result() is None


def test_process_0_tells_who_is_missing():
    (error,) = call((0, 3), timeout=SHORT)
    assert isinstance(error, ConnectionError)
    assert "3 processes, but process 1 and process 2 did not report" in str(error)


def test_every_process_hears_who_is_missing():
    # In one thread: none of several would be sure to report within a short time.
    coordinator = processes.free_address()
    port = int(coordinator.rpartition(":")[2])
    with roll_call._listen(port) as listener, connect(coordinator) as line:
        line.sendall(roll_call._said(process=2, of=4))
        found = roll_call._gather(listener, 4, SHORT, time.monotonic() + SHORT)
        heard = roll_call._verdict(line, coordinator, time.monotonic())
    assert heard == found
    assert "4 processes, but process 1 and process 3 did not report" in found["text"]
    assert not found["is_mistake"]


def test_every_process_hears_that_numbers_of_processes_differ():
    errors = call((0, 3), (1, 2))
    for error in errors:
        assert isinstance(error, ValueError)
        assert "`num_processes` is 3 in process 0, but 2 in process 1" in str(error)


def test_every_process_hears_that_two_have_one_number():
    errors = call((0, 3), (1, 3), (1, 3))
    for error in errors:
        assert isinstance(error, ValueError)
        assert "Two processes have the `process_id` 1; number them" in str(error)


def test_process_that_was_started_again_takes_its_own_place():
    coordinator = processes.free_address()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        lead = pool.submit(roll_call.hold, coordinator, 3, 0, PATIENT)
        first = connect(coordinator)
        first.sendall(roll_call._said(process=1, of=3))
        first.close()
        rest = [pool.submit(roll_call.hold, coordinator, 3, i, PATIENT) for i in (1, 2)]
        assert [each.result() for each in (lead, *rest)] == [None] * 3


def test_strangers_at_the_port_are_passed_over(monkeypatch):
    monkeypatch.setattr(roll_call, "_HELLO_SECONDS", 0.2)
    coordinator = processes.free_address()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        lead = pool.submit(roll_call.hold, coordinator, 2, 0, PATIENT)
        with connect(coordinator) as silent:
            with connect(coordinator) as loud:
                loud.sendall(b"GET / HTTP/1.1\r\n\r\n")
                roll_call.hold(coordinator, 2, 1, PATIENT)
                assert lead.result() is None
                assert silent.recv(1) == b""


def test_port_in_use_is_told_at_once(server):
    (error,) = call((0, 2), coordinator=address(server))
    assert isinstance(error, ConnectionError)
    port = server.getsockname()[1]
    assert f"cannot listen at port {port} of its machine: another program" in str(error)


def test_port_that_nobody_listens_at_is_told():
    coordinator = processes.free_address()
    (error,) = call((1, 2), timeout=SHORT, coordinator=coordinator)
    assert isinstance(error, ConnectionError)
    assert f"process 0 at {coordinator}: connection refused" in str(error)


@pytest.fixture
def nameless(monkeypatch):
    """No name has an address, whatever the machine's name server says of unknown ones.

    Takes the number of tries after which they have one.
    """
    connect = socket.create_connection

    def after(count):
        def tried(place, timeout):
            nonlocal count
            count -= 1
            if count >= 0:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return connect(place, timeout)

        monkeypatch.setattr(socket, "create_connection", tried)

    return after


def test_name_without_an_address_is_told(nameless):
    nameless(math.inf)
    (error,) = call((1, 2), timeout=SHORT, coordinator="nowhere.invalid:1234")
    assert isinstance(error, ConnectionError)
    assert "no address for 'nowhere.invalid'" in str(error)


def test_machine_that_does_not_answer_is_told(monkeypatch):
    def unanswered(place, timeout):
        raise TimeoutError

    # No address is silent on every machine that runs tests.
    monkeypatch.setattr(socket, "create_connection", unanswered)
    (error,) = call((1, 2), timeout=0.0, coordinator="10.1.2.3:1234")
    assert "process 0 at 10.1.2.3:1234: no answer; check the address" in str(error)


def test_process_0_is_told_that_the_address_is_not_its_own(monkeypatch):
    def unanswered(place, timeout):
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", unanswered)
    monkeypatch.setattr(roll_call, "_OWN_SECONDS", 0.2)
    (error,) = call((0, 2), coordinator="10.1.2.3:0")
    assert isinstance(error, ConnectionError)
    assert "Process 0 listens at port 0, but not at 10.1.2.3" in str(error)


def test_process_0_is_told_that_its_name_has_no_address(nameless):
    nameless(math.inf)
    (error,) = call((0, 2), timeout=SHORT, coordinator="nowhere.invalid:0")
    assert isinstance(error, ConnectionError)
    assert "no address for 'nowhere.invalid'" in str(error)


def test_process_0_waits_until_its_name_has_an_address(nameless, monkeypatch):
    monkeypatch.setattr(roll_call, "_OWN_SECONDS", 0.0)
    nameless(3)
    assert call((0, 1)) == [None]


def test_something_else_at_the_port_is_told(server):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        caller = pool.submit(roll_call.hold, address(server), 2, 1, PATIENT)
        line, _ = server.accept()
        line.sendall(b"\x00\x00\x18\x04")  # as another run's gRPC, which waits then
        with line, pytest.raises(ConnectionError, match="is not a process 0 that wait"):
            caller.result()


def test_process_0_that_goes_away_is_told(server):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        caller = pool.submit(roll_call.hold, address(server), 2, 1, PATIENT)
        server.accept()[0].close()
        with pytest.raises(ConnectionError, match="went away, or did not answer"):
            caller.result()
