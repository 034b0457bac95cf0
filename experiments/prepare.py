"""Makes a data set ready to use, and says what that takes.

    python -m experiments.prepare --list
    python -m experiments.prepare --dataset glue/cola
    python -m experiments.prepare --dataset svhn
    python -m experiments.prepare --dataset emnist --source tfds --data-dir /data

A data set comes from the Hugging Face Hub as parquet files, or is prepared by
TensorFlow Datasets, which needs TensorFlow for this step only.
"""

import dataclasses
import importlib.util
import pathlib
import shutil
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from adarank_jax import errors
from adarank_jax.data import loading, parquet, registry, sources, tfds_source
from adarank_jax.data.registry import Hub, Profile, Tfds
from experiments import cli, prepare_glue, results


@dataclasses.dataclass(frozen=True)
class Config:
    """Fetches or prepares a data set; the same command does nothing if it is there."""

    dataset: str = ""
    """Name of the data set, as in the list; `glue/` may be before a GLUE task."""

    list_all: Annotated[
        bool, tyro.conf.arg(name="list"), tyro.conf.FlagCreatePairsOff
    ] = False
    """Show all data sets and whether they are ready, and do nothing else."""

    profile: Profile = "official"
    """League of the checkpoints: decides which images EMNIST and FER2013 are."""

    source: Literal["auto", "hub", "tfds"] = "auto"
    """Where to get it; `auto` takes the Hub if it has the data set."""

    split: Literal["test", "train"] = "test"
    """Examples to fetch; merging needs the test split only, which is the validation
    split of a GLUE task. tfds prepares all."""

    data_dir: pathlib.Path | None = None
    """Folder of your own data sets and of those that tfds prepares, which is
    ~/tensorflow_datasets by default. The Hub's go where huggingface_hub keeps them."""

    plan: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Say what is needed, and do nothing else."""


def main(config: Config) -> None:
    """Lists, or makes one data set ready."""
    console = results.table_console()
    if config.list_all:
        show(config.profile, config.data_dir, console)
        prepare_glue.show(config.data_dir, console)
        return
    if not config.dataset:
        remedy = "name a `--dataset`, or see them all with `--list`"
        raise errors.UsageError("E015", "`--dataset` is missing", remedy=remedy)
    say = lambda text: console.print(text, highlight=False, markup=False)
    if prepare_glue.is_task(config.dataset):
        split = "train" if config.split == "train" else None
        place = (config.source, split, config.data_dir, config.plan)
        prepare_glue.prepare(config.dataset, *place, say)
        return
    data = registry.get(config.dataset, config.profile)
    source = _choose(data, config.source)
    place = {"hub": data.hub, "tfds": data.tfds}[source]
    name = f"{data.name} ({config.profile})"
    if _is_ready(data, source, config.split, config.data_dir):
        say(f"{name} is ready, from {source}.")
        return
    if isinstance(place, Hub):
        say(f"{name} needs {_check_hub(place, config.split)}.")
        if config.plan:
            return
        split = place.splits[config.split == "test"]
        parquet.fetch(place.repo, split, place.config, place.revision)
    elif isinstance(place, Tfds):
        say(f"{name} needs {_check_tfds(place, config.data_dir)}.")
        if config.plan:
            return
        _check_packages(data)
        tfds_source.make_builder(
            place.builder, config.data_dir, file_format="array_record"
        ).download_and_prepare()
    made = loading.load(
        data.name,
        config.profile,
        config.split,
        config.data_dir,
        source,
        offline=True,
    )
    sources.prepare(made)
    say(f"{name} is ready: {len(made):,} images, as expected.")


def show(
    profile: Profile, data_dir: pathlib.Path | None, console: Console
) -> dict[str, str]:
    """Shows all data sets of a league and what is ready.

    Args:
        profile: the league.
        data_dir: of own and prepared data sets.
        console: gets the table.

    Returns:
        What was found of each data set.
    """
    table = Table(
        title=f"The 20 data sets of the {profile} league",
        caption="own: a folder of that name in --data-dir",
    )
    for column in ("data set", "test images", "classes", "ready", "Hub", "tfds"):
        right = column in ("test images", "classes")
        table.add_column(column, justify="right" if right else "left")
    ready = {}
    for name in registry.names():
        data = registry.get(name, profile)
        found = ["own"] if loading.find_local(data, data_dir) else []
        found += [
            kind for kind in ("hub", "tfds") if _is_ready(data, kind, "test", data_dir)
        ]
        ready[name] = ", ".join(found) or "-"
        table.add_row(
            name,
            " or ".join(f"{size:,}" for size in data.test_sizes),
            str(data.num_classes),
            ready[name],
            _hub_text(data.hub),
            _tfds_text(data.tfds),
        )
    console.print(table)
    return ready


def _hub_text(hub):
    """Describes where the Hub has a data set."""
    if not isinstance(hub, Hub):
        return f"no: {hub}"
    return hub.repo + ("" if hub.verified else " (not checked by us)")


def _tfds_text(tfds):
    """Describes where tfds has a data set."""
    if not isinstance(tfds, Tfds):
        return f"no: {tfds}"
    return tfds.builder + (f" ({tfds.note})" if tfds.note else "")


def _choose(data, source):
    """Returns the source to take, or says why it cannot be."""
    kinds = {"hub": (data.hub, Hub), "tfds": (data.tfds, Tfds)}
    if source == "auto":
        source = "hub" if isinstance(data.hub, Hub) else "tfds"
    found, expected = kinds[source]
    if not isinstance(found, expected):
        other = "tfds" if source == "hub" else "hub"
        raise errors.UsageError(
            "E013",
            f"{data.name} ({data.profile}) does not come from {source}: {found}",
            remedy=f"take `--source {other}`",
        )
    return source


def _is_ready(data, source, split, data_dir):
    """Tells whether a data set can be opened without the network."""
    test = split == "test"
    try:
        if source == "hub" and isinstance(data.hub, Hub):
            hub, place = data.hub, data.hub.splits[test]
            folder = parquet.fetch(
                hub.repo, place, hub.config, hub.revision, offline=True
            )
            parquet.find_files(folder, place, hub.config)
            return True
        if source == "tfds" and isinstance(data.tfds, Tfds):
            place = data.tfds.splits[test]
            return len(tfds_source.TfdsImages(data.tfds.builder, place, data_dir)) > 0
    except (FileNotFoundError, ValueError):
        return False
    return False


def _check_hub(hub, split):
    """Asks the Hub for the size of a split, and the disk for room."""
    from huggingface_hub import constants

    place = hub.splits[split == "test"]
    size = parquet.download_size(hub.repo, place, hub.config, hub.revision)
    # As much again for the file that is read at random.
    _check_room(2 * size, pathlib.Path(constants.HF_HUB_CACHE))
    return (
        f"a download of {_gigabytes(size)} from {hub.repo} on the Hub, and twice that "
        "on disk"
    )


def _check_tfds(tfds, data_dir):
    """Sums up what tfds needs, and asks the disk for room."""
    made = tfds_source.make_builder(tfds.builder, data_dir, file_format="array_record")
    missing = _missing()
    needs = [
        f"{' and '.join(_TO_PREPARE)} (once; missing: {', '.join(missing) or '-'})"
    ]
    if "importlib_resources" not in missing:  # tfds reads its sizes with it
        size = sum(info.size or 0 for info in (made.url_infos or {}).values())
        _check_room(3 * size, pathlib.Path(made.data_dir))
        needs.append(
            f"a download of at most {_gigabytes(size)}, and three times that on disk"
        )
    if made.MANUAL_DOWNLOAD_INSTRUCTIONS:
        needs.append(
            "files that you download by hand: "
            + " ".join(made.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        )
    if tfds.note:
        needs.append(f"patience: {tfds.note}")
    return "; ".join(needs)


def _check_packages(data):
    """Raises if tfds cannot prepare a data set."""
    missing = _missing()
    if not missing:
        return
    advice = f"`pip install {' '.join(_TO_PREPARE[name] for name in missing)}`"
    if isinstance(data.hub, Hub):
        advice += ", or take `--source hub`"
    raise errors.MachineError(
        "E420",
        f"tfds needs {' and '.join(missing)} to prepare {data.name}, not installed",
        remedy=f"run {advice}; they are not needed afterwards",
    )


def _missing():
    """Lists what tfds needs to prepare and is not installed; nothing is imported."""
    return [name for name in _TO_PREPARE if importlib.util.find_spec(name) is None]


def _check_room(needed, folder):
    """Raises if a disk is too full."""
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise errors.MachineError(
            "E401",
            f"{_gigabytes(free)} free",
            f"`{existing}`",
            f"at least {_gigabytes(needed)}",
            "make room or choose another folder",
        )


def _gigabytes(size):
    """Writes a number of bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


_TO_PREPARE = {
    "tensorflow": "tensorflow-cpu",
    "importlib_resources": "importlib-resources",
}

if __name__ == "__main__":
    cli.run(main, Config)
