"""Starts one command in several processes that find each other."""

import concurrent.futures
import os
import signal
import socket
import subprocess
import sys


def free_address():
    """Returns an address at which nothing listens."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def start(words, devices=(4, 4)):
    """Starts `python WORDS --coordinator ... --process-id i`, all at once.

    Args:
        words: of the command.
        devices: of each process.
    """
    coordinator = free_address()
    return [
        subprocess.Popen(
            [
                *(sys.executable, *words),
                *("--coordinator", coordinator),
                *("--num-processes", str(len(devices))),
                *("--process-id", str(number)),
            ],
            env=os.environ
            | {"JAX_NUM_CPU_DEVICES": str(count), "PYTHONFAULTHANDLER": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number, count in enumerate(devices)
    ]


def finish(processes, timeout=500):
    """Waits for all; returns their exit codes and what they printed."""
    with concurrent.futures.ThreadPoolExecutor(len(processes)) as pool:
        # All are read at once, because a full pipe would stop the one that fills it.
        waiting = [pool.submit(process.communicate) for process in processes]
        if concurrent.futures.wait(waiting, timeout).not_done:
            for process in processes:
                process.send_signal(signal.SIGABRT)  # shows where each one is
        printed = [each.result()[0] for each in waiting]
    return [process.returncode for process in processes], printed
