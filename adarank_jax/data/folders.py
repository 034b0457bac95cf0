"""A folder of image files: one folder a class, or none for images without labels."""

import collections
import concurrent.futures
import difflib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from adarank_jax import errors
from adarank_jax.data import images
from adarank_jax.data.class_order import match, plain
from adarank_jax.data.sources import MOST_READ, NO_LABEL, file_content, spread


class Report(NamedTuple):
    """What the scan of a folder found.

    Attributes:
        images: that can be used.
        bad: a message for each image that was skipped.
        ignored: number of other files by their ending.
        modes: number of images by their mode, for example {"RGB": 10, "L": 2}.
        transparent: images with an alpha channel; they are put on white.
        animated: images with several frames or pages; the first is taken.
        tiny: images with a side below 8 pixels.
        missing: classes without an image.
    """

    images: int
    bad: list[str]
    ignored: dict[str, int]
    modes: dict[str, int]
    transparent: int
    animated: int
    tiny: int
    missing: list[str]


class ImageFolder:
    """Image files below a folder, in the order of their names.

    Every file is opened once at the start, so that a bad one is found before any work
    is done, and all of them at once.

    Args:
        path: of the folder. It holds one folder a class, with files at any depth, or
            files only, which then have no label.
        classes: names of the folders in the order of the class numbers; sorted if not
            given. Letters and digits count.
        on_bad_image: "error" refuses the folder and lists all bad images; "skip" leaves
            them out as long as they are at most 1 %.
        follow_links: whether symbolic links may lead out of the folder.

    Attributes:
        classes: names of the classes; empty if there are no labels.
        labels: `(images,)` int32.
        report: what the scan found.

    Raises:
        MissingError: there is no such folder.
        InputError: there is no image, an image is bad, images lie beside the folders of
            the classes, a folder is none of these, or a link leads outside.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        classes: Sequence[str] | None = None,
        on_bad_image: str = "error",
        follow_links: bool = False,
    ):
        """Lists and scans the folder."""
        if on_bad_image not in ("error", "skip"):
            raise ValueError(
                f"`on_bad_image` must be 'error' or 'skip', got {on_bad_image!r}."
            )
        root = pathlib.Path(path)
        if not root.is_dir():
            raise errors.MissingError(
                "E101", "there is no such folder", f"`{root}`", remedy="check the path"
            )
        files, ignored = _list(root, follow_links)
        self.classes, labels = _label(root, files, classes)
        headers, bad = _scan(files)
        _judge(root, bad, len(files), on_bad_image)
        rows = zip(files, labels, headers, strict=True)
        kept = [(file, label, header) for file, label, header in rows if header]
        self._root = root
        self._files = [file for file, _, _ in kept]
        self.labels = np.array([label for _, label, _ in kept], np.int32)
        found = [header for _, _, header in kept]
        self.report = Report(
            images=len(kept),
            bad=bad,
            ignored=ignored,
            modes=dict(collections.Counter(header.mode for header in found)),
            transparent=sum(header.is_transparent for header in found),
            animated=sum(header.frames > 1 for header in found),
            tiny=sum(min(header.width, header.height) < _TINY for header in found),
            missing=[
                name
                for number, name in enumerate(self.classes)
                if number not in self.labels
            ],
        )

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns an image and its label."""
        return images.decode(self._files[index]), int(self.labels[index])

    def content(self) -> Iterator[bytes]:
        """Yields names and sizes of all files, and the content of at most 2,000."""
        for file in self._files:
            yield (
                file.relative_to(self._root).as_posix().encode(errors="surrogateescape")
            )
            yield b"%d" % file.stat().st_size
        for index in spread(len(self), MOST_READ):
            yield file_content(self._files[index])


