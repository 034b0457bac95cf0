"""A merged model as masks and coefficients: a small file instead of the weights.

Masks are stored one bit a direction, coefficients as float32. With the base and the
experts, whose digests are recorded, they make the merged weights again.
"""

import hashlib
import json
import math
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import numpy as np
import safetensors
from safetensors.numpy import save

from adarank_jax import errors, tree
from adarank_jax.checkpoints import files
from adarank_jax.core import merge
from adarank_jax.core.merge import Variables
from adarank_jax.core.svd_backends import Backend
from adarank_jax.tree import Tree

ORIGINS = ("pretrained", "average")
LAYOUTS = ("fused", "split")
FAMILIES = ("clip", "bert", "roberta", "gpt2")
BACKENDS = get_args(Backend)


class Settings(NamedTuple):
    """What the masks and coefficients belong to, as plain values.

    Attributes:
        tasks: names, in the order of every task axis.
        origin: what the updates are added to, one of `ORIGINS`.
        is_decorrelated: the directions are those of TSV-M.
        temperature: that the masks were trained with.
        family: of the models, one of `FAMILIES`.
        options: what only this family has. CLIP: ``qkv``, layout of the attention
            matrices that were decomposed, one of `LAYOUTS`, and ``open_clip``, whether
            the export has its files. Language models: nothing.
        base: `digest` of the base's image tower or encoder.
        experts: `digest` of that of every expert, in the order of `tasks`.
        merged: `digest` of the merged one.
        config: its fields, without which the same weights would mean another model.
        rank_ratio: share of the directions that the updates of a merge without masks
            keep.
        dtype: that the exported weights were rounded to; None for those of the base.
        max_shard_size: of the exported files of weights.
        weights: `model_folder.digest_tensors` of the exported model.safetensors.
        environment: versions and machine, whatever the last bits depend on.
        svd_backend: that made the directions, one of `svd_backends.Backend`.
        unmerged: paths of the tensors that stay those of the origin.
    """

    tasks: tuple[str, ...]
    origin: str
    is_decorrelated: bool
    temperature: float
    family: str
    options: dict[str, Any]
    base: str
    experts: tuple[str, ...]
    merged: str
    config: dict[str, Any]
    rank_ratio: float
    dtype: str | None
    max_shard_size: int | str
    weights: str
    environment: dict[str, Any]
    svd_backend: str
    unmerged: tuple[str, ...] = ()


class Recipe(NamedTuple):
    """What a recipe file holds.

    Attributes:
        coefficients: float32, `(tasks,)` at every merged tensor and None elsewhere.
        kept: bool, `(tasks, rank)` at every decomposed matrix and None elsewhere.
        settings: what they belong to.
    """

    coefficients: Tree
    kept: Tree
    settings: Settings


def digest(params: Tree) -> str:
    """Hashes the sorted names, the shapes and the float32 bytes of parameters.

    Args:
        params: a nested dict of arrays.

    Returns:
        SHA-256, in hexadecimal; independent of the file they came from.

    Examples:
        >>> import numpy as np
        >>> digest({"a": np.ones(2)}) == digest({"a": np.float32([1, 1])})
        True
    """
    sha = hashlib.sha256()
    for path, leaf in sorted(tree.flatten(params).items()):
        array = np.ascontiguousarray(leaf, np.float32)
        sha.update(f"{path} {list(np.shape(leaf))}\n".encode())
        sha.update(array.reshape(-1).view(np.uint8))
    return sha.hexdigest()


