"""Head files: the last linear layer of a task, one row a class.

A head is read from our own files (safetensors, with a JSON file of the same name beside
it that says how the head was made), or from the `head_<Task>.pt` files of published
experts, through a reader that runs no code.
"""

import collections
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import safetensors
from jax.typing import ArrayLike
from safetensors.numpy import save

from adarank_jax import errors
from adarank_jax.checkpoints import containers, files


class HeadFile(NamedTuple):
    """What a head file holds.

    Attributes:
        weight: `(classes, features)`, float32, the logit scale included.
        bias: `(classes,)`, float32; None if the file has none.
        class_names: in the order of the rows; None if none are recorded.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    class_names: tuple[str, ...] | None


def read_head(path: str | os.PathLike, features: int | None = None) -> HeadFile:
    """Reads the head of a task.

    Args:
        path: of a safetensors or torch file that holds `weight`, perhaps `bias`, and
            nothing else; both may have the same prefix, as in `head.weight`.
        features: length of the embeddings that the head is for; None for any.

    Returns:
        Weight, bias and class names.

    Raises:
        MissingError: there is no such file.
        InputError: the file holds something else than one head, or the head cannot be
            used: see `check_head`.
    """
    path = pathlib.Path(path)
    tensors = containers.read_state(path).tensors
    prefix = _prefix(path, tensors)
    weight = _float32(path, prefix + "weight", tensors)
    bias = _float32(path, prefix + "bias", tensors)
    head = HeadFile(weight, bias, _class_names(path))
    check_head(*head, features=features, source=f"`{path}`")
    return head


def _prefix(path, tensors):
    """Returns what stands before `weight` and `bias`, if these are all there is."""
    matches = [re.fullmatch(r"(.*\.)?(weight|bias)", name) for name in tensors]
    prefixes = {match[1] or "" if match else None for match in matches}
    prefix = prefixes.pop() if len(prefixes) == 1 else None
    if prefix is not None and prefix + "weight" in tensors:
        return prefix
    found = sorted(tensors)
    rest = f" and {len(found) - 6} more" if len(found) > 6 else ""
    raise errors.InputError(
        *("E317", f"this is no head file: it holds {found[:6]}{rest}", f"`{path}`"),
        expected="`weight` and perhaps `bias`",
        remedy="give the file of the head, not of the whole model",
    )


def _float32(path, name, tensors):
    """Returns a tensor as float32, None if there is none of that name."""
    if name not in tensors:
        return None
    try:
        return np.array(containers.to_float32(tensors[name]))
    except TypeError as error:
        raise errors.InputError(
            *("E116", f"it holds {name!r} as {tensors[name].dtype}", f"`{path}`"),
            expected="floating point",
            remedy="save the head before it is converted",
        ) from error


def _class_names(path):
    """Reads the class names from the file itself or from the JSON file beside it."""
    inside, beside = _inside(path), _beside(path)
    if inside is not None and beside is not None and inside != beside:
        raise errors.InputError(
            "E361",
            f"it and `{path.with_suffix('.json').name}` beside it hold different class "
            "names, so they do not belong together",
            where=f"`{path}`",
            remedy="write the head again, or delete the wrong JSON file",
        )
    return beside if inside is None else inside


def _inside(path):
    """Returns the class names in the metadata of a safetensors file, if any."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = (file.metadata() or {}).get("class_names")
    except safetensors.SafetensorError:
        return None  # a torch file; what is damaged was refused by `read_state`
    return None if names is None else _names(path, lambda: json.loads(names))


def _beside(path):
    """Returns the class names in `<stem>.json`, if any."""
    sidecar = path.with_suffix(".json")
    return _names(sidecar, lambda: _from_sidecar(path)) if sidecar.is_file() else None


def _names(path, parse):
    """Returns parsed class names as a tuple; None stands for no names."""
    try:
        names = parse()
        if names is None:
            return None
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise ValueError("`class_names` must be a list of texts")
    except errors.InputError:
        raise
    except (ValueError, RecursionError) as error:
        found = f"this does not describe a head: {error}"
        raise errors.InputError(
            "E361", found, f"`{path}`", remedy="mend the file or delete it"
        ) from error
    return tuple(names)


def _from_sidecar(path):
    """Picks the class names out of the JSON file, after checking what else it says."""
    described = json.loads(path.with_suffix(".json").read_bytes())
    if not isinstance(described, dict):
        raise ValueError("expected an object with `class_names`")
    if described.get("normalise", True) is not True:
        raise ValueError(
            "`normalise` must be true, because embeddings are always scaled to unit "
            "length before the head"
        )
    if described.get("sha256", found := files.digest(path)) != found:
        raise errors.InputError(
            "E130",
            f"`sha256` is {described['sha256']}, but that of `{path.name}` is {found}, "
            "so one of the two was changed or is of another head",
            where=f"`{path.with_suffix('.json')}`",
            remedy="write the head again, or delete the JSON file",
        )
    return described.get("class_names")


