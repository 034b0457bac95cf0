"""What goes with a CLIP base: preprocessing, tokenizer, the text tower for heads."""

import pathlib

import jax
import numpy as np

from adarank_jax.checkpoints import model_files
from adarank_jax.checkpoints.clip import ClipCheckpoint
from adarank_jax.data import transforms
from adarank_jax.data.transforms import ClipTransform
from adarank_jax.models import clip_text
from adarank_jax.models.clip_vision import ClipVisionConfig
from experiments import zero_shot
from experiments.image_config import ImageMergeConfig
from experiments.suite import Tower


def tower(sizes: ClipVisionConfig) -> Tower:
    """Says what the cost of an image depends on.

    Args:
        sizes: of the image tower.
    """
    tokens = (sizes.image_size // sizes.patch_size) ** 2 + 1
    return Tower(tokens, sizes.width, sizes.num_layers)


def layout_line(config: ImageMergeConfig) -> tuple[str, str]:
    """Says in a plan how images runs differ from each other.

    Args:
        config: of the run.
    """
    return "layout", f"query, key and value {config.qkv}; prompts {config.prompts}"


def read_transform(base: ClipCheckpoint) -> ClipTransform:
    """Reads the base's own preprocessing, or takes CLIP's for its image size.

    Args:
        base: the pretrained checkpoint.

    Raises:
        ValueError: the file cannot be used, or gives images of another size.
    """
    size, file = base.config["vision"]["image_size"], None
    try:
        file = model_files.preprocessing_file(base)
        transform = transforms.from_preprocessor_config(model_files.preprocessing(base))
    except ValueError as error:
        raise ValueError(f"`{file}`: {error}" if file else str(error)) from error
    image = np.zeros((size, size, 3), np.uint8)
    if transform(image).shape != (size, size, 3):
        raise ValueError(
            f"`{file}` gives images of shape {transform(image).shape}, but the image "
            f"tower takes {size} x {size}; do they belong together?"
        )
    return transform


def check_text(base: ClipCheckpoint, folder: pathlib.Path) -> None:
    """Checks that zero-shot heads can be built.

    Args:
        base: the pretrained checkpoint.
        folder: of its tokenizer.

    Raises:
        FileNotFoundError: there is no tokenizer.
        ValueError: there is no text tower, or the tokenizer does not fit it.
    """
    if base.text is None or base.logit_scale is None:
        raise ValueError(
            f"`{base.source}` has no text tower, so no zero-shot head can be built; "
            "give `head` to every expert, or a base that is a whole CLIP model."
        )
    _tokenizer(base, folder)


def embedder(
    base: ClipCheckpoint, folder: pathlib.Path
) -> tuple[str, zero_shot.TextEncode, zero_shot.Tokenize]:
    """Returns what heads are built with: the text tower's digest, it, the tokenizer.

    Args:
        base: the pretrained checkpoint, checked by `check_text`.
        folder: of its tokenizer.
    """
    sizes = clip_text.ClipTextConfig(**base.config["text"])
    apply = jax.jit(clip_text.ClipText(sizes).apply)
    params = jax.device_put(base.text)
    digest = zero_shot.digest_tower(base.text, sizes)
    encode = lambda tokens: apply({"params": params}, tokens)
    return digest, encode, _tokenizer(base, folder)


def _tokenizer(base, folder):
    """Loads the base's tokenizer."""
    text = base.config["text"]
    return zero_shot.load_tokenizer(
        folder, text["context_length"], text["vocabulary_size"]
    )
