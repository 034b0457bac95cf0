import hashlib
import json
import shutil
import subprocess

import ml_dtypes
import numpy as np
import pytest
import safetensors

from adarank_jax import errors, tree
from adarank_jax.checkpoints import (
    clip,
    containers,
    export,
    folders,
    model_files,
    model_folder,
    shards,
)
from adarank_jax.checkpoints.export import TaskHead
from experiments import clip_parts
from tests import helpers
from tests.checkpoints import tiny_folders
from tests.checkpoints.written import no_space, raw, snapshot

HEADS = [
    TaskHead("mnist", helpers.matrix(0, 3, 12), class_names=("one", "zwei", "三")),
    TaskHead(
        "SUN/397 <b>",
        helpers.matrix(1, 4, 12),
        bias=helpers.matrix(2, 4),
        about={"profile": "official", "templates": ["a photo of a {}."]},
    ),
]


@pytest.fixture(params=tiny_folders.KINDS)
def kind(request):
    return request.param


@pytest.fixture
def base(tmp_path):
    return clip.read_clip(str(tiny_folders.write(tmp_path / "base")))


def merged(base):
    """Moves the image tower a little."""
    return helpers.to_jax(
        tree.map_with_path(lambda _, leaf: leaf + np.float32(0.01), base.vision)
    )


