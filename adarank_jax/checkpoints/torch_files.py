"""Files of `torch.save` to named arrays, without torch and without running code.

State dicts and whole pickled modules are read alike: of a module only its parameters
and buffers are looked at, by the names that ``module.state_dict()`` would give them.
"""

import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from adarank_jax.checkpoints import formats, restricted_pickle
from adarank_jax.checkpoints.restricted_pickle import Global, Node
from adarank_jax.checkpoints.torch_archive import Archive, open_archive


class TorchFile(NamedTuple):
    """What a file of `torch.save` holds.

    Attributes:
        tensors: read-only arrays by name, mapped from the file.
        classes: names of the Python classes and functions that the file mentions
            besides torch's own for tensors; none of them was imported.
        skipped: names of entries beside the tensors that are not tensors.
    """

    tensors: dict[str, np.ndarray]
    classes: tuple[str, ...]
    skipped: tuple[str, ...]


def read_torch(path: str | os.PathLike) -> TorchFile:
    """Reads the tensors of a file of `torch.save` (torch >= 1.6).

    Args:
        path: of a state dict, of a dict with one under ``state_dict``,
            ``model_state_dict`` or ``model``, or of a pickled module.

    Returns:
        The tensors by name in the dtype of the file.

    Raises:
        FileNotFoundError: there is no such file; the message has the nearest name.
        ValueError: it has another format, is damaged or would run code, or holds
            tensors that are quantised, sparse or complex; the message names them.
    """
    path = pathlib.Path(path)
    if formats.sniff(path) != "torch":
        raise ValueError(
            f"`{path}` is a safetensors file, expected one of `torch.save`; "
            "`read_state` reads both."
        )
    archive = open_archive(path)
    begin, end = archive.spans["data.pkl"]
    if end - begin > restricted_pickle.MOST_BYTES:
        raise ValueError(
            f"`{path}` has a pickle of {end - begin:,} bytes, expected at most "
            f"{restricted_pickle.MOST_BYTES:,}."
        )
    graph = restricted_pickle.parse(archive.content[begin:end], f"`{path}`")
    reader = _Reader(archive, path)
    entries, skipped = _entries(graph.root, path)
    tensors = {name: reader.read(name, value) for name, value in entries.items()}
    if not tensors:
        raise ValueError(f"`{path}` holds no tensors; give the file of the weights.")
    classes = tuple(name for name in graph.names if not name.startswith(_PLUMBING))
    return TorchFile(tensors, classes, skipped)


def _entries(root, path, is_inner=False):
    """Lists the tensors that a value holds by name, and the names of the rest."""
    if _is_module(root):
        return _walk(root, path), ()
    mapping = _mapping(root)
    if mapping is None:
        raise ValueError(
            f"`{path}` holds {_describe(root)}, expected a state dict or a module."
        )
    for key in () if is_inner else ("state_dict", "model_state_dict", "model"):
        inner = mapping.get(key)
        if _is_module(inner) or _mapping(inner) is not None:
            entries, skipped = _entries(inner, path, is_inner=True)
            return entries, skipped + tuple(sorted({str(k) for k in mapping} - {key}))
    entries = {
        name: value
        for name, value in mapping.items()
        if isinstance(name, str) and _is_tensor(value)
    }
    if not entries:
        raise ValueError(
            f"`{path}` has no tensors at its top and no `state_dict`; it has the keys "
            f"{sorted(map(_show, mapping))[:10]}. Save the state dict alone."
        )
    return entries, tuple(
        sorted(_show(name) for name in mapping if name not in entries)
    )


def _walk(module, path):
    """Lists the parameters and buffers of a pickled module by dotted name."""
    found = {}
    for name, value in _members(module, "", 0, path, [0]):
        if name in found:
            raise ValueError(f"`{path}` has the tensor {name!r} twice; it is damaged.")
        found[name] = value
    return found


