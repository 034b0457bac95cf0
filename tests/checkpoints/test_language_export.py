import json
import shutil

import chex
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from adarank_jax import tree
from adarank_jax.checkpoints import (
    containers,
    folders,
    language,
    language_export,
    language_files,
    language_names,
    model_folder,
    shards,
)
from adarank_jax.checkpoints.language_export import LanguageHead
from tests.checkpoints import language_folders
from tests.checkpoints.written import no_space, raw, snapshot

LEFT_OUT = {
    "bert": ["cls.predictions.bias"],
    "roberta": ["lm_head.bias", "lm_head.dense.weight"],
    "gpt2": ["lm_head.weight", "transformer.h.0.attn.masked_bias"],
}


@pytest.fixture(params=language_folders.FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def base(tmp_path, family):
    return read(language_folders.write(tmp_path / "base", family))


def read(folder):
    return language.read_language(str(folder))


def heads(family):
    """Draws the heads of two tasks, one with names."""
    return [
        LanguageHead("SST-2", language_folders.head(family, 2), ("bad", "gut, 好")),
        LanguageHead(
            "mnli", language_folders.head(family, 3, 1), None, {"metric": "x"}
        ),
    ]


def plain(names, base):
    """Removes prefix and wrapper, and the endings of the first BERTs."""
    start = base.layout.wrapper + base.layout.prefix
    return {
        name.removeprefix(start)
        .replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias"): value
        for name, value in names.items()
    }


@pytest.mark.parametrize("kind", language_folders.KINDS)
def test_export_of_the_base_has_its_bytes_tensor_by_tensor(tmp_path, family, kind):
    source = language_folders.write(tmp_path / "base", family, kind)
    base = read(source)
    out = language_export.write_model(tmp_path / "out", base, base.encoder)
    lost = LEFT_OUT[family] if kind == "prefixed" else []
    assert language_export.left_out(base) == lost
    before = {n: x for n, x in raw(source).items() if n not in lost}
    assert raw(out) == plain(before, base)
    again = read(out)
    chex.assert_trees_all_equal(again.encoder, base.encoder)
    assert (again.family, again.config, again.head) == (family, base.config, None)


@pytest.mark.parametrize("kind", language_folders.KINDS)
def test_only_weights_of_the_encoder_change(tmp_path, family, kind):
    source = language_folders.write(tmp_path / "base", family, kind)
    base = read(source)
    merged = language_folders.moved(base.encoder, 5)
    out = language_export.write_model(tmp_path / "out", base, merged)
    before, after = plain(raw(source), base), raw(out)
    bare = base.layout._replace(wrapper="", prefix="", norm_ends=("weight", "bias"))
    own = {entry.name for entry in language_names.encoder_entries(bare)}
    assert {name for name in after if after[name] != before[name]} == own
    width = ml_dtypes.bfloat16 if kind == "half" else np.float32
    rounded = tree.map_with_path(
        lambda _, leaf: leaf.astype(width).astype(np.float32), merged
    )
    chex.assert_trees_all_equal(read(out).encoder, rounded)
    tensors = language_export.weights(base, merged)
    dtype, stored = language_export.stored_encoder(base, tensors)
    assert dtype == np.dtype(width).name
    chex.assert_trees_all_equal(stored, rounded)


def test_embeddings_that_were_not_moved_keep_their_bytes(tmp_path, base, family):
    table = "wte" if family == "gpt2" else "embeddings"
    merged = language_folders.moved(base.encoder, 5) | {table: base.encoder[table]}
    out = language_export.write_model(tmp_path / "out", base, merged)
    before, after = raw(tmp_path / "base"), raw(out)
    same = {name for name in before if before[name] == after[name]}
    assert same == {name for name in before if name.startswith(table)}


def test_head_of_a_task_has_the_names_and_the_turn_of_torch(tmp_path, base, family):
    given = heads(family)
    out = language_export.write_model(tmp_path / "out", base, base.encoder, given)
    found = load_file(out / "tasks" / "sst-2" / "head.safetensors")
    flat = tree.flatten(given[0].tree)
    names = {
        "bert": {"classifier.weight": "kernel", "classifier.bias": "bias"},
        "roberta": {
            "classifier.dense.weight": "dense/kernel",
            "classifier.dense.bias": "dense/bias",
            "classifier.out_proj.weight": "out_proj/kernel",
            "classifier.out_proj.bias": "out_proj/bias",
        },
        "gpt2": {"score.weight": "kernel"},
    }[family]
    assert found.keys() == names.keys()
    for name, path in names.items():
        np.testing.assert_array_equal(found[name], flat[path].T)


def test_configuration_of_a_task_is_the_base_with_its_classes(tmp_path, base, family):
    given = heads(family)
    out = language_export.write_model(tmp_path / "out", base, base.encoder, given)
    own = json.loads((out / "config.json").read_bytes())
    for slug, names in (
        ("sst-2", ["bad", "gut, 好"]),
        ("mnli", ["LABEL_0", "LABEL_1", "LABEL_2"]),
    ):
        values = json.loads((out / "tasks" / slug / "config.json").read_bytes())
        assert values.pop("id2label") == {str(i): n for i, n in enumerate(names)}
        assert values.pop("label2id") == {name: i for i, name in enumerate(names)}
        assert values.pop("num_labels") == len(names)
        (class_,) = values.pop("architectures")
        assert class_.endswith("ForSequenceClassification")
        padding = {"pad_token_id": 3} if family == "gpt2" else {}
        assert values | {"architectures": own["architectures"]} == own | padding


def test_files_of_the_base_are_copied_byte_for_byte(tmp_path, base, family):
    out = language_export.write_model(tmp_path / "out", base, base.encoder)
    source = snapshot(tmp_path / "base")
    ours = snapshot(out)
    for name in ("config.json", *language_folders.tokenizer(family)):
        assert ours[name] == source[name]
    assert "optimizer.bin" not in ours


def test_class_of_a_language_model_becomes_that_of_the_bare_encoder(tmp_path):
    source = language_folders.write(tmp_path / "base", "roberta", "prefixed")
    base = read(source)
    out = language_export.write_model(tmp_path / "out", base, base.encoder)
    before, after = (json.loads((d / "config.json").read_text()) for d in (source, out))
    assert before.pop("architectures") == ["RobertaForMaskedLM"]
    assert after.pop("architectures") == ["RobertaModel"]
    assert before == after
    told = json.loads((out / "adarank_jax.json").read_text())
    assert told["left_out"] == LEFT_OUT["roberta"]


def test_head_of_the_base_is_not_that_of_the_export(tmp_path, family):
    own = language_folders.head(family, 4)
    source = language_folders.write(tmp_path / "base", family, "bare", own_head=own)
    base = read(source)
    out = language_export.write_model(tmp_path / "out", base, base.encoder)
    assert read(out).head is None
    assert not any("classifier" in name or "score" in name for name in raw(out))


@pytest.mark.parametrize("kind", language_folders.KINDS)
def test_copies_are_whole_models_that_come_back(tmp_path, family, kind):
    base = read(language_folders.write(tmp_path / "base", family, kind))
    merged, given = language_folders.moved(base.encoder, 5), heads(family)
    out = language_export.write_model(
        tmp_path / "out", base, merged, given, per_task_copies=True
    )
    encoder = read(out).encoder
    width = ml_dtypes.bfloat16 if kind == "half" else np.float32
    for slug, head in zip(("sst-2", "mnli"), given, strict=True):
        found = read(out / "tasks" / slug)
        chex.assert_trees_all_equal(found.encoder, encoder)
        rounded = tree.map_with_path(
            lambda _, leaf: leaf.astype(width).astype(np.float32), head.tree
        )
        chex.assert_trees_all_equal(found.head, rounded)
        assert found.class_names == head.class_names
        assert not (out / "tasks" / slug / "head.safetensors").exists()
        for name, content in language_folders.tokenizer(family).items():
            assert (out / "tasks" / slug / name).read_bytes() == content


def test_dtype_rounds_all_weights_and_is_written_in_every_configuration(tmp_path, base):
    out = language_export.write_model(
        tmp_path / "out", base, base.encoder, heads(base.family), dtype="bfloat16"
    )
    for place, stem in ((out, "model"), (out / "tasks" / "mnli", "head")):
        assert {dtype for dtype, _, _ in raw(place, stem).values()} == {"BF16"}
        values = json.loads((place / "config.json").read_text())
        assert values["dtype"] == "bfloat16"
        assert "torch_dtype" not in values
    with pytest.raises(ValueError, match="float32, float16, bfloat16"):
        language_export.weights(base, base.encoder, "int8")
    huge = tree.map_with_path(lambda _, leaf: leaf + np.float32(1e6), base.encoder)
    with pytest.raises(ValueError, match="do not fit float16"):
        language_export.weights(base, huge, "float16")


def test_integers_keep_their_dtype_and_bytes(tmp_path):
    source = language_folders.write(tmp_path / "base", "bert", "prefixed")
    base = read(source)
    out = language_export.write_model(
        tmp_path / "out", base, base.encoder, dtype="float16"
    )
    name = "embeddings.position_ids"
    assert raw(out)[name] == raw(source)[f"bert.{name}"]


def test_shards_have_an_index_that_names_every_tensor(tmp_path, base):
    out = language_export.write_model(
        tmp_path / "out", base, base.encoder, max_shard_size=9_000
    )
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == raw(out).keys()
    assert len([*out.glob("model-*")]) > 1
    assert not (out / "model.safetensors").exists()
    assert containers.read_state(out).tensors.keys() == raw(out).keys()
    chex.assert_trees_all_equal(read(out).encoder, base.encoder)


def change(head, path, value):
    """Puts another array into the tree of a head."""
    return head._replace(tree=tree.unflatten({**tree.flatten(head.tree), path: value}))


BERT_HEAD = LanguageHead("t", language_folders.head("bert", 3))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (BERT_HEAD._replace(tree=language_folders.head("gpt2", 3)), "only in .*bias"),
        (BERT_HEAD._replace(tree=language_folders.head("roberta", 3)), "'t'"),
        (change(BERT_HEAD, "kernel", np.ones((9, 3))), r"\(9, 3\)"),
        (change(BERT_HEAD, "bias", np.ones(2)), r"\(2,\)"),
        (change(BERT_HEAD, "bias", np.full(3, np.nan)), "3 of 3"),
        (BERT_HEAD._replace(tree=language_folders.head("bert", 1)), "at least two"),
        (BERT_HEAD._replace(class_names=("a", "b")), "3 rows and 2"),
        (BERT_HEAD._replace(class_names=("a", "b", "a")), "more than once"),
    ],
)
def test_head_that_does_not_fit_is_refused_before_anything_is_written(
    tmp_path, head, message
):
    base = read(language_folders.write(tmp_path / "base", "bert"))
    with pytest.raises(ValueError, match=message):
        language_export.write_model(tmp_path / "out", base, base.encoder, [head])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["base"]