def test_no_op_merge_comes_back_byte_for_byte(tmp_path, kind):
    source = tiny_folders.write(tmp_path / "base", kind)
    base = clip.read_clip(str(source))
    is_open_clip = kind == "open_clip"
    size = 200_000 if kind == "sharded" else "5GB"
    out = export.write_model(
        tmp_path / "out",
        base,
        base.vision,
        with_open_clip=is_open_clip,
        max_shard_size=size,
    )
    stem = "open_clip_model" if is_open_clip else "model"
    assert raw(out, stem) == raw(source, stem)
    again = clip.read_clip(str(out))
    for name in ("vision", "text"):
        ours, theirs = getattr(again, name), getattr(base, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            tree.map_with_path(
                lambda _, *x: np.testing.assert_array_equal(*x), ours, theirs
            )
    assert again.logit_scale == base.logit_scale
    assert {**again.config, "inferred": ()} == {**base.config, "inferred": ()}


@pytest.mark.parametrize("qkv", ["fused", "split"])
def test_only_the_image_tower_changes(tmp_path, kind, qkv):
    source = tiny_folders.write(tmp_path / "base", kind)
    base = clip.read_clip(str(source), qkv)
    is_open_clip = kind == "open_clip"
    stem = "open_clip_model" if is_open_clip else "model"
    vision = merged(base)
    out = export.write_model(
        tmp_path / "out", base, vision, with_open_clip=is_open_clip
    )
    before, after = raw(source, stem), raw(out, stem)
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    visual = ("vision_model.", "visual_projection.", "visual.")
    assert changed == {n for n in before if n.startswith(visual) and "_ids" not in n}
    found = clip.read_clip(str(out), qkv).vision
    width = ml_dtypes.bfloat16 if kind == "half" else np.float32
    tree.map_with_path(
        lambda _, ours, theirs: np.testing.assert_array_equal(
            ours, np.asarray(theirs).astype(width).astype(np.float32)
        ),
        found,
        vision,
    )


def test_export_of_open_clip_holds_the_same_model_for_transformers(tmp_path):
    source = tiny_folders.write(tmp_path / "base", "open_clip")
    base = clip.read_clip(str(source))
    out = export.write_model(tmp_path / "out", base, base.vision)
    theirs = tiny_folders.state("hugging_face")
    assert {n: x.tobytes() for n, x in theirs.items()} == {
        name: data for name, (_, _, data) in raw(out).items()
    }
    config = json.loads((out / "config.json").read_text())
    assert config["vision_config"]["hidden_act"] == "quick_gelu"
    assert config["architectures"] == ["CLIPModel"]
    assert not (out / "tokenizer.json").exists()


def test_export_for_open_clip_holds_the_same_model(tmp_path, base):
    out = export.write_model(tmp_path / "out", base, base.vision, with_open_clip=True)
    theirs = tiny_folders.state("open_clip")
    assert {n: x.tobytes() for n, x in theirs.items()} == {
        name: data for name, (_, _, data) in raw(out, "open_clip_model").items()
    }
    config = json.loads((out / "open_clip_config.json").read_text())
    assert config["model_cfg"]["quick_gelu"] is True


def test_image_tower_alone_in_the_layout_of_open_clip_becomes_a_vision_model(tmp_path):
    tensors = {
        f"module.{name}": array.astype(np.float16)
        for name, array in tiny_folders.state("open_clip").items()
        if name.startswith("visual.")
    }
    (tmp_path / "base").mkdir()
    shards.write_safetensors(tmp_path / "base" / "zeroshot.safetensors", tensors)
    base = clip.read_clip(str(tmp_path / "base" / "zeroshot.safetensors"))
    out = export.write_model(tmp_path / "out", base, base.vision)
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["CLIPVisionModelWithProjection"]
    assert {dtype for dtype, _, _ in raw(out).values()} == {"F16"}
    again = clip.read_clip(str(out))
    tree.map_with_path(
        lambda _, *x: np.testing.assert_array_equal(*x), again.vision, base.vision
    )


def test_shards_have_an_index_that_names_every_tensor(tmp_path, base):
    out = export.write_model(
        tmp_path / "out", base, base.vision, max_shard_size=150_000
    )
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == raw(out).keys()
    assert len(set(index["weight_map"].values())) == len([*out.glob("model-*")]) > 1
    assert not (out / "model.safetensors").exists()
    assert containers.read_state(out).tensors.keys() == raw(out).keys()


def test_weights_say_that_they_are_for_torch_and_lie_aligned(tmp_path):
    arrays = {
        "a": np.arange(3, dtype=np.uint8),
        "b": helpers.matrix(0, 2, 3).astype(ml_dtypes.bfloat16),
        "c": np.float32(2.5),
        "d": np.zeros((0, 4), np.int64),
        "e": helpers.matrix(1, 3, 2).T,
    }
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    shards.write_safetensors(tmp_path / "m.safetensors", arrays)
    with safetensors.safe_open(tmp_path / "m.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}
    found = raw(tmp_path, "m")
    assert {n: data for n, (_, _, data) in found.items()} == {
        name: array.tobytes() for name, array in arrays.items()
    }
    assert found["b"][0] == "BF16"
    assert found["c"][1] == []
    content = (tmp_path / "m.safetensors").read_bytes()
    assert int.from_bytes(content[:8], "little") % 8 == 0


def test_dtype_rounds_the_weights_and_is_written_in_the_configuration(tmp_path, base):
    out = export.write_model(
        tmp_path / "out", base, base.vision, dtype="bfloat16", with_open_clip=True
    )
    for stem in ("model", "open_clip_model"):
        assert {entry[0] for entry in raw(out, stem).values()} <= {"BF16", "I64"}
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    with pytest.raises(ValueError, match=r"one of float32.*'int8'"):
        export.write_model(tmp_path / "other", base, base.vision, dtype="int8")


def test_dtype_that_cannot_hold_the_weights_is_refused(tmp_path, base):
    vision = tree.map_with_path(lambda _, leaf: leaf * np.float32(1e7), base.vision)
    with (
        np.errstate(over="ignore"),
        pytest.raises(ValueError, match="do not fit float16"),
    ):
        export.write_model(tmp_path / "out", base, vision, dtype="float16")
    assert not (tmp_path / "out").exists()


def test_files_of_the_base_are_copied_byte_for_byte(tmp_path, base):
    out = export.write_model(tmp_path / "out", base, base.vision)
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json"):
        assert (out / name).read_bytes() == (tmp_path / "base" / name).read_bytes()
    assert not (out / "optimizer.bin").exists()


def test_preprocessing_is_written_where_the_base_has_none(tmp_path, base):
    (tmp_path / "base" / "preprocessor_config.json").unlink()
    out = export.write_model(tmp_path / "out", base, base.vision)
    found = json.loads((out / "preprocessor_config.json").read_text())
    assert found["crop_size"] == {"height": 16, "width": 16}
    assert found["image_mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])


HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 16, "crop_size": 16}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("preprocessor_config.json", HALF),
        ("processor_config.json", {"image_processor": HALF}),
        ("open_clip_config.json", {"preprocess_cfg": {"mean": [0.5] * 3}}),
    ],
)
def test_one_preprocessing_is_measured_and_exported_for_both_libraries(
    tmp_path, base, name, values
):
    (tmp_path / "base" / "preprocessor_config.json").unlink()
    assert model_files.preprocessing_file(base) is None
    (tmp_path / "base" / name).write_text(json.dumps(values))
    found = model_files.preprocessing(base)
    assert clip_parts.read_transform(base).mean == (0.5, 0.5, 0.5)
    out = export.write_model(tmp_path / "out", base, base.vision, with_open_clip=True)
    exported = clip.read_clip(str(out))
    theirs = model_files.preprocessing(exported)
    images = json.loads((out / "open_clip_config.json").read_text())["preprocess_cfg"]
    for key, other in (("image_mean", "mean"), ("image_std", "std")):
        assert found[key] == theirs[key] == images[other]
    assert clip_parts.read_transform(exported) == clip_parts.read_transform(base)


