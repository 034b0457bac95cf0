"""Code that runs in an interpreter with torch, which the tests' own does not have.

`make test-slow` sets one up. ADARANK_TORCH_PYTHON names it; it needs torch,
transformers and pillow, and must not have adarank_jax.
"""

import os
import subprocess

import pytest


def run(code, folder, *arguments, warns=True):
    """Runs code in a folder; returns what it printed, skips without an interpreter.

    Unless it may warn, nothing is accepted that transformers says of weights.
    """
    python = _interpreter()
    environment = {
        "PATH": os.environ["PATH"],
        "HF_HUB_OFFLINE": "1",
        "HOME": str(folder),
    }
    command = [python, "-c", code, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = [word for word in ("MISSING", "UNEXPECTED", "nitialized") if not warns]
    assert not [word for word in said if word in done.stderr], done.stderr
    return done.stdout


def runs(code):
    """Tells whether code runs, for example an import."""
    done = subprocess.run([_interpreter(), "-c", code], capture_output=True)
    return done.returncode == 0


def _interpreter():
    """Finds the interpreter, or skips the test."""
    python = os.environ.get("ADARANK_TORCH_PYTHON")
    if not python:
        pytest.skip("set ADARANK_TORCH_PYTHON to a python with torch and transformers")
    return python
