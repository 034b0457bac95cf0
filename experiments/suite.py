"""A suite: one pretrained model, an expert and a head a task, and unlabelled inputs."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from adarank_jax import errors, tree
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.errors import Message
from adarank_jax.tree import Predicate, Tree

Metric = Literal["accuracy", "matthews"]
"""How a task is judged: by the share of right answers, or by Matthews correlation."""


def judged_by(tasks: Sequence[str], metrics: Sequence[Metric]) -> str:
    """Says which task has which metric.

    Args:
        tasks: names.
        metrics: of each task.

    Examples:
        >>> judged_by(["cola", "rte"], ["matthews", "accuracy"])
        'Matthews correlation for cola, accuracy for the others'
    """
    held = [t for t, m in zip(tasks, metrics, strict=True) if m == "matthews"]
    if not held:
        return "accuracy"
    rest = "" if len(held) == len(tasks) else ", accuracy for the others"
    return f"Matthews correlation for {', '.join(held)}{rest}"


def identity(inputs: Any) -> Any:
    """Takes a batch as it is."""
    return inputs


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
        inputs: test examples of each task, ready for the model.
        labels: of the test examples, None where there are none; used for the table
            only, never for a choice.
        base: the pretrained checkpoint, whose layout an export has; None if nothing
            will be exported.
        sources: where the base and then every expert come from.
        class_names: of each task, None where they are not known.
        metrics: by which each task is judged.
        unit: what the examples are.
        collate: makes a batch smaller that is padded more than it has to be.
        is_merged: which tensors are merged; the others stay those of the origin.
    """

    name: str
    tasks: Sequence[str]
    encode: Callable[[Tree, Any], Any]
    classify: Callable[[Any, Any], Any]
    is_decomposed: Predicate
    pretrained: Tree
    finetuned: Sequence[Tree]
    heads: Sequence[Any]
    inputs: Sequence[Any]
    labels: Sequence[np.ndarray | None]
    base: Any
    sources: Sequence[str]
    class_names: Sequence[Sequence[str] | None]
    metrics: Sequence[Metric]
    unit: str = "images"
    collate: Callable[[Any], Any] = identity
    is_merged: Predicate = tree.everything

    @property
    def is_labelled(self) -> bool:
        """Whether every task has labels."""
        return all(labels is not None for labels in self.labels)


class Tower(NamedTuple):
    """What the cost of one example depends on, besides the weights.

    Attributes:
        tokens: of an example, at most.
        width: of a token.
        num_layers: that every token goes through.
    """

    tokens: int
    width: int
    num_layers: int


class Inputs(NamedTuple):
    """What was found and checked, before anything is written.

    Attributes:
        problems: everything that is wrong; empty if the run can start.
        warnings: what a user should know and that stops nothing.
        to_fetch: what a run would fetch from the Hub first.
        facts: where weights, heads and examples come from, as plain values.
        shapes: of the pretrained parameters, as `jax.ShapeDtypeStruct`; None if there
            is a problem with the base.
        tower: of the model; None where there are no shapes.
        num_examples: of each task; 0 where it is not known.
        is_decomposed: which tensors the method decomposes.
        build: makes the suite; may keep files in the folder of the run.
        lines: of a plan, pairs of a heading and a text, that only this kind of run has.
        unit: what the examples are.
        is_merged: which tensors are merged.
    """

    problems: Sequence[Message]
    warnings: Sequence[Message]
    to_fetch: Sequence[str]
    facts: dict[str, Any]
    shapes: Tree | None
    tower: Tower | None
    num_examples: dict[str, int]
    is_decomposed: Predicate
    build: Callable[[RunFolder], Suite]
    lines: Sequence[tuple[str, str]] = ()
    unit: str = "images"
    is_merged: Predicate = tree.everything


def refuse(problems: Sequence[Message]) -> None:
    """Raises one error with every problem, if there are any.

    Args:
        problems: all of them.

    Raises:
        Problems: there is a problem.
    """
    if problems:
        raise errors.Problems(problems, exit_code(problems))


def exit_code(problems: Sequence[Message]) -> int:
    """Returns the code that a command ends with: that of the kind of the problems.

    Args:
        problems: at least one.

    Examples:
        >>> exit_code([Message("E013", "this"), Message("E401", "that")])
        3
    """
    kinds = {problem.code[:2] for problem in problems}
    if kinds == {"E0"}:
        return errors.UsageError.exit_code
    if kinds == {"E4"}:
        return errors.MachineError.exit_code
    return errors.InputError.exit_code
