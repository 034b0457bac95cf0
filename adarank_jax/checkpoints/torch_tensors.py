"""Tensors of a torch file: what its pickle says of them, checked against its bytes.

torch's own rebuilding of tensors has been a way to read and write outside of a storage;
here every number is checked before a view is made, and numpy checks it once more.
"""

import math
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

from adarank_jax import errors
from adarank_jax.checkpoints import formats
from adarank_jax.checkpoints.restricted_pickle import Global, Node
from adarank_jax.checkpoints.torch_archive import Archive


def is_tensor(value: Any) -> bool:
    """Tells whether a value of a pickle was a tensor of any kind."""
    return isinstance(value, Node) and value.path.startswith(_REBUILDS)


def describe(value: Any) -> str:
    """Says what a value of a pickle is, without showing what is in it."""
    if isinstance(value, Node):
        if is_tensor(value):
            return "one tensor without a name"
        return f"a {value.path or 'storage'}"
    return f"a {type(value).__name__}"


class TensorReader:
    """Turns descriptions of tensors into arrays, as long as they stay in bounds."""

    def __init__(self, archive: Archive, path: pathlib.Path):
        """Prepares to read an archive.

        Args:
            archive: that holds the numbers.
            path: of the file, to name in messages.

        Raises:
            InputError: the archive has a byte order that is not known.
        """
        self.archive, self.path = archive, path
        self.is_big = self._byte_order() == b"big"
        self.bytes_left = 16 * len(archive.content) + (1 << 24)

    def _byte_order(self):
        """Reads which byte of a number comes first."""
        begin, end = self.archive.spans.get("byteorder", (0, 0))
        order = self.archive.content[begin : min(end, begin + 8)] or b"little"
        if order not in (b"little", b"big"):
            raise errors.InputError(
                *("E126", f"it has the byte order {order!r}", f"`{self.path}`"),
                expected="little or big",
                remedy="get it again: the archive is damaged",
            )
        return order

    def read(self, name: str, value: Any) -> np.ndarray:
        """Reads one tensor.

        Args:
            name: to name in messages.
            value: what the pickle has under that name.

        Returns:
            A read-only view of the file.

        Raises:
            InputError: it is no dense tensor of numbers, or leaves its storage.
        """
        where = f"Tensor {name!r} of `{self.path}`"
        for _ in range(4):
            if not is_tensor(value) or value.path not in _WRAPPERS:
                break
            value = _WRAPPERS[value.path](value.args)
        if not is_tensor(value):
            found = f"it is {describe(value)}"
            raise errors.InputError(
                "E116", found, where, "a tensor", "save the state dict"
            )
        args = value.args
        if value.path not in _LENGTHS or len(args) < _LENGTHS[value.path]:
            is_quantised = "qtensor" in value.path
            kind = "quantised" if is_quantised else "not a dense tensor"
            raise errors.InputError(
                *("E116", f"it ({value.path}) is {kind}", where),
                remedy=formats.DEQUANTISE if is_quantised else "save it as a dense one",
            )
        metadata = args[7:] if value.path.endswith("v3") else args[6:]
        if any(isinstance(bits, dict) and any(bits.values()) for bits in metadata):
            found = "it is a negated or conjugated view"
            raise errors.InputError("E116", found, where, remedy="`.clone()` it")
        dtype, begin, count = self._storage(args, value.path, where)
        (offset,) = _numbers((args[1],), where)
        shape, strides = (_numbers(value, where) for value in args[2:4])
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
            and _is_count(pid[4])
        ):
            raise _damaged("it has no storage that is known", where)
        kind = args[6] if function.endswith("v3") else pid[1]
        kind = kind.path if isinstance(kind, Global) else type(kind).__name__
        if kind not in STORAGES:
            is_quantised = any(word in kind for word in _QUANTISED)
            reason = "quantised" if is_quantised else "not known"
            raise errors.InputError(
                *("E116", f"it is of {kind}, which is {reason}", where),
                remedy=formats.DEQUANTISE if is_quantised else "save it as float32",
            )
        dtype = np.dtype(STORAGES[kind])
        begin, end = self.archive.spans.get(f"data/{pid[2]}", (0, -1))
        width = 1 if pid[1].path in _UNTYPED else dtype.itemsize
        if pid[4] < 0 or pid[4] * width != end - begin:
            raise _damaged(
                f"it needs the storage {pid[2][:20]!r} of {pid[4]:,} elements of "
                f"{width} bytes, but the file has {max(end - begin, 0):,} bytes there",
                where,
            )
        return dtype, begin, (end - begin) // dtype.itemsize

    def _check_bounds(self, offset, shape, strides, count, dtype, where):
        """Checks that a view of a storage stays inside of it."""
        if len(shape) != len(strides):
            raise _damaged(f"it has the shape {shape}, but strides {strides}", where)
        if offset < 0 or min((*shape, *strides), default=0) < 0:
            raise _damaged("it has a negative offset, size or stride", where)
        if math.prod(size or 1 for size in shape) >= 1 << 48:
            raise _damaged(f"it has the shape {shape}, which no tensor has", where)
        last = offset + sum(
            (size - 1) * stride for size, stride in zip(shape, strides, strict=True)
        )
        if 0 not in shape and last >= count:
            found = f"it reaches element {last:,} of a storage of {count:,}"
            raise _damaged(found, where)
        self.bytes_left -= math.prod(shape) * dtype.itemsize
        if self.bytes_left < 0:
            raise errors.InputError(
                "E153",
                "with it the tensors are more than 16 times as large as the file, "
                "which repeats the same numbers",
                where=where,
                remedy="save it again as safetensors",
            )

    def _view(self, dtype, begin, offset, shape, strides):
        """Views the numbers; copies them only if their bytes are in the other order."""
        if 0 in shape:
            return np.frombuffer(b"", dtype).reshape(shape)
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


def _damaged(found, where):
    """Makes the error about a tensor that its storage cannot hold."""
    remedy = "do not use it: the file is damaged or was made to do harm"
    return errors.InputError("E152", found, where, remedy=remedy)


def _numbers(value, where):
    """Returns a tuple of integers, if this is one."""
    if isinstance(value, Node) and value.path == "torch.Size" and value.args:
        value = value.args[0]
    if not (
        isinstance(value, tuple | list)
        and len(value) <= 32
        and all(map(_is_count, value))
    ):
        raise _damaged("it must have at most 32 integers as shape and strides", where)
    return tuple(value)


def _is_count(value):
    """Tells whether this is an integer of 64 bits."""
    return type(value) is int and abs(value) < 1 << 63


def _of_type(args):
    """Unwraps a tensor of a subclass: a function, a type, its arguments, a state."""
    is_known = len(args) > 2 and isinstance(args[0], Global)
    return Node(args[0].path, args[2]) if is_known else None


_REBUILDS = ("torch._utils._rebuild_", "torch._tensor._rebuild_")
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
STORAGES: dict[str, Any] = {
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
"""numpy's dtype for each of torch's names that is read."""
