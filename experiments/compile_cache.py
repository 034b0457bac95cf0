"""Keeps compiled programs between runs, so that a second start takes seconds.

JAX runs what it finds there, so the folder must be one that nobody else can write to.
"""

import hashlib
import os
import pathlib
import platform
import stat

import jax
from rich.console import Console

from adarank_jax.errors import Message
from experiments import cpuinfo, messages


def enable(folder: pathlib.Path | None = None) -> None:
    """Turns JAX's cache of compiled programs on, unless the user has set one.

    Args:
        folder: made if it is missing; `default()` if not given. If somebody else may
            write to it, it is not used and a line on standard error says so.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        folder = folder or default()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        problem = _problem(folder)
    except (OSError, RuntimeError) as error:  # no permission, or no home
        problem = str(error)
    if problem:
        found = Message("W402", f"compiled programs are not kept: {problem}")
        text = messages.warning(found)
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def default() -> pathlib.Path:
    """Returns the folder for programs of this kind of processor.

    Raises:
        RuntimeError: there is no home.
    """
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "adarank_jax" / "compiled" / _processor()


def _processor():
    """Hashes what the processor can do: a home may be shared by unlike machines."""
    # The instruction sets of x86 processors, or those of ARM.
    found = platform.machine() + cpuinfo.first_row("flags", "Features")
    return hashlib.sha256(found.encode()).hexdigest()[:12]


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
