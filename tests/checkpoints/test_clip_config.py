import json

import numpy as np
import pytest

from adarank_jax.checkpoints import clip_config, clip_names, clip_sizes, clip_tensors
from tests.checkpoints import tiny_clip

# As the library of each writes it, in our words.
TINY = {
    "vision": {
        "image_size": 16,
        "patch_size": 8,
        "width": 32,
        "num_layers": 2,
        "num_heads": 4,
        "output_size": 24,
        "layer_norm_epsilon": 1e-5,
        "activation": "quick_gelu",
        "mlp_width": 128,
        "qkv": "fused",
        "pooling": "class_token",
    },
    "text": {
        "vocabulary_size": 50,
        "context_length": 7,
        "width": 20,
        "num_layers": 3,
        "num_heads": 2,
        "output_size": 24,
        "layer_norm_epsilon": 1e-5,
        "activation": "quick_gelu",
        "mlp_width": 80,
        "qkv": "fused",
        "pooling": "end_token",
        "end_token": 49,
    },
    "inferred": (),
}
OPEN_CLIP_B_32 = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 512,
        "heads": 8,
        "layers": 12,
    },
}


def changed(config, tower, **fields):
    return config | {tower: config[tower] | fields}


def test_from_hugging_face_reads_what_transformers_writes():
    assert clip_config.from_hugging_face(tiny_clip.CONFIG) == TINY


def test_missing_fields_are_those_of_b_32_in_both_libraries():
    ours = clip_config.from_hugging_face({"model_type": "clip"})
    theirs = clip_config.from_open_clip(OPEN_CLIP_B_32)
    assert ours["vision"] == theirs["vision"]
    assert ours["text"] == theirs["text"] | {"pooling": "end_token"}
    assert theirs["vision"]["num_heads"] == 12
    assert ours["text"]["end_token"] == 49407


def test_the_defaults_are_those_of_transformers():
    import transformers

    for tower, name in (("vision", "CLIPVisionConfig"), ("text", "CLIPTextConfig")):
        theirs = getattr(transformers, name)()
        for _, field, default in clip_config._HUGGING_FACE[tower]:
            assert getattr(theirs, field) == default, field


def test_the_projection_size_of_the_whole_wins():
    values = {
        "model_type": "clip",
        "projection_dim": 640,
        "vision_config": {"projection_dim": 512},
    }
    assert clip_config.from_hugging_face(values)["vision"]["output_size"] == 640
    alone = {"model_type": "clip_vision_model", "projection_dim": 768}
    assert clip_config.from_hugging_face(alone)["vision"]["output_size"] == 768


def test_old_files_with_two_keys_for_a_tower_obey_the_second():
    values = {
        "model_type": "clip",
        "vision_config": {"hidden_size": 768},
        "vision_config_dict": {"hidden_size": 1024, "num_attention_heads": 16},
        "text_config_dict": None,
    }
    config = clip_config.from_hugging_face(values)
    assert config["vision"]["width"] == 1024
    assert config["text"]["width"] == 512


def test_the_wrong_end_token_of_old_files_means_the_highest_id():
    values = {"model_type": "clip", "text_config": {"eos_token_id": 2}}
    text = clip_config.from_hugging_face(values)["text"]
    assert (text["pooling"], text["end_token"]) == ("argmax", 49407)
    back = clip_config.to_hugging_face_config(clip_config.from_hugging_face(values))
    assert back["text_config"]["eos_token_id"] == 2


@pytest.mark.parametrize("tower", ["vision", "text"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"activation": "gelu"}, {"layer_norm_epsilon": 1e-6}, {"mlp_width": 48}],
)
def test_to_hugging_face_config_is_read_back(tower, fields):
    config = changed(TINY, tower, **fields)
    values = clip_config.to_hugging_face_config(config)
    assert clip_config.from_hugging_face(json.loads(json.dumps(values))) == config


