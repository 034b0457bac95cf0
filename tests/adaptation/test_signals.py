import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from adarank_jax.adaptation import signals
from adarank_jax.adaptation.signals import Stopped, Wish


def wait_for(requests, wish):
    """Waits until the thread that listens has noted a signal."""
    ends = time.monotonic() + 5
    while (found := requests.take()) is not wish and time.monotonic() < ends:
        time.sleep(0.001)
    return found


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_stop_is_noted_and_raised_with_the_code_of_a_shell(number, code, monkeypatch):
    number = getattr(signal, number)
    monkeypatch.setattr(signals, "_is_wanted", lambda number: True)
    with pytest.raises(Stopped) as stopped, signals.noted() as requests:
        assert requests.take() is Wish.NOTHING
        os.kill(os.getpid(), number)
        assert wait_for(requests, Wish.STOP) is Wish.STOP
        assert requests.take() is Wish.STOP
    assert stopped.value.exit_code == code


def test_save_is_asked_for_once():
    with signals.noted() as requests:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert wait_for(requests, Wish.SAVE) is Wish.SAVE
        assert requests.take() is Wish.NOTHING


def test_stop_that_is_sent_twice_is_one_stop():
    requests = signals.Requests()
    requests.note(signal.SIGTERM)
    requests.note(signal.SIGTERM)
    assert requests.take() is Wish.STOP


def test_save_outside_of_the_steps_does_nothing():
    with signals.raised():
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.01)


def test_handlers_are_those_of_before_afterwards():
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with signals.noted():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    with signals.raised():
        pass
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def test_stop_outside_of_the_steps_is_an_exception_at_once():
    with pytest.raises(Stopped) as stopped, signals.raised():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert stopped.value.exit_code == 143


def test_signal_that_the_shell_turned_off_stays_off():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.noted() as requests:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert wait_for(requests, Wish.SAVE) is Wish.SAVE
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_is_asked_for_nothing():
    found = []

    def work():
        with signals.noted() as requests:
            found.append(requests.take())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [Wish.NOTHING]


def test_second_stop_ends_a_process_that_computes(tmp_path):
    text = """
        import hashlib
        from adarank_jax.adaptation import signals
        with signals.noted():
            print("ready", flush=True)
            # Minutes in which no handler of Python's is called.
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
    """
    command = [sys.executable, "-c", textwrap.dedent(text)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGTERM)
            time.sleep(2 * signals._ONE_STOP)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 143
        finally:
            process.kill()