def test_encoder_of_another_size_is_refused(tmp_path, base):
    other = tree.map_with_path(lambda _, leaf: leaf[..., :8], base.encoder)
    with pytest.raises(ValueError, match="must have the same tensors"):
        language_export.write_model(tmp_path / "out", base, other)
    assert not (tmp_path / "out").exists()


def test_more_files_are_written_and_none_replaces_one_of_the_model(tmp_path, base):
    files = {"README.md": b"# Hello", "recipe.safetensors": b"123"}
    out = language_export.write_model(tmp_path / "out", base, base.encoder, files=files)
    assert (out / "README.md").read_bytes() == b"# Hello"
    for name in (
        *("config.json", "model.safetensors", "../x", "a/b", "tasks", "tokenizer.json"),
        *("SHA256SUMS", "adarank_jax.json", "vocab.txt"),
    ):
        with pytest.raises(ValueError, match="names of their own"):
            language_export.write_model(
                tmp_path / "o", base, base.encoder, files={name: b""}
            )


def test_record_says_what_every_folder_of_a_task_is(tmp_path, base):
    given = heads(base.family)
    out = language_export.write_model(
        tmp_path / "out", base, base.encoder, given, record={"seed": 3}
    )
    told = json.loads((out / "adarank_jax.json").read_text())
    assert told["tasks"] == {
        "sst-2": {"task": "SST-2"},
        "mnli": {"task": "mnli", "metric": "x"},
    }
    assert (told["family"], told["seed"]) == (base.family, 3)
    assert folders.read_sums(out).keys() == snapshot(out).keys() - {"SHA256SUMS"}


