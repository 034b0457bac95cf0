"""The files around the weights of an exported model: sizes, preprocessing, tokenizer.

What lies in the folder of the base is taken byte for byte; the rest is made from the
sizes as far as they decide it. A tokenizer is never made.
"""

import json
from collections.abc import Mapping
from typing import Any

from adarank_jax.checkpoints import clip_config
from adarank_jax.checkpoints.clip import ClipCheckpoint


def config(base: ClipCheckpoint, dtype: str | None = None) -> bytes:
    """Returns config.json: the base's own, as far as it stays true.

    Args:
        base: checkpoint that is exported.
        dtype: that its weights are rounded to; None if they are not.

    Raises:
        ValueError: no class of transformers pools as the base does.
    """
    file = _folder(base) / "config.json"
    is_own = base.layout.kind == "hugging_face" and file.is_file()
    if is_own and dtype is None:
        return _read_inside(file)
    values = json.loads(_read_inside(file)) if is_own else new_config(base.config)
    dtype = dtype or (None if base.layout.dtype == "mixed" else base.layout.dtype)
    values.pop("torch_dtype", None)
    return to_json(values | ({"dtype": dtype} if dtype else {}))


def new_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the config.json of a model that had none.

    Args:
        config: fields of the towers; without a text tower it becomes that of a
            CLIPVisionModelWithProjection.

    Raises:
        ValueError: no class of transformers pools as the image tower does.
    """
    if config["text"] is not None:
        return clip_config.to_hugging_face_config(config)
    vision = config["vision"]
    if vision["pooling"] != "class_token":
        raise ValueError(
            "CLIPVisionModelWithProjection pools the class token, but the image tower "
            f"pools by {vision['pooling']!r}; such a model cannot be exported."
        )
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_act": vision["activation"],
        "hidden_size": vision["width"],
        "image_size": vision["image_size"],
        "intermediate_size": vision["mlp_width"] or 4 * vision["width"],
        "layer_norm_eps": vision["layer_norm_epsilon"],
        "num_attention_heads": vision["num_heads"],
        "num_channels": 3,
        "num_hidden_layers": vision["num_layers"],
        "patch_size": vision["patch_size"],
        "projection_dim": vision["output_size"],
    }


def open_clip_config(base: ClipCheckpoint) -> bytes:
    """Returns open_clip_config.json: the base's own, or one made from the sizes.

    Args:
        base: checkpoint that is exported.

    Raises:
        ValueError: open_clip has no such model.
    """
    file = _folder(base) / "open_clip_config.json"
    if base.layout.kind == "open_clip" and file.is_file():
        return _read_inside(file)
    return to_json(clip_config.to_open_clip_config(base.config))


def beside(base: ClipCheckpoint) -> dict[str, bytes]:
    """Returns preprocessing and tokenizer files by name, as they lie in the base.

    Args:
        base: checkpoint that is exported; if it has no description of preprocessing,
            CLIP's is written for its image size.

    Raises:
        ValueError: a file is a link that leads out of the folder.
    """
    folder = _folder(base)
    copied = {n: _read_inside(folder / n) for n in _BESIDE if (folder / n).is_file()}
    if not copied.keys() & {"preprocessor_config.json", "processor_config.json"}:
        copied["preprocessor_config.json"] = to_json(_preprocessing(base))
    return copied


def _preprocessing(base):
    """Describes CLIP's preprocessing: resize the shorter side, crop, normalise."""
    side, own = base.config["vision"]["image_size"], {}
    file = _folder(base) / "open_clip_config.json"
    if base.layout.kind == "open_clip" and file.is_file():
        own = json.loads(_read_inside(file)).get("preprocess_cfg", {})
    return {
        "crop_size": {"height": side, "width": side},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(own.get("mean", _MEAN)),
        "image_processor_type": "CLIPImageProcessor",
        "image_std": list(own.get("std", _STD)),
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": side},
    }


def _folder(base):
    """Returns the folder that the weights of the base lie in."""
    return base.state.files[0].parent


def _read_inside(file):
    """Reads a file, unless it is a link that leads out of its folder and Hub cache."""
    real, roots = file.resolve(), [file.parent.resolve()]
    roots += [
        p.parent.resolve() / "blobs" for p in file.parents if p.name == "snapshots"
    ]
    if not any(real.is_relative_to(root) for root in roots):
        raise ValueError(
            f"`{file}` is a link to `{real}`, outside the folder of the model; put the "
            "file itself there."
        )
    return real.read_bytes()


def to_json(values: Mapping[str, Any]) -> bytes:
    """Writes plain values as JSON that people can read."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


_BESIDE = (
    *("preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.json", "merges.txt", "added_tokens.json"),
)
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
