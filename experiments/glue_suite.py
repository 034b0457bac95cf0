"""A suite of language models: base, experts, heads and texts from disk or Hub.

`check` reads and compares everything and lists every problem; nothing is written before
that.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adarank_jax import errors
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.checkpoints import (
    hub,
    language,
    language_base,
    language_export,
    language_tokenizer,
    recipe,
)
from adarank_jax.checkpoints.language import LanguageCheckpoint
from adarank_jax.data import sources, texts, tokenizer_folder, tokens
from adarank_jax.data.texts import Texts
from adarank_jax.data.tokens import Tokens
from adarank_jax.models import bert, gpt2, roberta, sequence_heads
from adarank_jax.models.language import FAMILIES, Family
from adarank_jax.tree import Tree
from experiments import language_heads, messages, task_checks, task_texts, text_config
from experiments.check_log import CheckLog
from experiments.suite import Inputs, Metric, Suite, Tower, judged_by
from experiments.text_config import TextExpert, TextMergeConfig


class TaskInputs(NamedTuple):
    """What was found of one task; None where there is a problem or nothing.

    Attributes:
        expert: the fine-tuned checkpoint.
        head: of the task.
        class_names: in the order of the head's rows.
        source: of the texts.
        tokens: of the texts.
        labels: of the texts, if they have any.
        metric: by which the task is judged.
    """

    expert: LanguageCheckpoint | None
    head: Tree | None
    class_names: tuple[str, ...] | None
    source: Texts | None
    tokens: Tokens | None
    labels: np.ndarray | None
    metric: Metric | None


class Base(NamedTuple):
    """The pretrained model and what goes with it.

    Attributes:
        checkpoint: as read.
        family: of the encoder.
        sizes: the configuration of its module.
        tokenizer: of `transformers`; None if there is a problem with it.
    """

    checkpoint: LanguageCheckpoint
    family: Family
    sizes: Any
    tokenizer: Any


def check(config: TextMergeConfig, may_fetch: bool = True) -> Inputs:
    """Reads and compares base, experts, heads and texts; writes nothing of its own.

    Args:
        config: of the run.
        may_fetch: whether files may be fetched from the Hub; without, those that are
            not here yet are listed.

    Returns:
        What was found, with every problem.
    """
    log = CheckLog(config, may_fetch)
    base = _check_base(log, config)
    tasks = {
        name: _check_task(log, config, name, config.experts[name], base)
        for name in config.task_names
    }
    pretrained = None if base is None else base.checkpoint
    task_checks.check_relations(
        log, pretrained, tasks, language_base, texts.shared_texts
    )
    family, sizes = _sizes(config, base)
    log.warnings += text_config.misfits(config, family and family.name)
    nothing = lambda path, leaf: False
    return Inputs(
        problems=log.problems,
        warnings=[*map(messages.told, log.warnings)],
        to_fetch=tuple(log.to_fetch),
        facts=_facts(config, base, tasks),
        shapes=None if family is None else _shapes(family, sizes),
        tower=None if family is None else _tower(config, sizes),
        num_examples={
            name: _num_texts(config.experts[name], task) for name, task in tasks.items()
        },
        is_decomposed=nothing if family is None else family.is_decomposed,
        build=functools.partial(_build, config, base, tasks),
        lines=_lines(config, tasks),
        unit="texts",
        is_merged=nothing if family is None else family.is_merged,
    )


def _check_base(log, config):
    """Reads the pretrained model and its tokenizer."""
    checkpoint = log.read(
        "base", config.base, lambda: _read(log, "base", config.base, None)
    )
    if checkpoint is None:
        return None
    family = FAMILIES[checkpoint.family]
    sizes = family.config_class(**checkpoint.config)
    problems = len(log.problems)
    log.attempt("base", lambda: _check_tokenizer(log, "base", checkpoint, checkpoint))
    log.attempt("max_length", lambda: _check_length(config, sizes))
    if config.export.enabled:
        log.attempt("export", lambda: language_export.check_base(checkpoint))
    tokenizer = None
    if len(log.problems) == problems:
        tokenizer = log.attempt(
            "base", lambda: tokens.load_tokenizer(checkpoint.folder)
        )
    return Base(checkpoint, family, sizes, tokenizer)


def _read(log, where, source, base):
    """Reads a checkpoint."""
    checkpoint = language.read_language(source, base, log.offline)
    log.warn(where, *checkpoint.state.warnings, *checkpoint.warnings)
    return checkpoint


def _check_tokenizer(log, where, base, checkpoint):
    """Compares the tokenizer of a checkpoint with the embeddings of the base."""
    log.warn(where, *language_tokenizer.check_tokenizer(base, checkpoint.folder))


def _check_own_tokenizer(log, where, base, checkpoint):
    """Compares the tokenizer of an expert, its files and its ids, with the base's."""
    _check_tokenizer(log, where, base.checkpoint, checkpoint)
    tokenizer_folder.check_same(checkpoint.folder, base.tokenizer)


