"""The configuration of a CLIP model <-> the JSON files of two libraries.

A configuration here is ``{"vision": {...}, "text": {...}, "inferred": (...)}``. The
fields of a tower are those of `ClipVisionConfig` and `ClipTextConfig`; a tower that is
not there is None; ``inferred`` names those fields, as ``vision/activation``, that no
file states and the weights cannot show.
"""

from collections.abc import Mapping
from typing import Any

from adarank_jax import errors

Config = dict[str, Any]
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
"""Mean and deviation of each channel that CLIP was trained with."""


def from_hugging_face(values: Mapping[str, Any], where: str = "config.json") -> Config:
    """Reads a ``config.json`` of `CLIPConfig`, `CLIPVisionConfig` or `CLIPTextConfig`.

    Args:
        values: the parsed file; missing fields have the defaults of the library.
        where: what to call it in messages.

    Returns:
        The configuration.

    Raises:
        InputError: the model needs code of its own, is quantised or is no CLIP, or a
            value is not supported.

    Examples:
        >>> config = from_hugging_face({"model_type": "clip_vision_model"})
        >>> config["vision"]["width"], config["vision"]["output_size"], config["text"]
        (768, 512, None)
    """
    nested = [values.get("vision_config"), values.get("text_config")]
    for key, (code, reason, remedy) in _REFUSED.items():
        if any(
            part.get(key) for part in (values, *nested) if isinstance(part, Mapping)
        ):
            found = f"it has the key {key!r}: {reason}"
            raise errors.InputError(code, found, where, remedy=remedy)
    kind = values.get("model_type", "clip" if "vision_config" in values else None)
    if kind == "clip":
        parts = {}
        for tower in ("vision", "text"):
            # Old files repeat a tower under a second key, which the library obeys.
            parts[tower] = _object(values, f"{tower}_config", where)
            parts[tower] |= _object(values, f"{tower}_config_dict", where)
            parts[tower]["projection_dim"] = values.get("projection_dim", 512)
    elif kind in ("clip_vision_model", "clip_text_model"):
        parts = {kind.split("_")[1]: values}
    else:
        raise errors.InputError(
            *("E141", f"it has 'model_type' {kind!r}", where),
            expected="'clip', 'clip_vision_model' or 'clip_text_model'",
            remedy="give a CLIP model with a vision transformer",
        )
    config: Config = {"vision": None, "text": None, "inferred": ()}
    for tower, part in parts.items():
        part = {key: value for key, value in part.items() if value is not None}
        config[tower] = _fields(part, _HUGGING_FACE[tower], where, f"{tower}_config.")
        config[tower] |= {"qkv": "fused", "pooling": "class_token"}
        if tower == "text":
            config[tower] |= _end_token(part, config[tower], where)
        elif part.get("num_channels", 3) != 3:
            raise errors.InputError(
                *("E142", f"it has 'num_channels' {part['num_channels']!r}", where),
                *("3", "take a model of RGB images"),
            )
    return config


def to_hugging_face_config(config: Config) -> dict[str, Any]:
    """Writes the ``config.json`` of a whole `CLIPModel`.

    Args:
        config: with both towers.

    Returns:
        What the JSON file shall hold.

    Raises:
        InputError: a tower is missing, or pools in a way that `CLIPModel` does not.
    """
    vision, text = _both(config)
    if vision["pooling"] != "class_token":
        raise errors.InputError(
            "E202",
            "CLIPModel takes the class token, but this image tower pools by "
            f"{vision['pooling']!r}",
            remedy="write it in the layout of open_clip",
        )
    end = 2 if text["pooling"] == "argmax" else text["end_token"]
    parts = {
        tower: hugging_face_fields(tower, config[tower]) for tower in _HUGGING_FACE
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": vision["output_size"],
        "vision_config": {"model_type": "clip_vision_model"} | parts["vision"],
        "text_config": {"model_type": "clip_text_model"}
        | parts["text"]
        | {"bos_token_id": max(text["end_token"] - 1, 0), "eos_token_id": end},
    }


