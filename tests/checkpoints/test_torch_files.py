"""Real files of torch, made by `tests/data/make_torch_files.py`, and damaged ones."""

import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adarank_jax.checkpoints.safetensors_files import read_tensors
from adarank_jax.checkpoints.torch_files import read_torch

FOLDER = pathlib.Path(__file__).parents[1] / "data" / "torch_files"
EXPECTED = read_tensors(FOLDER / "expected.safetensors")
FLOATS = np.arange(6, dtype=np.float32)


def _number(value):
    encoded = pickle.encode_long(value)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def _text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _tuple(values):
    return b"(" + b"".join(_number(value) for value in values) + b"t"


def tensor(numel=6, offset=0, size=(2, 3), stride=(3, 1), kind="FloatStorage"):
    """Opcodes that push a tensor of storage 0."""
    storage = _text("storage") + f"ctorch\n{kind}\n".encode() + _text("0")
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + (storage + _text("cpu") + _number(numel) + b"tQ")
        + (_number(offset) + _tuple(size) + _tuple(stride))
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def state_dict(*values):
    """A pickle of a dict of w0, w1, …"""
    items = b"".join(_text(f"w{i}") + value for i, value in enumerate(values))
    return b"\x80\x02}(" + items + b"u."


def archive(path, content, storage=None, root="archive", **members):
    """Writes a zip archive as torch does."""
    storage = FLOATS.tobytes() if storage is None else storage
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{root}/data.pkl", content)
        file.writestr(f"{root}/data/0", storage)
        file.writestr(f"{root}/version", "3\n")
        for name, value in members.items():
            file.writestr(f"{root}/{name}", value)
    return path


@pytest.mark.parametrize(
    "name",
    "state_dict protocol_4 image_encoder head tagged wrapped".split(),
)
def test_read_agrees_with_torch(name):
    expected = {
        key.partition("/")[2]: array
        for key, array in EXPECTED.items()
        if key.startswith(f"{name}.pt/")
    }
    tensors = read_torch(FOLDER / f"{name}.pt").tensors
    assert tensors.keys() == expected.keys()
    for key, array in expected.items():
        assert (tensors[key].dtype, tensors[key].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(tensors[key], array, err_msg=key)
        assert not tensors[key].flags.writeable


def test_read_keeps_the_storage_that_tensors_share():
    tensors = read_torch(FOLDER / "state_dict.pt").tensors
    assert np.shares_memory(tensors["float32"], tensors["shared"])


def test_read_tells_which_classes_a_module_mentions():
    classes = read_torch(FOLDER / "image_encoder.pt").classes
    assert {"src.modeling.ImageEncoder", "functools.partial"} <= set(classes)
    assert not [name for name in classes if "rebuild" in name or "Storage" in name]
    assert read_torch(FOLDER / "state_dict.pt").classes == ()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quantised", "'layer.weight'.*_rebuild_qtensor.*quantised; dequantise"),
        ("float8", "'layer.weight'.*float8_e4m3fn, which is quantised"),
        ("sparse", "'layer.weight'.*_rebuild_sparse_tensor.*not a dense tensor"),
        ("complex", "'layer.weight'.*ComplexFloatStorage, which is not known"),
        ("legacy", "before torch 1.6.*torch.save"),
        ("torchscript", "TorchScript archive.*torch.jit.load"),
    ],
)
def test_read_refuses_what_is_no_dense_tensor(name, message):
    with pytest.raises(ValueError, match=message) as error:
        read_torch(FOLDER / f"{name}.pt")
    assert f"{name}.pt" in str(error.value)


def test_read_of_an_archive_by_hand(tmp_path):
    read = read_torch(archive(tmp_path / "m.pt", state_dict(tensor())))
    np.testing.assert_array_equal(read.tensors["w0"], FLOATS.reshape(2, 3))


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "u1"])
def test_read_turns_big_endian_numbers(tmp_path, dtype):
    kind = {"f4": "Float", "f8": "Double", "i2": "Short", "u1": "Byte"}[dtype]
    file = archive(
        tmp_path / "m.pt",
        state_dict(tensor(size=(3, 2), stride=(1, 3), kind=f"{kind}Storage")),
        np.arange(6).astype(f">{dtype}").tobytes(),
        byteorder="big",
    )
    array = read_torch(file).tensors["w0"]
    assert array.dtype == np.dtype(f"={dtype}")
    np.testing.assert_array_equal(array, np.arange(6).reshape(2, 3).T)


