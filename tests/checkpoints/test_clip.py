import json

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from adarank_jax import tree
from adarank_jax.checkpoints import clip, clip_base, clip_config
from adarank_jax.checkpoints.containers import read_state
from tests import torch_python
from tests.checkpoints import tiny_clip

BASE = tiny_clip.hugging_face()


def folder(path, state, config=tiny_clip.CONFIG, name="config.json"):
    path.mkdir(parents=True, exist_ok=True)
    weights = (
        "model.safetensors" if name == "config.json" else "open_clip_model.safetensors"
    )
    save_file(state, path / weights)
    if config is not None:
        (path / name).write_text(json.dumps(config))
    return str(path)


def open_clip_folder(path, state=None):
    config = clip_config.from_hugging_face(tiny_clip.CONFIG)
    state = tiny_clip.open_clip(BASE) if state is None else state
    return folder(
        path,
        state,
        clip_config.to_open_clip_config(config),
        "open_clip_config.json",
    )


def file(path, state):
    save_file(state, path)
    return str(path)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return clip.read_clip(folder(tmp_path_factory.mktemp("base"), BASE))


def near(state, step=0.02, seed=5):
    """Moves every tensor a little, as fine-tuning does."""
    random = np.random.default_rng(seed)
    return {
        name: np.asarray(x + step * random.normal(size=x.shape), x.dtype)
        for name, x in state.items()
    }


def assert_trees(ours, theirs):
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b, strict=True), ours, theirs
    )


def expert_states():
    whole = near(BASE)
    fused = tiny_clip.open_clip(whole)
    tower = {n: x for n, x in whole.items() if n.startswith("vision_model.")}
    return {
        "whole": whole,
        "tower of release 4": tower,
        "tower of release 5": {
            n.removeprefix("vision_model."): x for n, x in tower.items()
        },
        "open_clip": fused,
        "task arithmetic": tiny_clip.prefixed(
            {n: x for n, x in fused.items() if not n.startswith("transformer.")},
            "image_encoder.model.",
        ),
        "visual": {n: x for n, x in fused.items() if n.startswith("visual.")},
    }


def test_read_clip_has_all_of_a_whole_model(base):
    assert base.layout.model == "CLIPModel"
    assert base.logit_scale == float(BASE["logit_scale"])
    assert base.config["vision"]["num_heads"] == 4
    assert base.config["inferred"] == ()
    assert (base.from_base, base.revision) == ((), None)
    assert tree.num_parameters(base.vision) + tree.num_parameters(base.text) + 1 == sum(
        x.size for x in BASE.values()
    )


def test_a_folder_of_open_clip_gives_the_same_model(base, tmp_path):
    other = clip.read_clip(open_clip_folder(tmp_path))
    assert_trees(other.vision, base.vision)
    assert_trees(other.text, base.text)
    assert other.logit_scale == base.logit_scale
    assert other.config["vision"] == base.config["vision"]


@pytest.mark.parametrize("qkv", ["fused", "split"])
@pytest.mark.parametrize("name", expert_states())
def test_experts_of_all_layouts_give_the_same_tower(tmp_path, name, qkv):
    base = clip.read_clip(folder(tmp_path / "base", BASE), qkv)
    whole = clip.read_clip(
        folder(tmp_path / "whole", expert_states()["whole"]), qkv, base
    )
    state = expert_states()[name]
    expert = clip.read_clip(file(tmp_path / "e.safetensors", state), qkv, base)
    lent = expert.from_base
    assert lent == (("proj",) if "tower" in name else ())
    expected = whole.vision | ({"proj": base.vision["proj"]} if lent else {})
    assert_trees(expert.vision, expected)
    assert expert.text is None
    assert expert.config["vision"] == base.config["vision"] | {"qkv": qkv}
    assert clip_base.check_same_base(base, expert) == []


@pytest.mark.slow
def test_a_pickled_state_dict_is_read(base, tmp_path):
    np.savez(tmp_path / "state.npz", **tiny_clip.open_clip(near(BASE)))
    code = """
import numpy as np, torch
state = {n: torch.from_numpy(x) for n, x in np.load("state.npz").items()}
torch.save(state, "finetuned.pt")
"""
    torch_python.run(code, tmp_path)
    expert = clip.read_clip(str(tmp_path / "finetuned.pt"), base=base)
    assert clip_base.check_same_base(base, expert) == []


