"""Kills runs of the real command again and again, and compares what is left.

    python -m tests.experiments.killed_runs FOLDER --random 10 --points 1

runs a tiny merge once undisturbed, and then kills copies of it at random times and at
every named point, each time going on with the same command until it is done. Prints one
JSON object.
"""

import argparse
import itertools
import json
import os
import pathlib
import random
import signal
import time

from adarank_jax import faults
from tests.experiments.forked_runs import facts, finish, prepare, start, tail, wait


def kill_at_random(file, folder, count, expected, seconds, seed):
    """Kills runs at random times until so many were killed."""
    rng, lost, kills = random.Random(seed), [], 0
    for number in itertools.count():
        run_dir = folder / f"random-{number}"
        while kills < count:
            pid = start(file, run_dir)
            code = wait(pid, rng.uniform(0.1, 0.9) * seconds)
            if code is None:
                os.kill(pid, signal.SIGKILL)
                wait(pid)
                kills += 1
                continue
            if code:
                raise SystemExit(f"a restart ended with {code}:\n{tail(run_dir)}")
            break
        finish(file, run_dir)
        lost += [] if facts(run_dir) == expected else [run_dir.name]
        if kills >= count:
            return {"kills": kills, "runs": number + 1, "lost": lost}


def kill_at_points(file, folder, times, expected):
    """Kills one run at every named point, and goes on to the next point with it."""
    kills, lost, missed = 0, [], []
    for passed in range(1, times + 1):
        run_dir = folder / f"points-{passed}"
        for point in faults.POINTS:
            code = wait(start(file, run_dir, f"{point}:{passed}"))
            if code == -signal.SIGKILL:
                kills += 1
            elif code == 0:
                missed.append(f"{point}:{passed}")
            else:
                raise SystemExit(f"{point} ended with {code}:\n{tail(run_dir)}")
        finish(file, run_dir)
        lost += [] if facts(run_dir) == expected else [run_dir.name]
    return {"kills": kills, "lost": lost, "missed": missed}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--points", type=int, default=0)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    file = prepare(options.folder, options.steps)
    finish(file, options.folder / "warm")  # programs are compiled
    begun = time.monotonic()
    finish(file, options.folder / "whole")
    seconds = time.monotonic() - begun
    expected = facts(options.folder / "whole")
    given = (file, options.folder)
    found = {"seconds": seconds, "same": facts(options.folder / "warm") == expected}
    if options.random:
        chosen = (options.random, expected, seconds, options.seed)
        found["random"] = kill_at_random(*given, *chosen)
    if options.points:
        found["points"] = kill_at_points(*given, options.points, expected)
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
