"""The sizes of a CLIP model, read from the JSON of two libraries, or from the weights.

A configuration here is ``{"vision": {...}, "text": {...} or None, "inferred": (...)}``;
its fields are those of `ClipVisionConfig` and `ClipTextConfig`, and ``inferred`` lists
those, as ``vision/activation``, that no file stated and the weights cannot show.
"""

import math
from collections.abc import Mapping
from typing import Any

Config = dict[str, Any]


def from_hugging_face(values: Mapping[str, Any], where: str = "config.json") -> Config:
    """Reads a ``config.json`` of `CLIPConfig`, `CLIPVisionConfig` or `CLIPTextConfig`.

    Args:
        values: the parsed file; missing fields have the defaults of the library.
        where: what to call it in messages.

    Returns:
        The configuration; a tower that the file does not describe is None.

    Raises:
        ValueError: the model needs code of its own, is quantised or is no CLIP, or a
            value is not supported.

    Examples:
        >>> config = from_hugging_face({"model_type": "clip_vision_model"})
        >>> config["vision"]["width"], config["vision"]["output_size"], config["text"]
        (768, 512, None)
    """
    for key, reason in _REFUSED.items():
        parts = (values, values.get("vision_config"), values.get("text_config"))
        if any(part and part.get(key) for part in parts):
            raise ValueError(f"{where} has the key {key!r}: {reason}.")
    kind = values.get("model_type", "clip" if "vision_config" in values else None)
    if kind not in ("clip", "clip_vision_model", "clip_text_model"):
        raise ValueError(
            f"{where} has 'model_type' {kind!r}, expected 'clip', 'clip_vision_model' or "
            "'clip_text_model'; only CLIP with a vision transformer can be read."
        )
    parts = {"vision": None, "text": None}
    if kind == "clip":
        for tower in parts:
            part = dict(values.get(f"{tower}_config") or {})
            part |= values.get(f"{tower}_config_dict") or {}
            parts[tower] = part | {"projection_dim": values.get("projection_dim", 512)}
    else:
        parts["vision" if kind == "clip_vision_model" else "text"] = dict(values)
    config: Config = {"inferred": ()}
    for tower, part in parts.items():
        config[tower] = None
        if part is not None:
            config[tower] = _hugging_face_tower(tower, part, where)
    return config