def test_preprocessing_of_open_clip_is_followed_or_refused(tmp_path):
    folder = tiny_folders.write(tmp_path / "base", "open_clip")
    base, file = clip.read_clip(str(folder)), folder / "open_clip_config.json"
    assert model_files.open_clip_config(base) == file.read_bytes()
    own = json.loads(file.read_text())
    images = {"resize_mode": "squash", "interpolation": "bilinear", "std": [0.5] * 3}
    file.write_text(json.dumps(own | {"preprocess_cfg": images}))
    transform = clip_parts.read_transform(base)
    assert (transform.size, transform.crop) == ((16, 16), None)
    assert (transform.resample, transform.std) == (2, (0.5, 0.5, 0.5))
    assert model_files.open_clip_config(base) == file.read_bytes()
    beside = {"image_mean": [0.25] * 3, "size": 16, "crop_size": 16}
    (folder / "preprocessor_config.json").write_text(json.dumps(beside))
    changed = json.loads(model_files.open_clip_config(base))
    assert changed["preprocess_cfg"]["mean"] == [0.25] * 3
    assert changed["model_cfg"] == own["model_cfg"]
    (folder / "preprocessor_config.json").unlink()
    file.write_text(json.dumps({"preprocess_cfg": {"resize_mode": "longest"}}))
    with pytest.raises(ValueError, match=r"open_clip_config\.json.*'longest'"):
        export.check_base(base)


def test_link_into_the_hub_cache_is_followed_and_others_are_refused(tmp_path):
    repository = tmp_path / "models--org--name"
    base = tiny_folders.write(repository / "snapshots" / "abc")
    (repository / "blobs").mkdir()
    shutil.move(base / "tokenizer.json", repository / "blobs" / "123")
    (base / "tokenizer.json").symlink_to("../../blobs/123")
    checkpoint = clip.read_clip(str(base))
    assert model_files.beside(checkpoint)["tokenizer.json"].startswith(b"{")
    (tmp_path / "secret").write_text("token")
    (base / "vocab.json").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=r"vocab\.json.*outside"):
        export.write_model(tmp_path / "out", checkpoint, checkpoint.vision)


