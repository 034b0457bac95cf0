"""Every byte of a run folder or an export compared with what was written."""

import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from adarank_jax import errors
from adarank_jax.adaptation import run_folder, saved_states
from adarank_jax.adaptation.metrics_log import End, end_of
from adarank_jax.checkpoints import digests, factors, files, folders
from adarank_jax.errors import Message


class Checked(NamedTuple):
    """One file or state.

    Attributes:
        place: of it.
        damage: what is wrong; None if it is as it was written.
    """

    place: pathlib.Path
    damage: Message | None


def verify(path: pathlib.Path) -> Iterator[Checked]:
    """Checks a run folder or an export; changes nothing.

    Figures are not checked: they are drawn again from the rest.

    Args:
        path: of the folder.

    Yields:
        Every file or state that holds digests or is held by one.

    Raises:
        InputError: it is neither.
        MissingError: there is no such folder.
    """
    if not path.is_dir():
        raise errors.MissingError("E101", "there is no such folder", f"`{path}`")
    if (path / folders.MARK).is_file() or (path / folders.SUMS).is_file():
        yield _checked(path, lambda: _check_export(path))
        return
    if not (path / "config.yaml").is_file():
        raise errors.InputError(
            "E608",
            "neither a run nor an export",
            where=f"`{path}`",
            expected=f"a folder with config.yaml, or with {folders.SUMS}",
            remedy="give the folder of a run, or the export/ in it",
        )
    yield _checked(path / "config.yaml", lambda: run_folder.read_config(path))
    for name in ("manifest.json", "results.json"):
        if (path / name).is_file():
            yield _checked(path / name, lambda n=name: digests.read_sealed(path / n))
    for file in sorted((path / "factors").glob("*.safetensors")):
        yield _checked(file, lambda f=file: factors.check(f))
    for name in run_folder.WEIGHTS:
        for file in sorted((path / name).rglob("*.safetensors")):
            yield _checked(file, lambda f=file: files.read(f))
    for file in sorted(path.glob("*.safetensors")):
        yield _checked(file, lambda f=file: files.read(f))
    for states in sorted((path / "checkpoints").glob("*")):
        yield from _verify_states(path, states)
    if (path / "export").is_dir():
        yield _checked(path / "export", lambda: _check_export(path / "export"))


def _verify_states(path, states):
    """Checks the states of one adaptation, and the rows until the newest of them."""
    newest = None
    for step in sorted(saved_states.steps(states)):
        place = states / str(step)
        try:
            newest = saved_states.check(states, step)
            yield Checked(place, None)
        except errors.DamageError as error:
            yield Checked(place, error.message)
    if newest is not None:
        end = End(**newest["metrics"])
        rows = path / "metrics.jsonl"
        yield _checked(rows, lambda: _check_rows(rows, end))


def _check_rows(file, end):
    """Compares the beginning of the rows with its digest."""
    if end_of(file, end.size) != end:
        raise errors.DamageError(
            "E605", "rows were changed or are missing", f"`{file}`"
        )


def _check_export(path):
    """Compares the files of an export with their digests."""
    found = folders.strange(path)
    if found:
        raise errors.DamageError(
            "E607", found, f"`{path}`", remedy="export it again, or fetch it again"
        )


def _checked(place: pathlib.Path, check: Callable[[], object]) -> Checked:
    """Runs a check and notes what it says."""
    try:
        check()
    except errors.AdaRankError as error:
        return Checked(place, error.message)
    except OSError as error:
        return Checked(place, Message("E609", f"{error.strerror}", f"`{place}`"))
    return Checked(place, None)
