"""Data sets of parquet files, local or from the Hugging Face Hub.

Parquet is compressed in groups of rows and cannot be read at random. The rows are
written once into an Arrow file (`arrow_copy`) when the first image is asked for.
"""

import json
import os
import pathlib
import re
import threading
from collections.abc import Iterator, Sequence

import numpy as np

from adarank_jax import errors
from adarank_jax.data import arrow_copy, images
from adarank_jax.data.sources import check_labels, file_content

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "img_bytes", "image_bytes")
LABEL_COLUMNS = ("label", "labels", "cls", "fine_label")


class ParquetImages:
    """Rows of parquet files as images with labels.

    Args:
        files: in the order of the rows.
        image: names that the column of images may have: bytes of an image file, or a
            struct that holds them as `bytes`.
        label: names that the column of class numbers may have; an absent one means
            that there are no labels.
        cache_dir: where the Arrow file is kept; `~/.cache/adarank_jax` by default. It
            is about as large as the parquet files, and made by `prepare` or when the
            first image is asked for.
        name: of the source in messages.

    Attributes:
        classes: names of the classes, if the files say them; else empty.
        labels: `(images,)` int32.
        origin: repository and commit of files from the Hub; else empty.
        warnings: of what is taken on trust.

    Raises:
        MissingError: a file is missing.
        InputError: a file is damaged, there is no row, no such column, or one of
            another type.
    """

    def __init__(
        self,
        files: Sequence[str | os.PathLike],
        image: Sequence[str] = IMAGE_COLUMNS,
        label: Sequence[str] = LABEL_COLUMNS,
        cache_dir: str | os.PathLike | None = None,
        name: str | None = None,
    ):
        """Reads schemas and labels; no image is read and nothing is written."""
        paths = [pathlib.Path(file) for file in files]
        self._name = name or (f"`{paths[0].parent}`" if paths else "the data set")
        if not paths:
            raise errors.InputError("E163", "no parquet file", self._name)
        self._files, self._columns = paths, _columns(paths, image, label)
        self._cache = arrow_copy.cache_folder(cache_dir)
        self._lock = threading.Lock()
        self._opened = None
        self.classes = class_names(paths[0], self._columns[1])
        self.origin: str = ""
        self.warnings: list[errors.Message] = []
        count, labels = _read_labels(paths, self._columns[1])
        if not count:
            raise errors.InputError(
                "E320", f"no row in {len(paths)} parquet files", self._name
            )
        known = len(self.classes) or None
        self.labels = check_labels(labels, count, self._name, known)

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns an image and its label.

        Raises:
            IndexError: there is no such row.
            InputError: the row holds no image, or a file is damaged.
            OSError: the Arrow file cannot be written, which the first image needs.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no row {index} among {len(self)}.")
        chunks, ends = self._opened or self._open()
        row = index % len(self)
        chunk = int(np.searchsorted(ends, row, side="right"))
        place = row - int(ends[chunk]) + len(chunks[chunk])
        image = self._decode(chunks[chunk][place], row)
        return image, int(self.labels[row])

    def prepare(self) -> None:
        """Makes the Arrow file if there is none, and maps it.

        Raises:
            InputError: a file is damaged.
            OSError: it cannot be written.
        """
        self._open()

    def _open(self):
        """Returns the chunks of the column of images, and where each ends."""
        import pyarrow as pa

        with self._lock:
            if self._opened is None:
                arrow = arrow_copy.find(self._files, self._columns, self._cache)
                table = pa.ipc.open_file(pa.memory_map(str(arrow))).read_all()
                chunks = table.column("image").chunks
                self._opened = (chunks, np.cumsum([len(chunk) for chunk in chunks]))
            return self._opened

    def glance(self, count: int) -> list[np.ndarray]:
        """Returns the first images, at most one group of rows; nothing is written.

        Args:
            count: how many at most.

        Raises:
            InputError: a row holds no image, or a file is damaged.
        """
        columns = (self._columns[0], None)
        batches = (
            batch
            for path in self._files
            for batch in arrow_copy.batches(path, columns, count, first=True)
        )
        batch = next(batch for batch in batches if len(batch))
        return [self._decode(cell, i) for i, cell in enumerate(batch.column("image"))]

    def content(self) -> Iterator[bytes]:
        """Yields names, sizes and parts of the files, and the commit on the Hub."""
        yield self.origin.encode()
        for path in self._files:
            yield path.name.encode(errors="surrogateescape")
            yield file_content(path)

    def _decode(self, cell, row):
        """Decodes the bytes of an image file."""
        held, name = cell.as_buffer(), f"image {row} of {self._name}"
        if held is None:
            raise errors.InputError(
                "E331", "it is missing (null)", name, remedy="fetch the data set again"
            )
        return images.decode(memoryview(held), name)