def pack(variables: Variables, settings: Settings) -> bytes:
    """Packs masks and coefficients into what a recipe file holds.

    Args:
        variables: after adaptation.
        settings: what they belong to.

    Returns:
        The content of a safetensors file.

    Raises:
        ValueError: a setting is out of range, or a coefficient or a logit is not
            finite.
    """
    name = "the recipe"
    if problems := _problems(settings):
        raise ValueError(f"The settings are not valid: {'; '.join(problems)}.")
    coefficients, logits = map(tree.without_none, variables)
    for kind, leaves in (("coefficients", coefficients), ("logits", logits)):
        tree.check_finite(leaves, f"The {kind} of {name}")
    bits = tree.flatten(merge.kept_directions(logits, settings.temperature))
    if both := tree.flatten(coefficients).keys() & set(settings.unmerged):
        raise ValueError(
            f"`unmerged` must name tensors without coefficients, got {sorted(both)}."
        )
    arrays = {
        f"{_COEFFICIENTS}/{key}": np.array(leaf, np.float32, order="C")
        for key, leaf in tree.flatten(coefficients).items()
    }
    arrays |= {f"{_KEPT}/{key}": np.packbits(leaf) for key, leaf in bits.items()}
    document = {
        "version": _VERSION,
        "settings": settings._asdict(),
        "ranks": {key: leaf.shape[1] for key, leaf in bits.items()},
    }
    return save(arrays, metadata={_KEY: json.dumps(document, sort_keys=True)})


def write_recipe(
    path: str | os.PathLike, variables: Variables, settings: Settings
) -> str:
    """Writes masks and coefficients, whole or not at all.

    Args:
        path: of the file.
        variables: as for `pack`.
        settings: as for `pack`.

    Returns:
        The SHA-256 digest of the file, in hexadecimal.

    Raises:
        ValueError: as for `pack`.
    """
    content = pack(variables, settings)
    files.write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def read_recipe(path: str | os.PathLike) -> Recipe:
    """Reads masks and coefficients back.

    Args:
        path: of a file that `write_recipe` wrote.

    Raises:
        MissingError: there is no such file.
        DamageError: the file is damaged, or is not a recipe.
        InputError: it is of another version, or holds numbers that are not finite.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.MissingError(
            *("E101", "there is no such recipe", f"`{path}`"),
            remedy="look into an export, which holds it as recipe.safetensors",
        )
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        document = json.loads(metadata[_KEY])
        version = document["version"]
        ranks = dict(document["ranks"])
        known = version in (2, _VERSION)
        settings = _settings(document["settings"], version) if known else None
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise errors.DamageError(
            *("E661", f"it is no recipe of merged weights ({error})", f"`{path}`"),
            expected="a file that an export wrote as recipe.safetensors",
            remedy="copy it again",
        ) from error
    if settings is None:
        raise errors.InputError(
            *("E662", f"it is a recipe of version {version!r}", f"`{path}`"),
            expected=f"version 2 or {_VERSION}, which this adarank_jax reads",
            remedy="rebuild it with the version in its settings",
        )
    if problems := _problems(settings):
        raise errors.DamageError(
            *("E661", f"its settings are not valid: {'; '.join(problems)}"),
            where=f"`{path}`",
            remedy="copy it again",
        )
    return _recipe(path, arrays, ranks, settings)


def _settings(document, version):
    """Turns lists of the document back to tuples; refuses other keys."""
    document = {"svd_backend": "host", **document}  # before there was a choice
    if version == 2:  # knew CLIP only
        document = {**document, "family": "clip", "unmerged": []}
        names = ("qkv", "open_clip")
        document["options"] = {name: document.pop(name) for name in names}
    tuples = {name: tuple(document[name]) for name in ("tasks", "experts", "unmerged")}
    return Settings(**{**document, **tuples})


def _problems(settings):
    """Lists the settings that cannot be rebuilt from."""
    problems = [
        f"`{field}` must be {expected}, got {getattr(settings, field)!r}"
        for field, expected, holds in _RULES
        if not holds(getattr(settings, field))
    ]
    if not problems:
        rules = _OPTIONS.get(settings.family, ())
        problems += [
            f"`options` must have {field!r}, {expected}, got "
            f"{settings.options.get(field)!r}"
            for field, expected, holds in rules
            if not holds(settings.options.get(field))
        ]
        others = settings.options.keys() - {field for field, _, _ in rules}
        problems += [f"`options` has {name!r}, unknown" for name in sorted(others)]
    if len(settings.tasks) != len(settings.experts):
        problems.append(
            f"`experts` must hold one digest a task, got {len(settings.experts)} for "
            f"{len(settings.tasks)} tasks"
        )
    return problems


def _recipe(path, arrays, ranks, settings):
    """Unpacks the bits and checks every shape."""
    tasks = len(settings.tasks)
    coefficients, kept = {}, {}
    for name, array in arrays.items():
        kind, _, key = name.partition("/")
        if kind == _COEFFICIENTS:
            _expect(path, name, array, np.float32, (tasks,))
            coefficients[key] = array
        elif kind == _KEPT and isinstance(ranks.get(key), int):
            count = tasks * ranks[key]
            _expect(path, name, array, np.uint8, (-(-count // 8),))
            bits = np.unpackbits(array, count=count).astype(bool)
            kept[key] = bits.reshape(tasks, ranks[key])
        else:
            raise _damaged(path, f"it holds {name!r}, which belongs to no recipe")
    if not coefficients or kept.keys() - coefficients.keys() or kept.keys() ^ ranks:
        raise _damaged(
            path,
            "it is not whole: masks and coefficients must be of the same tensors, got "
            f"{len(kept)} masks of {len(ranks)}, {len(coefficients)} coefficients",
        )
    if both := coefficients.keys() & set(settings.unmerged):
        raise _damaged(
            path,
            f"it has coefficients of {sorted(both)}, which it says are not merged",
        )
    tree.check_finite(tree.unflatten(coefficients), f"`{path}`")
    coefficients |= dict.fromkeys(settings.unmerged)
    whole = {key: kept.get(key) for key in coefficients}
    return Recipe(tree.unflatten(coefficients), tree.unflatten(whole), settings)


def _damaged(path, found, expected=""):
    """Makes the error about a recipe that is not as it was written."""
    return errors.DamageError("E661", found, f"`{path}`", expected, "copy it again")


def _expect(path, name, array, dtype, shape):
    """Checks dtype and shape of one array."""
    if array.dtype != dtype or array.shape != shape:
        found = f"it holds {name!r} as {array.dtype} {array.shape}"
        raise _damaged(path, found, f"{np.dtype(dtype)} {shape}")


def _is_digest(value):
    """Tells whether a value looks like a SHA-256 digest."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