def hugging_face_fields(tower: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Names the fields of a tower as a ``config.json`` does.

    Args:
        tower: ``vision`` or ``text``.
        fields: of the tower.
    """
    named = {theirs: fields[ours] for ours, theirs, _ in _HUGGING_FACE[tower]}
    return named | {"intermediate_size": fields["mlp_width"] or 4 * fields["width"]}


def from_open_clip(
    values: Mapping[str, Any], where: str = "open_clip_config.json"
) -> Config:
    """Reads an ``open_clip_config.json``, or the model's part of it.

    Args:
        values: the parsed file; missing fields have the defaults of the library.
        where: what to call it in messages.

    Returns:
        The configuration.

    Raises:
        InputError: the model has parts that are not supported.

    Examples:
        >>> model = {"embed_dim": 512, "vision_cfg": {"patch_size": 32}, "text_cfg": {}}
        >>> config = from_open_clip({"model_cfg": model | {"quick_gelu": True}})
        >>> config["vision"]["activation"], config["text"]["width"]
        ('quick_gelu', 512)
    """
    model = _object(values, "model_cfg", where) or values
    for key in ("embed_dim", "vision_cfg", "text_cfg"):
        if key not in model:
            raise errors.InputError(
                *("E143", f"it must have the key {key!r} in 'model_cfg'", where),
                remedy="get it again",
            )
    _check_plain(model, where, "")
    size = _checked(model["embed_dim"], 1, where, "embed_dim")
    shared = {
        "output_size": size,
        "activation": "quick_gelu" if model.get("quick_gelu") else "gelu",
        "qkv": "fused",
    }
    config: Config = {"inferred": ()}
    for tower in _OPEN_CLIP:
        part = _object(model, f"{tower}_cfg", where)
        part = {name: value for name, value in part.items() if value is not None}
        config[tower] = _open_clip_tower(tower, part, where) | shared
    return config


def to_open_clip_config(
    config: Config, images: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes the ``open_clip_config.json`` of a whole model.

    Args:
        config: with both towers.
        images: what ``preprocess_cfg`` shall be; None to normalise as CLIP does.

    Returns:
        What the JSON file shall hold.

    Raises:
        InputError: a tower is missing, or the two differ in the activation, for which
            open_clip has one switch.
    """
    vision, text = _both(config)
    if vision["activation"] != text["activation"]:
        raise errors.InputError(
            "E202",
            "open_clip has one activation for both towers, but the image tower has "
            f"{vision['activation']!r} and the text tower {text['activation']!r}",
            remedy="write the model in the layout of Hugging Face",
        )
    model = {
        "embed_dim": vision["output_size"],
        "quick_gelu": vision["activation"] == "quick_gelu",
    }
    for tower, table in _OPEN_CLIP.items():
        part = {theirs: config[tower][ours] for ours, theirs, _ in table}
        if config[tower]["mlp_width"] != 4 * config[tower]["width"]:
            part["mlp_ratio"] = config[tower]["mlp_width"] / config[tower]["width"]
        if config[tower]["layer_norm_epsilon"] != 1e-5:
            part["norm_kwargs"] = {"eps": config[tower]["layer_norm_epsilon"]}
        model[f"{tower}_cfg"] = part
    model["vision_cfg"]["head_width"] = vision["width"] // vision["num_heads"]
    if vision["pooling"] == "average":
        model["vision_cfg"]["pool_type"] = "avg"
    # The end token of CLIP has the highest id, which is what open_clip looks for.
    is_last = text["end_token"] == text["vocabulary_size"] - 1
    if text["pooling"] == "end_token" and not is_last:
        model["text_cfg"] |= {"pool_type": "eos", "eos_id": text["end_token"]}
    images = images or {"mean": MEAN, "std": STD}
    return {"model_cfg": model, "preprocess_cfg": dict(images)}


def _both(config):
    """Returns both towers, or says which one is missing."""
    for tower, name in (("vision", "image"), ("text", "text")):
        if config[tower] is None or config[tower]["output_size"] is None:
            raise errors.InputError(
                "E202",
                f"a whole CLIP model needs a {name} tower with its projection, but "
                "there is none",
                remedy="start from a checkpoint that holds both towers",
            )
    return config["vision"], config["text"]


def _open_clip_tower(tower, part, where):
    """Reads one tower of an open_clip configuration."""
    key = f"{tower}_cfg."
    _check_plain(part, where, key)
    config = _fields(part, _OPEN_CLIP[tower], where, key)
    ratio = _checked(part.get("mlp_ratio", 4.0), 4.0, where, f"{key}mlp_ratio")
    config["mlp_width"] = int(config["width"] * ratio)
    norm = _object(part, "norm_kwargs", where)
    config["layer_norm_epsilon"] = _checked(norm.pop("eps", 1e-5), 1e-5, where, "eps")
    if norm:
        raise errors.InputError(
            *("E142", f"it has '{key}norm_kwargs' {norm}", where),
            *("'eps' and nothing else", _PLAIN),
        )
    pools, default = _POOLS[tower]
    pool = part.get("pool_type", default)
    if not isinstance(pool, str) or pool not in pools:
        raise errors.InputError(
            *("E142", f"it has '{key}pool_type' {pool!r}", where),
            *(f"one of {sorted(pools)}", _PLAIN),
        )
    config["pooling"] = pools[pool]
    if tower == "vision":
        head = _checked(part.get("head_width", 64), 1, where, f"{key}head_width")
        config["num_heads"] = config["width"] // head
    else:
        end = part.get("eos_id", 2) if pool == "eos" else config["vocabulary_size"] - 1
        config["end_token"] = end
    if pool == "avg" and part.get("final_ln_after_pool"):
        raise errors.InputError(
            "E142",
            f"it has '{key}final_ln_after_pool' with average pooling, which is not "
            "supported",
            where=where,
            remedy="take a model whose norm comes before the average",
        )
    return config


def _object(values, key, where):
    """Reads a JSON object; none is as good as an empty one."""
    value = values.get(key) or {}
    if not isinstance(value, Mapping):
        raise errors.InputError(
            *("E143", f"it has {key!r} {value!r}", where, "a JSON object"),
            remedy="get it again",
        )
    return dict(value)


def _fields(part, table, where, key) -> dict[str, Any]:
    """Reads the fields of a table, or their defaults."""
    return {
        ours: _checked(part.get(theirs, default), default, where, f"{key}{theirs}")
        for ours, theirs, default in table
    }


def _checked(value, default, where, key) -> Any:
    """Checks that a value is of the kind of its default."""
    if isinstance(default, str):
        if value not in _ACTIVATIONS:
            raise errors.InputError(
                *("E142", f"it has '{key}' {value!r}", where),
                *(f"one of {_ACTIVATIONS}", _PLAIN),
            )
        return value
    is_side = key.endswith(("image_size", "patch_size"))
    if (
        is_side
        and isinstance(value, list)
        and value
        and value == value[:1] * len(value)
    ):
        value = value[0]
    kinds = (int, float) if isinstance(default, float) else int
    if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
        kind = "number" if isinstance(default, float) else "integer"
        raise errors.InputError(
            *("E143", f"it has '{key}' {value!r}", where),
            expected=f"a positive {kind}{' or two equal ones' if is_side else ''}",
            remedy="get it again",
        )
    return value


def _end_token(part, fields, where):
    """Tells where the text tower is read out."""
    end = part.get("eos_token_id", 49407)
    if end == 2:
        # Files from before the library knew the real id; the highest id is taken then.
        return {"pooling": "argmax", "end_token": fields["vocabulary_size"] - 1}
    key = "text_config.eos_token_id"
    return {"pooling": "end_token", "end_token": _checked(end, 1, where, key)}


def _check_plain(part, where, key):
    """Refuses what changes a model in a way that is not supported."""
    for name, value in part.items():
        is_usual = name in _USUAL and value == _USUAL[name]
        if value and name not in _KNOWN and not is_usual:
            found = f"it has '{key}{name}' {value!r}, which is not supported"
            raise errors.InputError("E142", found, where, remedy=_PLAIN)


_ACTIVATIONS = ("gelu", "quick_gelu")
_REFUSED = {
    "auto_map": (
        "E140",
        "the model needs Python code from its repository, which is never run",
        "take one of the library's own CLIP classes",
    ),
    "quantization_config": (
        "E116",
        "the weights are quantised",
        "dequantise them first",
    ),
}
_PLAIN = "take a plain vision and text transformer"
_POOLS = {
    "vision": ({"tok": "class_token", "avg": "average"}, "tok"),
    "text": ({"argmax": "argmax", "eos": "end_token"}, "argmax"),
}

# Ours, theirs, the default of the library.
_HUGGING_FACE = {
    "vision": (
        ("image_size", "image_size", 224),
        ("patch_size", "patch_size", 32),
        ("width", "hidden_size", 768),
        ("num_layers", "num_hidden_layers", 12),
        ("num_heads", "num_attention_heads", 12),
        ("output_size", "projection_dim", 512),
        ("layer_norm_epsilon", "layer_norm_eps", 1e-5),
        ("activation", "hidden_act", "quick_gelu"),
        ("mlp_width", "intermediate_size", 3072),
    ),
    "text": (
        ("vocabulary_size", "vocab_size", 49408),
        ("context_length", "max_position_embeddings", 77),
        ("width", "hidden_size", 512),
        ("num_layers", "num_hidden_layers", 12),
        ("num_heads", "num_attention_heads", 8),
        ("output_size", "projection_dim", 512),
        ("layer_norm_epsilon", "layer_norm_eps", 1e-5),
        ("activation", "hidden_act", "quick_gelu"),
        ("mlp_width", "intermediate_size", 2048),
    ),
}
_OPEN_CLIP = {
    "vision": (
        ("image_size", "image_size", 224),
        ("patch_size", "patch_size", 16),
        ("width", "width", 768),
        ("num_layers", "layers", 12),
    ),
    "text": (
        ("vocabulary_size", "vocab_size", 49408),
        ("context_length", "context_length", 77),
        ("width", "width", 512),
        ("num_layers", "layers", 12),
        ("num_heads", "heads", 8),
    ),
}

# Keys of open_clip that are read above, or that change nothing at inference.
_KNOWN = {
    *(
        "embed_dim",
        "quick_gelu",
        "vision_cfg",
        "text_cfg",
        "custom_text",
        "output_dict",
    ),
    *("init_logit_scale", "patch_dropout", "output_tokens", "pad_id", "eos_id"),
    *("image_size", "patch_size", "width", "layers", "head_width", "heads"),
    *("mlp_ratio", "vocab_size", "context_length", "norm_kwargs", "pool_type"),
    *("final_ln_after_pool", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"),
    *(
        "timm_pool",
        "timm_proj",
        "hf_proj_type",
        "hf_pooler_type",
        "hf_model_pretrained",
    ),
    *("attn_pooler_queries", "attn_pooler_heads", "n_queries"),
}
_USUAL = {"pos_embed_type": "learnable", "proj_type": "linear", "block_type": "default"}
