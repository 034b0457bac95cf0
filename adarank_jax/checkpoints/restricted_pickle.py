"""Pickles as inert data: an interpreter of the pickle language that calls nothing.

Python's own unpickler imports names and calls what they stand for. This one knows names
only as text: an object becomes a `Node` with its class name, arguments and state, and
whoever reads it decides what that means. It takes time and memory in proportion to the
number of opcodes, which is limited.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

from adarank_jax import errors
from adarank_jax.checkpoints import pickle_names

MOST_BYTES = 64_000_000
"""Length of a pickle that is read."""

MOST_OPCODES = 500_000
"""Opcodes of a pickle that is read; a tensor takes about 40."""


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Global:
    """A name ``module.name`` that was never looked up."""

    path: str


@dataclasses.dataclass(eq=False, repr=False, slots=True)
class Node:
    """An object that was never built.

    Attributes:
        path: of its class, or of the function that would have made it.
        args: of the call.
        state: that the object would have been given, if any.
        items: that it would hold by key.
    """

    path: str
    args: tuple
    state: Any = None
    items: dict = dataclasses.field(default_factory=dict)


class Graph(NamedTuple):
    """What a pickle describes.

    Attributes:
        root: plain values, lists, tuples, dicts, `Global` and `Node`; sets are lists.
        names: every name ``module.name`` that occurs, sorted.
    """

    root: Any
    names: tuple[str, ...]


def parse(content: bytes, source: str) -> Graph:
    r"""Parses a pickle without running any of it.

    Args:
        content: the pickle.
        source: what to call it in messages.

    Returns:
        The graph of values that it describes.

    Raises:
        InputError: it is damaged, too large, or names something that runs code.

    Examples:
        >>> node = parse(b"cnumpy\nzeros\n(I3\ntR.", "this").root
        >>> node.path, node.args
        ('numpy.zeros', (3,))
        >>> parse(b"cos\nsystem\n(S'ls'\ntR.", "this")
        Traceback (most recent call last):
        adarank_jax.errors.InputError: E150 this: it contains code: os.system; nothing
            was run; do not use it.
    """
    if len(content) > MOST_BYTES:
        raise errors.InputError(
            *("E153", f"this is a pickle of {len(content):,} bytes", source),
            expected=f"at most {MOST_BYTES:,}",
            remedy="save the state dict alone",
        )
    machine, position = _Machine(source), -1
    try:
        opcodes = enumerate(pickletools.genops(content))
        for count, (opcode, arg, at) in opcodes:
            position = at or 0
            if count == MOST_OPCODES:
                raise _Refused(
                    "E153",
                    f"it has more than {MOST_OPCODES:,} opcodes",
                    "save the state dict alone",
                )
            if opcode.name not in _OPCODES:
                found = f"it uses the pickle opcode {opcode.name}, which is not read"
                raise _Refused("E128", found, "save the state dict alone")
            _OPCODES[opcode.name](machine, arg)
    except _Refused as error:
        code, found, remedy = error.args
        raise errors.InputError(code, found, source, remedy=remedy) from None
    except (ValueError, TypeError, IndexError, KeyError) as error:
        found = f"this is no whole pickle ({type(error).__name__})"
        raise errors.InputError("E128", found, source, remedy="get it again") from error
    if position + 1 != len(content) or len(machine.stack) != 1 or machine.below:
        found = "this is no whole pickle: it ends too early or too late"
        raise errors.InputError("E128", found, source, remedy="get it again")
    return Graph(machine.stack[0], tuple(sorted(machine.names)))


class _Refused(Exception):
    """Why a pickle is not read: code, what was found, what to do."""


def _damaged(found):
    """Says that a pickle does what no pickle does."""
    return _Refused("E128", found, "get it again: it is damaged")


def _contains_code(path):
    """Says that a pickle would have run something."""
    found = f"it contains code: {path}; nothing was run"
    return _Refused("E150", found, "do not use it")


class _Machine:
    """The stack of one pickle, and the stacks that its marks have set aside."""

    def __init__(self, source):
        self.source = source
        self.stack, self.below, self.memo, self.names = [], [], {}, {}

    def mark(self, _):
        """Begins a new stack."""
        self.below.append(self.stack)
        self.stack = []

    def to_mark(self):
        """Takes all values above the last mark."""
        values, self.stack = self.stack, self.below.pop()
        return values

    def take(self, count):
        """Takes the last values, in their order."""
        if len(self.stack) < count:
            raise IndexError("the stack is too short")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def push(self, value):
        """Adds one value."""
        self.stack.append(value)

    def look_up(self, module, name):
        """Turns two texts into a `Global`."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise _damaged("it names a class by something that is no text")
        path = f"{module}.{name}"
        if not all(part.isidentifier() for part in path.split(".")):
            raise _damaged(f"it names a class {path[:80]!r}, which is no name")
        if pickle_names.runs_code(module, name):
            raise _contains_code(path)
        return self.names.setdefault(path, Global(path))

    def call(self, function, args):
        """Notes a call."""
        if not (isinstance(function, Global) and isinstance(args, tuple)):
            raise _damaged("it calls something that is no class")
        is_plain = (
            len(args) == 2
            and isinstance(args[0], Global)
            and pickle_names.is_member(args[1])
        )
        if function.path in pickle_names.GETATTR and not is_plain:
            raise _contains_code(function.path)
        self.push(Node(function.path, args))

    def build(self, _):
        """Notes the state of an object."""
        node, state = self.take(2)
        if not isinstance(node, Node):
            raise _damaged("it sets the state of something that is no object")
        node.state = state
        self.push(node)

    def set_items(self, pairs):
        """Notes items of the dict or object on the stack."""
        target = self.stack[-1]
        if not isinstance(target, dict | Node) or len(pairs) % 2:
            raise _damaged("it sets items of something that is no dict")
        items = target.items if isinstance(target, Node) else target
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            items[_key(key)] = value

    def append(self, values):
        """Notes elements of the list on the stack; those of list subclasses go."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Node):
            raise _damaged("it appends to something that is no list")


def _key(value):
    """Keeps keys whose hash is cheap; any other becomes an object of its own."""
    plain = isinstance(value, str | bytes | bool | float | None | Global | Node)
    if plain or (isinstance(value, int) and abs(value) < 1 << 60):
        return value
    return Global(type(value).__name__)


def _integer(machine, value):
    """Pushes an integer of at most 2,048 bits."""
    if value.bit_length() > 2048:
        found = f"it has an integer of {value.bit_length():,} bits"
        raise _Refused("E153", found, "do not use it")
    machine.push(value)


def _protocol(_, version):
    """Checks the version of the language."""
    if version > 5:
        found = f"it is of pickle protocol {version}, the newest known is 5"
        raise _Refused("E128", found, "save it again with an older protocol")


def _inst(machine, names):
    """Notes an object whose class is text in the opcode."""
    machine.call(machine.look_up(*names.split(" ")), tuple(machine.to_mark()))


def _obj(machine, _):
    """Notes an object whose class follows the mark."""
    function, *args = machine.to_mark()
    machine.call(function, tuple(args))


def _global(machine, names):
    """Pushes a name that is text in the opcode."""
    machine.push(machine.look_up(*names.split(" ")))


def _new_with_keywords(machine, _):
    """Notes an object that is made with keyword arguments, which are left out."""
    function, args, _ = machine.take(3)
    machine.call(function, args)


def _memoize(machine, _):
    """Remembers the last value under the next number."""
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _remember(machine, number):
    """Remembers the last value."""
    machine.memo[number] = machine.stack[-1]


def _pop(machine, _):
    """Drops the last value, or the last mark if nothing follows it."""
    if machine.stack:
        machine.stack.pop()
    else:
        machine.to_mark()


def _dict(machine, _):
    """Pushes a dict of the pairs above the mark."""
    pairs = machine.to_mark()
    machine.push({})
    machine.set_items(pairs)


_VALUES = (
    "BINFLOAT FLOAT BINBYTES BINBYTES8 SHORT_BINBYTES BYTEARRAY8 BINSTRING STRING "
    "SHORT_BINSTRING BINUNICODE BINUNICODE8 SHORT_BINUNICODE UNICODE"
)
_OPCODES: dict[str, Callable[[_Machine, Any], object]] = {
    **{name: _Machine.push for name in _VALUES.split()},
    **{
        name: _integer for name in "INT BININT BININT1 BININT2 LONG LONG1 LONG4".split()
    },
    **{name: _remember for name in "PUT BINPUT LONG_BINPUT".split()},
    **{
        name: lambda machine, number: machine.push(machine.memo[number])
        for name in "GET BINGET LONG_BINGET".split()
    },
    "PROTO": _protocol,
    "FRAME": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "MARK": _Machine.mark,
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.to_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "MEMOIZE": _memoize,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_SET": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.to_mark())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.take(3))),
    "LIST": lambda machine, _: machine.push(machine.to_mark()),
    "FROZENSET": lambda machine, _: machine.push(machine.to_mark()),
    "DICT": _dict,
    "APPEND": lambda machine, _: machine.append(machine.take(1)),
    "APPENDS": lambda machine, _: machine.append(machine.to_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.to_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.to_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": lambda machine, _: machine.push(machine.look_up(*machine.take(2))),
    "REDUCE": lambda machine, _: machine.call(*machine.take(2)),
    "NEWOBJ": lambda machine, _: machine.call(*machine.take(2)),
    "NEWOBJ_EX": _new_with_keywords,
    "INST": _inst,
    "OBJ": _obj,
    "BUILD": _Machine.build,
    "BINPERSID": lambda machine, _: machine.push(Node("", tuple(machine.take(1)))),
}
