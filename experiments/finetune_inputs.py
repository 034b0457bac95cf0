"""What fine-tuning reads: options, base, head and labelled images, checked together."""

import dataclasses
import math
import pathlib
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro

from adarank_jax import errors
from adarank_jax.checkpoints import clip, export, head_files
from adarank_jax.checkpoints.clip import ClipCheckpoint
from adarank_jax.data import loading, parquet, prompts, registry
from adarank_jax.data.folders import ImageFolder
from adarank_jax.data.npz import NpzImages
from adarank_jax.data.sources import NO_LABEL, labels_of, renumbered, warnings_of
from adarank_jax.data.transforms import ClipTransform
from experiments import clip_parts, task_heads
from experiments.task_heads import Wording


@dataclasses.dataclass(frozen=True)
class Config:
    """Fine-tunes the image tower of a CLIP model under a frozen head.

    Prints what to write into my_merge.yaml.
    """

    data: str
    """Labelled training images: a registered data set (`cars`), a folder with parquet
    files or with a folder a class, or an .npz file; `./cars` is a folder always."""

    out: pathlib.Path
    """Folder of the expert, written at the end; its name is that of the task."""

    base: str = "openai/clip-vit-base-patch32"
    """Pretrained model: a folder, a file or `org/name[@revision]` on the Hub."""

    classes: tuple[str, ...] = ()
    """Names of the classes in the order of the labels, or a text file with one a line;
    by default those of the head, of the data set or of the folders."""

    templates: tuple[str, ...] = ()
    """Prompts with one `{}` each; by default those of the data set."""

    head: pathlib.Path | None = None
    """File with a classifier of your own, which is frozen too."""

    prompts: Literal["official", "fusion_bench"] = "official"
    """Profile of class names and templates; merge experts of one profile."""

    num_steps: int = 4_000
    """Of the optimiser; so many as FusionBench's experts had."""

    batch_size: int = 32
    """Images a step, over all devices; FusionBench's is 32 for ViT-B/32, Task
    Arithmetic's 128."""

    learning_rate: float = 1e-5
    """Peak rate of AdamW, as published; it rises linearly and falls as a cosine to
    zero. Gradients are clipped at norm 1."""

    weight_decay: float = 0.1
    """Of AdamW, as in Task Arithmetic."""

    warmup_steps: int = 500
    """Until the peak, as in Task Arithmetic; at most half of all steps."""

    checkpoint_every: int = 500
    """Steps between two saved states, each three times as large as the image tower."""

    seed: int = 0
    """Of the order of the images."""

    data_dir: pathlib.Path | None = None
    """Folder of registered data sets on disk."""

    on_bad_image: Literal["error", "skip"] = "error"
    """Refuse a folder with damaged images, or leave them out."""

    run_dir: pathlib.Path | None = None
    """Folder of metrics and training state; `OUT.run` by default."""

    offline: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Use only what is on disk already."""

    restart: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Throw away an earlier run, and the expert it wrote."""

    def __post_init__(self):
        """Checks the ranges, all at once."""
        least = {"num_steps": 1, "batch_size": 1, "checkpoint_every": 1}
        least |= {"warmup_steps": 0, "weight_decay": 0.0}
        problems = [
            f"`{name}` must be at least {bound} and finite, got {getattr(self, name)}"
            for name, bound in least.items()
            if not bound <= getattr(self, name) < math.inf
        ]
        if not 0.0 < self.learning_rate < math.inf:
            problems.append(
                f"`learning_rate` must be above 0 and finite, got {self.learning_rate}"
            )
        if self.out.name in ("", ".."):
            problems.append(f"`out` must name a folder, got `{self.out}`")
        elif self.run_folder.absolute().is_relative_to(self.out.absolute()):
            problems.append(f"`run_dir` must not be inside `out`, got `{self.run_dir}`")
        if problems:
            raise errors.UsageError("E011", ";\n".join(problems))

    @property
    def run_folder(self) -> pathlib.Path:
        """Folder of metrics and training state."""
        return self.run_dir or self.out.with_name(f"{self.out.name}.run")


class Inputs(NamedTuple):
    """Everything that is read, checked against each other.

    Attributes:
        base: the pretrained checkpoint.
        transform: from an image to what the tower takes.
        source: of the training images.
        labels: one an image.
        wording: class names and templates; empty for a head without names.
        head: as imported, with its class names if any are known; None to build one.
        warnings: what is allowed, but perhaps not meant.
    """

    base: ClipCheckpoint
    transform: ClipTransform
    source: Any
    labels: np.ndarray
    wording: Wording
    head: head_files.HeadFile | None
    warnings: list[errors.Message]


