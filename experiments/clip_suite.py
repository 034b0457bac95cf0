"""A suite of real CLIP checkpoints: base, experts, heads and images from disk or Hub.

`check` reads and compares everything and lists every problem; nothing is written and no
head is built before that.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adarank_jax import tree
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.checkpoints import (
    clip,
    clip_base,
    containers,
    formats,
    head_files,
    hub,
    recipe,
)
from adarank_jax.checkpoints.clip import ClipCheckpoint
from adarank_jax.checkpoints.head_files import HeadFile
from adarank_jax.data import loading, parquet, prompts, registry, transforms
from adarank_jax.data.batches import Transformed
from adarank_jax.data.folders import ImageFolder
from adarank_jax.data.npz import NpzImages
from adarank_jax.data.sources import (
    NO_LABEL,
    Relabelled,
    labels_of,
    renumbering,
    shared_images,
)
from adarank_jax.data.transforms import ClipTransform
from adarank_jax.models import clip_text, clip_vision, heads
from experiments import image_checks, zero_shot
from experiments.merge_config import Expert, MergeConfig
from experiments.messages import explain
from experiments.suite import Inputs, Suite


class Wording(NamedTuple):
    """What a zero-shot head is built from.

    Attributes:
        class_names: in the order of the labels.
        templates: with one ``{}`` each.
    """

    class_names: Sequence[str]
    templates: Sequence[str]


class TaskInputs(NamedTuple):
    """What was found of one task; None where there is a problem or nothing.

    Attributes:
        expert: the fine-tuned checkpoint.
        head: as imported.
        wording: for a head that is built.
        source: of the images.
        labels: of the images, if they have any.
    """

    expert: ClipCheckpoint | None
    head: HeadFile | None
    wording: Wording | None
    source: Any
    labels: np.ndarray | None


class ClipInputs(NamedTuple):
    """Everything that a run reads, beside what all suites share.

    Attributes:
        base: the pretrained checkpoint, both towers.
        folder: of its configuration and tokenizer.
        tasks: by name.
        transform: from an image to what the tower takes.
    """

    base: ClipCheckpoint
    folder: pathlib.Path
    tasks: dict[str, TaskInputs]
    transform: ClipTransform


def check(config: MergeConfig, may_fetch: bool = True) -> Inputs:
    """Reads and compares base, experts, heads and images; writes nothing of its own.

    Args:
        config: of the run.
        may_fetch: whether files may be fetched from the Hub; without, those that are
            not here yet are named among the warnings.

    Returns:
        What was found, with every problem.
    """
    log = _Log(config, may_fetch)
    base = log.read(
        "base", config.base, lambda: _read(log, "base", config.base, config.qkv)
    )
    tasks = {
        name: _check_task(log, config, name, config.experts[name], base)
        for name in config.task_names
    }
    _check_relations(log, base, tasks)
    _check_images(log, config, tasks)
    transform, folder = None, None
    if base is not None:
        folder = base.state.files[0].parent
        transform = log.attempt("base", lambda: read_transform(base, folder))
        needs_text = any(task.head is None for task in tasks.values())
        if needs_text:
            log.attempt("base", lambda: check_text(base, folder))
    found = None
    if base is not None and transform is not None:
        found = ClipInputs(base, folder, tasks, transform)
    return Inputs(
        problems=log.problems,
        warnings=log.warnings,
        facts=_facts(config, base, tasks),
        shapes=_shapes(config, base),
        num_images={
            name: _num_images(config, name, task) for name, task in tasks.items()
        },
        is_decomposed=clip_vision.is_decomposed,
        build=functools.partial(_build, config, found),
    )


class _Log:
    """Problems and warnings as they are found."""

    def __init__(self, config, may_fetch):
        self.offline = config.offline or not may_fetch
        self.is_waiting = not may_fetch and not config.offline
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def attempt(self, where: str, action: Callable[[], Any]) -> Any:
        """Returns what an action returns; None, and a problem, if it fails."""
        try:
            return action()
        except (KeyError, OSError, TypeError, ValueError) as error:
            self.problems.append(f"{where}: {explain(error)}")
            return None

    def read(self, where: str, source: str, action: Callable[[], Any]) -> Any:
        """As `attempt`, but a file of the Hub that may not be fetched is no problem."""
        if not self.is_waiting or pathlib.Path(source).expanduser().exists():
            return self.attempt(where, action)
        try:
            return action()
        except FileNotFoundError as error:
            if hub.parse(source) is None:
                self.problems.append(f"{where}: {explain(error)}")
            else:
                self.warnings.append(f"{where}: {source} will be fetched from the Hub.")
        except (KeyError, OSError, TypeError, ValueError) as error:
            self.problems.append(f"{where}: {explain(error)}")
        return None

    def warn(self, where: str, *warnings: str) -> None:
        """Notes what stops nothing."""
        self.warnings += [f"{where}: {each}" for each in warnings]


def _read(log, where, source, qkv, base=None):
    """Reads a checkpoint."""
    checkpoint = clip.read_clip(source, qkv, base, log.offline)
    log.warn(where, *checkpoint.state.warnings)
    return checkpoint


def _read_expert(log, where, source, qkv, base):
    """Reads an expert; without a base, only looks whether its files can be read."""
    if base is None:
        containers.read_state(hub.resolve(source, log.offline).path)
        return None
    return _read(log, where, source, qkv, base)


def _check_task(
    log: _Log,
    config: MergeConfig,
    name: str,
    expert: Expert,
    base: ClipCheckpoint | None,
) -> TaskInputs:
    """Reads what belongs to one task."""
    where = f"experts.{name}"
    checkpoint = log.read(
        f"{where}.model",
        expert.model,
        lambda: _read_expert(log, f"{where}.model", expert.model, config.qkv, base),
    )
    dataset = expert.data.dataset
    if dataset is not None and not log.attempt(
        f"{where}.data", lambda: _key(config, dataset)
    ):
        return TaskInputs(checkpoint, None, None, None, None)
    wording = log.attempt(f"{where}.classes", lambda: _wording(config, expert))
    head = None
    if expert.head is not None:
        width = base.config["vision"]["output_size"] if base is not None else None
        head = log.attempt(
            f"{where}.head", lambda: _read_head(expert.head, width, wording)
        )
        if head is not None:
            _check_scale(log, f"{where}.head", expert.head, head)
    names = _class_names(head, wording)
    place = _hub_name(config, expert)
    source = log.read(
        f"{where}.data", place, lambda: _open_images(log, config, name, expert, names)
    )
    labels = None
    if source is not None and base is not None and _is_preprocessed(source):
        log.attempt(f"{where}.data", lambda: _check_preprocessed(source, base))
        _warn_of_range(log, f"{where}.data", source)
    if source is not None:
        labels = log.attempt(
            f"{where}.data", lambda: _labels(expert.data, source, head, names)
        )
    return TaskInputs(checkpoint, head, wording, source, labels)


def _wording(config, expert):
    """Finds class names and templates; None if only an imported head is there."""
    dataset = expert.data.dataset
    names, templates = expert.classes, expert.templates
    if isinstance(names, str):
        if pathlib.Path(names).is_file():
            lines = pathlib.Path(names).read_text(encoding="utf-8").splitlines()
            names = tuple(line.strip() for line in lines if line.strip())
        else:
            dataset, names = names, None
    if names is None:
        if dataset is None:
            return None
        names = prompts.class_names(_key(config, dataset), config.prompts)
    if len(names) < 2:
        raise ValueError(f"at least two classes are needed, got {list(names)}.")
    if templates is None and dataset is not None:
        templates = prompts.templates(_key(config, dataset), config.prompts)
    return Wording(tuple(names), tuple(templates or TEMPLATES))


def _key(config, dataset):
    """Finds the name that prompts are filed under."""
    try:
        return registry.get(dataset, config.prompts).key
    except KeyError as error:
        raise KeyError(
            f"{explain(error)} For a folder, write `./{dataset}`."
        ) from error


def _read_head(path, width, wording):
    """Reads an imported head and compares its rows with the class names."""
    head = head_files.read_head(path, width)
    names = head.class_names or (wording.class_names if wording else None)
    if names is not None and len(names) != len(head.weight):
        raise ValueError(
            f"`{path}` has {len(head.weight)} rows, but there are {len(names)} class "
            "names; take both from the same task."
        )
    return head._replace(class_names=names)


def _check_scale(log, where, path, head):
    """Warns of a head whose logits would all be nearly the same."""
    lengths = np.linalg.norm(head.weight, axis=1)
    if np.abs(lengths - 1).max() < 1e-3:
        log.warn(
            where,
            f"the rows of `{path}` are of length 1, so its entropy stays near the log "
            "of the number of classes; was the logit scale (100 for CLIP) left out?",
        )


def _class_names(head, wording):
    """Returns the class names of a task, if any are known."""
    if head is not None and head.class_names is not None:
        return head.class_names
    return wording.class_names if wording is not None else None


def _hub_name(config, expert):
    """Names what a task's images may have to be fetched from."""
    data = expert.data
    if data.dataset is not None:
        try:
            found = registry.get(data.dataset, config.prompts).hub
        except KeyError:
            return ""
        return found.repo if isinstance(found, registry.Hub) else ""
    return data.parquet or ""


