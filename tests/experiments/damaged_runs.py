"""Damages every file of a run that was killed half way, and goes on with it.

    python -m tests.experiments.damaged_runs FOLDER --flips 200 --truncations

Each time one file of a fresh copy gets a flipped bit, or is cut off, and the same
command is started. It must refuse and name the file, or come to the same result as a
run that was left alone. Prints one JSON object.
"""

import argparse
import collections
import json
import pathlib
import random
import shutil
import signal

from experiments import cli, verify
from tests.experiments.forked_runs import (
    facts,
    finish,
    fork,
    log,
    prepare,
    start,
    tail,
    wait,
)

IRRELEVANT = ("figures/", "lock", "metrics.jsonl")
"""Nothing depends on them: drawn again, held while a process runs, looked at."""


def sweep(file, half, expected, damages):
    """Tries one damage after the other; counts outcomes, lists what went unnoticed."""
    counts, silent = collections.Counter(), []
    run_dir = half.with_name("damaged")
    for name, content in damages:
        shutil.rmtree(run_dir, ignore_errors=True)
        shutil.copytree(half, run_dir)
        (run_dir / name).write_bytes(content)
        log(run_dir).unlink(missing_ok=True)
        seen = verified(run_dir) or name.startswith(IRRELEVANT)
        log(run_dir).unlink(missing_ok=True)
        code = wait(start(file, run_dir))
        if code == 0:
            # Rows that are damaged stay so; no result is made from them.
            has_rows = name != "metrics.jsonl"
            found = facts(run_dir, has_rows)
            wanted = expected if has_rows else expected | {"rows": []}
            outcome = "recovered" if found == wanted else "silent"
        else:
            told = tail(run_dir).rpartition("error E")[2]
            named = str(pathlib.Path(name).parent.name or name) in told
            outcome = f"refused {code}" if code in (2, 4, 6) and named else "silent"
        if outcome == "silent" or not seen:
            silent.append([name, code, seen, tail(run_dir)[-500:]])
        counts[outcome] += 1
    return {"counts": counts, "silent": silent}


def verified(run_dir):
    """Tells whether `verify` finds the damage."""
    words = [str(run_dir)]
    call = lambda: cli.run(verify.main, verify.Options, words)
    return wait(fork(call, log(run_dir))) in (4, 6)


def flips(half, count, seed):
    """Yields files with one bit flipped, each file as often as the others."""
    rng, names = random.Random(seed), files(half)
    rng.shuffle(names)
    for number in range(count):
        name = names[number % len(names)]
        content = bytearray((half / name).read_bytes())
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            yield name, bytes(content)


def truncations(half):
    """Yields every file cut off at several places."""
    for name in files(half):
        content = (half / name).read_bytes()
        for size in sorted({0, 1, len(content) // 2, len(content) - 1}):
            if 0 <= size < len(content):
                yield name, content[:size]


def files(half):
    """Lists the files of a run."""
    found = [path for path in half.rglob("*") if path.is_file()]
    return sorted(path.relative_to(half).as_posix() for path in found)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--flips", type=int, default=0)
    parser.add_argument("--truncations", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    file = prepare(options.folder, num_steps=20)
    half = options.folder / "half"
    finish(file, options.folder / "whole")
    expected = facts(options.folder / "whole")
    assert wait(start(file, half, "state-dropped:3")) == -signal.SIGKILL
    found: dict = {"files": len(files(half))}
    if options.flips:
        damages = flips(half, options.flips, options.seed)
        found["flips"] = sweep(file, half, expected, damages)
    if options.truncations:
        found["truncations"] = sweep(file, half, expected, truncations(half))
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
