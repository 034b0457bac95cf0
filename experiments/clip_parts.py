"""What goes with a CLIP base: preprocessing, tokenizer, the text tower for heads."""

import pathlib

import jax
import numpy as np

from adarank_jax import errors
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
        InputError: the file cannot be used, or gives images of another size.
    """
    size, file = base.config["vision"]["image_size"], None
    try:
        file = model_files.preprocessing_file(base)
        transform = transforms.from_preprocessor_config(model_files.preprocessing(base))
    except ValueError as error:
        told = getattr(error, "message", errors.Message("E330", str(error)))
        told = told.within(f"`{file}`") if file else told
        raise errors.InputError(*told) from error
    for width in (size, 2 * size):  # what is not cut may come out square or not
        shape = transform(np.zeros((size, width, 3), np.uint8)).shape
        if shape != (size, size, 3):
            raise errors.InputError(
                "E330",
                f"it makes an image of shape {shape} of one of {(size, width, 3)}, but "
                f"the image tower takes {size} x {size}",
                where=f"`{file}`",
                remedy="do they belong together?",
            )
    return transform


def check_text(base: ClipCheckpoint, folder: pathlib.Path) -> None:
    """Checks that zero-shot heads can be built.

    Args:
        base: the pretrained checkpoint.
        folder: of its tokenizer.

    Raises:
        MissingError: there is no tokenizer.
        InputError: there is no text tower, or the tokenizer does not fit it.
    """
    if base.text is None or base.logit_scale is None:
        raise errors.InputError(
            "E309",
            "no text tower, so no zero-shot head can be built",
            where=f"`{base.source}`",
            remedy="give `head` to every expert, or a base that is a whole CLIP model",
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
