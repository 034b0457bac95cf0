"""Writes the embedded suite as anybody's own checkpoints, heads and images.

    python -m experiments.write_embedded --out family
    python -m experiments.run_vit family/my_merge.yaml --plan

The base and every expert become a folder as transformers saves it, every head a
safetensors file, the test images PNG files in one folder a class: an example to copy.
"""

import dataclasses
import pathlib

import numpy as np
import yaml
from PIL import Image
from rich.console import Console

from adarank_jax import errors
from adarank_jax.checkpoints import folders, head_files
from adarank_jax.data.embedded import tasks as embedded_tasks
from experiments import cli, embedded_suite, exporting


@dataclasses.dataclass(frozen=True)
class Config:
    """Writes base, experts, heads, images and a configuration of the embedded suite."""

    out: pathlib.Path
    """Folder to write; it must not be there yet."""

    tasks: tuple[str, ...] = ("mnist", "letters", "shapes")
    """Tasks of the suite."""

    images: int = 300
    """Test images of each task."""


def main(config: Config) -> None:
    """Writes everything, whole or not at all."""
    if config.out.exists():
        found, remedy = "it is there already", "choose another --out"
        raise errors.MachineError("E404", found, f"`{config.out}`", remedy=remedy)
    experts = {}
    with folders.whole_folder(config.out) as new:
        suite = embedded_suite.load(config.tasks, checkpoints=new)
        for name, head, names in zip(
            suite.tasks, suite.heads, suite.class_names, strict=True
        ):
            head_files.write_head(
                new / "heads" / f"{name}.safetensors",
                exporting.weight(head),
                class_names=names,
            )
            _write_images(new / "images" / name, name, names, config.images)
            experts[name] = {
                "model": str(config.out / "experts" / name),
                "head": str(config.out / "heads" / f"{name}.safetensors"),
                "data": str(config.out / "images" / name),
            }
        values = {
            "base": str(config.out / "base"),
            "experts": experts,
            "method": {"name": "adarank", "origin": "tsv_m"},
            "compare": ["pretrained", "individual", "task_arithmetic"],
            "adaptation": {"num_steps": 100, "batch_size": 16},
        }
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        (new / "my_merge.yaml").write_text(text, encoding="utf-8")
    Console(stderr=True, highlight=False, markup=False).print(
        f"Wrote {config.out}; merge it with "
        f"`python -m experiments.run_vit {config.out / 'my_merge.yaml'}`.",
        soft_wrap=True,
    )


def _write_images(folder, task, names, count):
    """Writes test images as PNG, one folder a class."""
    images, labels = embedded_tasks.render(task, "test", count)
    for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        target = folder / names[label] / f"{i:04d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels)).save(target)


if __name__ == "__main__":
    cli.run(main, Config)