@pytest.mark.parametrize("had", [False, True])
@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize(
    ("module", "name", "after"),
    [
        (shards, "write_safetensors", 0),
        (shards, "write_safetensors", 2),
        (folders, "write_sums", 0),
        (folders.os, "rename", 0),
    ],
)
def test_nothing_is_left_behind_when_writing_fails(
    tmp_path, monkeypatch, had, copies, module, name, after
):
    base = read(language_folders.write(tmp_path / "base", "bert"))
    given, out, calls = heads("bert"), tmp_path / "out", []
    if had:
        language_export.write_model(out, base, base.encoder, given)
    before, real = snapshot(tmp_path), getattr(module, name)

    def fails(*arguments):
        calls.append(arguments)
        return no_space() if len(calls) > after else real(*arguments)

    monkeypatch.setattr(module, name, fails)
    merged = language_folders.moved(base.encoder, 5)
    with pytest.raises(OSError, match="No space"):
        language_export.write_model(out, base, merged, given, per_task_copies=copies)
    assert snapshot(tmp_path) == before
    assert {f.name for f in tmp_path.iterdir()} == {"base"} | (
        {"out"} if had else set()
    )


def test_full_disk_is_noticed_before_writing(tmp_path, base, monkeypatch):
    state = language_export.weights(base, base.encoder)
    parts = [state, *(tree.flatten(head.tree) for head in heads(base.family))]
    free = 16_000_000 + sum(map(shards.num_bytes, parts))
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(model_folder.shutil, "disk_usage", lambda _: usage)
    given = heads(base.family)
    options = {"heads": given, "per_task_copies": True}
    with pytest.raises(OSError, match=f"but {free:,} are free"):
        language_export.write_model(tmp_path / "out", base, base.encoder, **options)
    assert not (tmp_path / "out").exists()
    language_export.write_model(tmp_path / "out", base, base.encoder, given)


