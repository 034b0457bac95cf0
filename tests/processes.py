"""Starts one command in several processes that find each other."""

import os
import socket
import subprocess
import sys


def start(words, num_processes=2, devices_each=4, **options):
    """Starts `python WORDS --coordinator ... --process-id i`, all at once."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices_each)}
    return [
        subprocess.Popen(
            [
                *(sys.executable, *words),
                *("--coordinator", coordinator),
                *("--num-processes", str(num_processes)),
                *("--process-id", str(number)),
            ],
            env=environment | options.get("env", {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(num_processes)
    ]


def finish(processes, timeout=300):
    """Waits for all; returns their exit codes and what they printed."""
    try:
        printed = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], printed
