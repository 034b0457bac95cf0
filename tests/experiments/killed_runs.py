"""Kills runs of the real command again and again, and compares what is left.

    python -m tests.experiments.killed_runs FOLDER --random 10 --points 1

writes a tiny CLIP family to FOLDER, runs it once undisturbed, and then kills copies of
the run at random times and at every named point, each time going on with the same
command until it is done. Prints one JSON object. Everything is imported once: each run
is a fork that has computed nothing yet.
"""

import argparse
import hashlib
import itertools
import json
import os
import pathlib
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable

import jax
import yaml
from rich import box  # noqa: F401  what a first run would import on its way

from adarank_jax import faults
from adarank_jax.adaptation import loop  # noqa: F401
from adarank_jax.checkpoints import export  # noqa: F401
from experiments import cli, run_vit
from tests.experiments import tiny_family

TIMES = {"seconds", "waited", "sha256"}
"""Keys of what no two runs share."""
UNEXPECTED = 70
LIMIT = 120
"""Seconds, after which a run counts as hung."""


def fork(call: Callable[[], None], log: pathlib.Path, **variables: str) -> int:
    """Forks and calls; returns the number of the process."""
    pid = os.fork()
    if pid:
        return pid
    code: object = UNEXPECTED
    try:
        os.environ.update(variables)
        stream = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        call()
        code = 0
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else UNEXPECTED)


def start(file: pathlib.Path, run_dir: pathlib.Path, fault: str = "") -> int:
    """Starts the command in a fork; returns the number of the process."""
    words = [str(file), "--run-dir", str(run_dir)]
    return fork(
        lambda: cli.run(run_vit.main, run_vit.Options, words),
        run_dir.with_suffix(".log"),
        ADARANK_FAULT=fault,
    )


def wait(pid: int, seconds: float = LIMIT) -> int | None:
    """Waits for a process; returns its exit code, minus a signal, or None in time."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def facts(run_dir: pathlib.Path) -> dict:
    """Reads all that two runs of one configuration share, to the last bit."""
    found: dict = {"states": {}, "files": {}}
    for states in (run_dir / "checkpoints").iterdir():
        newest = max(states.glob("*/digests.json"), key=lambda f: int(f.parent.name))
        found["states"][states.name] = json.loads(newest.read_text())["arrays"]
    for pattern in ("adapted/**/*", "factors/*", "export/**/*", "*"):
        for file in run_dir.glob(f"{pattern}.safetensors"):
            sha = hashlib.sha256(file.read_bytes()).hexdigest()
            found["files"][str(file.relative_to(run_dir))] = sha
    rows = (run_dir / "metrics.jsonl").read_text().splitlines()
    found["rows"] = [without_times(json.loads(row)) for row in rows]
    found["results"] = without_times(json.loads((run_dir / "results.json").read_text()))
    found["left"] = sorted(
        str(path.relative_to(run_dir)) for path in run_dir.rglob(".*")
    )
    return found


def without_times(value):
    """Leaves out what no two runs share."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def finish(file: pathlib.Path, run_dir: pathlib.Path) -> None:
    """Goes on until the run is done."""
    code = wait(start(file, run_dir))
    if code != 0:
        raise SystemExit(f"the run ended with {code}:\n{tail(run_dir)}")


def tail(run_dir: pathlib.Path) -> str:
    """Returns the last lines that a run has shown."""
    return run_dir.with_suffix(".log").read_text()[-3000:]


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
    for time_of_point in range(1, times + 1):
        run_dir = folder / f"points-{time_of_point}"
        for point in faults.POINTS:
            code = wait(start(file, run_dir, f"{point}:{time_of_point}"))
            if code == -signal.SIGKILL:
                kills += 1
            elif code == 0:
                missed.append(f"{point}:{time_of_point}")
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
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    # Programs are kept, as between two starts of a user.
    jax.config.update("jax_compilation_cache_dir", str(options.folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    file = options.folder / "merge.yaml"
    write = lambda: tiny_family.write(options.folder)
    assert wait(fork(write, options.folder / "family.log")) == 0
    config = tiny_family.config(options.folder)
    config["adaptation"] = {"num_steps": 40, "batch_size": 8, "checkpoint_every": 5}
    config["adaptation"]["learning_rate"] = 0.1
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    begun = time.monotonic()
    finish(file, options.folder / "whole")
    seconds = time.monotonic() - begun
    expected = facts(options.folder / "whole")
    given = (file, options.folder)
    found = {"seconds": seconds}
    if options.random:
        chosen = (options.random, expected, seconds, options.seed)
        found["random"] = kill_at_random(*given, *chosen)
    if options.points:
        found["points"] = kill_at_points(*given, options.points, expected)
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