def test_heads_are_written_with_names_and_read_back(tmp_path, base):
    out = export.write_model(tmp_path / "out", base, base.vision, HEADS)
    assert sorted(file.name for file in (out / "heads").iterdir()) == [
        *("mnist.json", "mnist.safetensors"),
        *("sun-397-b.json", "sun-397-b.safetensors"),
    ]
    for slug, head in zip(("mnist", "sun-397-b"), HEADS, strict=True):
        about = json.loads((out / "heads" / f"{slug}.json").read_text("utf-8"))
        assert about["task"] == head.task
        assert about["normalise"] is True
        assert about.get("class_names") == (head.class_names and [*head.class_names])
        tensors = containers.read_state(out / "heads" / f"{slug}.safetensors").tensors
        np.testing.assert_array_equal(tensors["weight"], head.weight)
        if head.bias is not None:
            np.testing.assert_array_equal(tensors["bias"], head.bias)
    assert about["profile"] == "official"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (TaskHead("t", np.ones((3, 11))), "length 11, but the model makes 12"),
        (TaskHead("t", np.ones((1, 12))), "at least two"),
        (TaskHead("t", np.ones((3, 12)), class_names=("a", "b")), "3 rows and 2"),
        (TaskHead("t", np.ones((3, 12)), bias=np.ones(2)), "bias"),
        (TaskHead("t", np.full((3, 12), np.nan)), "not finite"),
    ],
)
def test_head_that_does_not_fit_is_refused_before_anything_is_written(
    tmp_path, base, head, message
):
    with pytest.raises(ValueError, match=message):
        export.write_model(tmp_path / "out", base, base.vision, [head])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["base"]


def test_slugs_are_plain_different_and_never_reserved():
    tasks = [
        "../../etc",
        "a" * 300,
        "",
        ".",
        "NUL",
        "com1.txt",
        "É!",
        "e",
        "数",
        "Ω",
        "E",
    ]
    slugs = export.slugs(tasks)
    assert len({slug.lower() for slug in slugs}) == len(tasks)
    for slug in slugs:
        assert slug.isascii() and not set(slug) & set('/\\:*?"<>| ')
        assert slug.strip(".") == slug and 0 < len(slug) < 70
    assert slugs[4:6] == ["task-nul", "task-com1.txt"]


def test_more_files_are_written_and_none_replaces_one_of_the_model(tmp_path, base):
    files = {"README.md": b"# Hello", "recipe.safetensors": b"123"}
    out = export.write_model(tmp_path / "out", base, base.vision, files=files)
    assert (out / "README.md").read_bytes() == b"# Hello"
    for name in (
        *("config.json", "model.safetensors", "../x", "a/b", "heads", "tokenizer.json"),
        *("SHA256SUMS", "adarank_jax.json", "open_clip_model.safetensors"),
    ):
        with pytest.raises(ValueError, match="names of their own"):
            export.write_model(tmp_path / "o", base, base.vision, files={name: b""})


def test_sums_are_complete_and_verify(tmp_path, base):
    out = export.write_model(tmp_path / "out", base, base.vision, HEADS)
    sums = folders.read_sums(out)
    assert sums.keys() == snapshot(out).keys() - {"SHA256SUMS"}
    for name, content in snapshot(out).items():
        if name != "SHA256SUMS":
            assert hashlib.sha256(content).hexdigest() == sums[name]
    tool = shutil.which("sha256sum")
    if tool:
        command = [tool, "--check", "--strict", "SHA256SUMS"]
        subprocess.run(command, cwd=out, check=True, capture_output=True)


@pytest.mark.parametrize("had", [False, True])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        (shards, "write_safetensors"),
        (export, "_write_head"),
        (folders, "write_sums"),
        (folders, "_sync"),
        (folders.os, "rename"),
    ],
)
def test_nothing_is_left_behind_when_writing_fails(
    tmp_path, base, monkeypatch, module, name, had
):
    out = tmp_path / "out"
    if had:
        export.write_model(out, base, base.vision, HEADS)
    before = snapshot(tmp_path)
    monkeypatch.setattr(module, name, no_space)
    with pytest.raises(OSError, match="No space"):
        export.write_model(out, base, merged(base), HEADS)
    assert snapshot(tmp_path) == before
    assert out.exists() == had
    names = {file.name for file in tmp_path.iterdir()}
    assert names == ({"base", "out"} if had else {"base"})


