"""Pickles that would run code: they are refused, and nothing of Python is touched."""

import json
import os
import pathlib
import pickle
import subprocess
import sys

import pytest

from adarank_jax.checkpoints import restricted_pickle
from tests.checkpoints.test_torch_files import archive, state_dict, tensor

ROOT = pathlib.Path(__file__).parents[2]
LOAD = pickle.dumps(None)
CODE = {
    "reduce": (b"cposix\nsystem\nVtouch MARK\n\x85R.", "posix.system"),
    "python_2": (b"cos\nsystem\n(S'touch MARK'\ntR.", "os.system"),
    "stack_global": (
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x8c\x0atouch MARK\x85R.",
        "posix.system",
    ),
    "memo": (
        b"\x80\x04\x8c\x06system\x940\x8c\x05posixh\x00\x93\x8c\x0atouch MARK\x85R.",
        "posix.system",
    ),
    "inst": (b"(S'touch MARK'\niposix\nsystem\n.", "posix.system"),
    "obj": (b"(cposix\nsystem\nS'touch MARK'\no.", "posix.system"),
    "newobj": (b"\x80\x02csubprocess\nPopen\nVtouch\n\x85\x81.", "subprocess.Popen"),
    "newobj_ex": (b"\x80\x04csubprocess\nPopen\n)}\x92.", "subprocess.Popen"),
    "eval": (b"cbuiltins\neval\nV1+1\n\x85R.", "builtins.eval"),
    "exec_python_2": (b"c__builtin__\nexecfile\nVx\n\x85R.", "__builtin__.execfile"),
    "import": (b"cbuiltins\n__import__\nVevil\n\x85R.", "builtins.__import__"),
    "open": (b"cbuiltins\nopen\n(VMARK\nVw\ntR.", "builtins.open"),
    "io_open": (b"c_io\nopen\n(VMARK\nVw\ntR.", "_io.open"),
    "dotted": (
        b"\x80\x04\x8c\x0bcollections\x8c\x20OrderedDict.__init__.__globals__\x93.",
        "OrderedDict.__init__.__globals__",
    ),
    "dotted_module": (b"\x80\x04\x8c\x03abc\x8c\x09os.system\x93.", "abc.os.system"),
    "getattr": (
        b"c__builtin__\ngetattr\n(ccollections\nOrderedDict\nV__init__\ntR.",
        "getattr",
    ),
    "getattr_chain": (
        b"cbuiltins\ngetattr\n(cbuiltins\ngetattr\n(cabc\nABC\nVx\ntRVy\ntR.",
        "builtins.getattr",
    ),
    "resolve": (b"cpkgutil\nresolve_name\nVos:system\n\x85R.", "pkgutil.resolve_name"),
    "runpy": (b"crunpy\n_run_code\n(V1\n}tR.", "runpy._run_code"),
    "numpy": (b"cnumpy.testing._private.utils\nrunstring\n)R.", "runstring"),
    "hub": (b"ctorch.hub\nload\n)R.", "torch.hub.load"),
    "nested_load": (b"ctorch.storage\n_load_from_bytes\n)R.", "_load_from_bytes"),
    "pickle": (b"c_pickle\nloads\nC\x04" + LOAD[:4] + b"\x85R.", "_pickle.loads"),
    "build": (b"cos\n_wrap_close\n)\x81}Vclose\ncabc\nx\nsb.", "os._wrap_close"),
}
REFUSED = {
    "extension": (b"\x82\x01.", "opcode EXT1"),
    "text_persistent_id": (b"Pevil\n.", "opcode PERSID"),
    "buffer": (b"\x97.", "opcode NEXT_BUFFER"),
    "build_on_class": (b"ccollections\nOrderedDict\n}V__reduce__\nNsb.", "no object"),
    "build_on_dict": (b"}}b.", "no object"),
    "items_of_class": (b"ccollections\nOrderedDict\nVa\nNs.", "no dict"),
    "call_of_dict": (b"})R.", "no class"),
    "call_of_object": (b"cabc\nABC\n)R)R.", "no class"),
    "newlines": (b"\x80\x04\x8c\x03a\nb\x8c\x01c\x93.", "which is no name"),
    "escapes": (b"\x80\x04\x8c\x05\x1b[2Ja\x8c\x01c\x93.", "which is no name"),
    "number_as_name": (b"\x80\x04K\x01K\x02\x93.", "no text"),
    "long": (b"\x8b" + (4000).to_bytes(4, "little") + b"\x7f" * 4000 + b".", "bits"),
    "long_bomb": (b"\x8b\xff\xff\xff\x7f.", "no whole pickle"),
    "text_long": (b"L" + b"9" * 9000 + b"L\n.", "no whole pickle"),
    "protocol": (b"\x80\x09N.", "protocol 9"),
    "stack": (b"\x80\x02R.", "no whole pickle"),
    "memory": (b"h\x07.", "no whole pickle"),
    "mark": (b"t.", "no whole pickle"),
    "two": (b"NN.", "too early or too late"),
    "after": (b"N.cos\nsystem\n", "too early or too late"),
    "empty": (b"", "no whole pickle"),
    "opcodes": (b"N0" * 600_000 + b"N.", "more than 500,000 opcodes"),
    "frame": (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "no whole pickle|holds"),
    "bytes_bomb": (b"\x8e" + b"\xff" * 7 + b"\x0fx.", "no whole pickle"),
    "nested": (b"]" * 100_000 + b"a" * 99_999 + b".", "holds a list"),
    "tuples": (b")" + b"q\x00h\x00\x86" * 150_000 + b".", "holds a tuple"),
    "tuple_keys": (
        b"}" + b")" + b"q\x00h\x00\x86" * 100_000 + b"Ns.",
        "no tensors at its top",
    ),
    "colliding_keys": (
        b"}("
        + b"".join(
            b"\x8a\x0c" + (i * (2**61 - 1)).to_bytes(12, "little") + b"N"
            for i in range(200_000)
        )
        + b"u.",
        "no tensors at its top",
    ),
    "memo_index": (b"Nr\xff\xff\xff\xff.", "holds a NoneType"),
    "inert": (b"cevil\nThing\nVx\n\x85R}Va\nNsb.", "holds a evil.Thing"),
}
WATCH = """
import json, pickle, resource, sys, time
from adarank_jax.checkpoints.torch_files import read_torch
good, *files = sys.argv[1:]
for warm_up in (good, files[-1]):
    try: read_torch(warm_up)
    except ValueError: pass
seen, harmless = [], {"object.__getattr__", "os.listdir", "mmap.__new__", "os.scandir"}
def hook(event, args):
    if seen is None or event in harmless: return
    reads = event == "open" and (args[1] or "r") in ("r", "rb")
    if reads and str(args[0]) in files: return
    seen.append([event, repr(args)[:200]])
sys.addaudithook(hook)
answers, slowest, memory = {}, 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in files:
    start = time.process_time()
    try: answers[file] = ["read", sorted(read_torch(file).tensors)]
    except Exception as error: answers[file] = [type(error).__name__, str(error)]
    slowest = max(slowest, time.process_time() - start)
memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
events, seen = seen, []
pickle.loads(b"cos\\nsystem\\nVtrue\\n\\x85R.")
print(json.dumps([answers, events, [event for event, _ in seen], slowest, memory]))
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Reads all files in one process under an audit hook."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "evil.py").write_text(f"open({str(folder / 'MARK')!r}, 'w')")
    pickles = {name: value for name, (value, _) in (CODE | REFUSED).items()}
    pickles |= {
        f"inside_{name}": b"\x80\x02}(Vw\n" + tensor() + b"Vx\n" + value[:-1] + b"u."
        for name, (value, _) in CODE.items()
        if value[:1] != b"\x80"
    }
    pickles["class_beside_tensors"] = state_dict(tensor(), REFUSED["inert"][0][:-1])
    good = archive(folder / "good.pt", state_dict(tensor()))
    files = [archive(folder / f"{name}.pt", value) for name, value in pickles.items()]
    process = subprocess.run(
        [sys.executable, "-c", WATCH, str(good), *map(str, files)],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
        | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answers, *rest = json.loads(process.stdout)
    assert not (folder / "MARK").exists()
    assert set(os.listdir(folder)) == {
        "evil.py",
        *map(os.path.basename, [good, *files]),
    }
    return ({pathlib.Path(path).stem: value for path, value in answers.items()}, *rest)


def test_read_runs_imports_and_writes_nothing(watched):
    _, events, control, *_ = watched
    assert events == []
    assert "os.system" in control


def test_read_takes_little_time_and_memory(watched):
    *_, seconds, megabytes = watched
    assert seconds < 5 and megabytes < 300


@pytest.mark.parametrize("name", CODE)
def test_read_names_the_code(watched, name):
    kind, message = watched[0][name]
    assert kind == "InputError"
    assert f"{name}.pt`: it contains code: " in message
    assert CODE[name][1] in message and "nothing was run" in message


def test_read_finds_code_beside_good_tensors(watched):
    inside = {name: a for name, a in watched[0].items() if name.startswith("inside_")}
    assert len(inside) > 10
    for kind, message in inside.values():
        assert kind == "InputError" and "contains code" in message


@pytest.mark.parametrize("name", REFUSED)
def test_read_refuses_other_tricks(watched, name):
    kind, message = watched[0][name]
    assert kind == "InputError"
    assert f"{name}.pt" in message
    assert any(part in message for part in REFUSED[name][1].split("|")), message
    assert len(message) < 500


def test_read_leaves_out_an_object_of_an_unknown_class(watched):
    assert watched[0]["class_beside_tensors"] == ["read", ["w0"]]


def test_parse_refuses_a_large_pickle(monkeypatch):
    monkeypatch.setattr(restricted_pickle, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="pickle of 11 bytes, expected at most 10"):
        restricted_pickle.parse(b"(" * 11, "this")