def test_towers_are_converted_as_asked(tmp_path):
    source = folder(tmp_path, BASE)
    only = clip.read_clip(source, towers=("vision",))
    assert only.text is None
    assert only.config["text"]["width"] == 20
    text = clip.read_clip(source, towers=("text",))
    assert text.vision is None
    assert text.text.keys() >= {"token_embedding", "text_projection"}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("name", expert_states())
def test_with_vision_is_byte_identical_when_nothing_changed(
    base, tmp_path, name, dtype
):
    state = {n: x.astype(dtype) for n, x in expert_states()[name].items()}
    if dtype == np.float64:
        state = {n: np.asarray(x + 1e-12) for n, x in state.items()}
    state["position_ids"] = np.arange(5)
    expert = clip.read_clip(file(tmp_path / "e.safetensors", state), base=base)
    assert expert.layout.dtype == np.dtype(dtype).name
    back = clip.with_vision(expert, expert.vision)
    tiny_clip.assert_same(back, expert.state.tensors)
    assert {*back} == {*state}


@pytest.mark.parametrize("qkv", ["fused", "split"])
def test_with_vision_replaces_the_tower_and_nothing_else(base, tmp_path, qkv):
    expert = clip.read_clip(file(tmp_path / "e.safetensors", near(BASE)), qkv, base)
    back = clip.with_vision(base, expert.vision)
    expected = {
        name: (near(BASE) if name.startswith(("vision_", "visual_")) else BASE)[name]
        for name in base.state.tensors
    }
    tiny_clip.assert_same(back, expected)


def test_with_vision_rounds_to_the_dtype_of_the_file(base, tmp_path):
    half = {name: x.astype(np.float16) for name, x in BASE.items()}
    checkpoint = clip.read_clip(folder(tmp_path, half))
    vision = jax.tree.map(lambda x: x + np.float32(1e-5), checkpoint.vision)
    back = clip.with_vision(checkpoint, vision)["visual_projection.weight"]
    assert back.dtype == np.float16
    np.testing.assert_array_equal(back, vision["proj"].T.astype(np.float16))


def test_with_vision_refuses_what_does_not_fit(base, tmp_path):
    tower = clip.read_clip(
        file(tmp_path / "e.safetensors", tiny_clip.old_vision_model()), base=base
    )
    changed = tower.vision | {"proj": tower.vision["proj"] + 1}
    with pytest.raises(
        ValueError, match="no place for the projection.*layout of the base"
    ):
        clip.with_vision(tower, changed)
    with pytest.raises(
        ValueError, match=r"visual_projection\.weight' with shape \(24, 31"
    ):
        clip.with_vision(base, base.vision | {"proj": base.vision["proj"][:31]})
    half = {name: x.astype(np.float16) for name, x in BASE.items()}
    checkpoint = clip.read_clip(folder(tmp_path / "half", half))
    large = checkpoint.vision | {"proj": checkpoint.vision["proj"] * np.float32(1e6)}
    with pytest.raises(ValueError, match="NaN or infinity.*\n  visual_projection"):
        clip.with_vision(checkpoint, large)


@pytest.mark.parametrize("qkv", ["fused", "split"])
def test_both_libraries_get_their_own_names_from_either(tmp_path, qkv):
    fused = tiny_clip.open_clip(BASE)
    sources = folder(tmp_path / "a", BASE), open_clip_folder(tmp_path / "b")
    for source in sources:
        checkpoint = clip.read_clip(source, qkv)
        tiny_clip.assert_same(clip.to_hugging_face(checkpoint), BASE, in_order=False)
        tiny_clip.assert_same(clip.to_open_clip(checkpoint), fused, in_order=False)


def test_a_merged_tower_is_written_in_the_dtype_of_the_base(tmp_path):
    half = {name: x.astype(ml_dtypes.bfloat16) for name, x in BASE.items()}
    checkpoint = clip.read_clip(folder(tmp_path, half))
    vision = jax.tree.map(lambda x: -x, checkpoint.vision)
    written = clip.to_open_clip(checkpoint, vision)
    assert {x.dtype for x in written.values()} == {np.dtype(ml_dtypes.bfloat16)}
    np.testing.assert_array_equal(
        written["visual.proj"], -half["visual_projection.weight"].T
    )
    np.testing.assert_array_equal(
        written["text_projection"], half["text_projection.weight"].T
    )


def test_a_whole_model_needs_a_text_tower(base, tmp_path):
    expert = clip.read_clip(file(tmp_path / "e.safetensors", near(BASE)), base=base)
    with pytest.raises(ValueError, match="no text tower.*start from the base"):
        clip.to_hugging_face(expert)


