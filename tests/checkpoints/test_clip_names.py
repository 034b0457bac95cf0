import numpy as np
import pytest

from adarank_jax import tree
from adarank_jax.checkpoints import clip_names, clip_tensors
from tests import reference
from tests.checkpoints import tiny_clip

WHOLE = tiny_clip.hugging_face()
FUSED = tiny_clip.open_clip(WHOLE)
VISUAL = {n.removeprefix("visual."): x for n, x in FUSED.items() if "visual." in n}


def params(state, qkv="fused"):
    layout = clip_names.recognise(state)
    return clip_tensors.to_params(state, layout, qkv), layout


def assert_same(ours, theirs):
    ours, theirs = tree.flatten(ours), tree.flatten(theirs)
    assert ours.keys() == theirs.keys()
    for path, leaf in theirs.items():
        np.testing.assert_array_equal(ours[path], leaf, strict=True)


@pytest.mark.parametrize("qkv", ["fused", "split"])
def test_both_layouts_give_the_same_params_bit_for_bit(qkv):
    ours, layout = params(WHOLE, qkv)
    theirs, other = params(FUSED, qkv)
    assert_same(ours, theirs)
    assert (layout.kind, layout.model) == ("hugging_face", "CLIPModel")
    assert (other.kind, other.model) == ("open_clip", "CLIP")


def test_open_clip_gives_the_params_of_the_recording():
    with np.load(reference.FILE) as arrays:
        state = {
            name.removeprefix("pretrained/"): arrays[name]
            for name in arrays
            if name.startswith("pretrained/")
        }
        expected = reference.params(arrays, "pretrained")
    ours, layout = params(state)
    assert_same(ours["vision"], expected)
    assert (layout.vision_layers, layout.text_layers) == (2, None)
    tiny_clip.assert_same(clip_tensors.to_state(ours, layout), state, in_order=False)


def test_params_have_the_numbers_of_the_torch_weights():
    ours, _ = params(WHOLE, "split")
    block = ours["vision"]["resblocks_1"]
    layer = "vision_model.encoder.layers.1"
    key = WHOLE[f"{layer}.self_attn.k_proj.weight"]
    np.testing.assert_array_equal(block["attn"]["k_proj"]["kernel"], key.T)
    np.testing.assert_array_equal(
        block["mlp"]["c_fc"]["kernel"], WHOLE[f"{layer}.mlp.fc1.weight"].T
    )
    conv = WHOLE["vision_model.embeddings.patch_embedding.weight"]
    image = np.random.default_rng(1).normal(size=(8, 8, 3))
    ours_out = image.reshape(-1) @ ours["vision"]["conv1"]["kernel"]
    theirs = np.einsum("ochw,hwc->o", conv, image)
    np.testing.assert_allclose(ours_out, theirs, rtol=1e-5, atol=1e-5)


def test_a_square_projection_is_transposed_by_its_name_alone():
    square = np.arange(32.0 * 32, dtype=np.float32).reshape(32, 32)
    ours, _ = params(WHOLE | {"visual_projection.weight": square})
    np.testing.assert_array_equal(ours["vision"]["proj"], square.T)
    ours, _ = params(FUSED | {"visual.proj": square})
    np.testing.assert_array_equal(ours["vision"]["proj"], square)


def with_text_prefix():
    own = ("visual.", "logit_scale")
    return {n if n.startswith(own) else f"text.{n}": x for n, x in FUSED.items()}


