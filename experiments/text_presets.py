"""Runs of language models by name: the embedded texts, and rows of published tables.

Two leagues, told apart by the metric of CoLA, never to be mixed in one table:

* AdaRank: Matthews correlation for CoLA, accuracy for the other six. Means are the
  paper's at second hand.
* FusionBench: accuracy for all seven, GPT-2 only. Means are from its documentation,
  that of TSV-M at second hand.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from adarank_jax.data import glue
from adarank_jax.errors import Message
from experiments import named_runs, text_demo, text_demo_cache, yaml_config
from experiments.named_runs import Preset, Unmade
from experiments.text_config import CART, LEAGUES, CartRun, TextMergeConfig

DEMO = "text-demo"
"""The preset whose base is inside a Python package and whose experts are made here."""

ADARANK, FUSION_BENCH = LEAGUES


def get(name: str) -> Preset:
    """Looks a preset up.

    Raises:
        UsageError: there is no such preset; the message has the nearest.
    """
    return named_runs.get(all_presets(), name)


def configure(name: str, overrides: Sequence[str] = ()) -> TextMergeConfig:
    """Builds the configuration of a preset, with single values changed; makes nothing.

    Args:
        name: of the preset.
        overrides: ``dotted.key=value``.

    Raises:
        UsageError: there is no such preset; the message has the nearest.
        Problems: values do not fit.
    """
    if name != DEMO:
        return named_runs.configure(TextMergeConfig, all_presets(), name, overrides)
    values = text_demo.values(text_demo_cache.default())
    return yaml_config.validate(
        TextMergeConfig, values, {}, overrides, f"preset {name}"
    )


def unmade(name: str) -> Unmade | None:
    """Lists what the embedded texts still need; None if everything is there.

    Args:
        name: of a preset; those from the Hub need nothing that is made here.

    Raises:
        DamageError: what was made is damaged.
    """
    cache = text_demo_cache.default()
    found = text_demo.missing(cache) if name == DEMO else None
    if found is None or not any(found):
        return None
    return Unmade(
        text_demo.lines(cache, found),
        Message(
            "E181",
            f"{len(found.experts)} experts of the text demo are not there yet",
            f"`{cache}`",
            remedy="make them first with `python -m experiments.text_demo` (downloads, "
            "and some minutes of training)",
        ),
        functools.partial(text_demo.prepare, cache),
    )


def all_presets() -> dict[str, Preset]:
    """Lists every preset by name."""
    demo = Preset("a pretrained MiniLM and texts that come in Python packages", {})
    return {DEMO: demo} | dict([*_adarank(), *_fusion_bench()])


def _adarank() -> Iterator[tuple[str, Preset]]:
    """Rows in the league of the paper."""
    for model, family in _FAMILIES.items():
        for row, mean in zip(_ROWS, _MEANS[model], strict=True):
            origin = _ORIGINS[row.removesuffix("-adarank")]
            is_adapted = row.endswith("-adarank")
            published = {"league": ADARANK, "mean": mean}
            if mean is not None:
                published["source"] = "paper, at second hand"
            published["settings"] = _settings(model, origin, is_adapted)
            values = _values(family, "matthews") | {
                "method": _method(family, origin, is_adapted),
                "adaptation": _adaptation(family, origin),
                "compare": _compare(family),
                "published": published,
            }
            yield f"{model}-{row}", Preset(_summary(published), values)


def _fusion_bench() -> Iterator[tuple[str, Preset]]:
    """Static rows of FusionBench's table of GPT-2."""
    family = _FAMILIES["gpt2"]
    for row, (mean, coefficient, source) in _FUSION_BENCH.items():
        method: dict[str, Any] = {"name": _ORIGINS.get(row, row.replace("-", "_"))}
        settings = "the method's default; that of the published number is not known"
        if row == "weight-averaging":
            settings = "the method's default"
        if coefficient is not None:
            method["coefficient"] = coefficient
            settings = "FusionBench's"
        published = {
            "league": FUSION_BENCH,
            "mean": mean,
            "source": source,
            "settings": settings,
        }
        values = _values(family, "accuracy") | {
            "method": method,
            "compare": ["pretrained", "individual"],
            "published": published,
        }
        yield f"gpt2-fusionbench-{row}", Preset(_summary(published), values)