def _check_length(config, sizes):
    """Refuses texts that are longer than the model has positions for."""
    if config.max_length > sizes.max_tokens:
        raise errors.UsageError(
            "E011",
            f"must be at most {sizes.max_tokens}, the tokens that the model has "
            f"positions for, got {config.max_length}",
        )


def _check_task(
    log: CheckLog,
    config: TextMergeConfig,
    name: str,
    expert: TextExpert,
    base: Base | None,
) -> TaskInputs:
    """Reads what belongs to one task."""
    where = f"experts.{name}"
    place = f"{where}.model"
    own = None if base is None else base.checkpoint
    read = functools.partial(_read, log, place, expert.model, own)
    checkpoint = log.read(
        place,
        expert.model,
        lambda: task_checks.read_expert(log, expert.model, base, read),
    )
    if checkpoint is not None and base is not None and base.tokenizer is not None:
        if checkpoint.folder != base.checkpoint.folder:
            log.attempt(
                place,
                lambda: _check_own_tokenizer(log, place, base, checkpoint),
            )
    head = _check_head(log, where, expert, base, checkpoint)
    stated = checkpoint.class_names if checkpoint and expert.head is None else None
    names = log.attempt(
        f"{where}.classes",
        lambda: language_heads.class_names(expert.classes, stated, head),
    )
    log.warn(f"{where}.classes", *language_heads.doubts(expert.classes, stated))
    place = f"{where}.data"
    metric = log.attempt(place, lambda: task_texts.metric(expert))
    if metric is None:
        return TaskInputs(checkpoint, head, names, None, None, None, None)
    rows = language_heads.row_names(names, head)
    source = log.read(
        place,
        task_texts.hub_name(expert.data),
        lambda: task_texts.open_texts(expert.data, rows, config.data_dir, log.offline),
    )
    found, labels = None, None
    if source is not None:
        count = 0 if head is None else sequence_heads.num_classes(head)
        labels = log.attempt(place, lambda: task_texts.find_labels(source, count))
        found = _tokenize(log, place, config, source, base)
        log.warn(place, *source.warnings)
    return TaskInputs(checkpoint, head, names, source, found, labels, metric)


def _check_head(log, where, expert, base, checkpoint):
    """Finds the head of a task."""
    if base is not None and expert.head is not None:
        width = base.sizes.width
        return log.attempt(
            f"{where}.head",
            lambda: language_heads.read_head(expert.head, base.family, width),
        )
    if base is not None and checkpoint is not None:
        return log.attempt(
            f"{where}.model",
            lambda: language_heads.of_expert(checkpoint, base.family),
        )
    return None


def _tokenize(log, where, config, source, base):
    """Turns the texts of a task into token ids, if there is a tokenizer."""
    if base is None or base.tokenizer is None:
        return None
    found = log.attempt(
        where,
        lambda: tokens.tokenize(
            source,
            base.tokenizer,
            config.max_length,
            base.sizes.vocabulary_size,
            base.sizes.max_tokens,
            getattr(base.sizes, "num_token_types", None),
            source.name,
        ),
    )
    if found is not None:
        log.warn(where, *task_texts.doubts(found, config.adaptation.batch_size))
    return found


def _facts(config, base, tasks):
    """Lists, as plain values, what the run is made from."""
    return {
        "base": None if base is None else _origin(base.checkpoint),
        "tokenizer": None if base is None else _tokenizer_facts(base.checkpoint),
        "experts": task_checks.describe_experts(tasks, _origin),
        "heads": {
            name: None if task.head is None else _head_facts(task)
            for name, task in tasks.items()
        },
        "texts": {
            name: None if task.tokens is None else _text_facts(task.tokens)
            for name, task in tasks.items()
        },
        "labels": {
            name: None if task.labels is None else recipe.digest({"": task.labels})
            for name, task in tasks.items()
        },
        "metrics": {name: task.metric for name, task in tasks.items()},
        "max_length": config.max_length,
    }