def test_a_tower_of_other_sizes_is_not_written(base):
    vision = base.vision | {"class_embedding": np.ones(31, np.float32)}
    for write in (clip.to_hugging_face, clip.to_open_clip):
        with pytest.raises(ValueError, match=r"(?s)1 tensors.*class_embedding \(31,\)"):
            write(base, vision)


def test_a_tower_without_projection_needs_a_base(tmp_path):
    source = folder(tmp_path, tiny_clip.old_vision_model())
    with pytest.raises(ValueError, match="without its projection.*`base`"):
        clip.read_clip(source)


def test_a_text_tower_alone_is_no_base(tmp_path):
    state = tiny_clip.hugging_face("CLIPTextModelWithProjection")
    source = file(tmp_path / "t.safetensors", state)
    with pytest.raises(ValueError, match="no image tower"):
        clip.read_clip(source)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(base, tmp_path, bad):
    state = near(BASE)
    name = "vision_model.encoder.layers.1.mlp.fc1.weight"
    state[name][3, 4] = bad
    source = file(tmp_path / "bad.safetensors", state)
    with pytest.raises(
        ValueError,
        match=rf"bad\.safetensors.*\n  {name}: 1 of 4096, first at \(3, 4\)",
    ):
        clip.read_clip(source, base=base)


def test_integers_are_refused(base, tmp_path):
    state = near(BASE) | {"visual_projection.weight": np.ones((24, 32), np.int8)}
    with pytest.raises(
        ValueError, match="E116 .*\n  visual_projection.weight: int8; dequantise"
    ):
        clip.read_clip(file(tmp_path / "q.safetensors", state), base=base)


def test_blocks_that_the_config_promises_are_missed(tmp_path):
    state = {n: x for n, x in BASE.items() if "vision_model.encoder.layers.1" not in n}
    with pytest.raises(ValueError, match="1 blocks of the vision tower.*states 2"):
        clip.read_clip(folder(tmp_path, state))


def test_shapes_that_do_not_fit_the_config_are_listed(tmp_path):
    name = "vision_model.encoder.layers.0.mlp.fc1.bias"
    state = BASE | {name: np.ones(64, np.float32)}
    with pytest.raises(ValueError, match=rf"1 tensors.*\n  {name}.*\(64,\).*\(128,\)"):
        clip.read_clip(folder(tmp_path, state))


def test_the_config_of_the_other_library_is_read_if_there_is_no_own(tmp_path):
    values = json.loads(json.dumps(tiny_clip.CONFIG))
    for part in ("vision_config", "text_config"):
        values[part]["hidden_act"] = "gelu"
    config = clip_config.from_hugging_face(values)
    hub = folder(tmp_path / "a", BASE, None)
    written = json.dumps(clip_config.to_open_clip_config(config))
    (tmp_path / "a" / "open_clip_config.json").write_text(written)
    fused = file(tmp_path / "b.safetensors", tiny_clip.open_clip(BASE))
    (tmp_path / "config.json").write_text(json.dumps(values))
    for source in (hub, fused):
        checkpoint = clip.read_clip(source)
        assert checkpoint.config["vision"]["activation"] == "gelu"
        assert checkpoint.config["inferred"] == ()
    (tmp_path / "config.json").write_text('{"batch_size": 32}')
    inferred = clip.read_clip(fused, base=checkpoint).config["inferred"]
    assert "vision/activation" in inferred


def test_a_config_that_is_no_json_is_named(tmp_path):
    source = folder(tmp_path, BASE)
    (tmp_path / "config.json").write_text("<html>")
    with pytest.raises(
        ValueError, match=r"E129 .*config\.json`: this is no valid JSON"
    ):
        clip.read_clip(source)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"config\.json`: it must be a JSON object"):
        clip.read_clip(source)


def test_a_bare_file_without_a_base_needs_wide_heads_or_a_config(tmp_path):
    source = file(tmp_path / "bare.safetensors", BASE)
    with pytest.raises(ValueError, match="width 32.*config file"):
        clip.read_clip(source)


# Base identity.


def resized(state, old, new, only=""):
    """Redraws the tensors that have an axis of one size."""
    random = np.random.default_rng(3)
    return {
        name: random.normal(size=[new if s == old else s for s in x.shape])
        .astype(x.dtype)
        .reshape([new if s == old else s for s in x.shape])
        if only in name and old in x.shape
        else x
        for name, x in state.items()
    }


