"""Runs of the real command as forks of one process, so that hundreds fit into a test.

Everything is imported once, and a fork has computed nothing yet when it begins, so
that it may use JAX. What is computed here must be computed in a fork as well.
"""

import hashlib
import json
import os
import pathlib
import signal
import sys
import time
import traceback
from collections.abc import Callable

import jax
import yaml
from rich import box  # noqa: F401  what a run would import on its way

from adarank_jax.adaptation import loop  # noqa: F401
from adarank_jax.checkpoints import export  # noqa: F401
from experiments import cli, run_vit
from tests.experiments import tiny_family

TIMES = {"seconds", "waited", "saving", "file_sha256"}
"""Keys of what no two runs share."""
UNEXPECTED = 70
LIMIT = 120
"""Seconds, after which a run counts as hung."""


def prepare(folder: pathlib.Path, num_steps: int = 40) -> pathlib.Path:
    """Writes a family of experts and returns the file of a merge."""
    folder.mkdir(parents=True, exist_ok=True)
    keep_programs(folder)
    write = lambda: tiny_family.write(folder)
    assert wait(fork(write, folder / "family.log")) == 0
    config = tiny_family.config(folder)
    config["adaptation"] = {
        "num_steps": num_steps,
        "batch_size": 8,
        "checkpoint_every": 5,
        "learning_rate": 0.1,
    }
    file = folder / "merge.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return file


def keep_programs(folder: pathlib.Path) -> None:
    """Keeps compiled programs, as between two starts of a user."""
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def fork(call: Callable[[], None], log: pathlib.Path, **variables: str) -> int:
    """Forks and calls; returns the number of the process."""
    pid = os.fork()
    if pid:
        return pid
    code: object = UNEXPECTED
    try:
        os.environ.update(variables)
        signal.signal(signal.SIGINT, signal.default_int_handler)
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
        log(run_dir),
        ADARANK_FAULT=fault,
    )


def log(run_dir: pathlib.Path) -> pathlib.Path:
    """Returns the file of what the runs of a folder showed."""
    return run_dir.parent / f"{run_dir.name}.log"


def wait(pid: int, seconds: float = LIMIT) -> int | None:
    """Waits for a process; returns its exit code, minus a signal, or None in time."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def finish(file: pathlib.Path, run_dir: pathlib.Path) -> None:
    """Goes on until the run is done."""
    code = wait(start(file, run_dir))
    if code != 0:
        raise SystemExit(f"the run ended with {code}:\n{tail(run_dir)}")


def tail(run_dir: pathlib.Path) -> str:
    """Returns the last that the runs of a folder have shown."""
    return log(run_dir).read_text()[-3000:]


def facts(run_dir: pathlib.Path, has_rows: bool = True) -> dict:
    """Reads all that two runs of one configuration share, to the last bit."""
    found: dict = {"states": {}, "files": {}}
    for states in (run_dir / "checkpoints").iterdir():
        newest = max(states.glob("*/digests.json"), key=lambda f: int(f.parent.name))
        found["states"][states.name] = json.loads(newest.read_text())["arrays"]
    for pattern in ("adapted/**/*", "factors/*", "export/**/*", "*"):
        for file in run_dir.glob(f"{pattern}.safetensors"):
            if file.name == "recipe.safetensors":  # it names the commit
                continue
            sha = hashlib.sha256(file.read_bytes()).hexdigest()
            found["files"][str(file.relative_to(run_dir))] = sha
    rows = (run_dir / "metrics.jsonl").read_text().splitlines() if has_rows else []
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
