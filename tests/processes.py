"""Starts one command in several processes that find each other."""

import concurrent.futures
import os
import signal
import socket
import subprocess
import sys


def start(words, num_processes=2, devices_each=4):
    """Starts `python WORDS --coordinator ... --process-id i`, all at once."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    environment = {"JAX_NUM_CPU_DEVICES": str(devices_each), "PYTHONFAULTHANDLER": "1"}
    return [
        subprocess.Popen(
            [
                *(sys.executable, *words),
                *("--coordinator", coordinator),
                *("--num-processes", str(num_processes)),
                *("--process-id", str(number)),
            ],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(num_processes)
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