def test_transformers_reads_what_is_written():
    import transformers

    theirs = transformers.CLIPConfig(**clip_config.to_hugging_face_config(TINY))
    assert theirs.vision_config.patch_size == 8
    assert theirs.text_config.eos_token_id == 49
    assert theirs.projection_dim == 24


@pytest.mark.parametrize(
    ("tower", "fields"),
    [
        ("vision", {}),
        ("vision", {"pooling": "average"}),
        ("vision", {"layer_norm_epsilon": 1e-6}),
        ("vision", {"mlp_width": 4304, "width": 1152, "num_heads": 16}),
        ("text", {"pooling": "end_token", "end_token": 3}),
        ("text", {"mlp_width": 48}),
    ],
)
def test_to_open_clip_config_is_read_back(tower, fields):
    config = changed(changed(TINY, "text", pooling="argmax"), tower, **fields)
    values = clip_config.to_open_clip_config(config)
    assert clip_config.from_open_clip(json.loads(json.dumps(values))) == config


def test_open_clip_finds_an_end_token_with_the_highest_id_by_itself():
    values = clip_config.to_open_clip_config(TINY)["model_cfg"]
    assert "pool_type" not in values["text_cfg"]
    assert values["quick_gelu"] is True


def test_open_clip_without_the_switch_has_the_exact_gelu():
    values = OPEN_CLIP_B_32 | {"quick_gelu": False}
    assert clip_config.from_open_clip(values)["text"]["activation"] == "gelu"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "clip", "auto_map": {"AutoModel": "m.M"}}, "auto_map.*Python"),
        (
            {"model_type": "clip", "vision_config": {"auto_map": {"a": "b"}}},
            "auto_map.*never run",
        ),
        ({"model_type": "clip", "quantization_config": {"bits": 4}}, "quantised"),
        ({"model_type": "siglip"}, "'siglip', expected 'clip'"),
        ({}, "None, expected 'clip'"),
        ({"model_type": "clip_vision_model", "hidden_act": "relu"}, "hidden_act.*gelu"),
        (
            {"model_type": "clip_vision_model", "hidden_size": "768"},
            "hidden_size.*'768'",
        ),
        ({"model_type": "clip_vision_model", "patch_size": [16, 8]}, "patch_size"),
        ({"model_type": "clip_vision_model", "num_hidden_layers": 0}, "num_hidden"),
        ({"model_type": "clip_vision_model", "num_channels": 1}, "num_channels"),
    ],
)
def test_from_hugging_face_refuses(values, message):
    with pytest.raises(ValueError, match=rf"`c\.json`.*{message}"):
        clip_config.from_hugging_face(values, "`c.json`")


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("vision_cfg", {"timm_model_name": "vit_base"}, "timm_model_name"),
        ("vision_cfg", {"layers": [3, 4, 6, 3]}, "layers.*positive integer"),
        ("vision_cfg", {"attentional_pool": True}, "attentional_pool"),
        ("vision_cfg", {"pool_type": "none"}, "pool_type' 'none'"),
        ("vision_cfg", {"norm_kwargs": {"bias": False}}, "norm_kwargs"),
        ("vision_cfg", {"pos_embed_type": "sin_cos_2d"}, "pos_embed_type"),
        (
            "vision_cfg",
            {"pool_type": "avg", "final_ln_after_pool": True},
            "final_ln_after_pool",
        ),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "hf_model_name"),
        ("text_cfg", {"no_causal_mask": True}, "no_causal_mask"),
    ],
)
def test_from_open_clip_refuses(part, values, message):
    values = OPEN_CLIP_B_32 | {part: OPEN_CLIP_B_32[part] | values}
    with pytest.raises(ValueError, match=rf"`o\.json`.*{message}"):
        clip_config.from_open_clip({"model_cfg": values}, "`o.json`")
    with pytest.raises(ValueError, match="'embed_dim'"):
        clip_config.from_open_clip({"vision_cfg": {}})


