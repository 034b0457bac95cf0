"""Exports in plain transformers and open_clip, in an interpreter without adarank_jax.

ADARANK_TORCH_PYTHON names the interpreter; it needs torch, transformers, pillow and,
for open_clip, open_clip_torch. open_clip imports torchvision for its transforms; where
that is missing, empty classes stand in for them: the weights and the model are its own.
"""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from adarank_jax import tree
from adarank_jax.checkpoints import clip, export
from adarank_jax.checkpoints.export import TaskHead
from adarank_jax.models import clip_vision
from experiments import card
from tests import helpers, torch_python
from tests.checkpoints import tiny_folders

pytestmark = pytest.mark.slow

TRANSFORMERS = """
import importlib.util, json, sys
import numpy as np, torch, transformers
from safetensors.torch import load_file

assert importlib.util.find_spec("adarank_jax") is None, "adarank_jax is there"
folder, dtype = sys.argv[1], getattr(torch, sys.argv[2])
name = json.load(open(folder + "/config.json"))["architectures"][0]
model, info = getattr(transformers, name).from_pretrained(
    folder, output_loading_info=True, dtype=dtype
)
problems = {key: sorted(map(str, found)) for key, found in info.items() if found}
assert not problems, problems
pixels = torch.from_numpy(np.load("pixels.npy")).permute(0, 3, 1, 2)
with torch.no_grad():
    model = model.float().eval()
    if name == "CLIPModel":
        features = model.get_image_features(pixel_values=pixels).pooler_output
        tokens = torch.from_numpy(np.load("tokens.npy"))
        texts = model.get_text_features(input_ids=tokens).pooler_output
        np.save("texts.npy", texts.numpy())
        np.save("scale.npy", model.logit_scale.exp().numpy())
    else:
        features = model(pixel_values=pixels).image_embeds
unit = torch.nn.functional.normalize(features, dim=-1)
head = load_file(folder + "/heads/mnist.safetensors")
np.save("logits.npy", (unit @ head["weight"].T).numpy())
"""

STUB = """
import importlib.machinery, importlib.util, sys, types
if importlib.util.find_spec("torchvision") is None:
    class Names(type):
        def __getattr__(cls, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return name
    class Empty(metaclass=Names):
        def __init__(self, *_, **__): pass
    class Stub(types.ModuleType):
        __path__ = []
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return Empty
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "torchvision":
                return importlib.machinery.ModuleSpec(name, self, is_package=True)
        def create_module(self, spec): return Stub(spec.name)
        def exec_module(self, module): pass
    sys.meta_path.append(Finder())
"""

OPEN_CLIP = (
    STUB
    + """
import numpy as np, torch, open_clip
model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{sys.argv[1]}")
with torch.no_grad():
    model.eval()
    pixels = torch.from_numpy(np.load("pixels.npy")).permute(0, 3, 1, 2)
    np.save("features.npy", model.encode_image(pixels).numpy())
    tokens = torch.from_numpy(np.load("tokens.npy"))
    np.save("open_clip_texts.npy", model.encode_text(tokens).numpy())
    np.save("open_clip_scale.npy", model.logit_scale.exp().numpy())
"""
)


def make(folder, kind, **options):
    """Exports a tiny model that was moved; returns base, parameters and head."""
    source = tiny_folders.write(folder / "base", kind)
    (source / "preprocessor_config.json").unlink(missing_ok=True)
    base = clip.read_clip(str(source))
    vision = tree.map_with_path(
        lambda _, leaf: leaf + np.float32(0.01) * helpers.matrix(5, *leaf.shape),
        base.vision,
    )
    weight = helpers.matrix(0, 3, 12)
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    head = TaskHead("mnist", weight, class_names=("one", "two", "three"))
    about = card.Card(
        title="tiny",
        method="moving",
        base=card.Parent("base", "org/base"),
        experts=[card.Parent("mnist", "org/mnist")],
        heads=[card.CardHead("mnist", "mnist", 3)],
        uses="nothing",
        command="true",
        config="",
        versions={},
        seed=0,
        has_text_tower=base.text is not None,
        has_open_clip=options.get("with_open_clip", False),
    )
    files = {"README.md": card.render(about).encode()}
    export.write_model(folder / "out", base, vision, [head], files=files, **options)
    rng = np.random.default_rng(3)
    np.save(folder / "pixels.npy", rng.normal(size=(4, 16, 16, 3)).astype(np.float32))
    np.save(folder / "tokens.npy", [[38, 1, 2, 39, 0, 0, 0], [38, 7, 8, 9, 9, 3, 39]])
    return base, vision, head