def class_names(path: str | os.PathLike, label: str | None) -> tuple[str, ...]:
    """Reads the class names that `datasets` writes into the schema of a file.

    Args:
        path: of the file.
        label: name of the column.

    Returns:
        The names in the order of the labels; empty if the file does not say them.
    """
    import pyarrow.parquet as pq

    metadata = pq.read_schema(path).metadata or {}
    try:
        info = json.loads(metadata.get(b"huggingface", b"{}"))
        names = info["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def find_files(
    folder: str | os.PathLike, split: str, config: str | None = None
) -> list[pathlib.Path]:
    """Finds the parquet files of a split in a folder laid out as on the Hub.

    Args:
        folder: of the data set.
        split: for example "test".
        config: of the data set, if it has several.

    Returns:
        The files, in order.

    Raises:
        MissingError: there is no such folder.
        InputError: there is no file of the split, several configurations have one, or
            a shard is missing.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise errors.MissingError(
            "E101", "there is no such folder", f"`{folder}`", remedy="check the path"
        )
    every = sorted(folder.rglob("*.parquet"))
    files = [file for file in every if _is_of(file.relative_to(folder), split, config)]
    where = f"split {split!r}" + (f" of {config!r}" if config else "")
    if not files:
        names = [str(file.relative_to(folder)) for file in every]
        held = ", ".join(names[:8]) or "no parquet file at all"
        raise errors.InputError(
            "E163",
            f"no parquet file of {where} (it holds {held})",
            where=f"`{folder}`",
            remedy="check split and configuration, or fetch the data set again",
        )
    parents = sorted({str(file.parent.relative_to(folder)) for file in files})
    if len(parents) > 1:
        raise errors.InputError(
            "E165",
            f"{where} is in several folders, {parents}",
            where=f"`{folder}`",
            remedy="name one as the configuration",
        )
    _check_shards(files, where)
    return files


def from_hub(
    repo: str,
    split: str = "test",
    config: str | None = None,
    image: Sequence[str] = IMAGE_COLUMNS,
    label: Sequence[str] = LABEL_COLUMNS,
    revision: str | None = None,
    offline: bool = False,
    cache_dir: str | os.PathLike | None = None,
) -> ParquetImages:
    """Reads one split of a data set on the Hub; fetches what is not there yet.

    Args:
        repo: ``owner/name``, or ``owner/name@revision``.
        split: for example "test".
        config: of the data set, if it has several.
        image: as for `ParquetImages`.
        label: as for `ParquetImages`.
        revision: branch, tag or commit; data sets in another format have a branch
            ``refs/convert/parquet``.
        offline: never use the network.
        cache_dir: of the Arrow file; the parquet files go where huggingface_hub keeps
            them.

    Returns:
        The images.

    Raises:
        MissingError: the data set is not there and cannot be fetched.
        InputError: the data set has no such split, or is not in parquet.
    """
    repo, _, after = repo.partition("@")
    revision = revision or after or None
    folder = fetch(repo, split, config, revision, offline)
    files = find_files(folder, split, config)
    source = ParquetImages(files, image, label, cache_dir, f"`{repo}` ({split})")
    source.origin = f"{repo}@{folder.name}"  # the Hub's cache names it by the commit
    return source


def fetch(
    repo: str,
    split: str,
    config: str | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> pathlib.Path:
    """Fetches the parquet files of a split from the Hub.

    Args:
        repo: ``owner/name``.
        split: for example "test".
        config: of the data set, if it has several.
        revision: branch, tag or commit.
        offline: only look where earlier ones were kept.

    Returns:
        The folder of the data set.

    Raises:
        MissingError: the data set is not there and cannot be fetched.
    """
    options = {"local_files_only": offline}
    return pathlib.Path(_snapshot(repo, split, config, revision, options))


def download_size(
    repo: str, split: str, config: str | None = None, revision: str | None = None
) -> int:
    """Asks the Hub how much `fetch` would still download.

    Args:
        repo: ``owner/name``.
        split: for example "test".
        config: of the data set, if it has several.
        revision: branch, tag or commit.

    Returns:
        Bytes.

    Raises:
        MissingError: the Hub cannot be asked.
        InputError: there is no parquet file of the split.
    """
    files = _snapshot(repo, split, config, revision, {"dry_run": True})
    if not files:
        raise errors.InputError(
            "E163",
            f"no parquet file of split {split!r} (any more)",
            where=f"`{repo}` on the Hub",
            expected=f"one of {patterns(split, config)}",
            remedy="give it as your own folder",
        )
    return sum(file.file_size or 0 for file in files if file.will_download)


def _snapshot(repo, split, config, revision, options):
    """Asks the Hub for the files of a split."""
    import huggingface_hub
    from huggingface_hub import errors as failures

    try:
        return huggingface_hub.snapshot_download(
            repo,
            repo_type="dataset",
            revision=revision,
            allow_patterns=patterns(split, config),
            **options,
        )
    except (failures.HfHubHTTPError, failures.HFValidationError, OSError) as error:
        at = f" at {revision!r}" if revision else ""
        reason = str(error).strip().splitlines()[0]
        if isinstance(error, failures.LocalEntryNotFoundError):
            reason = "it was not fetched before, and the Hub cannot be reached now: "
            is_off = options.get("local_files_only")
            reason += f"no network{', or `offline` is set' if is_off else ''}"
        raise errors.MissingError(
            "E167",
            f"the data set is not here: {reason.rstrip('.')}",
            where=f"`{repo}`{at}",
            remedy="fetch it with `python -m experiments.prepare` where there is a "
            "network, check the name, or give a folder of parquet files",
        ) from error


def patterns(split: str, config: str | None = None) -> list[str]:
    """Lists what the files of a split may be called in a data set on the Hub.

    Args:
        split: for example "test".
        config: of the data set, if it has several.
    """
    folders = [f"{config}/"] if config else ["", "data/", "default/"]
    ends = (f"{split}-*.parquet", f"{split}.parquet", f"{split}/*.parquet")
    found = [f"{folder}{end}" for folder in folders for end in ends]
    return found if config else [*found, f"*/{split}-*.parquet"]


def _is_of(path, split, config):
    """Tells whether a file belongs to a split."""
    *folders, name = path.parts
    if config and config not in folders:
        return False
    if re.fullmatch(rf"{re.escape(split)}(-.*)?\.parquet", name):
        return True
    return bool(folders) and folders[-1] == split


def _check_shards(files, where):
    """Raises if the names say that there are more files."""
    matches = [re.search(r"-(\d+)-of-(\d+)", file.name) for file in files]
    if not any(matches):
        return
    there = {int(match[1]) for match in matches if match}
    count = max(int(match[2]) for match in matches if match)
    missing = sorted(set(range(count)) - there)
    if missing:
        raise errors.InputError(
            "E164",
            f"it lacks {len(missing)} of {count} parquet files of {where}: number "
            f"{', '.join(map(str, missing[:8]))}",
            where=f"`{files[0].parent}`",
            remedy="fetch it again",
        )


def _columns(paths, image, label):
    """Returns the names of the two columns; that of the labels may be None."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names, first = [None, None], None
    for path in paths:
        if not path.is_file():
            raise errors.MissingError(
                "E101", "there is no such file", f"`{path}`", remedy="fetch it again"
            )
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise arrow_copy.not_whole(path, error) from error
        columns = [_pick(schema.names, image), _pick(schema.names, label)]
        if columns[0] is None:
            raise errors.InputError(
                "E344",
                f"it has columns {schema.names}",
                where=f"`{path}`",
                expected=f"images in one of {list(image)}",
                remedy="name the column",
            )
        _check_types(path, schema, *columns)
        if first is not None and columns != names:
            raise errors.InputError(
                "E166",
                f"it has columns {columns}, but `{first}` has {names}",
                where=f"`{path}`",
                remedy="are they of one data set?",
            )
        names, first = columns, first or path
    return names


