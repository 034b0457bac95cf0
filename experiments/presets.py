"""Runs by name: the embedded suite, and one row of a published table each.

Hyper-parameters are the published ones; where none are published, `settings` says what
was taken instead. Two leagues of checkpoints, never to be mixed in one table:

* TA/TALL: the checkpoints of Task Arithmetic for the first eight tasks and of TALL
  masks for the other twelve, heads of the `official` prompts. AdaRank's own.
* FusionBench: the `tanganke/*` checkpoints, heads of the `fusion_bench` prompts.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from adarank_jax.data import registry
from experiments import named_runs
from experiments.image_config import EMBEDDED, LEAGUES, ImageMergeConfig
from experiments.named_runs import Preset

TALL, FUSION_BENCH = LEAGUES


def get(name: str) -> Preset:
    """Looks a preset up.

    Raises:
        UsageError: there is no such preset; the message has the nearest.
    """
    return named_runs.get(all_presets(), name)


def configure(name: str, overrides: Sequence[str] = ()) -> ImageMergeConfig:
    """Builds the configuration of a preset, with single values changed.

    Args:
        name: of the preset.
        overrides: ``dotted.key=value``.

    Raises:
        UsageError: there is no such preset; the message has the nearest.
        Problems: values do not fit.
    """
    return named_runs.configure(ImageMergeConfig, all_presets(), name, overrides)


def all_presets() -> dict[str, Preset]:
    """Lists every preset by name."""
    return dict([*_embedded(), *_tall(), *_fusion_bench()])


def _embedded() -> Iterator[tuple[str, Preset]]:
    """The suite that comes with the package: small models, drawn images."""
    experts = dict.fromkeys(_EMBEDDED_TASKS)
    statics = ["weight_averaging", "task_arithmetic", "cart", "tsv_m", "iso_c"]
    rows = ["individual", "pretrained", *statics, "adamerging"]
    common = {
        "base": EMBEDDED,
        "experts": experts,
        "method": {"name": "adarank", "origin": "tsv_m", "objective": "entropy"},
        "adaptation": {"num_steps": 300, "batch_size": 16, "checkpoint_every": 100},
    }
    labels = {"name": "adarank", "origin": "tsv_m", "objective": "expert_labels"}
    yield (
        "embedded",
        Preset(
            "eight small experts that come with the package",
            common | {"compare": [*rows, labels]},
        ),
    )
    adapted = [
        {"name": "adarank", "origin": origin, "objective": objective}
        for origin in ("task_arithmetic", "cart", "tsv_m")
        for objective in ("entropy", "expert_labels")
    ]
    yield (
        "embedded-all",
        Preset(
            "the same, AdaRank from every origin on both objectives",
            common | {"compare": [*rows, *adapted]},
        ),
    )


def _tall() -> Iterator[tuple[str, Preset]]:
    """Rows in the league of the paper."""
    for (model, num_tasks), columns in _TALL_MEANS.items():
        size = _SIZES[model]
        experts = {
            name: {"model": _tall_checkpoint(size, i, name), "data": name}
            for i, name in enumerate(registry.suite(num_tasks))
        }
        for method, mean in zip(_TALL_METHODS, columns, strict=True):
            values = {
                "base": size.base,
                "experts": experts,
                "prompts": "official",
                "published": {"league": TALL, "mean": mean, "source": _source(method)},
            }
            yield from _row(f"{model}-{num_tasks}", method, values, num_tasks, size)


def _fusion_bench() -> Iterator[tuple[str, Preset]]:
    """Rows in the league of FusionBench."""
    for model, size in _SIZES.items():
        for num_tasks in registry.SUITES:
            experts = {
                name: {
                    "model": size.fusion_bench
                    + registry.get(name, "fusion_bench").slug,
                    "data": name,
                }
                for name in registry.suite(num_tasks, "fusion_bench")
            }
            for method in _FUSION_BENCH_METHODS:
                mean = _FUSION_BENCH_MEANS.get((model, num_tasks, method))
                source = None if mean is None else "FusionBench's documentation"
                published = {"league": FUSION_BENCH, "mean": mean, "source": source}
                values = {
                    "base": size.base,
                    "experts": experts,
                    "prompts": "fusion_bench",
                    "published": published,
                }
                name = f"fusion-bench-{model}-{num_tasks}"
                yield from _row(name, method, values, num_tasks, size)


def _row(stem, method, values, num_tasks, size):
    """Adds method and hyper-parameters to what all rows of a table share."""
    is_fusion_bench = values["prompts"] == "fusion_bench"
    published = values["published"]
    if method.endswith("adarank"):
        origin = "cart" if method.startswith("cart") else "task_arithmetic"
        setting = _ADARANK[size.settings, num_tasks, origin]
        chosen = {"name": "adarank", "origin": origin, "objective": "entropy"}
        chosen |= {"coefficient": setting[0], "rank_ratio": setting[1]}
        values = values | {
            "adaptation": {
                "num_steps": setting[3],
                "batch_size": setting[2],
                "learning_rate": 1e-3,
                "temperature": 10.0,
                "checkpoint_every": 500,
            }
        }
        settings = "the authors' configuration"
        if size.settings not in stem:
            settings += f" for {size.settings}; none is published for this model"
        elif is_fusion_bench:
            settings += " for these models in the TA/TALL league"
        if (num_tasks, origin, size.settings) == (20, "task_arithmetic", "vit-l14"):
            settings += "; its two values look exchanged"
    elif method.endswith("adamerging"):
        chosen = {"name": "adamerging", "objective": "entropy"}
        steps = 1_000 if is_fusion_bench else 500
        values = values | {"adaptation": {"num_steps": steps, "batch_size": 16}}
        settings = f"AdaMerging's, {steps} steps; coefficients are not clamped here"
        if method.startswith("cart"):
            coefficient, rank_ratio = _CART[size.settings, num_tasks]
            chosen |= {"origin": "cart", "coefficient": coefficient}
            chosen |= {"rank_ratio": rank_ratio}
            is_cart = size.settings == "vit-b32"
            settings += "; CART's start" if is_cart else "; AdaRank's CART start"
        if size.settings != "vit-b32":
            settings += "; the batch is that for B/32"
    elif method == "cart":
        coefficient, rank_ratio = _CART[size.settings, num_tasks]
        chosen = {"name": "cart", "coefficient": coefficient, "rank_ratio": rank_ratio}
        is_cart = size.settings == "vit-b32"
        settings = "CART's" if is_cart else "the start of AdaRank's CART run"
    else:
        chosen = {"name": method.replace("-", "_")}
        if method == "task-arithmetic":
            chosen["coefficient"] = 0.3
        if method == "iso-c" and is_fusion_bench:
            chosen["coefficient"] = 1.5
        settings = "the method's default"
        if method == "task-arithmetic" and num_tasks != 8:
            settings += " for 8 tasks; that of the published number is not known"
    values = values | {
        "method": chosen,
        "published": published | {"settings": settings},
    }
    number = published["mean"]
    shown = "no published number"
    if number is not None:
        shown = f"published {number} ({published['source']})"
    summary = f"{published['league']}: {shown}; not reproduced here"
    yield f"{stem}-{method}", Preset(summary, values)


def _tall_checkpoint(size, place, name):
    """Names the file of an expert in the league of the paper."""
    if place < 8:
        return f"{size.tall_first}{name}/finetuned.pt"
    return f"{size.tall_rest}{name}Val/nonlinear_finetuned.pt"


def _source(method):
    """Says where a published mean of the TA/TALL league is from."""
    if method.endswith("adarank"):
        return "paper, at second hand"
    return "README of CART, same authors, same checkpoints"


class _Size(NamedTuple):
    """Names of one size of CLIP."""

    base: str
    tall_first: str
    tall_rest: str
    fusion_bench: str
    settings: str


_SIZES = {
    "vit-b32": _Size(
        base="openai/clip-vit-base-patch32",
        tall_first="JH-C-k/ViT-B-32:ViT-B-32_TA/",
        tall_rest="JH-C-k/ViT-B-32:ViT-B-32/",
        fusion_bench="tanganke/clip-vit-base-patch32_",
        settings="vit-b32",
    ),
    "vit-b16": _Size(
        base="openai/clip-vit-base-patch16",
        tall_first="",
        tall_rest="",
        fusion_bench="tanganke/clip-vit-base-patch16_",
        settings="vit-b32",
    ),
    "vit-l14": _Size(
        base="openai/clip-vit-large-patch14",
        tall_first="JH-C-k/ViT-L-14_TA:",
        tall_rest="JH-C-k/ViT-L-14:",
        fusion_bench="tanganke/clip-vit-large-patch14_",
        settings="vit-l14",
    ),
}

# Coefficient, rank ratio, images a task and step, steps: the authors' configurations.
# The last line is as published; coefficient and rank ratio look exchanged.
_ADARANK = {
    ("vit-b32", 8, "cart"): (2.3, 0.16, 16, 10_000),
    ("vit-b32", 8, "task_arithmetic"): (0.3, 1.0, 16, 10_000),
    ("vit-b32", 14, "cart"): (2.8, 0.32, 16, 10_000),
    ("vit-b32", 14, "task_arithmetic"): (0.3, 1.0, 16, 10_000),
    ("vit-b32", 20, "cart"): (2.4, 0.32, 16, 10_000),
    ("vit-b32", 20, "task_arithmetic"): (0.05, 1.0, 16, 10_000),
    ("vit-l14", 8, "cart"): (3.0, 0.16, 4, 10_000),
    ("vit-l14", 8, "task_arithmetic"): (0.3, 1.0, 4, 10_000),
    ("vit-l14", 14, "cart"): (1.25, 0.16, 2, 100_000),
    ("vit-l14", 14, "task_arithmetic"): (0.3, 1.0, 2, 100_000),
    ("vit-l14", 20, "cart"): (1.0, 0.16, 2, 100_000),
    ("vit-l14", 20, "task_arithmetic"): (1.0, 0.3, 2, 100_000),
}

# Coefficient and rank ratio of the static merge.
_CART = {
    ("vit-b32", 8): (2.0, 0.12),
    ("vit-b32", 14): (1.5, 0.16),
    ("vit-b32", 20): (1.9, 0.32),
    ("vit-l14", 8): (3.0, 0.16),
    ("vit-l14", 14): (1.25, 0.16),
    ("vit-l14", 20): (1.0, 0.16),
}

_TALL_METHODS = (
    "weight-averaging",
    "task-arithmetic",
    "cart",
    "adamerging",
    "cart-adamerging",
    "ta-adarank",
    "cart-adarank",
)
_TALL_MEANS = {
    ("vit-b32", 8): (65.9, 69.1, 84.7, 80.1, 85.8, 87.9, 89.2),
    ("vit-b32", 14): (64.3, 65.4, 79.5, 76.7, 82.3, None, None),
    ("vit-b32", 20): (61.0, 60.5, 76.3, 69.2, 82.7, None, None),
    ("vit-l14", 8): (79.6, 84.5, 92.6, 90.8, 93.1, 93.0, 93.5),
    ("vit-l14", 14): (76.8, 79.6, 88.7, 88.0, 90.4, None, None),
    ("vit-l14", 20): (71.7, 74.2, 87.9, 86.8, 91.3, None, None),
}

_FUSION_BENCH_METHODS = (
    "weight-averaging",
    "task-arithmetic",
    "tsv-m",
    "iso-c",
    "adamerging",
    "ta-adarank",
    "cart-adarank",
)
_FUSION_BENCH_MEANS = {
    ("vit-b32", 8, "weight-averaging"): 66.5,
    ("vit-b32", 8, "task-arithmetic"): 68.0,
    ("vit-b32", 8, "iso-c"): 82.8,
    ("vit-b32", 8, "adamerging"): 82.6,
    ("vit-b16", 8, "weight-averaging"): 72.3,
    ("vit-b16", 8, "task-arithmetic"): 77.1,
    ("vit-b16", 8, "adamerging"): 85.0,
    ("vit-l14", 8, "weight-averaging"): 80.0,
    ("vit-l14", 8, "task-arithmetic"): 80.7,
    ("vit-l14", 8, "adamerging"): 91.0,
}

_EMBEDDED_TASKS = (
    *("mnist", "letters", "greek", "surfaces"),
    *("gratings", "dials", "patterns", "shapes"),
)
