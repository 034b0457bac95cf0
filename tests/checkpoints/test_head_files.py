import json
import pathlib

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from adarank_jax.checkpoints import head_files

DATA = pathlib.Path(__file__).parents[1] / "data"
WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
BIAS = np.float32([0.5, 2, -1])
NAMES = ("cat", "dög", "T-shirt/top")


@pytest.mark.parametrize("bias", [None, BIAS])
@pytest.mark.parametrize("names", [None, NAMES])
def test_read_undoes_write(tmp_path, bias, names):
    file = tmp_path / "head_Tiny.safetensors"
    head_files.write_head(file, WEIGHT, bias, names)
    head = head_files.read_head(file, features=4)
    np.testing.assert_array_equal(head.weight, WEIGHT)
    assert head.class_names == names
    assert (head.bias is None) == (bias is None)
    if bias is not None:
        np.testing.assert_array_equal(head.bias, bias)


def test_write_records_what_the_head_is(tmp_path):
    file = tmp_path / "head.safetensors"
    extra = {"logit_scale": 4.6052, "profile": "official", "templates": ["a {}."]}
    digest = head_files.write_head(file, WEIGHT, None, NAMES, extra)
    described = json.loads((tmp_path / "head.json").read_text(encoding="utf-8"))
    expected = {"normalise": True, "sha256": digest, "class_names": list(NAMES)}
    assert described == expected | extra
    assert digest == head_files.write_head(file, WEIGHT, None, NAMES, extra)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("prefix", ["", "head.", "module.classification_head."])
def test_read_takes_any_float_and_one_prefix(tmp_path, dtype, prefix):
    file = tmp_path / "head.safetensors"
    save_file(
        {prefix + "weight": WEIGHT.astype(dtype), prefix + "bias": BIAS.astype(dtype)},
        file,
    )
    head = head_files.read_head(file)
    assert head.weight.dtype == head.bias.dtype == np.float32
    np.testing.assert_array_equal(head.weight, WEIGHT)
    np.testing.assert_array_equal(head.bias, BIAS)
    assert head.class_names is None


@pytest.mark.parametrize("name", ["head_Tiny.pt", "head_tiny_state.pt"])
def test_read_takes_files_of_torch(name):
    head = head_files.read_head(DATA / name, features=4)
    np.testing.assert_array_equal(head.weight, WEIGHT)
    assert head.class_names is None


def test_read_finds_class_names_beside_a_file_of_torch(tmp_path):
    file = tmp_path / "head_Tiny.pt"
    file.write_bytes((DATA / "head_Tiny.pt").read_bytes())
    file.with_suffix(".json").write_text(json.dumps({"class_names": NAMES}))
    assert head_files.read_head(file).class_names == NAMES


@pytest.mark.parametrize(
    "tensors",
    [
        {"weight": WEIGHT, "logit_scale": BIAS},
        {"a.weight": WEIGHT, "b.bias": BIAS},
        {"a.weight": WEIGHT, "b.weight": WEIGHT},
        {"bias": BIAS},
        {"visual.conv1": WEIGHT},
    ],
)
def test_read_refuses_what_is_no_head(tmp_path, tensors):
    file = tmp_path / "model.safetensors"
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"model\.safetensors`: this is no head file"):
        head_files.read_head(file)


def test_read_refuses_integers(tmp_path):
    file = tmp_path / "head.safetensors"
    save_file({"weight": np.ones((3, 4), np.int32)}, file)
    with pytest.raises(ValueError, match=r"head\.safetensors.*'weight' as int32"):
        head_files.read_head(file)


def test_read_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="head_Cars"):
        head_files.read_head(tmp_path / "head_Cars.pt")