def _origin(checkpoint):
    """Says where a checkpoint is from and what its encoder is."""
    return {
        "source": checkpoint.source,
        "revision": checkpoint.revision,
        "family": checkpoint.family,
        "sha256": recipe.digest(checkpoint.encoder),
        "config": checkpoint.config,
    }


def _tokenizer_facts(checkpoint):
    """Says by what a tokenizer is known again."""
    if not language.has_tokenizer(checkpoint.folder):
        return None
    return {"sha256": language_tokenizer.read_tokenizer(checkpoint.folder).sha256}


def _head_facts(task):
    """Says what a head is, and what its rows are taken for if it does not say."""
    digest = recipe.digest(task.head)
    if task.class_names is not None:
        return {"sha256": digest, "classes": list(task.class_names)}
    found = None if task.source is None else task.source.class_names
    assumed = None if found is None else list(found)
    return {"sha256": digest, "classes": None, "assumed": assumed}


def _text_facts(found):
    """Says how many texts there are, and by what they are known again."""
    return {"number": len(found), "fingerprint": sources.fingerprint(found)}


def _sizes(config, base):
    """Returns family and sizes, also of a base that is not here yet."""
    if base is not None:
        return base.family, base.sizes
    name, variant = _KNOWN.get(config.base.partition("@")[0], (None, None))
    return (None, None) if name is None else (FAMILIES[name], variant())


def _shapes(family, sizes):
    """Returns the shapes of the encoder."""
    token = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    names = ("input_ids", "attention_mask", "token_type_ids")
    model = family.module_class(sizes)
    inputs = dict.fromkeys(names, token)
    return jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]


def _tower(config, sizes):
    """Says what the cost of a text depends on."""
    longest = min(config.max_length, sizes.max_tokens)
    return Tower(longest, sizes.width, sizes.num_layers)


def _num_texts(expert, task):
    """Counts the texts of a task, or says how many the data set is known to have."""
    if task.source is not None:
        return len(task.source)
    return task_texts.known_size(expert.data)


def _lines(config, tasks):
    """Says in a plan how runs on texts differ from each other."""
    buckets = tokens.bucket_lengths(config.max_length, config.buckets)
    lengths = ", ".join(map(str, buckets))
    known = {n: task.metric for n, task in tasks.items() if task.metric is not None}
    return [
        ("tokens", f"at most {config.max_length}; batches are padded to {lengths}"),
        ("metrics", judged_by(list(known), list(known.values()))),
    ]


def _build(
    config: TextMergeConfig,
    base: Base | None,
    tasks: dict[str, TaskInputs],
    folder: RunFolder,
) -> Suite:
    """Puts the suite together."""
    if base is None:
        raise ValueError("the inputs have problems; `check` lists them.")
    experts = [task.expert for task in tasks.values() if task.expert is not None]
    model = base.family.module_class(base.sizes)
    buckets = tokens.bucket_lengths(config.max_length, config.buckets)
    checkpoint = base.checkpoint
    return Suite(
        name=base.family.name,
        tasks=config.task_names,
        encode=lambda params, inputs: model.apply({"params": params}, inputs),
        classify=base.family.classify,
        is_decomposed=base.family.is_decomposed,
        pretrained=checkpoint.encoder,
        finetuned=[expert.encoder for expert in experts],
        heads=[task.head for task in tasks.values()],
        inputs=[task.tokens for task in tasks.values()],
        labels=[task.labels for task in tasks.values()],
        base=checkpoint,
        sources=[
            hub.pin(each.source, each.revision) for each in (checkpoint, *experts)
        ],
        class_names=[task.class_names for task in tasks.values()],
        metrics=[task.metric for task in tasks.values()],
        unit="texts",
        collate=functools.partial(tokens.trim, buckets=buckets),
        is_merged=base.family.is_merged,
    )


_KNOWN = {
    "FacebookAI/roberta-base": ("roberta", lambda: roberta.variant("roberta-base")),
    "openai-community/gpt2": ("gpt2", lambda: gpt2.variant("gpt2")),
    "google-bert/bert-base-uncased": (
        "bert",
        lambda: bert.variant("bert-base-uncased"),
    ),
}
"""Sizes that a plan can tell before anything is fetched."""
