"""Files of `torch.save` to named arrays, without torch and without running code.

State dicts and whole pickled modules are read alike: of a module only its parameters
and buffers are looked at, by the names that ``module.state_dict()`` would give them.
"""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from adarank_jax import errors
from adarank_jax.checkpoints import formats, restricted_pickle
from adarank_jax.checkpoints.restricted_pickle import Node
from adarank_jax.checkpoints.torch_archive import open_archive
from adarank_jax.checkpoints.torch_tensors import (
    STORAGES,
    TensorReader,
    describe,
    is_tensor,
)


class TorchFile(NamedTuple):
    """What a file of `torch.save` holds.

    Attributes:
        tensors: read-only arrays by name, mapped from the file.
        classes: names of the Python classes and functions that the file mentions
            besides torch's own for tensors; none of them was imported.
    """

    tensors: dict[str, np.ndarray]
    classes: tuple[str, ...]


def read_torch(path: str | os.PathLike) -> TorchFile:
    """Reads the tensors of a file of `torch.save` (torch >= 1.6).

    Args:
        path: of a state dict, of a dict with one under ``state_dict``,
            ``model_state_dict`` or ``model``, or of a pickled module.

    Returns:
        The tensors by name in the dtype of the file.

    Raises:
        MissingError: there is no such file; the message has the nearest name.
        InputError: it has another format, is damaged or would run code, or holds
            tensors that are quantised, sparse or complex; the message names them.
    """
    path = pathlib.Path(path)
    if formats.sniff(path) != "torch":
        raise errors.InputError(
            *("E118", "this is a safetensors file", f"`{path}`", "one of `torch.save`"),
            remedy="call `read_state`, which reads both",
        )
    archive = open_archive(path)
    begin, end = archive.spans["data.pkl"]
    if end - begin > restricted_pickle.MOST_BYTES:
        raise errors.InputError(
            *("E153", f"it has a pickle of {end - begin:,} bytes", f"`{path}`"),
            expected=f"at most {restricted_pickle.MOST_BYTES:,}",
            remedy="save the state dict alone",
        )
    graph = restricted_pickle.parse(archive.content[begin:end], f"`{path}`")
    reader = TensorReader(archive, path)
    entries = _entries(graph.root, path)
    tensors = {name: reader.read(name, value) for name, value in entries.items()}
    if not tensors:
        raise errors.InputError(
            *("E109", "it holds no tensors", f"`{path}`"),
            remedy="give the file of the weights",
        )
    classes = tuple(name for name in graph.names if not name.startswith(_PLUMBING))
    return TorchFile(tensors, classes)


def _entries(root, path, is_inner=False):
    """Lists the tensors that a value holds by name."""
    if _is_module(root):
        return _walk(root, path)
    mapping = _mapping(root)
    if mapping is None:
        raise errors.InputError(
            *("E109", f"it holds {describe(root)}", f"`{path}`"),
            expected="a state dict or a module",
            remedy="save the state dict alone",
        )
    for key in () if is_inner else ("state_dict", "model_state_dict", "model"):
        inner = mapping.get(key)
        if _is_module(inner) or _mapping(inner) is not None:
            return _entries(inner, path, is_inner=True)
    entries = {
        name: value
        for name, value in mapping.items()
        if isinstance(name, str) and is_tensor(value)
    }
    if not entries:
        raise errors.InputError(
            "E109",
            "it has no tensors at its top and no `state_dict`, but the keys "
            f"{sorted(map(_show, mapping))[:10]}",
            where=f"`{path}`",
            remedy="save the state dict alone",
        )
    return entries


def _walk(root, path):
    """Lists the parameters and buffers of a pickled module by dotted name."""
    found, parts, count, waiting = {}, {}, 0, [("", 0, root)]
    while waiting:
        prefix, depth, module = waiting.pop()
        if id(module) not in parts:
            parts[id(module)] = _parts(module.state)
        tensors, children = parts[id(module)]
        count += 1 + len(tensors) + len(children)
        if depth > _MOST_DEPTH or count > _MOST_ENTRIES or len(prefix) > _LONGEST_NAME:
            raise errors.InputError(
                "E153",
                f"it nests modules too deeply, or has more than {_MOST_ENTRIES:,} "
                "entries",
                where=f"`{path}`",
                remedy="save the state dict instead",
            )
        for name, value in tensors.items():
            if prefix + name in found or len(name) > _LONGEST_NAME:
                raise errors.InputError(
                    "E128",
                    f"it has the tensor {(prefix + name)[:200]!r} twice, or the name "
                    "is too long",
                    where=f"`{path}`",
                    remedy="get it again: it is damaged",
                )
            found[prefix + name] = value
        waiting += [
            (f"{prefix}{name}.", depth + 1, child)
            for name, child in reversed(children.items())
        ]
    return found


def _parts(state):
    """Lists what a module holds itself, as torch saves it, and its children."""
    hidden = _elements(state.get("_non_persistent_buffers_set"))
    parameters, buffers, children = (
        _mapping(state.get(kind)) or {}
        for kind in ("_parameters", "_buffers", "_modules")
    )
    tensors = parameters | {
        name: value for name, value in buffers.items() if name not in hidden
    }
    return (
        {
            name: value
            for name, value in tensors.items()
            if isinstance(name, str) and value is not None
        },
        {
            name: child
            for name, child in children.items()
            if isinstance(name, str) and _is_module(child)
        },
    )


def _is_module(value):
    """Tells whether this was an `nn.Module`."""
    return (
        isinstance(value, Node)
        and isinstance(value.state, dict)
        and {"_parameters", "_modules"} <= value.state.keys()
    )


def _mapping(value):
    """Returns the items of a dict or of one of its subclasses, else None."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, Node) or value.path not in _DICTS:
        return None
    pairs = value.args[0] if value.args else []
    if isinstance(pairs, dict):
        return pairs | value.items
    pairs = [pair for pair in _list(pairs) if len(_list(pair)) == 2]
    named = {pair[0]: pair[1] for pair in pairs if isinstance(pair[0], str)}
    return named | value.items


def _list(value):
    """Returns a list or tuple, or an empty one for anything else."""
    return value if isinstance(value, list | tuple) else ()


def _elements(value):
    """Returns the texts of a pickled set."""
    if isinstance(value, Node):
        value = value.args[0] if value.args else []
    return {name for name in _list(value) if isinstance(name, str)}


def _show(key):
    """Shows a key of a dict."""
    return key if isinstance(key, str) else describe(key)


_MOST_DEPTH, _MOST_ENTRIES, _LONGEST_NAME = 64, 200_000, 1000
_DICTS = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict")
_PLUMBING = (
    "torch._utils._rebuild",
    "torch._tensor._rebuild",
    "torch.storage.",
    "builtins.",
    "__builtin__.",
    "torch.Size",
    *_DICTS,
    *STORAGES,
)