def write_head(
    path: str | os.PathLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> str:
    """Writes a head as safetensors, and what it is as JSON beside it.

    Args:
        path: ends in `.safetensors`; the JSON file has the same name otherwise.
        weight: `(classes, features)`, the logit scale included.
        bias: one number a class; None for none.
        class_names: in the order of the rows; None if they are not known.
        extra: what else to record, for example `logit_scale`, `templates`, `profile`;
            plain values.

    Returns:
        The SHA-256 digest of the safetensors file, in hexadecimal.

    Raises:
        ValueError: the name of the file or an entry of `extra` is not allowed.
        InputError: the head cannot be used: see `check_head`.
    """
    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"`{path}` must end in .safetensors, as heads are written so.")
    described: dict[str, Any] = {"normalise": True, "sha256": ""}
    if class_names is not None:
        described["class_names"] = list(class_names)
    if shared := sorted(set(described) & set(extra or {})):
        raise ValueError(f"`extra` must not set {shared}; `write_head` does.")
    arrays = {"weight": np.array(weight, np.float32, order="C")}
    if bias is not None:
        arrays["bias"] = np.array(bias, np.float32, order="C")
    check_head(arrays["weight"], arrays.get("bias"), class_names, source=f"`{path}`")
    names = {"class_names": json.dumps(list(class_names))} if class_names else None
    content = save(arrays, metadata=names)
    digest = described["sha256"] = hashlib.sha256(content).hexdigest()
    record = {**described, **(extra or {})}
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    files.write_whole(path.with_suffix(".json"), text.encode() + b"\n")
    files.write_whole(path, content)
    return digest


def check_head(
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    features: int | None = None,
    source: str = "The head",
) -> None:
    """Refuses a head that gives wrong or empty predictions.

    Args:
        weight: `(classes, features)`.
        bias: `(classes,)`, or None.
        class_names: one for each row, or None.
        features: length of the embeddings that the head is for; None for any.
        source: how messages begin.

    Raises:
        InputError: the weight is not a matrix, has one class or another width than
            `features`, or holds NaN or infinity; bias or names do not fit the rows; two
            classes have the same name.

    Examples:
        >>> check_head(np.eye(3), class_names=["cat", "dog", "owl"], features=3)
    """
    if weight.ndim != 2:
        raise errors.InputError(
            *("E317", f"it holds a weight of shape {weight.shape}", source),
            expected="(classes, features)",
            remedy="give the linear layer of the head",
        )
    rows, width = weight.shape
    if rows < 2:
        raise errors.InputError(
            *("E304", f"it has {rows} class(es)", source, "at least two"),
            remedy="leave the task out: one class leaves nothing to predict, and "
            "regression heads have no entropy",
        )
    if features is not None and width != features:
        raise errors.InputError(
            "E306",
            f"it takes embeddings of length {width}, but the model makes {features}",
            where=source,
            remedy="check whether the head was made before or after the projection, or "
            "for another model",
        )
    if bias is not None and bias.shape != (rows,):
        raise errors.InputError(
            *("E317", f"it has a bias of shape {bias.shape}", source),
            expected=f"({rows},), one number for each row of the weight",
            remedy="take both from one place",
        )
    for name, array in (("weight", weight), ("bias", bias)):
        if array is not None and not np.isfinite(array).all():
            bad = np.argwhere(~np.isfinite(array))
            raise errors.InputError(
                "E220",
                f"it holds {len(bad)} number(s) in `{name}` that are not finite, first "
                f"at {tuple(bad[0].tolist())}",
                where=source,
                remedy="fetch or make the head again",
            )
    if class_names is not None:
        check_class_names(class_names, rows, source)


def check_class_names(class_names: Sequence[str], rows: int, source: str) -> None:
    """Refuses names that do not fit the rows, and names that are there twice.

    Args:
        class_names: one for each row.
        rows: of the head.
        source: how messages begin.

    Raises:
        InputError: they are no list of texts, too many or too few, or not different.
    """
    if isinstance(class_names, str) or not all(isinstance(n, str) for n in class_names):
        raise errors.InputError(
            *("E362", "it must have a list of texts as class names", source),
            remedy="correct them",
        )
    if len(class_names) != rows:
        raise errors.InputError(
            *("E305", f"it has {rows} rows and {len(class_names)} class names", source),
            expected=f"one a row, for labels 0 to {rows - 1}",
            remedy="take both from one place",
        )
    twice = [name for name, n in collections.Counter(class_names).items() if n > 1]
    if twice:
        raise errors.InputError(
            "E362",
            f"it has class names that are there more than once: {twice[:5]}",
            where=source,
            remedy="give each row a name of its own",
        )