def from_open_clip(
    values: Mapping[str, Any], where: str = "open_clip_config.json"
) -> Config:
    """Reads an ``open_clip_config.json`` or the model part of it.

    Args:
        values: the parsed file.
        where: what to call it in messages.

    Returns:
        The configuration.

    Raises:
        ValueError: the model has parts that are not supported.

    Examples:
        >>> model = {"embed_dim": 512, "vision_cfg": {"patch_size": 32}, "text_cfg": {}}
        >>> config = from_open_clip({"model_cfg": model | {"quick_gelu": True}})
        >>> config["vision"]["activation"], config["text"]["width"]
        ('quick_gelu', 512)
    """
    model = values.get("model_cfg", values)
    for key in ("embed_dim", "vision_cfg", "text_cfg"):
        if key not in model:
            raise ValueError(f"{where} must have the key {key!r} in 'model_cfg'.")
    vision = _OPEN_CLIP_VISION | model["vision_cfg"]
    text = _OPEN_CLIP_TEXT | model["text_cfg"]
    for name, part, known in (
        ("model_cfg", model, _OPEN_CLIP_MODEL),
        ("vision_cfg", vision, _OPEN_CLIP_VISION),
        ("text_cfg", text, _OPEN_CLIP_TEXT),
    ):
        _check_neutral(name, part, known, where)
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    pooling = _choice(where, "vision_cfg.pool_type", vision["pool_type"], _VISION_POOLS)
    if pooling == "average" and vision["final_ln_after_pool"]:
        raise ValueError(
            f"{where} has 'final_ln_after_pool' with average pooling, which is not "
            "supported; the norm must come before the average."
        )
    width, heads = vision["width"], vision["width"] // vision["head_width"]
    return {
        "inferred": (),
        "vision": {
            "image_size": _side(where, "vision_cfg.image_size", vision["image_size"]),
            "patch_size": _side(where, "vision_cfg.patch_size", vision["patch_size"]),
            "width": _count(where, "vision_cfg.width", width),
            "num_layers": _count(where, "vision_cfg.layers", vision["layers"]),
            "num_heads": _count(where, "vision_cfg.head_width", heads),
            "output_size": _count(where, "embed_dim", model["embed_dim"]),
            "layer_norm_epsilon": _epsilon(where, "vision_cfg", vision),
            "activation": activation,
            "mlp_width": int(width * vision["mlp_ratio"]),
            "qkv": "fused",
            "pooling": pooling,
        },
        "text": {
            "vocabulary_size": _count(where, "text_cfg.vocab_size", text["vocab_size"]),
            "context_length": _count(
                where, "text_cfg.context_length", text["context_length"]
            ),
            "width": _count(where, "text_cfg.width", text["width"]),
            "num_layers": _count(where, "text_cfg.layers", text["layers"]),
            "num_heads": _count(where, "text_cfg.heads", text["heads"]),
            "output_size": _count(where, "embed_dim", model["embed_dim"]),
            "layer_norm_epsilon": _epsilon(where, "text_cfg", text),
            "activation": activation,
            "mlp_width": int(text["width"] * text["mlp_ratio"]),
            "qkv": "fused",
            "pooling": _choice(
                where, "text_cfg.pool_type", text["pool_type"], _TEXT_POOLS
            ),
            "end_token": text["eos_id"]
            if text["pool_type"] == "eos"
            else text["vocab_size"] - 1,
        },
    }


