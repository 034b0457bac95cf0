"""The sizes of a CLIP model and the shapes of its weights, one from the other."""

import math
from collections.abc import Mapping
from typing import Any

from adarank_jax import errors

Shapes = dict[str, tuple[int, ...]]


def infer(
    shapes: Mapping[str, tuple[int, ...]],
    base: Mapping[str, Any] | None = None,
    where: str = "the state dict",
) -> dict[str, Any]:
    """Reads the sizes off the shapes of the weights.

    Args:
        shapes: by path, as `clip_tensors.shapes` returns them.
        base: configuration of the base; what the weights cannot show comes from it.
            Without it, what OpenAI has: QuickGELU, epsilon 1e-5, heads of 64.
        where: what to call the weights in messages.

    Returns:
        The configuration, as `clip_config` has it; ``output_size`` is None without a
        projection.

    Raises:
        InputError: the patches form no square, or the heads cannot be told.
    """
    config: dict[str, Any] = {"vision": None, "text": None}
    if "vision/class_embedding" in shapes:
        patch = math.isqrt(shapes["vision/conv1/kernel"][0] // 3)
        num_patches = shapes["vision/positional_embedding"][0] - 1
        if math.isqrt(num_patches) ** 2 != num_patches:
            found = f"it has positions for {num_patches} patches, which form no square"
            raise errors.InputError(
                *("E218", found, where),
                remedy="take a model of square images",
            )
        config["vision"] = {
            "image_size": math.isqrt(num_patches) * patch,
            "patch_size": patch,
            "width": shapes["vision/class_embedding"][0],
            "output_size": shapes.get("vision/proj", (0, None))[1],
            "pooling": "class_token",
        }
    if "text/token_embedding/embedding" in shapes:
        vocabulary_size, width = shapes["text/token_embedding/embedding"]
        config["text"] = {
            "vocabulary_size": vocabulary_size,
            "context_length": shapes["text/positional_embedding"][0],
            "width": width,
            "output_size": shapes.get("text/text_projection", (0, None))[1],
            "pooling": "argmax",
            "end_token": vocabulary_size - 1,
        }
    inferred = []
    for tower, part in config.items():
        if part:
            known = base[tower] if base else None
            part |= _rest(tower, part, shapes, known or {}, where)
            inferred += [f"{tower}/{field}" for field in _UNSEEN if field in part]
    return config | {"inferred": tuple(inferred)}


def shapes_of(config: Mapping[str, Any]) -> Shapes:
    """Lists the shapes that the weights of a configuration have.

    Args:
        config: as `infer` or `clip_config` returns it.

    Returns:
        Shape by path, query, key and value as one; without a projection if its size is
        not known.
    """
    found: Shapes = {}
    vision, text = config["vision"], config["text"]
    if vision:
        width, patch = vision["width"], vision["patch_size"]
        found |= {
            "vision/class_embedding": (width,),
            "vision/conv1/kernel": (3 * patch**2, width),
            "vision/positional_embedding": (
                (vision["image_size"] // patch) ** 2 + 1,
                width,
            ),
            **_tower("vision", vision, ("ln_pre", "ln_post"), "proj"),
        }
    if text:
        width = text["width"]
        found |= {
            "text/token_embedding/embedding": (text["vocabulary_size"], width),
            "text/positional_embedding": (text["context_length"], width),
            **_tower("text", text, ("ln_final",), "text_projection"),
        }
    return found


def _rest(tower, part, shapes, known, where):
    """Finds what is inferred alike for both towers."""
    width = part["width"]
    mlps = [
        shape[0]
        for path, shape in shapes.items()
        if path.startswith(f"{tower}/") and path.endswith("/c_fc/bias")
    ]
    rest = {
        "num_layers": len(mlps),
        "layer_norm_epsilon": 1e-5,
        "activation": "quick_gelu",
        "mlp_width": mlps[0] if mlps else 4 * width,
        "qkv": "fused",
    }
    rest |= {field: known[field] for field in _UNSEEN if field in known}
    if known.get("width") != width:
        if width % 64:
            raise errors.InputError(
                "E144",
                f"it has width {width}, from which the number of heads cannot be told "
                "(the rule is 64 numbers a head)",
                where=where,
                remedy="put its config file beside it",
            )
        rest["num_heads"] = width // 64
    return rest


def _tower(tower, part, norms, projection):
    """Lists the shapes that both towers have."""
    width, mlp = part["width"], part["mlp_width"]
    found = {f"{tower}/{name}/{end}": (width,) for name in norms for end in _NORM}
    for i in range(part["num_layers"]):
        block = f"{tower}/resblocks_{i}"
        found |= {
            f"{block}/{n}/{end}": (width,) for n in ("ln_1", "ln_2") for end in _NORM
        }
        for name, rows, cols in (
            ("attn/in_proj", width, 3 * width),
            ("attn/out_proj", width, width),
            ("mlp/c_fc", width, mlp),
            ("mlp/c_proj", mlp, width),
        ):
            found[f"{block}/{name}/kernel"] = (rows, cols)
            found[f"{block}/{name}/bias"] = (cols,)
    if part["output_size"]:
        found[f"{tower}/{projection}"] = (width, part["output_size"])
    return found


_NORM = ("scale", "bias")
_UNSEEN = ("num_heads", "layer_norm_epsilon", "activation", "pooling", "end_token")