def test_another_size_is_told_in_one_line(base, tmp_path):
    tower = tiny_clip.old_vision_model()
    state = resized(resized(tower, 32, 64), 128, 256)
    with pytest.raises(ValueError) as error:
        clip.read_clip(file(tmp_path / "large.safetensors", state), base=base)
    message = str(error.value)
    assert "\n" not in message
    assert "base ViT (width 32, 2 layers, patch 8, output 24)" in message
    assert "expert ViT (width 64, 2 layers, patch 8, output 24)" in message


def test_the_names_of_known_sizes_are_told():
    config = clip_config.from_hugging_face({"model_type": "clip"})
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "patch_size": 14}
    other = clip_config.from_hugging_face(
        {"model_type": "clip", "vision_config": large}
    )
    with pytest.raises(
        ValueError, match=r"ViT-B/32 \(width 768.*ViT-L/14 \(width 1024"
    ):
        clip_base.check_configs(config, other, ("a", "b"))


def test_another_patch_size_is_told(base, tmp_path):
    name = "vision_model.embeddings.patch_embedding.weight"
    state = near(BASE) | {name: np.ones((32, 3, 4, 4), np.float32)}
    with pytest.raises(ValueError, match="patch 8, .*patch 4, "):
        clip.read_clip(file(tmp_path / "p.safetensors", state), base=base)


def test_differing_fields_are_a_table(base, tmp_path):
    config = json.loads(json.dumps(tiny_clip.CONFIG))
    config["vision_config"] |= {"hidden_act": "gelu", "layer_norm_eps": 1e-6}
    source = folder(tmp_path, near(BASE), config)
    message = (
        r"\n  activation +quick_gelu +gelu\n  layer_norm_epsilon +1e-05 +1e-06; use the"
    )
    with pytest.raises(ValueError, match=message):
        clip.read_clip(source, base=base)
    other = clip.read_clip(source)
    with pytest.raises(ValueError, match=message):
        clip_base.check_same_base(base, other)


def test_fields_that_no_file_states_are_not_compared(base, tmp_path):
    bare = clip.read_clip(file(tmp_path / "e.safetensors", near(BASE)), base=base)
    gelu = base._replace(
        config=base.config | {"vision": base.config["vision"] | {"activation": "gelu"}}
    )
    assert clip_base.check_same_base(gelu, bare) == []


def test_an_unrelated_model_is_refused_with_the_figure(base, tmp_path):
    other = clip.read_clip(
        file(tmp_path / "o.safetensors", tiny_clip.hugging_face(seed=9)), base=base
    )
    with pytest.raises(
        ValueError,
        match=r"does not come from the base.*8 matrices is 1\.4\d.*below 0\.5",
    ):
        clip_base.check_same_base(base, other)


def test_an_expert_that_equals_the_base_is_a_warning(base, tmp_path):
    same = clip.read_clip(open_clip_folder(tmp_path), base=base)
    (warning,) = clip_base.check_same_base(base, same)
    assert "equals the base" in str(warning)


def test_identical_experts_are_a_warning(base, tmp_path):
    sources = [
        file(tmp_path / f"{name}.safetensors", near(BASE, seed=seed))
        for name, seed in (("a", 1), ("b", 2), ("c", 1))
    ]
    experts = {s[-13]: clip.read_clip(s, base=base) for s in sources}
    (warning,) = clip_base.find_twins(experts)
    assert "'a' and 'c' are identical" in str(warning)


def test_fewer_bits_than_the_base_are_a_warning(base, tmp_path):
    state = {n: x.astype(ml_dtypes.bfloat16) for n, x in near(BASE).items()}
    expert = clip.read_clip(file(tmp_path / "e.safetensors", state), base=base)
    (warning,) = clip_base.check_same_base(base, expert)
    assert "bfloat16" in str(warning)
    assert "rounding" in str(warning)


def test_towers_that_were_cut_differently_are_not_compared(base, tmp_path):
    split = clip.read_clip(file(tmp_path / "e.safetensors", BASE), "split", base)
    with pytest.raises(ValueError, match="only in .*in_proj"):
        clip_base.check_same_base(base, split)


def test_the_state_keeps_what_the_file_holds(tmp_path):
    source = file(tmp_path / "e.safetensors", BASE)
    state = read_state(source)
    checkpoint = clip.from_state(
        state, source, base=clip.read_clip(folder(tmp_path / "b", BASE))
    )
    assert checkpoint.state is state