def check(config: Config) -> Inputs:
    """Reads base, head and images and compares them; writes nothing.

    Args:
        config: of the run.

    Returns:
        What was found.

    Raises:
        MissingError: something is nowhere.
        InputError: there is no such data set, a folder is none of the classes, or
            something is damaged, does not fit the rest, or cannot be learnt from.
        UsageError: a template has not one `{}`.
    """
    names, templates = _names(config), config.templates
    head = None if config.head is None else head_files.read_head(config.head)
    if head is not None and head.class_names is not None:
        if names is not None and names != head.class_names:
            raise errors.InputError(
                "E310",
                f"`classes` names {list(names[:5])}, but the head has its own class "
                f"names, {list(head.class_names[:5])}",
                where=f"`{config.head}`",
                remedy="leave out `classes`",
            )
        names = head.class_names
    if is_registered(config):
        key = registry.get(config.data, config.prompts).key
        names = names or prompts.class_names(key, config.prompts)
        templates = templates or prompts.templates(key, config.prompts)
    source = _open_images(config, names)
    names = names or _own_names(config, source)
    wording = Wording(tuple(names or ()), tuple(templates or task_heads.TEMPLATES))
    for template in wording.templates:
        prompts.fill(template, "")
    labels = _labels(config, source, wording, head)
    base = clip.read_clip(config.base, offline=config.offline)
    place = base.state.files[0].parent
    if head is None:
        clip_parts.check_text(base, place)
    else:
        features = base.config["vision"]["output_size"]
        rows = wording.class_names or None
        head_files.check_head(
            head.weight, head.bias, rows, features, f"`{config.head}`"
        )
        head = head._replace(class_names=rows)
    export.check_base(base)
    transform = clip_parts.read_transform(base)
    warnings = [*base.warnings, *warnings_of(source), *_warnings(labels, wording)]
    return Inputs(base, transform, source, labels, wording, head, warnings)


def _names(config):
    """Returns the class names that were given, perhaps in a file; None for none."""
    names = config.classes
    if len(names) == 1 and pathlib.Path(names[0]).is_file():
        names = task_heads.read_names(pathlib.Path(names[0]))
    if names and (len(names) < 2 or len(set(names)) < len(names)):
        raise errors.InputError(
            "E304",
            f"`classes` must name at least two different classes, got {list(names)}",
            remedy="one class leaves nothing to learn",
        )
    return names or None


def is_registered(config: Config) -> bool:
    """Tells a data set by name from a path: what looks like a path is one.

    Raises:
        InputError: it looks like a name, and there is no such data set or file.
    """
    text = config.data
    if any(mark in text for mark in "/\\."):
        return False
    try:
        registry.get(text, config.prompts)
    except errors.InputError:
        if pathlib.Path(text).exists():
            return False
        raise
    return True


def _open_images(config, names):
    """Opens the training images, whatever kind they are."""
    path = pathlib.Path(config.data).expanduser()
    if is_registered(config):
        return loading.load(
            config.data,
            config.prompts,
            "train",
            config.data_dir,
            classes=names,
            offline=config.offline,
            on_bad_image=config.on_bad_image,
        )
    if path.suffix == ".npz":
        return NpzImages(path)
    if not path.is_dir():
        raise errors.MissingError(
            "E101",
            "there is no training data there",
            where=f"`{path}`",
            expected="the name of a data set, a folder with one folder a class or with "
            "parquet files, or an .npz file",
        )
    if not any(path.rglob("*.parquet")):
        return ImageFolder(path, names, config.on_bad_image)
    source = parquet.ParquetImages(parquet.find_files(path, "train"))
    if not source.classes or names is None:
        return source
    return renumbered(source, names, f"`{path}`")


def _own_names(config, source):
    """Takes the class names of a source, if the rows of the head can be told by it."""
    found = getattr(source, "classes", ())
    if config.head is not None and found:
        raise errors.InputError(
            "E311",
            "the head has no class names, so nobody knows which row is which of "
            f"{list(found[:5])}",
            where=f"`{config.head}`",
            remedy="give `classes` in the order of its rows",
        )
    if config.head is None and not found and not (labels_of(source) == NO_LABEL).all():
        raise errors.InputError(
            "E309",
            "it does not name its classes, and a head is made from their names",
            where=f"`{config.data}`",
            remedy="give `classes` in the order of the labels, or `head`",
        )
    return [name.replace("_", " ") for name in found] or None


def _labels(config, source, wording, head):
    """Returns the labels; refuses those that nothing can be learnt from."""
    labels = labels_of(source)
    if missing := int((labels == NO_LABEL).sum()):
        raise errors.InputError(
            "E312",
            f"{missing} of {len(labels)} images have no label, and training needs all",
            where=f"`{config.data}`",
            remedy="put each image into the folder of its class, or save `labels` "
            "beside `images`",
        )
    if len(np.unique(labels)) < 2:
        raise errors.InputError(
            "E304",
            f"all {len(labels)} images are of one class, which leaves nothing to learn",
            where=f"`{config.data}`",
            remedy="give images of at least two",
        )
    rows = len(wording.class_names or head.weight)
    if labels.max() >= rows:
        raise errors.InputError(
            "E305",
            f"it has labels from {labels.min()} to {labels.max()}, but there are "
            f"{rows} classes",
            where=f"`{config.data}`",
            remedy="take images, class names and head from one task",
        )
    return labels


def _warnings(labels, wording):
    """Lists classes that no image shows."""
    shown = set(labels.tolist())
    absent = [n for i, n in enumerate(wording.class_names) if i not in shown]
    if not absent:
        return []
    found = f"there is no image of {len(absent)} class(es), for example {absent[:3]}"
    return [errors.Message("W305", found)]