def _open_images(log, config, name, expert, names):
    """Opens the images of a task."""
    data, where = expert.data, f"experts.{name}.data"
    if data.dataset is not None:
        return loading.load(
            data.dataset,
            config.prompts,
            data_dir=config.data_dir,
            kind=data.source,
            classes=names,
            offline=log.offline,
            on_bad_image=data.on_bad_image,
        )
    if data.folder is not None:
        return _open_folder(log, where, data, names)
    if data.npz is not None:
        formats.check_exists(data.npz.expanduser())
        source = NpzImages(data.npz.expanduser())
    elif pathlib.Path(data.parquet).is_dir():
        files = parquet.find_files(data.parquet, data.split)
        source = parquet.ParquetImages(files)
    else:
        repo, _, revision = data.parquet.partition("@")
        source = parquet.from_hub(
            repo, data.split, revision=revision or None, offline=log.offline
        )
    found = tuple(getattr(source, "classes", ()))
    if not found or names is None:
        return source
    return Relabelled(source, renumbering(found, names, f"`{data.parquet}`"))


def _open_folder(log, where, data, names):
    """Opens a folder of images, and numbers its classes as the head does."""
    folder = data.folder.expanduser()
    formats.check_exists(folder)
    source = ImageFolder(folder, on_bad_image=data.on_bad_image)
    log.warn(where, *image_checks.oddities(source.report, folder))
    if not source.classes or names is None:
        return source
    numbers = image_checks.numbers(source.classes, names, str(folder))
    return Relabelled(source, numbers)


