"""What making a merge again must know of each family of models."""

from collections.abc import Callable
from typing import Any, NamedTuple

from adarank_jax.checkpoints import clip, export, language, language_export
from adarank_jax.checkpoints.clip import ClipCheckpoint
from adarank_jax.checkpoints.language import LanguageCheckpoint
from adarank_jax.checkpoints.recipe import Settings
from adarank_jax.models import clip_vision
from adarank_jax.models import language as language_models
from adarank_jax.tree import Predicate, Tree


class Family(NamedTuple):
    """How to read, merge and write the models of a recipe.

    Attributes:
        part: what is merged, in words.
        read: reads a checkpoint; takes source, base (None for the base itself) and
            whether to stay offline.
        params: of a checkpoint, those that are merged.
        is_decomposed: which of them the static merges decompose.
        weights: of the exported model; takes base, merged parameters and dtype.
        write: writes a model without heads; takes folder, base, merged parameters and
            what every export takes.
    """

    part: str
    read: Callable[[str, Any, bool], Any]
    params: Callable[[Any], Tree]
    is_decomposed: Predicate
    weights: Callable[..., dict[str, Any]]
    write: Callable[..., Any]


def family(settings: Settings) -> Family:
    """Returns the family that the settings of a recipe name.

    Args:
        settings: of a recipe that was read, so they are valid.
    """
    if settings.family == "clip":
        return _clip(**settings.options)
    return Family(
        part="encoder",
        read=language.read_language,
        params=lambda checkpoint: checkpoint.encoder,
        is_decomposed=language_models.family(settings.family).is_decomposed,
        weights=language_export.weights,
        write=language_export.write_model,
    )


def _clip(qkv, open_clip):
    """Returns the family of CLIP's image towers."""

    def write(*model, **options):
        return export.write_model(*model, with_open_clip=open_clip, **options)

    return Family(
        part="image tower",
        read=lambda source, base, offline: clip.read_clip(source, qkv, base, offline),
        params=lambda checkpoint: checkpoint.vision,
        is_decomposed=clip_vision.is_decomposed,
        weights=export.weights,
        write=write,
    )


def identity(base: ClipCheckpoint | LanguageCheckpoint) -> dict[str, Any]:
    """Lists the fields of a model that its weights do not show, and its sizes.

    Args:
        base: the pretrained checkpoint.

    Returns:
        Plain values; those of the image tower alone if it is a CLIP.
    """
    if isinstance(base, LanguageCheckpoint):
        return {"family": base.family, **base.config}
    fields = base.config["vision"]
    return {name: fields[name] for name in sorted(fields) if name != "qkv"}
