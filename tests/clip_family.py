"""A tiny CLIP family on disk, exactly as the Hub's cache would hold it.

The text tower and the tokenizer are those of `tests/data/zero_shot_tiny`, which torch
has checked; the image towers are random, the experts a few per cent away from the base.
"""

import hashlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from safetensors.numpy import save

from adarank_jax import tree
from adarank_jax.checkpoints import clip_config, clip_names, clip_tensors, files
from adarank_jax.models.clip_vision import ClipVision, ClipVisionConfig

TEXT = pathlib.Path(__file__).parent / "data" / "zero_shot_tiny"
EXPECTED = json.loads((TEXT / "expected.json").read_text(encoding="utf-8"))
VISION = ClipVisionConfig(16, 8, 32, 2, 4, EXPECTED["config"]["output_size"])
TASKS = {
    "animals": ("cat", "dog", "horse"),
    "numbers": ("one", "two", "three", "four"),
    "Größen/sizes": ("small", "big"),
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def config():
    """The base's configuration as `checkpoints` reads it."""
    values = {name: getattr(VISION, name) for name in VISION.__dataclass_fields__}
    text = dict(EXPECTED["config"]) | {
        "layer_norm_epsilon": 1e-5,
        "activation": "quick_gelu",
        "mlp_width": 4 * EXPECTED["config"]["width"],
        "qkv": "fused",
        "pooling": "argmax",
        "end_token": EXPECTED["config"]["vocabulary_size"] - 1,
    }
    values["mlp_width"] = 4 * VISION.width
    return {"vision": values, "text": text}


def base_params(seed=0):
    """Random image tower, real text tower, logit scale."""
    image = jnp.zeros((1, VISION.image_size, VISION.image_size, 3))
    vision = ClipVision(VISION).init(jax.random.key(seed), image)["params"]
    return {
        "vision": jax.tree.map(np.asarray, vision),
        "text": files.read(TEXT / "text.safetensors"),
        "logit_scale": np.float32(EXPECTED["logit_scale"]),
    }


def expert_params(base, number):
    """The base with every tensor of the image tower moved by a few per cent."""
    rng = np.random.default_rng(number)

    def moved(path, leaf):
        if path == "proj":  # an encoder without a projection keeps the base's
            return leaf
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        return leaf + 0.1 * (np.std(leaf) + 0.02) * noise

    return {"vision": tree.map_with_path(moved, base["vision"])}


def hugging_face(params, kind="CLIPModel"):
    """Turns parameters to the names of a transformers class."""
    layout = clip_names.full_layout("hugging_face", 2, 2)
    state = clip_tensors.to_state(params, layout)
    if kind == "CLIPVisionModel":  # as transformers 5 saves it
        inside = {k: v for k, v in state.items() if k.startswith("vision_model.")}
        return {k.removeprefix("vision_model."): v for k, v in inside.items()}
    return state


def write_base(folder, params):
    """Writes a whole CLIP model in two shards, with all that lies beside it."""
    state = hugging_face(params)
    names = sorted(state)
    half = len(names) // 2
    shards = {
        "model-00001-of-00002.safetensors": names[:half],
        "model-00002-of-00002.safetensors": names[half:],
    }
    for file, some in shards.items():
        content = save({name: state[name] for name in some}, {"format": "pt"})
        files.write_whole(folder / file, content)
    index = {
        "metadata": {"total_size": sum(a.nbytes for a in state.values())},
        "weight_map": {name: file for file, some in shards.items() for name in some},
    }
    write_json(folder / "model.safetensors.index.json", index)
    write_json(folder / "config.json", clip_config.to_hugging_face_config(config()))
    size = VISION.image_size
    write_json(
        folder / "preprocessor_config.json",
        {
            "crop_size": size,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
            "size": size,
        },
    )
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        files.write_whole(folder / name, (TEXT / name).read_bytes())
    files.write_whole(folder / "README.md", b"---\nlicense: mit\n---\n# base\n")


def write_expert(folder, params, kind):
    """Writes an expert as one file."""
    content = save(hugging_face(params, kind), {"format": "pt"})
    files.write_whole(folder / "model.safetensors", content)
    values = clip_config.to_hugging_face_config(config())
    part = values["vision_config"] | {
        "architectures": [kind],
        "model_type": "clip_vision_model",
    }
    write_json(folder / "config.json", part)


def write_open_clip(file, params):
    """Writes an expert as Task Arithmetic names it, query, key and value in one."""
    layout = clip_names.full_layout("open_clip", 2, 2)
    state = clip_tensors.to_state(params, layout)
    content = save({f"model.{name}": array for name, array in state.items()})
    files.write_whole(file, content)


def write_hub(cache, repo, write, *arguments):
    """Writes a repository as the cache of the Hub does: snapshots link to blobs."""
    root = cache / f"models--{repo.replace('/', '--')}"
    made = root / "made"
    write(made, *arguments)
    snapshot = root / "snapshots" / COMMIT
    for file in sorted(made.iterdir()):
        content = file.read_bytes()
        blob = root / "blobs" / hashlib.sha256(content).hexdigest()
        files.write_whole(blob, content)
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / file.name).symlink_to(pathlib.Path("../../blobs") / blob.name)
        file.unlink()
    made.rmdir()
    files.write_whole(root / "refs" / "main", COMMIT.encode())


def write_images(folder, classes, count, seed):
    """Writes a folder of images a class; the colour depends on the class."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        for i in range(count):
            pixels = rng.integers(0, 60, (20 + i, 24, 3), np.uint8)
            pixels[:, :: number + 2, number % 3] += 190
            target = folder / name / f"{i:03d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(target)


def write_json(file, values):
    """Writes a JSON file."""
    files.write_whole(file, json.dumps(values, indent=2).encode())


def write_family(root):
    """Writes base, three experts and images; returns the text of a configuration."""
    cache, base = root / "hub", base_params()
    experts = [expert_params(base, i) for i in (1, 2, 3)]
    write_hub(cache, "tiny/clip-base", write_base, base)
    write_hub(
        *(cache, "tiny/clip-base_animals", write_expert),
        *(experts[0], "CLIPVisionModel"),
    )
    projected = experts[1] | {}
    write_hub(
        *(cache, "tiny/clip-base_numbers", write_expert),
        *(projected, "CLIPVisionModelWithProjection"),
    )
    write_open_clip(root / "sizes" / "finetuned.safetensors", experts[2])
    for number, (name, classes) in enumerate(TASKS.items()):
        folder = root / "images" / name.replace("/", "-")
        write_images(folder, classes, 5, number)
    return f"""\
base: tiny/clip-base@main
experts:
  animals:
    model: tiny/clip-base_animals
    data: {root}/images/animals
    classes: [cat, dog, horse]
  numbers:
    model: tiny/clip-base_numbers@{COMMIT}
    data: {{folder: {root}/images/numbers}}
    classes: [one, two, three, four]
    templates: ['the number: "{{}}"', "{{}} in the photo"]
  Größen/sizes:
    model: {root}/sizes/finetuned.safetensors
    data: {root}/images/Größen-sizes
    classes: [small, big]
method: {{name: adarank, origin: cart, coefficient: 1.2, rank_ratio: 0.16}}
compare: [pretrained, individual, task_arithmetic]
adaptation: {{num_steps: 4, batch_size: 8, learning_rate: 1e-3, checkpoint_every: 2}}
offline: true
"""
