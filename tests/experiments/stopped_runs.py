"""Stops runs of the real command by a signal, a full disk or a second run.

    python -m tests.experiments.stopped_runs FOLDER --prepare
    python -m tests.experiments.stopped_runs FOLDER --signal SIGTERM

Prints one JSON object.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import time

from tests.experiments.forked_runs import (
    facts,
    finish,
    keep_programs,
    log,
    prepare,
    start,
    tail,
    wait,
)


def rows(run_dir):
    """Counts the rows that a run has written."""
    file = run_dir / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def wait_for_rows(run_dir, count, pid):
    """Waits until a run has written so many rows."""
    ends = time.monotonic() + 120
    while rows(run_dir) < count:
        assert time.monotonic() < ends, tail(run_dir)
        assert os.waitpid(pid, os.WNOHANG)[0] == 0, tail(run_dir)
        time.sleep(0.001)


def steps(run_dir):
    """Lists the steps of the states that are kept."""
    found = (run_dir / "checkpoints").glob("*/*/digests.json")
    return sorted(int(file.parent.name) for file in found)


def by_signal(file, run_dir, expected, number):
    """Sends a signal soon after a state was saved."""
    pid = start(file, run_dir)
    wait_for_rows(run_dir, 11, pid)
    os.kill(pid, number)
    found: dict = {"code": None}
    if number == signal.SIGUSR1:
        seen: set[int] = set()
        while found["code"] is None:
            found["code"] = wait(pid, 0.002)
            seen |= {*steps(run_dir)}
        found["steps"] = sorted(seen)
    else:
        found["code"] = wait(pid)
        found |= {"saved": max(steps(run_dir)), "rows": rows(run_dir)}
        finish(file, run_dir)
    return found | {"same": facts(run_dir) == expected}


def on_full_disk(file, run_dir, expected):
    """Fills the disk of a run after its second state."""
    pid = start(file, run_dir)
    wait_for_rows(run_dir, 11, pid)
    filler = run_dir.parent / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            pass
    found = {"code": wait(pid), "told": tail(run_dir)}
    filler.unlink()
    finish(file, run_dir)
    return found | {"same": facts(run_dir) == expected}


def twice(file, run_dir, expected):
    """Starts a second run while the first is at work."""
    pid = start(file, run_dir)
    wait_for_rows(run_dir, 1, pid)
    log(run_dir).unlink()
    second = wait(start(file, run_dir))
    found = {"pid": pid, "second": second, "told": tail(run_dir)}
    return found | {"code": wait(pid), "same": facts(run_dir) == expected}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--signal")
    parser.add_argument("--disk", type=pathlib.Path)
    parser.add_argument("--twice", action="store_true")
    options = parser.parse_args()
    if options.prepare:
        finish(prepare(options.folder), options.folder / "whole")
        print(json.dumps({}))  # noqa: T201
        return
    keep_programs(options.folder)
    file = options.folder / "merge.yaml"
    run_dir = (options.disk or options.folder) / "stopped"
    shutil.rmtree(run_dir, ignore_errors=True)
    given = (file, run_dir, facts(options.folder / "whole"))
    if options.signal:
        found = by_signal(*given, getattr(signal, options.signal))
    elif options.disk:
        found = on_full_disk(*given)
    else:
        found = twice(*given)
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