def _list(root, follow_links):
    """Lists the image files below a folder, sorted, and counts the others."""
    files, ignored, outside = [], collections.Counter(), []
    home, seen = root.resolve(), set()

    def walk(folder):
        real = folder.resolve()
        if real in seen:  # a loop of links, or a second way to the same folder
            return
        seen.add(real)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = pathlib.Path(entry.path)
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and not follow_links:
                try:
                    target = path.resolve(strict=True)
                except (OSError, RuntimeError):
                    ignored["broken link"] += 1
                    continue
                if not target.is_relative_to(home):
                    outside.append(str(path))
                    continue
            if _is(entry.is_dir):
                walk(path)
            elif _is(entry.is_file) and path.suffix.lower() in _ENDINGS:
                files.append(path)
            elif _is(entry.is_file):
                ignored[path.suffix.lower() or "no ending"] += 1
            else:
                ignored["no regular file"] += 1

    walk(root)
    if outside:
        raise errors.InputError(
            "E328",
            f"{len(outside)} symbolic links that lead out of it, for example "
            f"`{outside[0]}`",
            where=f"`{root}`",
            remedy="copy the files, or allow it with `follow_links`",
        )
    if not files:
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.items()))
        raise errors.InputError(
            "E320",
            f"no image, but {found or 'nothing at all'}",
            where=f"`{root}`",
            expected=f"files that end in {', '.join(sorted(_ENDINGS))}",
            remedy="give the folder that holds the images",
        )
    return files, dict(sorted(ignored.items()))


def _is(check):
    """Asks for the kind of an entry; a loop of links is of no kind."""
    try:
        return check()
    except OSError:
        return False


def _label(root, files, classes):
    """Returns names of the classes and the label of each file."""
    tops = [file.relative_to(root).parts for file in files]
    loose = [parts[0] for parts in tops if len(parts) == 1]
    if len(loose) == len(files):
        return (), [NO_LABEL] * len(files)
    if loose:
        raise errors.InputError(
            "E332",
            f"{len(loose)} images beside folders of images, for example {loose[0]!r}",
            where=f"`{root}`",
            remedy="put every image into the folder of its class",
        )
    names = sorted({parts[0] for parts in tops})
    if classes is None:
        numbers = {name: number for number, name in enumerate(names)}
        return tuple(names), [numbers[parts[0]] for parts in tops]
    numbered = match(names, classes)
    if numbered is None:
        known = {plain(name) for name in classes}
        odd = next((name for name in names if plain(name) not in known), names[0])
        near = difflib.get_close_matches(odd, classes, 1)
        raise errors.InputError(
            "E310",
            f"the folder is none of the {len(classes)} classes, or not of one alone",
            where=f"`{root / odd}`",
            remedy=f"did you mean {near[0]!r}?" if near else "name it as its class",
        )
    known = dict(zip(names, numbered, strict=True))
    return tuple(classes), [known[parts[0]] for parts in tops]


def _scan(files):
    """Verifies all files in threads; returns headers, or None with a message."""
    bad = []

    def header(file):
        try:
            return images.verify(file)
        except (ValueError, OSError) as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        headers = [*pool.map(header, files)]
    bad = [each for each in headers if isinstance(each, str)]
    return [None if isinstance(each, str) else each for each in headers], bad


def _judge(root, bad, count, on_bad_image):
    """Raises if there are more bad images than allowed."""
    if not bad:
        return
    listed = "\n  " + "\n  ".join(bad)
    if on_bad_image == "error":
        raise errors.InputError(
            "E331",
            f"{len(bad)} of {count} images cannot be used",
            where=f"`{root}`",
            remedy="leave them out with `on_bad_image` = 'skip', or mend or remove "
            f"them:{listed}",
        )
    if len(bad) > _MOST_SKIPPED * count:
        raise errors.InputError(
            "E322",
            f"{len(bad)} of {count} images would be skipped, more than "
            f"{_MOST_SKIPPED:.0%}",
            where=f"`{root}`",
            remedy=f"fetch or make them again:{listed}",
        )


_ENDINGS = {
    *(".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm"),
    *(".pgm", ".jp2", ".avif"),
}
_TINY = 8  # pixels
_MOST_SKIPPED = 0.01
