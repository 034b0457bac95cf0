"""Images in a NumPy archive: `images`, and `labels` if there are any."""

import os
import pathlib
import zipfile
import zlib

import numpy as np

from adarank_jax.data.sources import Arrays


class NpzImages(Arrays):
    """An npz file with `images` and, if they are known, `labels`.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: an array has another dtype.
        ValueError: the file is no whole npz, holds Python objects, lacks `images`, or
            an array has another shape.
    """

    def __init__(self, path: str | os.PathLike):
        """Reads the file whole."""
        path = pathlib.Path(path)
        arrays = _read(path)
        if "images" not in arrays:
            raise ValueError(
                f"`{path}` holds {sorted(arrays)}, expected `images` (and `labels`); "
                "save it with np.savez(path, images=…, labels=…)."
            )
        super().__init__(arrays["images"], arrays.get("labels"), f"`{path}`")


def _read(path):
    """Reads the two arrays; pickled objects are refused."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file `{path}`; check the path.")
    try:
        with open(path, "rb") as stream:  # np.load leaves it open when it fails
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            with archive:
                names = archive.files
                wanted = [name for name in ("images", "labels") if name in names]
                return dict.fromkeys(names) | {name: archive[name] for name in wanted}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"`{path}` ({path.stat().st_size:,} bytes) is no npz file of plain arrays: "
            f"{error}. Save it with np.savez(path, images=…, labels=…)."
        ) from error