def test_read_refuses_an_unknown_byte_order(tmp_path):
    file = archive(tmp_path / "m.pt", state_dict(tensor()), byteorder="middle")
    with pytest.raises(ValueError, match="byte order b'middle'"):
        read_torch(file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": (-3, 1)}, "negative offset, size or stride"),
        ({"size": (-2, 3)}, "negative offset, size or stride"),
        ({"offset": -1}, "negative offset, size or stride"),
        ({"offset": 1}, "reaches element 6 of a storage of 6"),
        ({"stride": (4, 1)}, "reaches element 6 of a storage of 6"),
        ({"stride": (2**62, 1)}, "reaches element"),
        ({"size": (2**40, 2**40)}, "has the shape"),
        ({"size": (0, 2**62)}, "has the shape"),
        ({"size": (2**70, 1)}, "32 integers as shape"),
        ({"size": (6,)}, r"shape \(6,\), but strides \(3, 1\)"),
        ({"size": (1,) * 40, "stride": (1,) * 40}, "integers as shape"),
        ({"numel": 7}, "of 7 elements of 4 bytes, but the file has 24 bytes"),
        ({"numel": -1}, "but the file has 24 bytes"),
        ({"numel": 2**62}, "but the file has 24 bytes"),
        ({"kind": "DoubleStorage"}, "of 8 bytes, but the file has 24 bytes"),
        ({"kind": "QInt8Storage"}, "quantised"),
        ({"kind": "OddStorage"}, "not known"),
        ({"size": (2**22, 2), "stride": (0, 1)}, "16 times as large"),
    ],
)
def test_read_refuses_a_view_that_leaves_its_storage(tmp_path, arguments, message):
    file = archive(tmp_path / "m.pt", state_dict(tensor(), tensor(**arguments)))
    with pytest.raises(ValueError, match=f"'w1' of .*m.pt.*{message}"):
        read_torch(file)


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"\x80\x02}.", "no tensors at its top"),
        (state_dict(b"K\x01"), "keys .*'w0'"),
        (b"\x80\x02].", "holds a list"),
        (b"\x80\x02" + tensor() + b".", "one tensor without a name"),
        (b"\x80\x02cmy.own\nThing\n)\x81.", "holds a my.own.Thing"),
    ],
)
def test_read_refuses_a_file_without_named_tensors(tmp_path, pickled, message):
    with pytest.raises(ValueError, match=message):
        read_torch(archive(tmp_path / "m.pt", pickled))


def _patched(path, old, new, count=-1):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, count))
    return path


