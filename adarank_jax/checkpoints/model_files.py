"""The files around the weights of an exported model: sizes, preprocessing, tokenizer.

What lies in the folder of the base is taken byte for byte; the rest is made from the
sizes as far as they decide it. A tokenizer is never made.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from adarank_jax import errors
from adarank_jax.checkpoints import clip_config, formats
from adarank_jax.checkpoints.clip import ClipCheckpoint
from adarank_jax.checkpoints.model_folder import read_inside, to_json, without_name


def config(base: ClipCheckpoint, dtype: str | None = None) -> bytes:
    """Returns config.json: the base's own, as far as it stays true.

    Args:
        base: checkpoint that is exported.
        dtype: that its weights are rounded to; None if they are not.

    Raises:
        InputError: no class of transformers pools as the base does.
    """
    file = _folder(base) / "config.json"
    is_own = base.layout.kind == "hugging_face" and file.is_file()
    values = formats.read_json(file) if is_own else new_config(base.config)
    own, values = values, without_name(values)
    if is_own and dtype is None and own == values:
        return read_inside(file)
    if not is_own:
        dtype = dtype or (None if base.layout.dtype == "mixed" else base.layout.dtype)
    if dtype:
        values.pop("torch_dtype", None)
        values["dtype"] = dtype
    return to_json(values)


def new_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the config.json of a model that had none.

    Args:
        config: fields of the towers; without a text tower it becomes that of a
            CLIPVisionModelWithProjection.

    Raises:
        InputError: no class of transformers pools as the image tower does.
    """
    if config["text"] is not None:
        return clip_config.to_hugging_face_config(config)
    vision = config["vision"]
    if vision["pooling"] != "class_token":
        raise errors.InputError(
            "E202",
            "CLIPVisionModelWithProjection pools the class token, but the image tower "
            f"pools by {vision['pooling']!r}",
            remedy="switch the export off, as such a model cannot be exported",
        )
    fields = clip_config.hugging_face_fields("vision", vision)
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "num_channels": 3,
        **fields,
    }


def open_clip_config(base: ClipCheckpoint) -> bytes:
    """Returns open_clip_config.json: the base's own, or one made from the sizes.

    Args:
        base: checkpoint that is exported.

    Raises:
        InputError: open_clip has no such model.
    """
    file = _folder(base) / "open_clip_config.json"
    images = _to_open_clip(preprocessing(base))
    if base.layout.kind != "open_clip" or not file.is_file():
        return to_json(clip_config.to_open_clip_config(base.config, images))
    content = read_inside(file)
    values = formats.read_json(file)
    own = values.get("preprocess_cfg") or {}
    if all(own.get(key, usual) == images[key] for key, usual in _OPEN_CLIP.items()):
        return content
    return to_json(values | {"preprocess_cfg": own | images})


def beside(base: ClipCheckpoint) -> dict[str, bytes]:
    """Returns preprocessing and tokenizer files by name, as they lie in the base.

    Args:
        base: checkpoint that is exported; if it has no description of preprocessing
            for transformers, one is made from `preprocessing`.

    Raises:
        InputError: a file is a link that leads out of the folder, or no preprocessing
            that can be written.
    """
    folder = _folder(base)
    copied = {n: read_inside(folder / n) for n in _BESIDE if (folder / n).is_file()}
    file = preprocessing_file(base)
    if file is None or file.name not in copied:
        copied["preprocessor_config.json"] = to_json(preprocessing(base))
    return copied


def preprocessing(base: ClipCheckpoint) -> dict[str, Any]:
    """Returns what turns a picture into what the image tower of a base takes.

    What is measured and what is exported both follow it.

    Args:
        base: checkpoint, with the files that lie beside its weights.

    Returns:
        What the base's file for transformers holds; else what its file for open_clip
        says, in the same words; else CLIP's preprocessing for its image size.

    Raises:
        InputError: a file is no JSON object, or asks open_clip for another kind of
            resizing than CLIP's.
    """
    file, side = preprocessing_file(base), base.config["vision"]["image_size"]
    if file is None:
        return clip_preprocessing(side)
    values = formats.read_json(file)
    if file.name != "open_clip_config.json":
        return values.get("image_processor", values)
    given = _OPEN_CLIP | {k: v for k, v in values["preprocess_cfg"].items() if v}
    for key in ("resize_mode", "interpolation"):
        if given[key] not in (known := _KNOWN[key]):
            raise errors.InputError(
                *("E142", f"it has 'preprocess_cfg' with {key!r} {given[key]!r}"),
                *(f"`{file}`", f"one of {[*known]}"),
                remedy="put a preprocessor_config.json beside it",
            )
    made = clip_preprocessing(side, given["mean"], given["std"])
    made["resample"] = _KNOWN["interpolation"][given["interpolation"]]
    if given["resize_mode"] == "squash":
        made |= {"do_center_crop": False, "size": {"height": side, "width": side}}
    return made


def preprocessing_file(base: ClipCheckpoint) -> pathlib.Path | None:
    """Returns the file that `preprocessing` follows; None if the base has none.

    Args:
        base: checkpoint, with the files that lie beside its weights.

    Raises:
        InputError: a file is no JSON object.
    """
    keys = {"processor_config.json": "image_processor"}
    keys["open_clip_config.json"] = "preprocess_cfg"
    for name in ("preprocessor_config.json", *keys):
        file = _folder(base) / name
        if not file.is_file():
            continue
        if name not in keys or isinstance(
            formats.read_json(file).get(keys[name]), Mapping
        ):
            return file
    return None


def clip_preprocessing(
    side: int,
    mean: Sequence[float] = clip_config.MEAN,
    std: Sequence[float] = clip_config.STD,
) -> dict[str, Any]:
    """Describes CLIP's preprocessing: resize the shorter side, crop, normalise.

    Args:
        side: of the square that the image tower takes.
        mean: of each channel.
        std: of each channel.

    Returns:
        What a preprocessor_config.json holds.

    Examples:
        >>> clip_preprocessing(32)["size"]
        {'shortest_edge': 32}
    """
    return {
        "crop_size": {"height": side, "width": side},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [*mean],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [*std],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": side},
    }


def _to_open_clip(values):
    """Says in the words of open_clip what it has words for."""
    is_normal = values.get("do_normalize", True)
    size, names = values.get("size"), {v: k for k, v in _KNOWN["interpolation"].items()}
    is_squashed = isinstance(size, Mapping) and "shortest_edge" not in size
    return {
        "mean": values.get("image_mean", clip_config.MEAN) if is_normal else [0.0] * 3,
        "std": values.get("image_std", clip_config.STD) if is_normal else [1.0] * 3,
        "interpolation": names.get(values.get("resample", 3), "bicubic"),
        "resize_mode": "squash" if is_squashed else "shortest",
    }


def _folder(base):
    """Returns the folder that the weights of the base lie in."""
    return base.state.files[0].parent


_BESIDE = (
    *("preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.json", "merges.txt", "added_tokens.json"),
)
# What open_clip takes where a file says nothing, and the words that it has.
_OPEN_CLIP = {
    "mean": clip_config.MEAN,
    "std": clip_config.STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
_KNOWN: dict[str, dict[str, int]] = {
    "resize_mode": {"shortest": 0, "squash": 0},
    "interpolation": {"bilinear": 2, "random": 3, "bicubic": 3},
}
