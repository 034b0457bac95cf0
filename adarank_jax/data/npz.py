"""Images in a NumPy archive: `images`, and `labels` if there are any.

Images of whole numbers are pictures and are preprocessed like any others; images of
floating point are preprocessed already and reach the model as they are.
"""

import math
import os
import pathlib
import zipfile
import zlib

import numpy as np

from adarank_jax import errors
from adarank_jax.data.sources import Arrays


class NpzImages(Arrays):
    """An npz file with `images` and, if they are known, `labels`.

    Args:
        path: of the file; `images` as `sources.Arrays` takes them.

    Raises:
        MissingError: there is no such file.
        InputError: the file is no whole npz, holds Python objects, lacks `images`, says
            that it holds more than it does or than fits into memory, or an array has
            another dtype or shape or is not finite.
    """

    def __init__(self, path: str | os.PathLike):
        """Reads the file whole."""
        path = pathlib.Path(path)
        arrays = _read(path)
        if "images" not in arrays:
            raise errors.InputError(
                "E160",
                f"it holds {sorted(arrays)}",
                where=f"`{path}`",
                expected="`images` (and `labels`)",
                remedy=_SAVE,
            )
        super().__init__(arrays["images"], arrays.get("labels"), f"`{path}`")


def _read(path):
    """Reads the two arrays; pickled objects are refused."""
    if not path.is_file():
        raise errors.MissingError(
            "E101", "there is no such file", f"`{path}`", remedy="check the path"
        )
    try:
        with open(path, "rb") as stream:  # np.load leaves it open when it fails
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            with archive, zipfile.ZipFile(path) as members:
                names = archive.files
                wanted = [name for name in ("images", "labels") if name in names]
                for member in members.infolist():
                    if member.filename.removesuffix(".npy") in wanted:
                        _check_size(members, member, path)
                return dict.fromkeys(names) | {name: archive[name] for name in wanted}
    except MemoryError as error:
        raise errors.InputError(
            "E161",
            "it does not fit into memory",
            where=f"`{path}`",
            remedy=f"take fewer images, or {_FOLDER}",
        ) from error
    except errors.InputError:
        raise
    except (
        *(OSError, ValueError, EOFError, RuntimeError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        raise errors.InputError(
            "E160",
            f"no npz file of plain arrays ({path.stat().st_size:,} bytes): {error}",
            where=f"`{path}`",
            remedy=_SAVE,
        ) from error


def _check_size(archive, member, path):
    """Refuses an array whose header and file do not agree, before memory is taken."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"`{member.filename}` is compressed in another way than npz")
    size, packed = member.file_size, member.compress_size
    if size > _MOST_BYTES or (size > _SUSPECT and size > _MOST_SHRUNK * packed):
        raise errors.InputError(
            "E161",
            f"`{member.filename}` would unpack from {packed:,} to {size:,} bytes, and "
            "so much is not taken from one file",
            where=f"`{path}`",
            remedy=f"take {_FOLDER}",
        )
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"`{member.filename}` is of npy version {version}")
        shape, _, dtype = read(stream)
        held = size - stream.tell()
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != held:
        raise ValueError(
            f"`{member.filename}` says that it holds {dtype} of shape {shape}, but has "
            f"{held:,} bytes of them"
        )


_SAVE = "save it with np.savez(path, images=…, labels=…)"
_FOLDER = "a folder of image files, which are read one by one"
_MOST_BYTES = 2**36  # of an array
_SUSPECT = 2**30  # bytes of an array beyond which it must not shrink too well
_MOST_SHRUNK = 200  # times; photographs do not shrink at all
