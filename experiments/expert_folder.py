"""An expert as a folder: model, head, card, and its entry in `my_merge.yaml`."""

import json
import pathlib
import shlex
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

import adarank_jax
from adarank_jax import errors
from adarank_jax.checkpoints import export, folders, head_files
from adarank_jax.tree import Tree
from experiments import card
from experiments.finetune_inputs import Config, Inputs, is_registered


def is_made(config: Config, decisive: Mapping[str, Any]) -> bool:
    """Tells whether this very expert is there.

    Args:
        config: of the run.
        decisive: all that decides the weights of the expert, as plain values.

    Raises:
        MachineError: a model is there that was not made here.
        UsageError: another expert is there.
    """
    mark = config.out / folders.MARK
    if not mark.is_file():
        return False
    found = json.loads(mark.read_text(encoding="utf-8")).get("finetune")
    if found is None:
        raise errors.MachineError(
            "E404",
            "it holds a model that was not fine-tuned here, and is not replaced",
            f"`{config.out}`",
            remedy="choose another folder with --out",
        )
    if config.restart or found == decisive:
        return not config.restart
    keys = sorted(k for k in {*found, *decisive} if found.get(k) != decisive.get(k))
    raise errors.UsageError(
        "E620",
        f"it holds another expert, made with other {', '.join(keys)}",
        f"`{config.out}`",
        remedy="choose another folder with --out, or replace it with --restart",
    )


def write(
    config: Config,
    inputs: Inputs,
    head: tuple[np.ndarray, np.ndarray | None],
    vision: Tree,
    decisive: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Writes model, head and card, all or nothing.

    Args:
        config: of the run.
        inputs: what was read.
        head: weight, and bias or None.
        vision: the fine-tuned image tower.
        decisive: as for `is_made`; recorded.
        facts: numbers of images and classes, accuracies and losses.

    Raises:
        OSError: the disk has no room.
        ValueError: the folder holds something else.
    """
    base, wording = inputs.base, inputs.wording
    extra: dict[str, Any] = {"task": config.out.name, "base": base.source}
    if inputs.head is None:
        extra |= {"profile": config.prompts, "templates": list(wording.templates)}
        extra |= {"logit_scale": base.logit_scale}
    names = wording.class_names or None
    with tempfile.TemporaryDirectory() as place:
        file = pathlib.Path(place) / HEAD
        head_files.write_head(file, *head, names, extra)
        files = {each.name: each.read_bytes() for each in file.parent.iterdir()}
    files["README.md"] = _readme(config, inputs, facts).encode()
    export.write_model(
        config.out,
        base,
        vision,
        # Half precision would lose much of what so small a rate has changed.
        dtype=None if base.layout.dtype == "float32" else "float32",
        files=files,
        record={"finetune": dict(decisive), "training": dict(facts)},
    )


def _readme(config, inputs, facts):
    """Writes the model card."""
    base = inputs.base
    licence = card.read_licence(base.state.files[0].parent)
    keys = ("license", "license_name", "license_link")
    matter = dict(zip(keys, licence, strict=True))
    matter |= {"base_model": card.hub_id(base.source)}
    matter = {k: v for k, v in matter.items() if v not in (None, "", card.UNKNOWN)}
    matter |= {"library_name": "transformers", "tags": ["clip", "adarank"]}
    command = shlex.join(["python", "-m", "experiments.finetune", *sys.argv[1:]])
    escape = card.escape
    source = escape(
        f"{base.source} at {base.revision}" if base.revision else base.source
    )
    warmup = min(config.warmup_steps, config.num_steps // 2)
    return f"""\
---
{yaml.safe_dump(matter, sort_keys=True).strip()}
---
# {escape(config.out.name)}

The image tower of {source}, fine-tuned on {facts["images"]:,} labelled images of
{escape(config.data)} under a frozen head of {facts["classes"]} classes, `{HEAD}`.
Made to be merged with other experts of the same base by adarank\\_jax
{adarank_jax.__version__}:

{_indented(snippet(config))}

| on {facts["judged_images"]:,} training images | base | this model |
| --- | --- | --- |
| accuracy | {facts["accuracy_of_base"]:.2%} | {facts["accuracy"]:.2%} |
| loss, mean of {facts["loss_steps"]} steps | {facts["loss_at_start"]:.4f} \
| {facts["loss_at_end"]:.4f} |

AdamW, {config.num_steps:,} steps of {config.batch_size} images, peak rate
{config.learning_rate:g} after {warmup:,} steps, cosine to zero, weight decay
{config.weight_decay:g}, gradients clipped at 1, no augmentation, seed {config.seed}.
The command was

{_indented(command)}
"""


def _indented(text):
    """Shows text as a block of code that it cannot end."""
    visible = [
        "".join(c if c.isprintable() else " " for c in x) for x in text.split("\n")
    ]
    return "\n".join(f"    {line}".rstrip() for line in visible)


def snippet(config: Config) -> str:
    """Writes the entry of the expert in my_merge.yaml, and what it needs around it."""
    model = _path(config.out)
    entry = {"model": model, "head": _path(config.out / HEAD), "data": _data(config)}
    base = pathlib.Path(config.base)
    values: dict[str, Any] = {"base": _path(base) if base.exists() else config.base}
    if config.prompts != "official":
        values["prompts"] = config.prompts
    values["experts"] = {config.out.name: entry}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1_000)
    better = "  # images of the same kind that it has not seen are better"
    return text.strip() + ("" if is_registered(config) else better)


def _data(config):
    """Says where images are; of a registered data set, a merge takes the test set."""
    path = pathlib.Path(config.data)
    if is_registered(config):
        return config.data
    if path.is_dir() and any(path.expanduser().rglob("*.parquet")):
        return {"parquet": _path(path), "split": "train"}
    return _path(path)


def _path(path):
    """Writes a path so that it is not taken for a name on the Hub."""
    if path.is_absolute() or str(path).startswith(("~", "..")):
        return str(path)
    return f"./{path.as_posix()}"


HEAD = "head.safetensors"