BAD = {
    "one class": (WEIGHT[:1], None, None, r"has 1 class\(es\), expected at least two"),
    "not 2-D": (WEIGHT[0], None, None, r"shape \(4,\), expected \(classes, features\)"),
    "NaN": (np.where(WEIGHT == 1, np.nan, WEIGHT), None, None, r"`weight`.*\(2, 0\)"),
    "infinite bias": (WEIGHT, BIAS * np.inf, None, r"in `bias` .* first at \(0,\)"),
    "bias": (WEIGHT, BIAS[:2], None, r"bias of shape \(2,\), expected \(3,\)"),
    "few names": (WEIGHT, None, NAMES[:2], "3 rows and 2 class names.*0 to 2"),
    "same names": (WEIGHT, None, ("a", "b", "a"), r"more than once: \['a'\]"),
    "one text": (WEIGHT, None, "abc", "list of texts"),
}


@pytest.mark.parametrize("case", BAD)
def test_write_refuses_heads_that_cannot_be_used(tmp_path, case):
    weight, bias, names, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        head_files.write_head(tmp_path / "head.safetensors", weight, bias, names)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", ["one class", "not 2-D", "NaN", "bias"])
def test_read_refuses_heads_that_cannot_be_used(tmp_path, case):
    weight, bias, _, message = BAD[case]
    arrays = {"weight": weight} | ({} if bias is None else {"bias": bias})
    save_file(
        {k: np.ascontiguousarray(a) for k, a in arrays.items()}, tmp_path / "h.st"
    )
    with pytest.raises(ValueError, match=message) as error:
        head_files.read_head(tmp_path / "h.st")
    assert "h.st" in str(error.value)


@pytest.mark.parametrize("case", ["few names", "same names"])
def test_read_refuses_names_that_do_not_fit(tmp_path, case):
    _, _, names, message = BAD[case]
    save_file({"weight": WEIGHT}, tmp_path / "head.safetensors")
    (tmp_path / "head.json").write_text(json.dumps({"class_names": names}))
    with pytest.raises(ValueError, match=message):
        head_files.read_head(tmp_path / "head.safetensors")


def test_read_refuses_another_width_with_a_hint():
    with pytest.raises(ValueError, match="length 4, but .* 768; .*before or after the"):
        head_files.read_head(DATA / "head_Tiny.pt", features=768)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"class_names": ["a", "b"', "describe a head"),
        ("[1, 2]", "expected an object"),
        ('{"class_names": "abc"}', "list of texts"),
        ('{"class_names": [1, 2, 3]}', "list of texts"),
        ('{"normalise": false}', "`normalise` must be true"),
        ('{"sha256": "00"}', "`sha256` is 00, but"),
        ("[" * 100_000, "describe a head"),
        (b"\xff\xfe\xff", "describe a head"),
    ],
)
def test_read_refuses_a_wrong_description(tmp_path, text, message):
    save_file({"weight": WEIGHT}, tmp_path / "head.safetensors")
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "head.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"head\.json`: .*{message}"):
        head_files.read_head(tmp_path / "head.safetensors")


def test_read_notices_files_that_do_not_belong_together(tmp_path):
    file = tmp_path / "head.safetensors"
    head_files.write_head(file, WEIGHT, None, NAMES)
    described = (tmp_path / "head.json").read_text()
    head_files.write_head(file, 2 * WEIGHT, None, NAMES)
    (tmp_path / "head.json").write_text(described)
    with pytest.raises(ValueError, match=r"head\.json`.*one of the two was changed"):
        head_files.read_head(file)
    (tmp_path / "head.json").write_text(json.dumps({"class_names": ["x", "y", "z"]}))
    with pytest.raises(ValueError, match="different class names"):
        head_files.read_head(file)
    (tmp_path / "head.json").unlink()
    assert head_files.read_head(file).class_names == NAMES


@pytest.mark.parametrize("name", ["head.pt", "head"])
def test_write_makes_safetensors_only(tmp_path, name):
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        head_files.write_head(tmp_path / name, WEIGHT)


def test_write_keeps_its_own_entries(tmp_path):
    with pytest.raises(ValueError, match=r"`extra` must not set \['normalise'\]"):
        head_files.write_head(
            tmp_path / "h.safetensors", WEIGHT, extra={"normalise": False}
        )
    assert not list(tmp_path.iterdir())
