"""Starts `run_vit` as on machines that share no disk: each has its own run folder."""

import sys

from adarank_jax.adaptation import hosts
from experiments import cli, run, run_vit

if __name__ == "__main__":
    root, *words = sys.argv[1:]
    number = words[words.index("--process-id") + 1]
    if "--other-seeds" in words:
        words[words.index("--other-seeds")] = f"seed={number}"
    words += ["--run-dir", f"{root}/disk-{number}"]
    cli.run(run_vit.main, run_vit.Options, run.in_order(words), hosts.leave)
