"""A copy of parquet files that can be read at random.

An Arrow file is mapped into memory: nothing is loaded but the pages of the images that
are asked for. It is written beside its final name and then renamed, so that a copy is
whole or not there.
"""

import hashlib
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from adarank_jax import errors


def cache_folder(cache_dir: str | os.PathLike | None) -> pathlib.Path:
    """Returns where copies are kept.

    Args:
        cache_dir: of the user's choice; None for the usual place.
    """
    if cache_dir is not None:
        return pathlib.Path(cache_dir)
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "adarank_jax" / "images"


def find(
    paths: Sequence[pathlib.Path],
    columns: Sequence[str | None],
    folder: pathlib.Path,
) -> pathlib.Path:
    """Returns the copy of some parquet files, and makes it if need be.

    Args:
        paths: of the parquet files; another size or time makes another copy.
        columns: names of the images and of the labels, which may be None.
        folder: of the copies.

    Returns:
        The Arrow file, with columns `image` and perhaps `label`.

    Raises:
        InputError: a parquet file is damaged.
        OSError: it cannot be written.
    """
    identity = [str(_VERSION), *map(str, columns)]
    for path in paths:
        stat = path.stat()
        identity += [str(path.resolve()), str(stat.st_size), str(stat.st_mtime_ns)]
    digest = hashlib.sha256("\n".join(identity).encode()).hexdigest()
    arrow = folder / f"{digest[:32]}.arrow"
    if not arrow.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{arrow.name}.")
        os.close(handle)
        try:
            _copy(paths, columns, temporary)
            os.replace(temporary, arrow)
        except BaseException:
            pathlib.Path(temporary).unlink(missing_ok=True)
            raise
    return arrow


def _copy(paths, columns, target):
    """Writes images and labels of all rows into an Arrow file."""
    import pyarrow as pa

    with (
        pa.OSFile(target, "wb") as stream,
        pa.ipc.new_file(stream, _schema(columns)) as writer,
    ):
        for path in paths:
            for batch in batches(path, columns, _ROWS):
                writer.write_batch(batch)


def _schema(columns):
    """Returns the types of a copy."""
    import pyarrow as pa

    fields = [("image", pa.large_binary()), ("label", pa.int64())]
    return pa.schema(fields[: 2 if columns[1] else 1])


def batches(
    path: pathlib.Path, columns: Sequence[str | None], rows: int, first: bool = False
) -> Iterator[Any]:
    """Reads images and labels of a parquet file.

    Args:
        path: of the file.
        columns: names of the images and of the labels, which may be None.
        rows: of a batch at most.
        first: whether the first group of rows will do.

    Yields:
        Record batches with columns `image` and perhaps `label`.

    Raises:
        InputError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            groups = list(range(file.num_row_groups))[: 1 if first else None]
            wanted = [column for column in columns if column]
            for batch in file.iter_batches(rows, row_groups=groups, columns=wanted):
                image = batch.column(columns[0])
                if pa.types.is_struct(image.type):
                    image = image.flatten()[image.type.get_field_index("bytes")]
                arrays = [image.cast(pa.large_binary())]
                if columns[1]:
                    arrays.append(batch.column(columns[1]).cast(pa.int64()))
                yield pa.record_batch(arrays, schema=_schema(columns))
    except (pa.ArrowInvalid, OSError) as error:
        raise damaged(path, error) from error


def damaged(path: pathlib.Path, error: Exception) -> errors.InputError:
    """Says that a part of a parquet file cannot be read.

    Args:
        path: of the file.
        error: of the library.
    """
    found = f"damaged ({str(error).rstrip('.')})"
    return errors.InputError("E162", found, f"`{path}`", remedy="fetch it again")


def not_whole(path: pathlib.Path, error: Exception) -> errors.InputError:
    """Says that a file is no parquet file, or the beginning of one.

    Args:
        path: of the file.
        error: of the library.
    """
    size = f"{path.stat().st_size:,} bytes"
    found = f"no whole parquet file ({size}): {str(error).rstrip('.')}"
    return errors.InputError("E162", found, f"`{path}`", remedy="fetch it again")


_ROWS = 256  # of a record batch
_VERSION = 1  # of the Arrow file