def _pick(names, wanted):
    """Returns the first wanted name that is there."""
    return next((name for name in wanted if name in names), None)


def _check_types(path, schema, image, label):
    """Raises if a column cannot hold what it should."""
    import pyarrow as pa

    kind = schema.field(image).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise errors.InputError(
            "E350",
            str(schema.field(image).type),
            where=f"column {image!r} of `{path}`",
            expected="the bytes of image files, or a struct with `bytes`",
        )
    if label is None:
        return
    kind = schema.field(label).type
    if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise errors.InputError(
            "E350",
            str(kind),
            where=f"column {label!r} of `{path}`",
            expected="class numbers",
            remedy="name the column of the labels",
        )


def _read_labels(paths, label):
    """Returns the number of rows, and the labels if there is a column of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, labels = 0, []
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                count += file.metadata.num_rows
                if label is None:
                    continue
                column = file.read(columns=[label]).column(label)
        except (pa.ArrowInvalid, OSError) as error:
            raise arrow_copy.damaged(path, error) from error
        if column.null_count:
            raise errors.InputError(
                "E312",
                f"{column.null_count} rows without a label",
                where=f"`{path}`",
                remedy="give every row one, -1 where it has none",
            )
        labels.append(column.cast(pa.int64()).to_numpy())
    return count, np.concatenate(labels) if labels else None