def _is_preprocessed(source):
    """Tells whether images are floating point already, as only arrays may be."""
    return getattr(source, "is_preprocessed", False)


def _check_preprocessed(source, base):
    """Checks that images which are taken as they are fit the tower."""
    side, shape = base.config["vision"]["image_size"], source[0][0].shape
    if shape != (side, side, 3):
        raise ValueError(
            "the images are floating point, so they are taken as they are, but each "
            f"has shape {shape} and the image tower takes {(side, side, 3)}; "
            "preprocess them for it, or give 8-bit pictures of any size."
        )


def _warn_of_range(log, where, source):
    """Warns of images preprocessed by halves, which nothing else would show."""
    some = range(min(len(source), 16))
    if all(source[i][0].min() >= 0.0 for i in some):
        log.warnings.append(
            f"{where}: the images are floating point, so they are taken as they are, "
            f"but none of the first {len(some)} has a number below 0, as CLIP's "
            "normalisation gives; were they only scaled?"
        )


def _place(data):
    """Names where images come from."""
    return data.dataset or data.folder or data.npz or data.parquet


def _labels(data, source, head, names):
    """Returns the labels of a task, or None; checks that the head has their classes."""
    labels = labels_of(source)
    if (labels == NO_LABEL).all():
        return None
    if (labels == NO_LABEL).any():
        raise ValueError(
            f"{int((labels == NO_LABEL).sum())} of {len(labels)} images of "
            f"`{_place(data)}` have no label; give labels for all images or for none."
        )
    rows = len(head.weight) if head is not None else len(names or ())
    if rows and labels.max() >= rows:
        raise ValueError(
            f"`{_place(data)}` has labels from {labels.min()} to {labels.max()}, but "
            f"the head has {rows} classes, expected 0 to {rows - 1}; take head, class "
            "names and data from the same task."
        )
    return labels


def _check_relations(log, base, tasks):
    """Compares the experts with the base and with each other."""
    experts = {n: task.expert for n, task in tasks.items() if task.expert is not None}
    for name, expert in experts.items():
        where = f"experts.{name}.model"
        check = functools.partial(clip_base.check_same_base, base, expert)
        log.warn(where, *(log.attempt(where, check) or ()))
    log.warnings += clip_base.find_twins(experts)
    if len(tasks) == 1:
        log.warn("experts", "there is one task, so there is nothing to merge it with.")


def _check_images(log, config, tasks):
    """Compares the images of the tasks with batch, classes and each other."""
    found = {n: task.source for n, task in tasks.items() if task.source is not None}
    batch = config.adaptation.batch_size
    for name, source in found.items():
        where, task = f"experts.{name}.data", tasks[name]
        names = _class_names(task.head, task.wording) or ()
        log.warn(where, *image_checks.shortages(len(source), batch, task.labels, names))
    if len(found) > 1:
        log.warnings += log.attempt("data", lambda: shared_images(found)) or []


def read_transform(base: ClipCheckpoint, folder: pathlib.Path) -> ClipTransform:
    """Reads the base's own preprocessing, or takes CLIP's for its image size.

    Args:
        base: the pretrained checkpoint.
        folder: of its configuration.

    Raises:
        ValueError: the file cannot be used, or gives images of another size.
    """
    size = base.config["vision"]["image_size"]
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return ClipTransform(size=size, crop=size)
    transform = transforms.from_preprocessor_config(file)
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


