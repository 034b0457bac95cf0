"""The cache of the text demo: folders named by what makes them, whole or absent.

A change of one task makes that task again and nothing else; a folder whose files are no
longer those that were written is refused, not used.
"""

import hashlib
import inspect
import json
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from adarank_jax import errors
from adarank_jax.checkpoints import files, folders, shards
from experiments import text_demo_archives as archives
from experiments import text_demo_data as data
from experiments import text_demo_experts as experts
from experiments import text_demo_tasks as tasks
from experiments import text_training
from experiments.text_demo_tasks import Task
from experiments.text_training import Recipe


def default() -> pathlib.Path:
    """Returns the folder for what can be made again, from the environment."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "adarank_jax" / "text_demo"


def base_folder(cache: pathlib.Path) -> pathlib.Path:
    """Names the folder of the pretrained model.

    Args:
        cache: as for `prepare`.
    """
    return cache / "base" / _digest([archives.BASE.sha256, experts.MODEL_FILES])


def data_folder(cache: pathlib.Path, name: str, task: Task) -> pathlib.Path:
    """Names the folder of a task's texts by the archive and by how they are drawn.

    Args:
        cache: as for `prepare`.
        name: of the task.
        task: where its texts come from.
    """
    extraction = inspect.getsource(data) + inspect.getsource(task.extract)
    decisive = {
        "seed": tasks.SEED,
        "archive": task.archive.sha256,
        "inner": task.inner,
        "wanted": task.wanted,
        "sizes": [task.num_train, task.num_test],
        "extraction": extraction,
    }
    return cache / "data" / f"{name}-{_digest(decisive)}"


def expert_folder(
    cache: pathlib.Path,
    name: str,
    recipe: Recipe,
    base: pathlib.Path,
    texts: pathlib.Path,
) -> pathlib.Path:
    """Names the folder of an expert by base, texts to train on, and recipe.

    Args:
        cache: as for `prepare`.
        name: of the task.
        recipe: of the expert.
        base: folder of the pretrained model.
        texts: folder of the task's texts.

    Returns:
        A folder; as long as base or texts are not made, one that is never there.
    """
    if not all((folder / folders.SUMS).is_file() for folder in (base, texts)):
        return cache / "experts" / f"{name}-of-what-is-not-made"
    sums = folders.read_sums(base)
    decisive = {
        "format": text_training.FORMAT,
        "base": {file: sums[file] for file in experts.MODEL_FILES},
        "train": folders.read_sums(texts)["train.jsonl"],
        "recipe": recipe._asdict(),
        "lengths": [tasks.MAX_LENGTH, tasks.BUCKETS],
    }
    return cache / "experts" / f"{name}-{_digest(decisive)}"


def _digest(values):
    """Names plain values in a few letters."""
    text = json.dumps(values, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()[:12]


def is_made(folder: pathlib.Path) -> bool:
    """Tells whether a folder is there; it is whole if it is.

    Args:
        folder: of the cache.

    Raises:
        DamageError: its files are not those that were written.
    """
    if not folder.exists():
        return False
    remedy = "delete this folder, and it is made again"
    if not (folder / folders.SUMS).is_file():
        found = f"damaged: it has no {folders.SUMS}"
        raise errors.DamageError("E650", found, f"`{folder}`", remedy=remedy)
    for name, digest in folders.read_sums(folder).items():
        file = folder / name
        if not file.is_file() or files.digest(file) != digest:
            raise errors.DamageError(
                "E650",
                f"damaged: {name} is changed or gone",
                f"`{folder}`",
                f"the file of SHA-256 {digest[:12]}… that was written",
                remedy,
            )
    return True


def write(
    folder: pathlib.Path, files: Mapping[str, bytes | Mapping[str, np.ndarray]]
) -> None:
    """Writes a folder, whole or not at all.

    Args:
        folder: of the cache.
        files: contents by name; of weights, the tensors.
    """
    with folders.whole_folder(folder) as new:
        for name, content in files.items():
            if isinstance(content, bytes):
                (new / name).write_bytes(content)
            else:
                shards.write_safetensors(new / name, content)
        (new / folders.MARK).write_bytes(
            experts.to_json({"made_by": "experiments.text_demo"})
        )