VARIANTS = {
    "module": (tiny_clip.prefixed(WHOLE, "module."), "module.", "CLIPModel"),
    "compiled": (
        tiny_clip.prefixed(WHOLE, "_orig_mod.module."),
        "_orig_mod.module.",
        "CLIPModel",
    ),
    "task arithmetic": (tiny_clip.prefixed(FUSED, "model."), "model.", "CLIP"),
    "its classifier": (
        tiny_clip.prefixed(FUSED, "image_encoder.model.")
        | {"classification_head.weight": np.ones((10, 24), np.float32)},
        "image_encoder.model.",
        "CLIP",
    ),
    "custom text": (with_text_prefix(), "", "CLIP"),
    "buffers": (
        WHOLE
        | {
            "vision_model.embeddings.position_ids": np.arange(5)[None],
            "text_model.embeddings.position_ids": np.arange(7)[None],
        },
        "",
        "CLIPModel",
    ),
    "OpenAI's sizes": (
        FUSED | {"input_resolution": np.array(16), "vocab_size": np.array(50)},
        "",
        "CLIP",
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_wrappers_and_buffers_change_nothing(variant):
    state, prefix, model = VARIANTS[variant]
    ours, layout = params(state)
    assert (layout.prefix, layout.model) == (prefix, model)
    assert_same(ours, params(WHOLE)[0])


TOWERS = {
    "CLIPVisionModelWithProjection": tiny_clip.with_projection(),
    "CLIPVisionModel": tiny_clip.old_vision_model(),
    "without the prefix": {
        name.removeprefix("vision_model."): array
        for name, array in tiny_clip.old_vision_model().items()
    },
    "visual": tiny_clip.prefixed(VISUAL, "visual."),
    "visual without the prefix": VISUAL,
    "visual wrapped": tiny_clip.prefixed(VISUAL, "module.visual."),
    "remains of the text tower": {
        name: array
        for name, array in tiny_clip.prefixed(FUSED, "model.").items()
        if not name.startswith("model.transformer.")
    },
}


@pytest.mark.parametrize("tower", TOWERS)
def test_image_towers_alone_give_the_same_params(tower):
    ours, layout = params(TOWERS[tower])
    expected = params(WHOLE)[0]["vision"]
    if not layout.has_projection:
        expected = {key: value for key, value in expected.items() if key != "proj"}
    assert_same(ours["vision"], expected)
    assert "text" not in ours
    assert layout.text_layers is None


def test_release_5_names_are_those_of_the_class():
    assert {*TOWERS["without the prefix"]} == {*tiny_clip.NAMES["CLIPVisionModel"]}
    layout = clip_names.recognise(TOWERS["without the prefix"])
    assert (layout.model, layout.vision_prefix) == ("CLIPVisionModel", "")


@pytest.mark.parametrize("model", ["CLIPTextModel", "CLIPTextModelWithProjection"])
def test_text_towers_alone_are_read(model):
    state = tiny_clip.hugging_face(model)
    ours, layout = params(state)
    assert layout.model == model
    assert ours.keys() == {"text"}
    assert ("text_projection" in ours["text"]) == ("Projection" in model)
    tiny_clip.assert_same(clip_tensors.to_state(ours, layout), state, in_order=False)


@pytest.mark.parametrize("qkv", ["fused", "split"])
@pytest.mark.parametrize("variant", [*VARIANTS, *TOWERS])
def test_to_state_undoes_to_params_bit_for_bit(variant, qkv):
    state = TOWERS.get(variant) or VARIANTS[variant][0]
    ours, layout = params(state, qkv)
    back = clip_tensors.to_state(ours, layout)
    assert {*back} <= {*state}
    tiny_clip.assert_same(back, {name: state[name] for name in back}, in_order=False)
    left = {*state} - {*back}
    assert all(name not in back and clip_names._ignored(name, layout) for name in left)


def test_each_kind_writes_the_other():
    ours, _ = params(WHOLE, "split")
    layout = clip_names.full_layout("open_clip", 2, 3)
    tiny_clip.assert_same(clip_tensors.to_state(ours, layout), FUSED, in_order=False)
    ours, _ = params(FUSED, "fused")
    layout = clip_names.full_layout("hugging_face", 2, 3)
    tiny_clip.assert_same(clip_tensors.to_state(ours, layout), WHOLE, in_order=False)


def without(state, part):
    return {name: array for name, array in state.items() if part not in name}


def test_a_missing_block_is_one_item_of_the_message():
    state = without(FUSED, "visual.transformer.resblocks.0.")
    message = r"12 missing, all visual\.transformer\.resblocks\.0\.\*; save the"
    with pytest.raises(ValueError, match=message):
        clip_names.recognise(state)


def test_missing_and_extra_names_are_both_listed():
    state = without(WHOLE, "vision_model.post_layernorm.bias")
    state |= {"vision_model.norm.bias": np.ones(3), "adapter.weight": np.ones(3)}
    message = (
        r"`m.bin`: it looks like a CLIPModel.*do not fit: 1 missing: "
        r"vision_model\.post_layernorm\.bias and 2 without a place: "
        r"vision_model\.norm\.bias, adapter\.weig"
    )
    with pytest.raises(ValueError, match=message):
        clip_names.recognise(state, "`m.bin`")


@pytest.mark.parametrize("part", ["class_embedding", "conv1.weight", "logit_scale"])
def test_every_single_name_is_needed(part):
    with pytest.raises(ValueError, match=f"{part}|without a place|no CLIP"):
        clip_names.recognise(without(FUSED, part))


def test_layer_scale_in_one_expert_is_refused():
    extra = {
        f"visual.transformer.resblocks.{i}.ls_1.gamma": np.ones(32) for i in (0, 1)
    }
    with pytest.raises(ValueError, match="2 without a place.*ls_1.gamma"):
        clip_names.recognise(FUSED | extra)


def test_two_towers_are_ambiguous():
    state = tiny_clip.prefixed(VISUAL, "model.visual.")
    state |= tiny_clip.prefixed(VISUAL, "module.visual.")
    with pytest.raises(ValueError, match=r"2 vision towers.*'model\.vis.*'mod"):
        clip_names.recognise(state)


def test_an_unknown_prefix_is_named():
    with pytest.raises(ValueError, match=r"prefix 'student\.'.*remove the prefix"):
        clip_names.recognise(tiny_clip.prefixed(WHOLE, "student."))


def test_what_is_no_clip_is_refused():
    state = {"bert.embeddings.word_embeddings.weight": np.ones((3, 2))}
    with pytest.raises(ValueError, match="no CLIP model.*bert.embeddings"):
        clip_names.recognise(state)
    with pytest.raises(ValueError, match="none of its 0 names"):
        clip_names.recognise({})


def test_shapes_refuse_what_cannot_be_turned():
    layout = clip_names.recognise(FUSED)
    with pytest.raises(ValueError, match=r"conv1\.weight'.*\(32, 3, 8\)"):
        state = FUSED | {"visual.conv1.weight": np.ones((32, 3, 8), np.float32)}
        clip_tensors.shapes(state, layout)
    layout = clip_names.recognise(WHOLE)
    name = "vision_model.encoder.layers.0.self_attn.k_proj.weight"
    with pytest.raises(ValueError, match=r"k_proj\.weight \(16, 32\)"):
        clip_tensors.shapes(WHOLE | {name: np.ones((16, 32))}, layout)


def test_to_state_names_what_is_missing_and_what_is_left():
    ours, layout = params(WHOLE)
    del ours["vision"]["resblocks_0"]["attn"]["in_proj"]["bias"]
    with pytest.raises(ValueError, match="resblocks_0/attn/in_proj/bias.*q_proj"):
        clip_tensors.to_state(ours, layout)
    ours, layout = params(WHOLE)
    ours["vision"]["extra"] = np.ones(2)
    with pytest.raises(ValueError, match="vision/extra"):
        clip_tensors.to_state(ours, layout)


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="`qkv`.*'both'"):
        clip_tensors.to_params(WHOLE, clip_names.recognise(WHOLE), "both")
    with pytest.raises(ValueError, match="`kind`.*'timm'"):
        clip_names.full_layout("timm", 1, 1)


def test_half_precision_is_widened_without_loss():
    half = {name: array.astype(np.float16) for name, array in FUSED.items()}
    ours, layout = params(half)
    assert layout.dtype == "float16"
    assert ours["vision"]["proj"].dtype == np.float32
    np.testing.assert_array_equal(
        ours["vision"]["proj"], half["visual.proj"].astype(np.float32)
    )
    mixed = half | {"logit_scale": FUSED["logit_scale"]}
    assert clip_names.recognise(mixed).dtype == "mixed"