def test_usual_values_that_are_spelt_out_are_accepted():
    vision = OPEN_CLIP_B_32["vision_cfg"] | {
        "pos_embed_type": "learnable",
        "patch_dropout": 0.5,
        "ls_init_value": None,
        "attentional_pool": False,
    }
    spelt = OPEN_CLIP_B_32 | {"vision_cfg": vision}
    assert clip_config.from_open_clip(spelt) == clip_config.from_open_clip(
        OPEN_CLIP_B_32
    )


def test_what_a_library_cannot_say_is_refused():
    with pytest.raises(ValueError, match="class token.*'average'.*open_clip"):
        clip_config.to_hugging_face_config(changed(TINY, "vision", pooling="average"))
    with pytest.raises(ValueError, match="one activation.*'gelu'.*Hugging Face"):
        clip_config.to_open_clip_config(changed(TINY, "vision", activation="gelu"))
    for write in (clip_config.to_hugging_face_config, clip_config.to_open_clip_config):
        with pytest.raises(ValueError, match="text tower with its projection"):
            write(TINY | {"text": None})
        with pytest.raises(ValueError, match="image tower with its projection"):
            write(changed(TINY, "vision", output_size=None))


def shapes(state=None):
    state = tiny_clip.hugging_face() if state is None else state
    return clip_tensors.shapes(state, clip_names.recognise(state))


def test_shapes_of_lists_the_shapes_of_the_file():
    assert clip_sizes.shapes_of(TINY) | {"logit_scale": ()} == shapes()


def test_infer_reads_the_sizes_and_takes_the_rest_from_the_base():
    base = changed(TINY, "vision", activation="gelu", layer_norm_epsilon=1e-6)
    config = clip_sizes.infer(shapes(), base)
    assert config["vision"] == base["vision"]
    assert config["text"] == base["text"]
    assert {f"vision/{f}" for f in ("num_heads", "activation", "pooling")} < {
        *config["inferred"]
    }
    assert "vision/width" not in config["inferred"]


def test_infer_without_a_base_has_the_heads_of_openai():
    width, patch = 128, 32
    found = {
        "vision/class_embedding": (width,),
        "vision/conv1/kernel": (3 * patch**2, width),
        "vision/positional_embedding": (50, width),
        "vision/resblocks_0/mlp/c_fc/bias": (512,),
        "vision/proj": (width, 64),
    }
    vision = clip_sizes.infer(found)["vision"]
    assert vision["num_heads"] == 2
    assert (vision["image_size"], vision["patch_size"]) == (224, 32)
    assert (vision["output_size"], vision["num_layers"]) == (64, 1)
    assert (vision["activation"], vision["mlp_width"]) == ("quick_gelu", 512)


def test_infer_says_when_the_heads_cannot_be_told():
    with pytest.raises(ValueError, match="E144 `x.pt`: it has width 32.*config file"):
        clip_sizes.infer(shapes(), None, "`x.pt`")


def test_infer_refuses_patches_that_form_no_square():
    found = shapes() | {"vision/positional_embedding": (8, 32)}
    with pytest.raises(ValueError, match="7 patches.*no square"):
        clip_sizes.infer(found, TINY)


def test_fields_are_plain_numbers():
    config = clip_sizes.infer(shapes(), TINY)
    for part in (config["vision"], config["text"]):
        assert not any(isinstance(value, np.generic) for value in part.values())


@pytest.mark.parametrize("key", ["vision_config", "text_config_dict"])
def test_parts_must_be_objects(key):
    with pytest.raises(ValueError, match=f"'{key}'.*JSON object"):
        clip_config.from_hugging_face({"model_type": "clip", key: [1]})
    with pytest.raises(ValueError, match="'text_cfg'.*JSON object"):
        clip_config.from_open_clip(OPEN_CLIP_B_32 | {"text_cfg": "small"})
