"""The test or training images of a registered data set, wherever they are."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from adarank_jax import errors
from adarank_jax.data import parquet, registry
from adarank_jax.data.class_order import folder_numbers
from adarank_jax.data.folders import ImageFolder
from adarank_jax.data.npz import NpzImages
from adarank_jax.data.registry import DataSet, Hub, Tfds
from adarank_jax.data.sources import Relabelled, check_labels, renumbered
from adarank_jax.data.tfds_source import TfdsImages


def load(
    name: str,
    profile: str = "official",
    split: str = "test",
    data_dir: str | os.PathLike | None = None,
    kind: str = "auto",
    classes: Sequence[str] | None = None,
    offline: bool = False,
    cache_dir: str | os.PathLike | None = None,
    on_bad_image: str = "error",
) -> Any:
    """Opens a registered data set and checks its size and its classes.

    Looks first into `data_dir/<name>` (any spelling), which may hold `<split>.npz`, a
    folder `<split>` with one folder of images a class, or parquet files as on the Hub;
    then among the sets that tfds prepared in `data_dir`; then on the Hub.

    Args:
        name: of the data set, as `registry.get` takes it.
        profile: league of the checkpoints.
        split: "train" or "test".
        data_dir: of your own files and of prepared tfds sets.
        kind: where to look; "auto" for everywhere.
        classes: names of the head's classes in their order; where the source says
            its own, they are compared, and the labels renumbered if need be. Folders
            must be named as these, or by number.
        offline: never use the network.
        cache_dir: as for `parquet.ParquetImages`.
        on_bad_image: as for `folders.ImageFolder`.

    Returns:
        An image source; `sources.warnings_of` it says what is taken on trust.

    Raises:
        MissingError: the data set is nowhere; the message lists where it was looked
            for, and how to get it.
        InputError: there is no such data set, or the source is damaged, has another
            number of test images, or other classes.
        KeyError: there is no such league.
    """
    data = registry.get(name, profile)
    if kind not in ("auto", "local", "tfds", "hub"):
        raise ValueError(f"`kind` must be auto, local, tfds or hub, got {kind!r}.")
    if split not in ("train", "test"):
        raise ValueError(f"`split` must be 'train' or 'test', got {split!r}.")
    tried, source = [], None
    openers = {
        "local": lambda: _open_local(data, split, data_dir, cache_dir, on_bad_image),
        "tfds": lambda: _open_tfds(data, split, data_dir),
        "hub": lambda: _open_hub(data, split, offline, cache_dir),
    }
    for each in openers if kind == "auto" else (kind,):
        try:
            source = openers[each]()
            break
        except FileNotFoundError as error:
            tried.append(f"{each}: {error}")
    if source is None:
        raise errors.MissingError(
            "E315",
            "it was not found:\n  " + "\n  ".join(tried),
            where=f"{data.name} ({profile}, {split})",
        )
    where = f"{data.name} from {each}"
    if split == "test":
        registry.check_size(data, len(source), each)
    if each != "tfds":  # it compares with its own classes
        check_labels(source.labels, len(source), where, data.num_classes)
    return _numbered(source, data, classes, where)


def find_local(
    data: DataSet, data_dir: str | os.PathLike | None
) -> pathlib.Path | None:
    """Returns the folder of a data set in `data_dir`, by any of its names, or None."""
    if data_dir is None or not pathlib.Path(data_dir).expanduser().is_dir():
        return None
    names = {each.casefold() for each in (data.name, data.slug, data.key)}
    folders = sorted(pathlib.Path(data_dir).expanduser().iterdir())
    found = [each for each in folders if each.name.casefold() in names]
    return next(
        (each for each in found if each.is_dir() and not _is_tfds(each)),
        None,
    )


def _is_tfds(folder):
    """Tells whether tfds prepared a data set there: it has folders of versions."""
    return any(folder.glob("*/features.json")) or any(folder.glob("*/*/features.json"))


def _open_local(data, split, data_dir, cache_dir, on_bad_image):
    """Opens files of the user's own."""
    folder = find_local(data, data_dir)
    if folder is None:
        raise FileNotFoundError(f"there is no folder of {data.name} in `{data_dir}`.")
    for name in _folder_names(data, split):
        if (folder / f"{name}.npz").is_file():
            return NpzImages(folder / f"{name}.npz")
        if (folder / name).is_dir() and not [*(folder / name).glob("*.parquet")]:
            return ImageFolder(folder / name, on_bad_image=on_bad_image)
    if any(folder.rglob("*.parquet")):
        name = _folder_names(data, split)[0]
        return parquet.ParquetImages(
            parquet.find_files(folder, name), cache_dir=cache_dir
        )
    raise FileNotFoundError(
        f"`{folder}` holds none of {split}.npz, a folder {split!r}, parquet files."
    )


def _folder_names(data, split):
    """Returns what a split may be called on disk, the published name first."""
    splits = data.hub.splits if isinstance(data.hub, Hub) else ("train", "test")
    published = splits[0 if split == "train" else 1]
    return [*dict.fromkeys([published, split])]


def _open_tfds(data, split, data_dir):
    """Opens what tfds prepared."""
    if not isinstance(data.tfds, Tfds):
        raise FileNotFoundError(f"{data.tfds}.")
    name = data.tfds.splits[0 if split == "train" else 1]
    source = TfdsImages(data.tfds.builder, name, data_dir)
    return (
        source if data.tfds.numbers is None else Relabelled(source, data.tfds.numbers)
    )


def _open_hub(data, split, offline, cache_dir):
    """Opens a data set on the Hub."""
    if not isinstance(data.hub, Hub):
        raise FileNotFoundError(f"{data.hub}.")
    source = parquet.from_hub(
        data.hub.repo,
        data.hub.splits[0 if split == "train" else 1],
        data.hub.config,
        data.hub.image,
        data.hub.label,
        data.hub.revision,
        offline,
        cache_dir,
    )
    if not data.hub.verified and not source.classes:
        source.warnings.append(
            errors.Message(
                "W311",
                "it does not name its classes and the order of its labels was not "
                f"checked against {data.name} ({data.profile})",
                where=f"`{data.hub.repo}`",
                remedy="look at some images, because in another order every accuracy "
                "would be wrong",
            )
        )
    if data.hub.numbers is None:
        return source
    return Relabelled(source, data.hub.numbers)


def _numbered(source, data, classes, where):
    """Compares the classes of a source with those of the head."""
    found: tuple[str, ...] = tuple(getattr(source, "classes", ()))
    if classes is not None and len(classes) != data.num_classes:
        raise errors.InputError(
            "E305",
            f"`classes` holds {len(classes)} names for {data.name} ({data.profile})",
            expected=str(data.num_classes),
            remedy="name each class once, in the order of the head's rows",
        )
    if isinstance(source, ImageFolder) and found:
        if classes is None and not all(name.isdecimal() for name in found):
            classes = found
        expected = classes or [f"class {i}" for i in range(data.num_classes)]
        numbers = folder_numbers(found, expected, where, forms=True)
        return Relabelled(source, numbers)
    if found and len(found) != data.num_classes:
        raise errors.InputError(
            "E305",
            f"{len(found)} classes",
            where=where,
            expected=f"{data.num_classes} ({data.profile})",
            remedy="is this the right data set and profile?",
        )
    if not found or classes is None:
        return source
    return renumbered(source, classes, where)
