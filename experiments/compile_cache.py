"""Keeps compiled programs between runs, so that a second start takes seconds.

JAX runs what it finds there, so the folder must be one that nobody else can write to.
"""

import os
import pathlib
import stat

import jax
from rich.console import Console


def enable(folder: pathlib.Path | None = None) -> None:
    """Turns JAX's cache of compiled programs on, unless the user has set one.

    Args:
        folder: made if it is missing; `default()` if not given. If somebody else may
            write to it, it is not used and a line on standard error says so.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    folder = folder or default()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        problem = _problem(folder)
    except OSError as error:
        problem = str(error)
    if problem:
        text = f"warning: compiled programs are not kept: {problem}"
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def default() -> pathlib.Path:
    """Returns the folder for compiled programs, from the environment."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "adarank_jax" / "compiled"


def _problem(folder):
    """Says why a folder must not be trusted, or nothing."""
    found = folder.stat()
    if found.st_uid != os.getuid():
        return f"{folder} belongs to another user; move it away."
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to {folder}; run: chmod 700 {folder}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} cannot be written to."
    return ""