def _members(module, prefix, depth, path, visited) -> Iterator[tuple[str, Any]]:
    """Yields what `_walk` lists, in the order of torch."""
    visited[0] += 1
    if depth > _MOST_DEPTH or visited[0] > _MOST_MODULES:
        raise ValueError(
            f"`{path}` nests modules too deeply, or has more than {_MOST_MODULES:,}."
        )
    state = module.state
    hidden = _elements(state.get("_non_persistent_buffers_set"))
    for kind in ("_parameters", "_buffers"):
        for name, value in (_mapping(state.get(kind)) or {}).items():
            is_hidden = kind == "_buffers" and name in hidden
            if isinstance(name, str) and value is not None and not is_hidden:
                yield prefix + name, value
    for name, child in (_mapping(state.get("_modules")) or {}).items():
        if isinstance(name, str) and _is_module(child):
            yield from _members(child, f"{prefix}{name}.", depth + 1, path, visited)


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
    pairs = [pair for pair in pairs if isinstance(pair, list | tuple)]
    return {
        pair[0]: pair[1]
        for pair in pairs
        if len(pair) == 2 and isinstance(pair[0], str)
    } | value.items


def _elements(value):
    """Returns the texts of a pickled set."""
    if isinstance(value, Node):
        value = value.args[0] if value.args else []
    return {name for name in value or () if isinstance(name, str)}


def _is_tensor(value):
    """Tells whether this was a tensor of any kind."""
    return isinstance(value, Node) and value.path.startswith(_REBUILDS)


def _describe(value):
    """Says what a value is, without showing what is in it."""
    if isinstance(value, Node):
        return "one tensor without a name" if _is_tensor(value) else f"a {value.path}"
    return f"a {type(value).__name__}"


def _show(key):
    """Shows a key of a dict."""
    return key if isinstance(key, str) else _describe(key)


class _Reader:
    """Turns descriptions of tensors into arrays, as long as they stay in bounds."""

    def __init__(self, archive: Archive, path: pathlib.Path):
        self.archive, self.path = archive, path
        self.is_big = self._byte_order() == b"big"
        self.bytes_left = 16 * len(archive.content) + (1 << 24)

    def _byte_order(self):
        """Reads which byte of a number comes first."""
        begin, end = self.archive.spans.get("byteorder", (0, 0))
        order = self.archive.content[begin : min(end, begin + 8)] or b"little"
        if order not in (b"little", b"big"):
            raise ValueError(f"`{self.path}` has the byte order {order!r}; not known.")
        return order

    def read(self, name: str, value: Any) -> np.ndarray:
        """Reads one tensor."""
        where = f"Tensor {name!r} of `{self.path}`"
        for _ in range(4):
            if not _is_tensor(value) or value.path not in _WRAPPERS:
                break
            value = _WRAPPERS[value.path](value.args)
        if not _is_tensor(value):
            raise ValueError(f"{where} is {_describe(value)}; save the state dict.")
        args = value.args
        if value.path not in _LENGTHS or len(args) < _LENGTHS[value.path]:
            kind = "quantised" if "qtensor" in value.path else value.path
            reason = formats.DEQUANTISE if kind == "quantised" else "not dense on CPU"
            raise ValueError(f"{where} is {kind}: {reason}; it is not read.")
        metadata = args[7:] if value.path.endswith("v3") else args[6:]
        if any(isinstance(bits, dict) and any(bits.values()) for bits in metadata):
            raise ValueError(f"{where} is a negated or conjugated view: `.clone()` it.")
        dtype, begin, count = self._storage(args, value.path, where)
        offset, shape, strides = args[1], _numbers(args[2]), _numbers(args[3])
        self._check_bounds(offset, shape, strides, count, dtype, where)
        return self._view(dtype, begin, offset, shape, strides)

    def _storage(self, args, function, where):
        """Finds the storage of a tensor: dtype, offset in the file, and elements."""
        pid = args[0].args[0] if isinstance(args[0], Node) and args[0].args else None
        if not (
            isinstance(pid, tuple)
            and len(pid) == 5
            and pid[0] == "storage"
            and isinstance(pid[1], Global)
            and isinstance(pid[2], str)
            and type(pid[4]) is int
        ):
            raise ValueError(f"{where} has no storage that is known; it is damaged.")
        kind = args[6] if function.endswith("v3") else pid[1]
        kind = kind.path if isinstance(kind, Global) else type(kind).__name__
        if kind not in _DTYPES:
            is_quantised = any(word in kind for word in _QUANTISED)
            reason = (
                formats.DEQUANTISE if is_quantised else "not known; save as float32"
            )
            raise ValueError(f"{where} is of {kind}: {reason}.")
        dtype = np.dtype(_DTYPES[kind])
        begin, end = self.archive.spans.get(f"data/{pid[2]}", (0, -1))
        width = 1 if pid[1].path in _UNTYPED else dtype.itemsize
        if pid[4] < 0 or pid[4] * width != end - begin:
            raise ValueError(
                f"{where} needs the storage {pid[2][:20]!r} of {pid[4]:,} elements of "
                f"{width} bytes, but the file has {end - begin:,} bytes under that name."
            )
        return dtype, begin, (end - begin) // dtype.itemsize

    def _check_bounds(self, offset, shape, strides, count, dtype, where):
        """Checks that a view of a storage stays inside of it."""
        is_whole = type(offset) is int and shape is not None and strides is not None
        if not is_whole or len(shape) != len(strides) or len(shape) > 32:
            raise ValueError(f"{where} must have integers as shape and strides.")
        if offset < 0 or min((*shape, *strides), default=0) < 0:
            raise ValueError(f"{where} has a negative offset, size or stride; damaged.")
        if math.prod(size or 1 for size in shape) >= 1 << 48:
            raise ValueError(f"{where} has the shape {shape}; it is damaged.")
        last = offset + sum(
            (size - 1) * stride for size, stride in zip(shape, strides, strict=True)
        )
        if 0 not in shape and last >= count:
            raise ValueError(
                f"{where} reaches element {last:,} of a storage of {count:,}; damaged."
            )
        self.bytes_left -= math.prod(shape) * dtype.itemsize
        if self.bytes_left < 0:
            raise ValueError(
                f"{where}: with it the tensors are more than 16 times as large as the "
                "file, which repeats the same numbers; save it again as safetensors."
            )

    def _view(self, dtype, begin, offset, shape, strides):
        """Views the numbers; copies them only if their bytes are in the other order."""
        if 0 in shape:
            return np.zeros(shape, dtype)
        width = dtype.itemsize
        stored = np.dtype(f">u{width}") if self.is_big else dtype
        view = np.ndarray(
            shape,
            stored,
            self.archive.content,
            begin + offset * width,
            [stride * width for stride in strides],
        )
        return view.astype(f"=u{width}").view(dtype) if self.is_big else view


