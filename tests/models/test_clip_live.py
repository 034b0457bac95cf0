"""CLIP ViT-B/32 of full size against transformers, with random weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax.models import clip_text, clip_vision
from adarank_jax.models.clip_text import ClipText
from adarank_jax.models.clip_vision import ClipVision
from tests import helpers, torch_python
from tests.models import clip_oracle

MAKE = """
import json
import numpy as np, torch, transformers

config = transformers.CLIPConfig()
torch.manual_seed(0)
model = transformers.CLIPModel(config).eval()
# Drawn as for training, attention and MLP hardly move the outputs.
with torch.no_grad():
    for name, tensor in model.named_parameters():
        if "layers" in name and tensor.ndim == 2:
            tensor *= 3.0
        elif tensor.ndim == 1:
            tensor += 0.1 * torch.randn(tensor.shape)
    pixels = torch.from_numpy(np.load("images.npy")).permute(0, 3, 1, 2)
    tokens = torch.from_numpy(np.load("tokens.npy")).long()
    image = model.get_image_features(pixels).pooler_output.numpy()
    text = model.get_text_features(tokens).pooler_output.numpy()
state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
np.savez("state.npz", **state)
np.savez("features.npz", image=image, text=text)
json.dump(config.to_dict(), open("config.json", "w"))
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """Makes a random model, and embeds two images and two texts with it."""
    folder = tmp_path_factory.mktemp("live")
    images = helpers.matrix(0, 2, 224, 224, 3)
    tokens = np.zeros((2, 77), np.int32)
    tokens[:, :5] = [[49406, 320, 1125, 49407, 0], [49406, 539, 320, 2368, 49407]]
    np.save(folder / "images.npy", images)
    np.save(folder / "tokens.npy", tokens)
    torch_python.run(MAKE, folder)
    state = dict(np.load(folder / "state.npz"))
    features = dict(np.load(folder / "features.npz"))
    config = json.loads((folder / "config.json").read_text())
    inputs = jnp.asarray(images), jnp.asarray(tokens)
    return config, state, *inputs, features["image"], features["text"]


@pytest.mark.slow
@pytest.mark.parametrize("qkv", clip_oracle.LAYOUTS)
def test_clip_vision_agrees_with_live_torch(live, qkv):
    config, state, images, _, theirs, _ = live
    ours = clip_oracle.vision_config(config, qkv=qkv, mlp_width=None)
    assert clip_oracle.vision_config(config, mlp_width=None) == clip_vision.variant(
        "vit-b-32"
    )
    params = clip_oracle.params(state, "vision", qkv)
    features = jax.jit(ClipVision(ours).apply)({"params": params}, images)
    assert helpers.relative_error(features, theirs) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("qkv", clip_oracle.LAYOUTS)
def test_clip_text_agrees_with_live_torch(live, qkv):
    config, state, _, tokens, _, theirs = live
    ours = clip_oracle.text_config(config, qkv=qkv)
    clip_text.check_tokens(tokens, ours)
    params = clip_oracle.params(state, "text", qkv)
    features = jax.jit(ClipText(ours).apply)({"params": params}, tokens)
    assert helpers.relative_error(features, theirs) < 1e-5
