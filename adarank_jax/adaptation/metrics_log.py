"""Rows of several adaptations in one `metrics.jsonl`, exact across kills.

Every saved state notes how long the file was and the digest of that much. A resumed
adaptation cuts the file back to there, so no row is missing, doubled or torn.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from adarank_jax import faults
from adarank_jax.checkpoints import files


class End(NamedTuple):
    """How far the file goes.

    Attributes:
        size: bytes.
        sha256: digest of that many bytes, in hexadecimal.
    """

    size: int
    sha256: str


class MetricsLog:
    """Appends the rows of one adaptation.

    Args:
        file: made if it is missing.
        name: of the adaptation; in every row of it under ``run``.
        end: of the file when the state was saved that is gone on from; None to begin
            with the first step.

    Attributes:
        doubt: a sentence if the rows until `end` are not those that were written, which
            nothing depends on; empty otherwise.
    """

    def __init__(self, file: pathlib.Path, name: str, end: End | None):
        """Cuts off what an earlier start wrote after its last saved state."""
        found = file.read_bytes() if file.is_file() else b""
        kept = found[: _first_row(found, name) if end is None else end.size]
        kept = kept[: kept.rfind(b"\n") + 1]
        self._size, self._sha = len(kept), hashlib.sha256(kept)
        self.doubt = ""
        if end not in (None, self.end):  # what is there counts from now on
            self.doubt = f"rows of `{file}` were changed or are missing"
        if kept != found:
            files.write_whole(file, kept)
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._name = file, name

    @property
    def end(self) -> End:
        """How far the file goes now."""
        return End(self._size, self._sha.hexdigest())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Reads the rows of this adaptation; those that cannot be read are left out."""
        if self._file.is_file():
            for line in self._file.read_bytes().splitlines():
                if line.startswith(_beginning(self._name)):
                    with contextlib.suppress(ValueError):
                        yield json.loads(line)

    def sync(self) -> None:
        """Waits until the rows are on the disk."""
        if self._file.is_file():
            with self._file.open("rb") as stream:
                os.fsync(stream.fileno())

    def append(self, row: dict[str, Any]) -> None:
        """Writes a row.

        Args:
            row: plain values.
        """
        line = (json.dumps(row) + "\n").encode()
        half = len(line) // 2
        with self._file.open("ab") as stream:
            stream.write(line[:half])
            stream.flush()
            faults.point("row-half-written")
            stream.write(line[half:])
        faults.point("row-written")
        self._sha.update(line)
        self._size += len(line)


def end_of(file: pathlib.Path, size: int) -> End:
    """Reads how far the first bytes of a file of rows go.

    Args:
        file: of rows.
        size: bytes.
    """
    found = file.read_bytes()[:size] if file.is_file() else b""
    return End(len(found), hashlib.sha256(found).hexdigest())


def end_before(file: pathlib.Path, name: str, step: int) -> End:
    """Finds where the rows from a step on begin, for who noted no end.

    Args:
        file: of rows.
        name: of the adaptation or training.
        step: first one to be written again.
    """
    size, content = 0, file.read_bytes() if file.is_file() else b""
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        if line.startswith(_beginning(name)):
            try:
                is_before = json.loads(line)["step"] < step
            except ValueError:
                break
            if not is_before:
                break
        size += len(line)
    return end_of(file, size)


def _first_row(content, name):
    """Finds where the rows of an adaptation begin; the end of the last whole row."""
    position = 0
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n") or line.startswith(_beginning(name)):
            break
        position += len(line)
    return position


def _beginning(name):
    """Returns what every row of an adaptation begins with."""
    return json.dumps({"run": name})[:-1].encode()
