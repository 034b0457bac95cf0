"""A tiny CLIP family on disk: a sharded base, experts in three layouts, images."""

import pathlib
from typing import Any

from tests import clip_family

CLASSES = {
    "animals": ["cat", "dog", "horse"],
    "numbers": ["one", "two", "three", "four"],
    "sizes": ["small", "big"],
}
SIZES = "experts/sizes.safetensors"


def write(root: pathlib.Path) -> None:
    """Writes the family."""
    base = clip_family.base_params()
    experts = [clip_family.expert_params(base, i) for i in (1, 2, 3)]
    clip_family.write_base(root / "base", base)
    kinds = ("CLIPVisionModel", "CLIPVisionModelWithProjection")
    for name, params, kind in zip(CLASSES, experts, kinds, strict=False):
        clip_family.write_expert(root / "experts" / name, params, kind)
    clip_family.write_open_clip(root / SIZES, experts[2])
    for number, (name, classes) in enumerate(CLASSES.items()):
        clip_family.write_images(root / "images" / name, classes, 3, number)
    (root / "tmp").mkdir()


def config(root: pathlib.Path) -> dict[str, Any]:
    """Returns a configuration that merges the family in two steps."""
    models = {
        "animals": f"{root}/experts/animals",
        "numbers": f"{root}/experts/numbers",
        "sizes": f"{root}/{SIZES}",
    }
    return {
        "base": f"{root}/base",
        "experts": {
            name: {
                "model": model,
                "data": f"{root}/images/{name}",
                "classes": CLASSES[name],
            }
            for name, model in models.items()
        },
        "method": {"name": "adarank", "rank_ratio": 0.5},
        "compare": [],
        "adaptation": {"num_steps": 2, "batch_size": 8},
        "offline": True,
    }
