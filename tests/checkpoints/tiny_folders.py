"""Tiny CLIP models on disk, as the Hub holds them."""

import json

import ml_dtypes
import numpy as np

from adarank_jax import tree
from adarank_jax.checkpoints import (
    clip_config,
    clip_names,
    clip_sizes,
    clip_tensors,
    shards,
)

VISION = {
    "image_size": 16,
    "patch_size": 8,
    "width": 64,
    "num_layers": 2,
    "num_heads": 1,
    "output_size": 12,
    "layer_norm_epsilon": 1e-5,
    "activation": "quick_gelu",
    "mlp_width": 256,
    "qkv": "fused",
    "pooling": "class_token",
}
TEXT = {
    "vocabulary_size": 40,
    "context_length": 7,
    "width": 64,
    "num_layers": 1,
    "num_heads": 1,
    "output_size": 12,
    "layer_norm_epsilon": 1e-5,
    "activation": "quick_gelu",
    "mlp_width": 256,
    "qkv": "fused",
    "pooling": "argmax",
    "end_token": 39,
}
CONFIG = {"inferred": (), "vision": VISION, "text": TEXT}
KINDS = ("model", "sharded", "vision", "open_clip", "half")


def state(kind, seed=0, scale=0.05):
    """Draws a whole state dict of a layout, float32."""
    rng = np.random.default_rng(seed)
    flat = {
        path: (np.ones if path.endswith("/scale") else np.zeros)(shape, np.float32)
        + rng.normal(scale=scale, size=shape).astype(np.float32)
        for path, shape in clip_sizes.shapes_of(CONFIG).items()
    }
    params = tree.unflatten(flat | {"logit_scale": np.float32(np.log(100.0))})
    return clip_tensors.to_state(params, clip_names.full_layout(kind, 2, 1))


def moved(tensors, seed=1, share=0.03):
    """Moves every tensor by a few per cent of its norm: an expert."""
    rng = np.random.default_rng(seed)

    def move(array):
        step = rng.normal(size=array.shape).astype(np.float32)
        norm = np.linalg.norm(array) / max(np.linalg.norm(step), 1e-9)
        return np.asarray(array + np.float32(share * norm) * step, array.dtype)

    return {n: move(x) if x.dtype.kind == "f" else x for n, x in tensors.items()}


def write(folder, kind="model", tensors=None):
    """Writes a base: weights, configuration, and other files where it has them."""
    folder.mkdir(parents=True)
    layout = "open_clip" if kind == "open_clip" else "hugging_face"
    tensors = state(layout) if tensors is None else tensors
    if kind == "open_clip":
        values = clip_config.to_open_clip_config(CONFIG)
        (folder / "open_clip_config.json").write_text(json.dumps(values))
        shards.write_state(folder, tensors, "open_clip_model")
        return folder
    values = clip_config.to_hugging_face_config(CONFIG)
    if kind == "vision":
        parts = ("vision_model.", "visual_projection.")
        tensors = {n: x for n, x in tensors.items() if n.startswith(parts)}
        values = values["vision_config"] | {
            "architectures": ["CLIPVisionModelWithProjection"],
            "projection_dim": 12,
        }
    if kind == "half":
        tensors = {n: x.astype(ml_dtypes.bfloat16) for n, x in tensors.items()}
        values |= {"dtype": "bfloat16"}
    if kind == "model":
        # A buffer of old checkpoints that holds no weight.
        name = "vision_model.embeddings.position_ids"
        tensors = tensors | {name: np.arange(5, dtype=np.int64)[None]}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "preprocessor_config.json").write_bytes(b'{"do_resize" : true}\r\n')
    (folder / "tokenizer.json").write_bytes('{"é": "\\u00e9"}'.encode())
    (folder / "optimizer.bin").write_bytes(b"not for an export")
    shards.write_state(
        folder, tensors, max_shard_size=200_000 if kind == "sharded" else "5GB"
    )
    return folder