def test_old_export_comes_back_when_the_last_rename_fails(tmp_path, base, monkeypatch):
    out = export.write_model(tmp_path / "out", base, base.vision)
    before, rename, calls = snapshot(tmp_path), folders.os.rename, []

    def second_fails(*paths):
        calls.append(paths)
        return no_space() if len(calls) == 2 else rename(*paths)

    monkeypatch.setattr(folders.os, "rename", second_fails)
    with pytest.raises(OSError, match="No space"):
        export.write_model(out, base, merged(base))
    assert len(calls) == 3
    assert snapshot(tmp_path) == before


def test_untouched_export_is_replaced(tmp_path, base):
    out = export.write_model(tmp_path / "out", base, base.vision, HEADS)
    first = snapshot(out)
    export.write_model(out, base, merged(base))
    assert snapshot(out)["model.safetensors"] != first["model.safetensors"]
    assert not (out / "heads").exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["base", "out"]


def test_empty_folder_is_filled(tmp_path, base):
    (tmp_path / "out").mkdir()
    out = export.write_model(tmp_path / "out", base, base.vision)
    assert (out / "SHA256SUMS").is_file()


def spoil_add(out):
    (out / "heads" / "notes.txt").write_text("mine")


def spoil_change(out):
    (out / "config.json").write_text("{}")


def spoil_remove(out):
    (out / "config.json").unlink()


def spoil_link(out):
    (out / "more").symlink_to(out.parent)


def spoil_sums(out):
    (out / "SHA256SUMS").write_text(f"{'0' * 64}  ../base/config.json\n")


def spoil_foreign(out):
    shutil.rmtree(out)
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")


def spoil_foreign_sums(out):
    (out / "adarank_jax.json").unlink()
    folders.write_sums(out)


@pytest.mark.parametrize(
    "spoil",
    [
        *(spoil_add, spoil_change, spoil_remove, spoil_link, spoil_sums),
        *(spoil_foreign, spoil_foreign_sums),
    ],
)
def test_folder_with_anything_else_is_never_replaced(tmp_path, base, spoil):
    out = export.write_model(tmp_path / "out", base, base.vision, HEADS)
    spoil(out)
    before = snapshot(out)
    with pytest.raises(OSError, match="is not replaced"):
        export.write_model(out, base, base.vision)
    assert snapshot(out) == before


def test_file_in_the_place_of_the_folder_is_refused(tmp_path, base):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(errors.MachineError, match="E403 .*choose another"):
        export.write_model(tmp_path / "out", base, base.vision)


def test_full_disk_is_noticed_before_writing(tmp_path, base, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(model_folder.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"needs [\d,]+ bytes, but 1,000 are free"):
        export.write_model(tmp_path / "new" / "out", base, base.vision)
    assert not (tmp_path / "new").exists()


def test_environment_is_never_written(tmp_path, base, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret123")
    out = export.write_model(tmp_path / "out", base, base.vision, HEADS)
    assert not any(b"hf_secret123" in content for content in snapshot(out).values())


def test_base_without_projection_is_refused(tmp_path):
    base = clip.read_clip(str(tiny_folders.write(tmp_path / "base", "vision")))
    tensors = {n: x for n, x in base.state.tensors.items() if "projection" not in n}
    tiny_folders.write(tmp_path / "tower", "model", tensors)
    tower = clip.read_clip(str(tmp_path / "tower"), base=base)
    with pytest.raises(ValueError, match="no projection"):
        export.write_model(tmp_path / "out", tower, tower.vision)