def _tokenizer(base, folder):
    """Loads the base's tokenizer."""
    text = base.config["text"]
    return zero_shot.load_tokenizer(
        folder, text["context_length"], text["vocabulary_size"]
    )


def _facts(config, base, tasks):
    """Lists, as plain values, what the run is made from."""
    return {
        "base": None if base is None else _origin(base),
        "experts": {
            name: None if task.expert is None else _origin(task.expert)
            for name, task in tasks.items()
        },
        "heads": {name: _head_facts(config, task) for name, task in tasks.items()},
        "images": {
            name: None if task.source is None else len(task.source)
            for name, task in tasks.items()
        },
        "labels": {
            name: None if task.labels is None else recipe.digest({"": task.labels})
            for name, task in tasks.items()
        },
        "qkv": config.qkv,
        "prompts": config.prompts,
    }


def _origin(checkpoint):
    """Says where a checkpoint is from and what its image tower is."""
    return {
        "source": checkpoint.source,
        "revision": checkpoint.revision,
        "layout": checkpoint.layout.kind,
        "sha256": recipe.digest(checkpoint.vision),
        "text_sha256": checkpoint.text and recipe.digest(checkpoint.text),
        "config": checkpoint.config["vision"],
        "from_base": list(checkpoint.from_base),
    }


def _head_facts(config, task):
    """Says what a head is made from."""
    if task.head is not None:
        arrays = {"weight": task.head.weight, "bias": task.head.bias}
        return {"sha256": recipe.digest(tree.without_none(arrays))}
    if task.wording is None:
        return None
    wording = {name: list(value) for name, value in task.wording._asdict().items()}
    return {"profile": config.prompts, **wording}


def _shapes(config, base):
    """Returns the shapes of the image tower, also of a base that is not here yet."""
    if base is not None:
        fields = base.config["vision"] | {"qkv": config.qkv}
        sizes = clip_vision.ClipVisionConfig(**fields)
    elif config.base in _KNOWN:
        sizes = dataclasses.replace(
            clip_vision.variant(_KNOWN[config.base]), qkv=config.qkv
        )
    else:
        return None
    side = sizes.image_size
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    model = clip_vision.ClipVision(sizes)
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


def _num_images(config, name, task):
    """Counts the images of a task, or says how many the data set is known to have."""
    if task.source is not None:
        return len(task.source)
    dataset = config.experts[name].data.dataset
    try:
        return registry.get(dataset or "", config.prompts).test_sizes[0]
    except KeyError:
        return 0


def _build(config: MergeConfig, found: ClipInputs | None, folder: RunFolder) -> Suite:
    """Builds heads, once, and puts the suite together."""
    if found is None:
        raise ValueError("the inputs have problems; `check` lists them.")
    base, tasks = found.base, found.tasks
    model = clip_vision.ClipVision(
        clip_vision.ClipVisionConfig(**base.config["vision"] | {"qkv": config.qkv})
    )
    return Suite(
        name="clip",
        tasks=config.task_names,
        encode=lambda params, images: model.apply({"params": params}, images),
        classify=heads.cosine_logits,
        is_decomposed=clip_vision.is_decomposed,
        pretrained=base.vision,
        finetuned=[task.expert.vision for task in tasks.values()],
        heads=_heads(config, found, folder.path / "heads"),
        images=[_ready(task.source, found.transform) for task in tasks.values()],
        labels=[task.labels for task in tasks.values()],
        base=base,
        sources=[config.base, *(config.experts[name].model for name in tasks)],
        class_names=[_class_names(t.head, t.wording) for t in tasks.values()],
    )


def _ready(source, transform):
    """Transforms the images of a source, unless they are what the tower takes."""
    return Transformed(source, np.asarray if _is_preprocessed(source) else transform)


def _heads(config, found, cache):
    """Takes imported heads, and builds the others with the text tower."""
    base, made, embed = found.base, [], None
    for name, task in found.tasks.items():
        if task.head is not None:
            made.append(heads.head_from_weight(task.head.weight, task.head.bias))
            continue
        if embed is None:
            embed = embedder(base, found.folder)
        weight = zero_shot.cached_head(
            cache,
            *embed,
            task.wording.class_names,
            task.wording.templates,
            base.logit_scale,
            extra={"task": name, "profile": config.prompts},
        )
        made.append(heads.head_from_weight(weight))
    return made


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


TEMPLATES = ("a photo of a {}.",)
"""For class names that no registered data set has templates for."""

_KNOWN = {
    "openai/clip-vit-base-patch32": "vit-b-32",
    "openai/clip-vit-base-patch16": "vit-b-16",
    "openai/clip-vit-large-patch14": "vit-l-14",
}
"""Sizes that a plan can tell before anything is fetched."""
