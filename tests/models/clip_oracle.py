"""transformers' CLIP in our names: recorded tiny models, and live ones."""

import functools
import json
import pathlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from adarank_jax import tree
from adarank_jax.models.clip_text import ClipTextConfig
from adarank_jax.models.clip_vision import ClipVisionConfig
from tests import helpers

CASES = ("gelu", "quick_gelu")
FILE = pathlib.Path(__file__).parents[1] / "data" / "clip_tiny.npz"
LAYOUTS = ("fused", "split")
NAMES = (
    # transformers, ours; in order
    ("vision_model.", ""),
    ("text_model.", ""),
    ("visual_projection.weight", "proj"),
    ("text_projection.weight", "text_projection"),
    ("embeddings.patch_embedding.weight", "conv1/kernel"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("embeddings.token_embedding.weight", "token_embedding/embedding"),
    ("embeddings.class_embedding", "class_embedding"),
    ("pre_layrnorm.", "ln_pre/"),
    ("post_layernorm.", "ln_post/"),
    ("final_layer_norm.", "ln_final/"),
    ("encoder.layers.", "resblocks_"),
    (".layer_norm1.", "/ln_1/"),
    (".layer_norm2.", "/ln_2/"),
    (".self_attn.", "/attn/"),
    (".mlp.fc1.", "/mlp/c_fc/"),
    (".mlp.fc2.", "/mlp/c_proj/"),
    ("_proj.", "_proj/"),
)
PREFIXES = {
    "vision": ("vision_model.", "visual_projection."),
    "text": ("text_model.", "text_projection."),
}


class Recording(NamedTuple):
    """A tiny model of transformers, and what it computed."""

    config: dict
    state: dict
    images: np.ndarray
    tokens: np.ndarray
    outputs: dict


@functools.cache
def recording(case):
    """Reads one recorded model."""
    with np.load(FILE) as arrays:
        found = {
            key.removeprefix(f"{case}/"): arrays[key]
            for key in arrays
            if key.startswith(f"{case}/")
        }
    state = {
        key.removeprefix("state/"): found.pop(key)
        for key in list(found)
        if key.startswith("state/")
    }
    return Recording(
        config=json.loads(str(found.pop("config"))),
        state=state,
        images=found.pop("pixels").transpose(0, 2, 3, 1),
        tokens=found.pop("tokens").astype(np.int32),
        outputs=found,
    )


def params(state, tower, qkv):
    """Returns the parameters of a tower (vision or text) in our names and layout."""
    flat = {}
    for name, tensor in state.items():
        if name.startswith(PREFIXES[tower]):
            path, leaf = ours(name, np.asarray(tensor))
            flat[path] = leaf
    if qkv == "fused":
        for path in [path for path in flat if "/q_proj/" in path]:
            parts = [path.replace("/q_proj/", f"/{part}_proj/") for part in "qkv"]
            joined = np.concatenate([flat.pop(part) for part in parts], axis=-1)
            flat[path.replace("/q_proj/", "/in_proj/")] = joined
    return helpers.to_jax(tree.unflatten(flat))


def ours(name, tensor):
    """Translates the name and the layout of one tensor."""
    path = name
    for theirs, mine in NAMES:
        path = path.replace(theirs, mine)
    if path == "conv1/kernel":
        return path, tensor.transpose(2, 3, 1, 0).reshape(-1, len(tensor))
    if path.endswith("/weight") and tensor.ndim == 2:
        return path.removesuffix("weight") + "kernel", tensor.T
    if path.endswith("/weight"):
        return path.removesuffix("weight") + "scale", tensor
    if path in ("proj", "text_projection"):
        return path, tensor.T
    return path, tensor


def vision_config(config, **changes):
    """Returns our config of an image tower."""
    sizes = config["vision_config"]
    return ClipVisionConfig(
        **{
            "image_size": sizes["image_size"],
            "patch_size": sizes["patch_size"],
            **_shared(sizes, config["projection_dim"]),
            **changes,
        }
    )


def text_config(config, **changes):
    """Returns our config of a text tower."""
    sizes = config["text_config"]
    # transformers takes 2, a wrong id in OpenAI's files, for: pool at the largest id.
    pooling = "argmax" if sizes["eos_token_id"] == 2 else "end_token"
    return ClipTextConfig(
        **{
            "vocabulary_size": sizes["vocab_size"],
            "context_length": sizes["max_position_embeddings"],
            "pooling": pooling,
            "end_token": sizes["eos_token_id"],
            **_shared(sizes, config["projection_dim"]),
            **changes,
        }
    )


def _shared(sizes, output_size):
    """Returns the fields that both towers have."""
    return {
        "width": sizes["hidden_size"],
        "num_layers": sizes["num_hidden_layers"],
        "num_heads": sizes["num_attention_heads"],
        "output_size": output_size,
        "layer_norm_epsilon": sizes["layer_norm_eps"],
        "activation": sizes["hidden_act"],
        "mlp_width": sizes["intermediate_size"],
    }


def logit_scale(state):
    """Returns what the cosines are multiplied by."""
    return float(jnp.exp(jnp.asarray(state["logit_scale"])))