class _Family(NamedTuple):
    """Names and settings of one model.

    Attributes:
        base: on the Hub.
        expert: on the Hub, with a place for the task.
        cart: start and rate of the authors' CART run.
        lengths: that batches are padded to; longer texts are cut.
    """

    base: str
    expert: str
    cart: CartRun
    lengths: tuple[int, ...]


def _values(family, cola):
    """Says what all rows of a table share."""
    experts = {}
    for task in glue.names():
        model = family.expert.format(task=task, rate="5" if task == "mrpc" else "1")
        experts[task] = {"model": model, "data": task}
        if task == "cola":
            experts[task]["metric"] = cola
    return {
        "base": family.base,
        "experts": experts,
        "max_length": max(family.lengths),
        "buckets": family.lengths,
    }


def _method(family, origin, is_adapted):
    """Names a method with its start."""
    coefficient, rank_ratio = _START[origin] or family.cart[:2]
    if is_adapted:
        start = {"coefficient": coefficient, "rank_ratio": rank_ratio}
        return {"name": "adarank", "origin": origin, "objective": "entropy"} | start
    if origin == "cart":
        return {"name": "cart", "coefficient": coefficient, "rank_ratio": rank_ratio}
    return {"name": origin, "coefficient": coefficient}


def _adaptation(family, origin):
    """Says how long and fast a method trains."""
    is_arithmetic = origin == "task_arithmetic"
    rate = 5e-5 if is_arithmetic else family.cart.learning_rate
    return {
        "num_steps": 5_000,
        "batch_size": 8,
        "learning_rate": rate,
        "temperature": 10.0,
        "checkpoint_every": 500,
    }


def _compare(family):
    """Lists the rows beside the chosen one: bounds, and merges without data."""
    statics = [_method(family, origin, False) for origin in _ORIGINS.values()]
    return ["pretrained", "individual", "weight_averaging", *statics]


def _settings(model, origin, is_adapted):
    """Says where hyper-parameters are from."""
    is_gpt2 = model == "gpt2"
    if not is_adapted:
        text = "the method's default"
        if origin == "cart":
            text = "the start of AdaRank's CART run"
        return text
    text = "the authors' configuration"
    if origin == "tsv_m":
        text = "ours, as there is no code of this row; the rate of the CART run"
    return f"{text}; MNLI matched, theirs mismatched" if is_gpt2 else text


def _summary(published):
    """Says in one line what a row is."""
    mean = published["mean"]
    shown = "no published number"
    if mean is not None:
        shown = f"published {mean:.1f} ({published['source']})"
    metric = {"matthews": "Matthews", "accuracy": "accuracy"}
    cola = metric[LEAGUES[published["league"]]]
    return f"{published['league']}, CoLA by {cola}: {shown}; not reproduced here"


_FAMILIES = {
    "roberta": _Family(
        base="FacebookAI/roberta-base",
        expert="vanillaOVO/roberta_base_glue_ckpts:{task}/roberta-base_lr{rate}e-05",
        cart=CART["roberta"],
        lengths=(32, 64, 128),
    ),
    "gpt2": _Family(
        base="openai-community/gpt2",
        expert="tanganke/gpt2_{task}",
        cart=CART["gpt2"],
        lengths=(32, 64, 128, 256, 512),
    ),
}

_ORIGINS = {"ta": "task_arithmetic", "tsv-m": "tsv_m", "cart": "cart"}

# Coefficient and rank ratio at the start; CART's are the model's.
_START = {"task_arithmetic": (0.3, 1.0), "tsv_m": (1.0, 1.0), "cart": None}

_ROWS = ("ta", "tsv-m", "cart", "ta-adarank", "tsv-m-adarank", "cart-adarank")
_MEANS = {
    "roberta": (67.18, 66.93, 69.97, 70.32, 73.09, 75.47),
    "gpt2": (None, None, None, None, 67.43, 65.87),
}

# Mean, coefficient, and where the mean is from.
_DOCUMENTED = "FusionBench's documentation"
_FUSION_BENCH = {
    "weight-averaging": (56.1, None, _DOCUMENTED),
    "ta": (70.0, 0.5, _DOCUMENTED),
    "tsv-m": (70.2, None, "FusionBench's table, at second hand"),
}