def test_read_refuses_a_compressed_member(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", state_dict(tensor(numel=12_500_000)))
        file.writestr("archive/data/0", bytes(50_000_000))
    with pytest.raises(ValueError, match="is compressed"):
        read_torch(tmp_path / "m.pt")


@pytest.mark.parametrize(
    "name", ["../../evil", "data/x", "code.py", "data/0/1", "\x1b"]
)
def test_read_refuses_foreign_members(tmp_path, name):
    file = archive(tmp_path / "m.pt", state_dict(tensor()), **{name: b""})
    with pytest.raises(ValueError, match="none that `torch.save` writes"):
        read_torch(file)


@pytest.mark.parametrize("root", ["..", ".", "a\\b", ""])
def test_read_refuses_a_foreign_folder(tmp_path, root):
    file = archive(tmp_path / "m.pt", state_dict(tensor()), root=root)
    with pytest.raises(ValueError, match="none that `torch.save` writes|data.pkl"):
        read_torch(file)


def test_read_refuses_two_folders(tmp_path):
    file = archive(tmp_path / "m.pt", state_dict(tensor()))
    with zipfile.ZipFile(file, "a") as more:
        more.writestr("other/data/1", b"")
    with pytest.raises(ValueError, match=r"one folder, got \['archive', 'other'\]"):
        read_torch(file)


def test_read_refuses_a_member_that_is_there_twice(tmp_path):
    file = archive(tmp_path / "m.pt", state_dict(tensor()))
    with zipfile.ZipFile(file, "a") as more, pytest.warns(UserWarning):
        more.writestr("archive/data/0", bytes(24))
    with pytest.raises(ValueError, match="'archive/data/0' .* is there twice"):
        read_torch(file)


def test_read_refuses_a_wrong_checksum(tmp_path):
    file = archive(tmp_path / "m.pt", state_dict(tensor()))
    with pytest.raises(ValueError, match="'archive/data/0'.*checksum"):
        read_torch(_patched(file, FLOATS.tobytes(), FLOATS[::-1].tobytes()))


def test_read_refuses_an_encrypted_member(tmp_path):
    file = archive(tmp_path / "m.pt", state_dict(tensor()))
    content = bytearray(file.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="encrypted"):
        read_torch(file)


def _point_member_to(path, name, offset):
    """Changes where the directory says that a member is."""
    content = bytearray(path.read_bytes())
    entry = content.rindex(name.encode()) - 46
    assert content[entry : entry + 4] == b"PK\1\2"
    struct.pack_into("<I", content, entry + 42, offset)
    path.write_bytes(content)
    return path


def test_read_refuses_members_that_overlap(tmp_path):
    file = archive(tmp_path / "m.pt", state_dict(tensor()), **{"data/1": b"12345678"})
    content = file.read_bytes()
    start = content.index(b"PK\3\4", content.index(b"archive/version"))
    inner = content[start : content.index(b"PK\1\2")]
    numel = len(inner) // 4
    whole = tensor(numel=numel, size=(numel,), stride=(1,))
    members = {"data/1": b"12345678"}
    archive(file, state_dict(whole), inner[: numel * 4].ljust(len(inner)), **members)
    where = file.read_bytes().index(inner)
    with pytest.raises(ValueError, match="'archive/data/1' .* overlaps another"):
        read_torch(_point_member_to(file, "archive/data/1", where))


def test_read_refuses_a_member_that_is_elsewhere(tmp_path):
    file = archive(tmp_path / "m.pt", state_dict(tensor()))
    with pytest.raises(ValueError, match="differs from the directory"):
        read_torch(_point_member_to(file, "archive/data/0", 0))
    with pytest.raises(ValueError, match="no header|differs from|no whole zip"):
        read_torch(_point_member_to(file, "archive/data/0", 2**31))


def test_read_refuses_a_directory_that_tells_another_name(tmp_path):
    file = archive(tmp_path / "m.pt", state_dict(tensor()))
    content = file.read_bytes()
    start = content.index(b"PK\1\2")
    changed = content[start:].replace(b"archive/data/0", b"archive/data/1")
    file.write_bytes(content[:start] + changed)
    with pytest.raises(ValueError, match="differs from the directory"):
        read_torch(file)


@pytest.mark.parametrize("keep", [4, 100, -1, -30])
def test_read_refuses_a_truncated_archive(tmp_path, keep):
    content = (FOLDER / "head.pt").read_bytes()[:keep]
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(ValueError, match=f"no whole zip.*{len(content):,} bytes found"):
        read_torch(tmp_path / "m.pt")


def test_read_refuses_other_archives(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as file:
        file.writestr("weights.npy", b"")
    with pytest.raises(ValueError, match=r"not of `torch.save`.*\['weights.npy'\]"):
        read_torch(tmp_path / "m.pt")


def _module(children, own=b""):
    """Opcodes that push a module; children are pairs of name and opcodes."""
    items = b"".join(_text(name) + value for name, value in children)
    return (
        b"cnn\nModule\n)\x81}("
        + (_text("_parameters") + b"}(" + own + b"u")
        + (_text("_modules") + b"}(" + items + b"u")
        + b"ub"
    )


def test_read_refuses_modules_whose_names_double(tmp_path):
    content = _module([], _text("w") + tensor()) + b"q\1"
    for _ in range(40):
        content += b"0" + _module([("a", b"h\1"), ("b", b"h\1")]) + b"q\1"
    file = archive(tmp_path / "m.pt", b"\x80\x02" + content + b".")
    with pytest.raises(ValueError, match="has more than"):
        read_torch(file)


def test_read_refuses_a_module_that_holds_itself(tmp_path):
    content = (
        b"cnn\nModule\n)\x81q\1}("
        + (_text("_parameters") + b"}" + _text("_modules") + b"}")
        + (_text("a") + b"h\1sub.")
    )
    with pytest.raises(ValueError, match="nests modules too deeply"):
        read_torch(archive(tmp_path / "m.pt", b"\x80\x02" + content))


@settings(max_examples=300)
@given(st.data())
def test_damage_is_a_value_error_or_changes_nothing(tmp_path_factory, data):
    name = data.draw(st.sampled_from(["head.pt", "state_dict.pt", "wrapped.pt"]))
    content = bytearray((FOLDER / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(content) - 1))
        content[where] ^= data.draw(st.integers(1, 255))
    if data.draw(st.integers(0, 3)) == 0:
        del content[data.draw(st.integers(1, len(content) - 1)) :]
    file = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    file.write_bytes(content)
    try:
        tensors = read_torch(file).tensors
    except ValueError:
        return
    for key, array in tensors.items():
        np.testing.assert_array_equal(array, EXPECTED[f"{name}/{key}"])


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_pickle_is_a_value_error_or_stays_in_its_storages(
    tmp_path_factory, data
):
    with zipfile.ZipFile(FOLDER / "head.pt") as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    content = bytearray(members["head/data.pkl"])
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, len(content) - 1))
        content[where] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged-pickle.pt"
    with zipfile.ZipFile(path, "w") as file:
        for name, value in (members | {"head/data.pkl": bytes(content)}).items():
            file.writestr(name, value)
    try:
        tensors = read_torch(path).tensors
    except ValueError as error:
        assert len(str(error)) < 2000
        return
    numbers = {0.0} | {x for a in EXPECTED.values() for x in a.ravel().tolist()}
    for array in tensors.values():
        if array.dtype == np.float32:
            assert set(array.ravel().tolist()) <= numbers