def features(base, vision, pixels):
    """Encodes images with our own tower."""
    fields = {field.name for field in dataclasses.fields(clip_vision.ClipVisionConfig)}
    sizes = {k: v for k, v in base.config["vision"].items() if k in fields}
    model = clip_vision.ClipVision(clip_vision.ClipVisionConfig(**sizes))
    return np.asarray(model.apply({"params": vision}, jnp.asarray(pixels)))


def logits(base, vision, head, pixels):
    """Classifies images with our own tower."""
    found = features(base, vision, pixels)
    return found / np.linalg.norm(found, axis=-1, keepdims=True) @ head.weight.T


@pytest.mark.parametrize("kind", ["model", "sharded", "vision", "open_clip"])
def test_transformers_loads_the_export_and_predicts_the_same(tmp_path, kind):
    size = 200_000 if kind == "sharded" else "5GB"
    base, vision, head = make(tmp_path, kind, max_shard_size=size)
    assert (len([*(tmp_path / "out").glob("model-*")]) > 1) == (kind == "sharded")
    torch_python.run(TRANSFORMERS, tmp_path, tmp_path / "out", "float32")
    ours = logits(base, vision, head, np.load(tmp_path / "pixels.npy"))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), ours, atol=1e-5)
    if kind != "vision":
        assert np.load(tmp_path / "scale.npy") == pytest.approx(100.0)


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_transformers_loads_half_precision_as_it_is_stored(tmp_path, dtype):
    kind = "half" if dtype is None else "model"
    base, _, head = make(tmp_path, kind, dtype=dtype)
    stored = clip.read_clip(str(tmp_path / "out")).vision
    torch_python.run(TRANSFORMERS, tmp_path, tmp_path / "out", dtype or "bfloat16")
    ours = logits(base, stored, head, np.load(tmp_path / "pixels.npy"))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), ours, atol=1e-5)


def snippets(folder):
    text = (folder / "out" / "README.md").read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("kind", ["model", "vision", "half"])
def test_snippet_of_the_card_runs_on_the_exported_files(tmp_path, kind):
    base, vision, head = make(tmp_path, kind)
    rng = np.random.default_rng(7)
    image = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
    image.save(tmp_path / "out" / "image.png")
    (snippet,) = snippets(tmp_path)
    said = torch_python.run(snippet, tmp_path / "out").strip().splitlines()[-1]
    mean, std = (
        [0.48145466, 0.4578275, 0.40821073],
        [0.26862954, 0.26130258, 0.27577711],
    )
    pixels = (np.asarray(image, np.float32) / 255 - mean) / np.asarray(std)
    stored = clip.read_clip(str(tmp_path / "out")).vision
    ours = logits(base, stored, head, pixels[None].astype(np.float32))
    assert said == head.class_names[int(ours.argmax())]


@pytest.mark.parametrize("kind", ["model", "open_clip"])
def test_open_clip_loads_the_export_and_agrees_with_transformers(tmp_path, kind):
    if not torch_python.runs(f"{STUB}\nimport open_clip"):
        pytest.skip("the interpreter of ADARANK_TORCH_PYTHON has no open_clip_torch")
    base, vision, _ = make(tmp_path, kind, with_open_clip=True)
    out = tmp_path / "out"
    torch_python.run(OPEN_CLIP, tmp_path, out)
    torch_python.run(TRANSFORMERS, tmp_path, out, "float32")
    ours = features(base, vision, np.load(tmp_path / "pixels.npy"))
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), ours, atol=1e-5)
    for name in ("texts", "scale"):
        one, two = (np.load(tmp_path / f"{n}{name}.npy") for n in ("", "open_clip_"))
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


def test_open_clip_snippet_of_the_card_runs(tmp_path):
    if not torch_python.runs("import open_clip, torchvision"):
        pytest.skip("the interpreter has no open_clip_torch with a real torchvision")
    make(tmp_path, "model", with_open_clip=True)
    Image.new("RGB", (16, 16)).save(tmp_path / "out" / "image.png")
    assert "1, 12" in torch_python.run(snippets(tmp_path)[1], tmp_path / "out")
