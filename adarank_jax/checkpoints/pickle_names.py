"""Names in a pickle that say that it was made to run code.

This is information, not the defence: nothing that a pickle names is ever looked up. It
decides between "has classes that are left out" and "do not use this file".
"""


def runs_code(module: str, name: str) -> bool:
    """Tells whether a name is known to run code, or to reach what does.

    Args:
        module: of the name, dotted.
        name: inside of it; dotted for what belongs to a class.

    Examples:
        >>> runs_code("posix", "system"), runs_code("torch.nn", "Linear")
        (True, False)
    """
    parts = f"{module}.{name}".split(".")
    if parts[0] in ("builtins", "__builtin__"):
        return name not in _BUILTINS
    reaches = "." in name and any(part.startswith("__") for part in name.split("."))
    return (
        reaches
        or parts[0] in _MODULES
        or any(part in _MODULES for part in parts[1:-1] if "." in name)
        or any(".".join(parts[:end]) in _FUNCTIONS for end in range(2, len(parts) + 1))
    )


def is_member(attribute: object) -> bool:
    """Tells whether `getattr` may ask for this, as Python 3.11 does for enumerations.

    Args:
        attribute: the second argument.

    Examples:
        >>> is_member("BICUBIC"), is_member("__globals__")
        (True, False)
    """
    return (
        isinstance(attribute, str)
        and attribute.isidentifier()
        and not attribute.startswith("_")
    )


GETATTR = ("builtins.getattr", "__builtin__.getattr")
"""The one function that pickles of harmless objects may mention."""
_BUILTINS = frozenset(
    "bool bytearray bytes complex dict float frozenset getattr int list object range "
    "set slice str tuple".split()
)
_MODULES = frozenset(
    "_frozen_importlib _io _osx_support _pickle _posixsubprocess _socket _thread "
    "aiohttp asyncio atexit bdb cProfile cffi cloudpickle code codeop ctypes dill "
    "distutils doctest ensurepip ftplib gc http httpx idlelib imaplib imp importlib io "
    "joblib linecache marshal mmap multiprocessing nt ntpath os pdb pickle pip pkgutil "
    "popen2 posix posixpath profile pty py_compile pydoc requests runpy sched shelve "
    "shutil signal site smtplib socket socketserver sqlite3 ssl subprocess sys "
    "telnetlib tempfile threading timeit trace urllib urllib2 urllib3 venv webbrowser "
    "xmlrpc zipimport".split()
)
_FUNCTIONS = frozenset(
    "logging.config numpy.f2py numpy.load numpy.testing operator.attrgetter "
    "operator.methodcaller torch.hub torch.jit.load torch.jit.unsupported_tensor_ops "
    "torch.load torch.package torch.serialization.load torch.storage._load_from_bytes "
    "torch.utils.cpp_extension types.CodeType types.FunctionType "
    "types.LambdaType".split()
)