def infer(
    shapes: Mapping[str, tuple[int, ...]],
    base: Config | None = None,
    where: str = "the state dict",
) -> Config:
    """Reads the sizes off the shapes of the weights.

    Args:
        shapes: by path, as `clip_names.shapes` returns them.
        base: configuration of the base; what weights do not show comes from it.
            Without it QuickGELU, epsilon 1e-5 and heads of 64, as OpenAI has them.
        where: what to call the weights in messages.

    Returns:
        The configuration; ``inferred`` lists what was not to be seen.

    Raises:
        ValueError: the patches do not form a square, or the heads cannot be told.
    """
    config: Config = {"inferred": (), "vision": None, "text": None}
    if "vision/class_embedding" in shapes:
        width = shapes["vision/class_embedding"][0]
        patch = math.isqrt(shapes["vision/conv1/kernel"][0] // 3)
        num_patches = shapes["vision/positional_embedding"][0] - 1
        if math.isqrt(num_patches) ** 2 != num_patches:
            raise ValueError(
                f"{where} has {num_patches} positions for patches, which is no square; "
                "only square images can be read."
            )
        config["vision"] = {
            "image_size": math.isqrt(num_patches) * patch,
            "patch_size": patch,
            **_inferred_tower("vision", shapes, width, base, where),
            "output_size": shapes.get("vision/proj", (0, None))[1],
        }
    if "text/token_embedding/embedding" in shapes:
        vocabulary_size, width = shapes["text/token_embedding/embedding"]
        config["text"] = {
            "vocabulary_size": vocabulary_size,
            "context_length": shapes["text/positional_embedding"][0],
            **_inferred_tower("text", shapes, width, base, where),
            "output_size": shapes.get("text/text_projection", (0, None))[1],
        }
    config["inferred"] = tuple(
        f"{tower}/{field}"
        for tower in ("vision", "text")
        if config[tower]
        for field in _UNSEEN[tower]
    )
    return config


def shapes_of(config: Config) -> dict[str, tuple[int, ...]]:
    """Lists the shapes that the tensors of a configuration have.

    Args:
        config: as `infer` or one of the readers returns it.

    Returns:
        Shape by path, query, key and value as one; without projections whose size is
        not known.
    """
    found = {}
    for tower in ("vision", "text"):
        part = config[tower]
        if part is None:
            continue
        width, mlp = part["width"], part["mlp_width"]
        if tower == "vision":
            patch, side = part["patch_size"], part["image_size"] // part["patch_size"]
            found |= {
                "vision/class_embedding": (width,),
                "vision/conv1/kernel": (3 * patch**2, width),
                "vision/positional_embedding": (side**2 + 1, width),
            }
        else:
            found["text/token_embedding/embedding"] = (part["vocabulary_size"], width)
            found["text/positional_embedding"] = (part["context_length"], width)
        for name in ("ln_pre", "ln_post") if tower == "vision" else ("ln_final",):
            found |= {f"{tower}/{name}/{x}": (width,) for x in ("scale", "bias")}
        for i in range(part["num_layers"]):
            block = f"{tower}/resblocks_{i}"
            for name in ("ln_1", "ln_2"):
                found |= {f"{block}/{name}/{x}": (width,) for x in ("scale", "bias")}
            for name, rows, cols in (
                ("attn/in_proj", width, 3 * width),
                ("attn/out_proj", width, width),
                ("mlp/c_fc", width, mlp),
                ("mlp/c_proj", mlp, width),
            ):
                found[f"{block}/{name}/kernel"] = (rows, cols)
                found[f"{block}/{name}/bias"] = (cols,)
        if part["output_size"]:
            name = "proj" if tower == "vision" else "text_projection"
            found[f"{tower}/{name}"] = (width, part["output_size"])
    return found


def to_hugging_face_config(config: Config) -> dict[str, Any]:
    """Writes the ``config.json`` of a whole `CLIPModel`.

    Args:
        config: with both towers.

    Returns:
        What the JSON file shall hold.

    Raises:
        ValueError: a tower is missing, or pools in a way that `CLIPModel` does not.
    """
    vision, text = _both(config)
    if vision["pooling"] != "class_token":
        raise ValueError(
            f"CLIPModel pools the class token, but the image tower pools by "
            f"{vision['pooling']!r}; export it in the layout of open_clip."
        )
    end_token = 2 if text["pooling"] == "argmax" else text["end_token"]
    shared = {
        "vision_config": {
            "model_type": "clip_vision_model",
            "num_channels": 3,
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            **_hugging_face_sizes(vision),
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": text["vocabulary_size"],
            "max_position_embeddings": text["context_length"],
            "bos_token_id": 0 if end_token == 2 else text["end_token"] - 1,
            "eos_token_id": end_token,
            **_hugging_face_sizes(text),
        },
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": vision["output_size"],
        "logit_scale_init_value": 2.6592,
        **shared,
    }


def to_open_clip_config(config: Config) -> dict[str, Any]:
    """Writes the ``open_clip_config.json`` of a whole model.

    Args:
        config: with both towers.

    Returns:
        What the JSON file shall hold; the normalisation of images is CLIP's.

    Raises:
        ValueError: a tower is missing, or the two differ in the activation, for which
            open_clip has one switch.
    """
    vision, text = _both(config)
    if vision["activation"] != text["activation"]:
        raise ValueError(
            f"open_clip has one activation for both towers, but the image tower has "
            f"{vision['activation']!r} and the text tower {text['activation']!r}; "
            "export the model in the layout of Hugging Face."
        )
    parts = {
        "vision_cfg": {
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "layers": vision["num_layers"],
            "width": vision["width"],
            "head_width": vision["width"] // vision["num_heads"],
        },
        "text_cfg": {
            "context_length": text["context_length"],
            "vocab_size": text["vocabulary_size"],
            "width": text["width"],
            "heads": text["num_heads"],
            "layers": text["num_layers"],
        },
    }
    if vision["pooling"] == "average":
        parts["vision_cfg"]["pool_type"] = "avg"
    last = text["vocabulary_size"] - 1
    if text["pooling"] == "end_token" and text["end_token"] != last:
        parts["text_cfg"] |= {"pool_type": "eos", "eos_id": text["end_token"]}
    for part, tower in zip(parts.values(), (vision, text), strict=True):
        if tower["mlp_width"] != 4 * tower["width"]:
            part["mlp_ratio"] = tower["mlp_width"] / tower["width"]
        if tower["layer_norm_epsilon"] != 1e-5:
            part["norm_kwargs"] = {"eps": tower["layer_norm_epsilon"]}
    model = {"embed_dim": vision["output_size"]}
    if vision["activation"] == "quick_gelu":
        model["quick_gelu"] = True
    return {
        "model_cfg": model | parts,
        "preprocess_cfg": {"mean": list(CLIP_MEAN), "std": list(CLIP_STD)},
    }


def _both(config):
    """Returns both towers, or says which one is missing."""
    for tower, name in (("vision", "image"), ("text", "text")):
        if config[tower] is None or config[tower]["output_size"] is None:
            raise ValueError(
                f"A whole CLIP model needs a {name} tower with its projection, but the "
                "configuration has none; start from a checkpoint that holds both towers."
            )
    return config["vision"], config["text"]


def _hugging_face_tower(tower, part, where):
    """Reads one tower of a ``config.json``."""
    key = f"{tower}_config."
    part = _HUGGING_FACE[tower] | {k: v for k, v in part.items() if v is not None}
    config = {
        "width": _count(where, f"{key}hidden_size", part["hidden_size"]),
        "num_layers": _count(
            where, f"{key}num_hidden_layers", part["num_hidden_layers"]
        ),
        "num_heads": _count(
            where, f"{key}num_attention_heads", part["num_attention_heads"]
        ),
        "output_size": _count(where, "projection_dim", part["projection_dim"]),
        "layer_norm_epsilon": float(part["layer_norm_eps"]),
        "activation": _choice(
            where, f"{key}hidden_act", part["hidden_act"], _ACTIVATIONS
        ),
        "mlp_width": _count(
            where, f"{key}intermediate_size", part["intermediate_size"]
        ),
        "qkv": "fused",
    }
    if tower == "vision":
        if part["num_channels"] != 3:
            raise ValueError(
                f"{where} has '{key}num_channels' {part['num_channels']}, expected 3."
            )
        return {
            "image_size": _side(where, f"{key}image_size", part["image_size"]),
            "patch_size": _side(where, f"{key}patch_size", part["patch_size"]),
            **config,
            "pooling": "class_token",
        }
    # Id 2 stands in configs from before the library knew the real one; it then takes
    # the token with the highest id.
    is_old = part["eos_token_id"] == 2
    return {
        "vocabulary_size": _count(where, f"{key}vocab_size", part["vocab_size"]),
        "context_length": _count(
            where, f"{key}max_position_embeddings", part["max_position_embeddings"]
        ),
        **config,
        "pooling": "argmax" if is_old else "end_token",
        "end_token": part["vocab_size"] - 1
        if is_old
        else _count(where, f"{key}eos_token_id", part["eos_token_id"]),
    }


def _inferred_tower(tower, shapes, width, base, where):
    """Reads what both towers have; the rest is the base's or OpenAI's."""
    num_layers = len(
        {p for p in shapes if p.startswith(f"{tower}/") and p.endswith("c_fc/bias")}
    )
    unseen = dict(_UNSEEN[tower])
    known = base[tower] if base else None
    if known and known["width"] == width:
        unseen = {field: known[field] for field in unseen}
    elif width % 64:
        raise ValueError(
            f"{where} has width {width}, from which the number of heads cannot be told "
            "(64 numbers a head is the rule); put the config file beside it."
        )
    else:
        if known:
            unseen |= {field: known[field] for field in unseen if field != "num_heads"}
        unseen["num_heads"] = width // 64
    mlp_width = (
        shapes[f"{tower}/resblocks_0/mlp/c_fc/bias"][0] if num_layers else 4 * width
    )
    seen = {"width": width, "num_layers": num_layers, "mlp_width": mlp_width}
    return seen | unseen | {"qkv": "fused"}


def _hugging_face_sizes(part):
    """Writes what both towers have in a ``config.json``."""
    return {
        "hidden_size": part["width"],
        "intermediate_size": part["mlp_width"],
        "num_hidden_layers": part["num_layers"],
        "num_attention_heads": part["num_heads"],
        "projection_dim": part["output_size"],
        "hidden_act": part["activation"],
        "layer_norm_eps": part["layer_norm_epsilon"],
    }


def _check_neutral(name, part, known, where):
    """Refuses keys that change the model in a way that is not supported."""
    for key, value in part.items():
        if key in known or key in _HARMLESS or not value:
            continue
        raise ValueError(
            f"{where} has '{name}.{key}' {value!r}, which is not supported; only plain "
            "vision and text transformers can be read."
        )


def _choice(where, key, value, table):
    """Looks a value up, or lists the values that are known."""
    if value not in table:
        raise ValueError(
            f"{where} has '{key}' {value!r}, expected one of {sorted(table)}."
        )
    return table[value]


def _count(where, key, value):
    """Checks that a value is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{where} has '{key}' {value!r}, expected a positive integer.")
    return value


def _side(where, key, value):
    """Reads the side of a square."""
    if isinstance(value, (list, tuple)) and len({*value}) == 1:
        value = value[0]
    return _count(where, key, value)


def _epsilon(where, key, part):
    """Reads the epsilon of the norms."""
    norm = dict(part["norm_kwargs"] or {})
    epsilon = float(norm.pop("eps", 1e-5))
    if norm:
        raise ValueError(
            f"{where} has '{key}.norm_kwargs' {norm}, expected 'eps' alone."
        )
    return epsilon


CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_REFUSED = {
    "auto_map": "the model needs Python code from its repository, which is never run",
    "quantization_config": "the weights are quantised; dequantise them first",
}
_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu"}
_VISION_POOLS = {"tok": "class_token", "avg": "average"}
_TEXT_POOLS = {"argmax": "argmax", "eos": "end_token"}

_UNSEEN = {
    "vision": {
        "num_heads": None,
        "layer_norm_epsilon": 1e-5,
        "activation": "quick_gelu",
        "pooling": "class_token",
    },
    "text": {
        "num_heads": None,
        "layer_norm_epsilon": 1e-5,
        "activation": "quick_gelu",
        "pooling": "argmax",
        "end_token": 49407,
    },
}

_HUGGING_FACE = {
    "vision": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "projection_dim": 512,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_channels": 3,
        "image_size": 224,
        "patch_size": 32,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    },
    "text": {
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "projection_dim": 512,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "eos_token_id": 49407,
    },
}

_OPEN_CLIP_MODEL = {
    "embed_dim": None,
    "quick_gelu": False,
    "vision_cfg": None,
    "text_cfg": None,
}
_OPEN_CLIP_VISION = {
    "image_size": 224,
    "patch_size": 16,
    "layers": 12,
    "width": 768,
    "head_width": 64,
    "mlp_ratio": 4.0,
    "pool_type": "tok",
    "final_ln_after_pool": False,
    "norm_kwargs": None,
}
_OPEN_CLIP_TEXT = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 512,
    "heads": 8,
    "layers": 12,
    "mlp_ratio": 4.0,
    "pool_type": "argmax",
    "eos_id": 2,
    "norm_kwargs": None,
}
_HARMLESS = {"patch_dropout", "init_logit_scale", "output_dict", "custom_text"}