_COEFFICIENTS, _KEPT = "coefficients", "kept"
_KEY, _VERSION = "adarank_jax_recipe", 3
_Rules = tuple[tuple[str, str, Callable[[Any], bool]], ...]
_RULES: _Rules = (
    ("tasks", "different names", lambda x: x and len(set(x)) == len(x)),
    ("tasks", "text", lambda x: all(isinstance(name, str) for name in x)),
    ("origin", f"one of {ORIGINS}", lambda x: x in ORIGINS),
    ("is_decorrelated", "true or false", lambda x: isinstance(x, bool)),
    (
        "temperature",
        "a number above 0",
        lambda x: isinstance(x, float) and 0 < x < math.inf,
    ),
    ("family", f"one of {FAMILIES}", lambda x: x in FAMILIES),
    ("options", "an object", lambda x: isinstance(x, dict)),
    ("base", "a SHA-256 digest", _is_digest),
    ("experts", "SHA-256 digests", lambda x: all(map(_is_digest, x))),
    ("merged", "a SHA-256 digest", _is_digest),
    ("config", "an object", lambda x: isinstance(x, dict)),
    (
        "rank_ratio",
        "a number above 0 and at most 1",
        lambda x: isinstance(x, float) and 0 < x <= 1,
    ),
    ("dtype", "text or none", lambda x: x is None or isinstance(x, str)),
    ("max_shard_size", "a number or text", lambda x: type(x) in (int, str)),
    ("weights", "a SHA-256 digest", _is_digest),
    ("environment", "an object", lambda x: isinstance(x, dict)),
    ("svd_backend", f"one of {BACKENDS}", lambda x: x in BACKENDS),
    ("unmerged", "paths", lambda x: all(isinstance(path, str) for path in x)),
)
_OPTIONS: dict[str, _Rules] = {
    "clip": (
        ("qkv", f"one of {LAYOUTS}", lambda x: x in LAYOUTS),
        ("open_clip", "true or false", lambda x: isinstance(x, bool)),
    )
}