def _numbers(value):
    """Returns a tuple of integers, or None if this is no such thing."""
    if isinstance(value, Node) and value.path == "torch.Size" and value.args:
        value = value.args[0]
    is_known = isinstance(value, tuple | list) and all(type(n) is int for n in value)
    return tuple(value) if is_known else None


def _of_type(args):
    """Unwraps a tensor of a subclass: a function, a type, its arguments, a state."""
    is_known = len(args) > 2 and isinstance(args[0], Global)
    return Node(args[0].path, args[2]) if is_known else None


_MOST_DEPTH, _MOST_MODULES = 64, 100_000
_DICTS = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict")
_REBUILDS = ("torch._utils._rebuild_", "torch._tensor._rebuild_")
_PLUMBING = (*_REBUILDS, *_DICTS, "__builtin__.", "builtins.", "torch.Size")
_WRAPPERS = {
    "torch._utils._rebuild_parameter": lambda args: args[0] if args else None,
    "torch._utils._rebuild_parameter_with_state": lambda args: (
        args[0] if args else None
    ),
    "torch._tensor._rebuild_from_type_v2": _of_type,
}
_LENGTHS = {
    "torch._utils._rebuild_tensor": 4,
    "torch._utils._rebuild_tensor_v2": 6,
    "torch._utils._rebuild_tensor_v3": 7,
}
_QUANTISED = ("float8", "float4", "Int8Storage", "QInt", "QUInt", "torch.q", "quint")
_UNTYPED = ("torch.storage.UntypedStorage", "torch.storage._UntypedStorage")
_DTYPES = {
    "torch.DoubleStorage": np.float64,
    "torch.FloatStorage": np.float32,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": ml_dtypes.bfloat16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
    "torch.float64": np.float64,
    "torch.float32": np.float32,
    "torch.float16": np.float16,
    "torch.bfloat16": ml_dtypes.bfloat16,
    "torch.int64": np.int64,
    "torch.int32": np.int32,
    "torch.int16": np.int16,
    "torch.int8": np.int8,
    "torch.uint8": np.uint8,
    "torch.uint16": np.uint16,
    "torch.uint32": np.uint32,
    "torch.uint64": np.uint64,
    "torch.bool": np.bool_,
}