def test_untouched_export_is_replaced_and_no_other_folder(tmp_path, base):
    given = heads(base.family)
    out = language_export.write_model(tmp_path / "out", base, base.encoder, given)
    language_export.write_model(out, base, base.encoder)
    assert not (out / "tasks").exists()
    (out / "config.json").write_text("{}")
    with pytest.raises(OSError, match="is not replaced"):
        language_export.write_model(out, base, base.encoder)


def test_config_does_not_have_the_name_of_the_base(tmp_path):
    source = language_folders.write(tmp_path / "base", "bert")
    file = source / "config.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"_name_or_path": "org/another"}))
    base = language.read_language(str(source))
    head = LanguageHead("a", language_folders.head("bert", 2, 0), ("no", "yes"))
    out = language_export.write_model(tmp_path / "out", base, base.encoder, [head])
    for place in (out, out / "tasks" / "a"):
        found = json.loads((place / "config.json").read_text())
        assert "_name_or_path" not in found
        assert found["hidden_size"] == values["hidden_size"]


def test_zeros_keep_their_sign(tmp_path):
    base = language.read_language(str(language_folders.write(tmp_path / "b", "bert")))
    flat = {k: np.array(x) for k, x in tree.flatten(base.encoder).items()}
    name = next(k for k in flat if k.endswith("bias"))
    flat[name] = np.zeros_like(flat[name])
    base = base._replace(
        encoder=tree.unflatten(flat),
        state=base.state._replace(
            tensors=language.with_encoder(base, tree.unflatten(flat))
        ),
    )
    merged = tree.unflatten(flat | {name: -flat[name]})
    _, stored = language_export.stored_encoder(
        base, language_export.weights(base, merged)
    )
    assert np.signbit(tree.flatten(stored)[name]).all()


@pytest.mark.parametrize("name", ["config.json", "vocab.txt"])
def test_link_out_of_the_folder_of_the_base_is_refused_before_any_work(tmp_path, name):
    source = language_folders.write(tmp_path / "base", "bert")
    base = read(source)
    language_export.check_base(base)
    (source / name).rename(tmp_path / "secret")
    (source / name).symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="outside the folder"):
        language_export.check_base(base)


@pytest.mark.parametrize("token", [None, "[PAD]", 99])
def test_gpt2_without_a_token_to_pad_with_is_refused_before_any_work(tmp_path, token):
    source = language_folders.write(tmp_path / "base", "gpt2")
    file = source / "config.json"
    values = json.loads(file.read_text()) | {"eos_token_id": token}
    file.write_text(json.dumps(values))
    base = read(source)
    with pytest.raises(ValueError, match="'pad_token_id'"):
        language_export.check_base(base)
    file.write_text(json.dumps(values | {"pad_token_id": 0}))
    language_export.check_base(base)
    found = json.loads(language_files.config(base, class_names=("a", "b")))
    assert found["pad_token_id"] == 0
