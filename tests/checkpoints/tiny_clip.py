"""Tiny CLIP models as state dicts, under the names that the libraries give them."""

import json
import pathlib

import numpy as np

FILE = pathlib.Path(__file__).parents[1] / "data" / "clip_names.json"
NAMES = json.loads(FILE.read_text())
CONFIG = NAMES["config"]


def hugging_face(model="CLIPModel", seed=0, dtype=np.float32):
    """Draws the state dict of a class of transformers 5."""
    random = np.random.default_rng(seed)
    return {
        name: random.normal(size=shape).astype(np.float32).astype(dtype)
        for name, shape in NAMES[model].items()
    }


def old_vision_model(seed=0, dtype=np.float32):
    """Cuts out of the whole model what transformers 4 saves as `CLIPVisionModel`."""
    whole = hugging_face(seed=seed, dtype=dtype)
    return {n: x for n, x in whole.items() if n.startswith("vision_model.")}


def with_projection(seed=0):
    """Cuts out what transformers saves as `CLIPVisionModelWithProjection`."""
    whole = hugging_face(seed=seed)
    names = NAMES["CLIPVisionModelWithProjection"]
    return {name: whole[name] for name in names}


def open_clip(whole):
    """Rewrites a whole model name by name as open_clip saves it, in its order."""
    state = {
        "positional_embedding": whole[
            "text_model.embeddings.position_embedding.weight"
        ],
        "text_projection": whole["text_projection.weight"].T,
        "logit_scale": whole["logit_scale"],
    }
    vision = "vision_model."
    state |= {
        "visual.class_embedding": whole[f"{vision}embeddings.class_embedding"],
        "visual.positional_embedding": whole[
            f"{vision}embeddings.position_embedding.weight"
        ],
        "visual.proj": whole["visual_projection.weight"].T,
        "visual.conv1.weight": whole[f"{vision}embeddings.patch_embedding.weight"],
    }
    for end in ("weight", "bias"):
        state[f"visual.ln_pre.{end}"] = whole[f"{vision}pre_layrnorm.{end}"]
    state |= _blocks(whole, vision, "visual.", 2)
    for end in ("weight", "bias"):
        state[f"visual.ln_post.{end}"] = whole[f"{vision}post_layernorm.{end}"]
    state |= _blocks(whole, "text_model.", "", 3)
    state["token_embedding.weight"] = whole[
        "text_model.embeddings.token_embedding.weight"
    ]
    for end in ("weight", "bias"):
        state[f"ln_final.{end}"] = whole[f"text_model.final_layer_norm.{end}"]
    return {name: np.ascontiguousarray(x).reshape(x.shape) for name, x in state.items()}


def _blocks(whole, tower, start, num_layers):
    state = {}
    for i in range(num_layers):
        block, layer = f"{start}transformer.resblocks.{i}", f"{tower}encoder.layers.{i}"
        for end in ("weight", "bias"):
            state[f"{block}.ln_1.{end}"] = whole[f"{layer}.layer_norm1.{end}"]
        for end in ("weight", "bias"):
            state[f"{block}.attn.in_proj_{end}"] = np.concatenate(
                [whole[f"{layer}.self_attn.{part}_proj.{end}"] for part in "qkv"]
            )
        for end in ("weight", "bias"):
            out = whole[f"{layer}.self_attn.out_proj.{end}"]
            state[f"{block}.attn.out_proj.{end}"] = out
        for end in ("weight", "bias"):
            state[f"{block}.ln_2.{end}"] = whole[f"{layer}.layer_norm2.{end}"]
        for end in ("weight", "bias"):
            state[f"{block}.mlp.c_fc.{end}"] = whole[f"{layer}.mlp.fc1.{end}"]
        for end in ("weight", "bias"):
            state[f"{block}.mlp.c_proj.{end}"] = whole[f"{layer}.mlp.fc2.{end}"]
    return state


def prefixed(state, prefix):
    """Puts a prefix before every name."""
    return {f"{prefix}{name}": array for name, array in state.items()}


def assert_same(ours, theirs, in_order=True):
    """Checks that two state dicts agree in names, order, dtypes and bytes."""
    if in_order:
        assert [*ours] == [*theirs]
    assert {*ours} == {*theirs}
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype, name
        assert ours[name].shape == array.shape, name
        assert ours[name].tobytes() == array.tobytes(), name
