"""A suite: one pretrained model, an expert and a head a task, and unlabelled images."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.checkpoints.clip import ClipCheckpoint
from adarank_jax.models.heads import Head
from adarank_jax.tree import Predicate, Tree


class Suite(NamedTuple):
    """Everything that a merge is made from and judged by.

    Attributes:
        name: of the suite.
        tasks: names, in the order of every other list here.
        encode: the model without its head.
        classify: the head of one task.
        is_decomposed: which tensors the method decomposes.
        pretrained: parameters before fine-tuning.
        finetuned: parameters of each expert.
        heads: classifier of each task.
        images: test images of each task, ready for the model, float32.
        labels: of the test images, None where there are none; used for the table
            only, never for a choice.
        base: the pretrained checkpoint, whose layout an export has; None if nothing
            will be exported.
        sources: where the base and then every expert come from.
        class_names: of each task, None where they are not known.
    """

    name: str
    tasks: Sequence[str]
    encode: Callable[[Tree, Any], Any]
    classify: Callable[[Any, Head], Any]
    is_decomposed: Predicate
    pretrained: Tree
    finetuned: Sequence[Tree]
    heads: Sequence[Head]
    images: Sequence[Any]
    labels: Sequence[np.ndarray | None]
    base: ClipCheckpoint | None
    sources: Sequence[str]
    class_names: Sequence[Sequence[str] | None]

    @property
    def is_labelled(self) -> bool:
        """Whether every task has labels."""
        return all(labels is not None for labels in self.labels)


class Inputs(NamedTuple):
    """What was found and checked, before anything is written.

    Attributes:
        problems: everything that is wrong; empty if the run can start.
        warnings: what a user should know and that stops nothing.
        to_fetch: what a run would fetch from the Hub first.
        facts: where weights, heads and images come from, as plain values.
        shapes: of the pretrained parameters, as `jax.ShapeDtypeStruct`; None if there
            is a problem with the base.
        num_images: of each task.
        is_decomposed: which tensors the method decomposes.
        build: makes the suite; may keep files in the folder of the run.
    """

    problems: Sequence[str]
    warnings: Sequence[str]
    to_fetch: Sequence[str]
    facts: dict[str, Any]
    shapes: Tree | None
    num_images: dict[str, int]
    is_decomposed: Predicate
    build: Callable[[RunFolder], Suite]


def refuse(problems: Sequence[str]) -> None:
    """Raises one error with every problem, if there are any.

    Args:
        problems: one message each.

    Raises:
        ValueError: there is a problem.
    """
    if len(problems) == 1:
        raise ValueError(problems[0])
    if problems:
        lines = "\n".join(f"{i}. {each}" for i, each in enumerate(problems, start=1))
        raise ValueError(f"{len(problems)} problems, nothing was done:\n{lines}")
