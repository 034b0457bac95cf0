import ast
import json
import pathlib
import re

import chex
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from adarank_jax import tree
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.checkpoints import folders, language, recipe
from adarank_jax.core import merge, svd
from adarank_jax.core.merge import Variables
from adarank_jax.models import language as language_models
from experiments import language_exporting, rebuild, results, starts
from experiments.suite import Suite
from experiments.text_config import TextMergeConfig
from tests.checkpoints import language_folders

ROOT = pathlib.Path(__file__).parents[2]
TASKS = ("cola", "SST 2", "数字=x")
SLUGS = ("cola", "sst-2", "x")
CASES = {
    "bert-cart": {"name": "adarank", "origin": "cart"},
    "roberta-task_arithmetic": {"name": "adarank", "origin": "task_arithmetic"},
    "gpt2-tsv_m": {"name": "adarank", "origin": "tsv_m"},
    "gpt2-adamerging": {"name": "adamerging", "origin": "cart", "rank_ratio": 0.5},
    "roberta-static": {"name": "cart"},
}
KINDS = {"bert": "bare", "roberta": "prefixed", "gpt2": "half"}
ROWS = [
    {
        "method": name,
        **dict.fromkeys(("origin", "coefficient", "rank_ratio", "objective")),
        "per_task": dict.fromkeys(TASKS, share),
        "mean": share,
    }
    for name, share in (("pretrained", 0.25), ("individual", 0.75))
]


def write_models(folder, family):
    """Writes a base and an expert a task; returns where they are."""
    params = language_folders.encoder(family)
    places = [folder / "base", *(folder / f"expert-{i}" for i in range(3))]
    kind = KINDS[family]
    language_folders.write(places[0], family, kind, params)
    for i, place in enumerate(places[1:]):
        head = language_folders.head(family, 2 + i, i)
        moved = language_folders.moved(params, i)
        language_folders.write(place, family, kind, moved, head)
    return [*map(str, places)]


def merge_models(suite, config):
    """Merges with drawn masks and coefficients, as a run does with trained ones."""
    models = (suite.pretrained, suite.finetuned, suite.is_decomposed)
    if not config.method.is_adapted:
        return None, starts.merge_static("cart", *models, suite.is_merged)
    start = starts.get(config.method)
    is_masked = config.method.name == "adarank"
    build = starts.build if is_masked else starts.build_dense
    origin, factors = build(start, *models, is_merged=suite.is_merged)
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    scales = lambda _, leaf: None if leaf is None else draw(3)
    logits = lambda _, x: draw(*x.s.shape) if svd.is_factors(x) else None
    variables = Variables(
        tree.map_with_path(scales, factors), tree.map_with_path(logits, factors)
    )
    kept = merge.kept_directions(variables.mask_logits, 10.0)
    merged = merge.hard_merged_params(origin, factors, variables.coefficients, kept)
    # A run keeps them in a file, which holds no None.
    return Variables(*map(tree.without_none, variables)), merged


def export(folder, case, **options):
    """Writes the export of a run; returns suite, configuration and parameters."""
    family = language_models.family(case.partition("-")[0])
    sources = write_models(folder, family.name)
    base = language.read_language(sources[0])
    experts = [language.read_language(source, base) for source in sources[1:]]
    config = TextMergeConfig.model_validate(
        {
            "base": sources[0],
            "experts": {
                task: {"model": source, "data": "mine.jsonl"}
                for task, source in zip(TASKS, sources[1:], strict=True)
            },
            "method": CASES[case],
            "export": options,
            "max_length": 12,
            "buckets": [12],
        }
    )
    suite = Suite(
        name="tiny",
        tasks=TASKS,
        encode=lambda *_: None,
        classify=family.classify,
        is_decomposed=family.is_decomposed,
        pretrained=base.encoder,
        finetuned=[expert.encoder for expert in experts],
        heads=[expert.head for expert in experts],
        inputs=[],
        labels=[],
        base=base,
        sources=sources,
        class_names=[("no", "yes"), None, ("a", "b", "c", "d")],
        metrics=("matthews", "accuracy", "accuracy"),
        unit="texts",
        is_merged=family.is_merged,
    )
    variables, merged = merge_models(suite, config)
    run = RunFolder(folder / "run", {"case": case}, restart=False)
    own = ROWS[0] | results.names(config.method)
    language_exporting.write(suite, config, run, merged, variables, [*ROWS, own])
    return suite, config, merged


@pytest.mark.parametrize("case", [case for case in CASES if case != "roberta-static"])
def test_rebuild_gives_the_bits_of_the_export(tmp_path, case, capsys):
    suite, config, merged = export(tmp_path, case)
    out = tmp_path / "run" / "export"
    rebuild.main(
        rebuild.Config(
            recipe=out / "recipe.safetensors",
            base=suite.sources[0],
            experts=tuple(map("=".join, zip(TASKS, suite.sources[1:], strict=True))),
            out=tmp_path / "rebuilt",
            offline=True,
        )
    )
    assert "all tensors of the model, bit for bit" in capsys.readouterr().err
    ours, theirs = folders.read_sums(tmp_path / "rebuilt"), folders.read_sums(out)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert ours[name] == theirs[name]
    found = recipe.read_recipe(out / "recipe.safetensors")
    settings = found.settings
    assert settings.family == suite.base.family
    assert settings.merged == recipe.digest(merged)
    table = "wte" if suite.base.family == "gpt2" else "embeddings"
    assert settings.unmerged
    assert all(path.startswith((table, "wpe")) for path in settings.unmerged)
    has_masks = bool(tree.without_none(found.kept))
    assert has_masks == (config.method.name == "adarank")


def origin_embeddings(suite, origin):
    """Returns the embeddings that a merge from an origin keeps."""
    trees = [suite.pretrained] if origin == "pretrained" else suite.finetuned
    flats = [tree.flatten(each) for each in trees]
    return {
        path: np.mean([flat[path] for flat in flats], axis=0)
        for path, leaf in flats[0].items()
        if not suite.is_merged(path, leaf)
    }


@pytest.mark.parametrize(
    ("case", "origin"),
    [
        ("bert-cart", "average"),
        ("roberta-task_arithmetic", "pretrained"),
        ("gpt2-tsv_m", "pretrained"),
        ("roberta-static", "average"),
    ],
)
def test_tensors_that_are_not_merged_are_those_of_the_origin(tmp_path, case, origin):
    suite, _, _ = export(tmp_path, case, dtype="float32")
    stored = language.read_language(str(tmp_path / "run" / "export")).encoder
    expected = origin_embeddings(suite, origin)
    assert len(expected) == (2 if case.startswith("gpt2") else 5)
    for path, values in expected.items():
        np.testing.assert_allclose(tree.flatten(stored)[path], values, rtol=1e-6)
    text = (tmp_path / "run" / "export" / "README.md").read_text()
    told = {"average": "the average of the experts", "pretrained": "those of the base"}
    assert f"Not merged, but {told[origin]}:" in text
    (line,) = [x for x in text.splitlines() if x.startswith("Not merged")]
    named = line.replace("\\", "").partition(": ")[2].removesuffix(".").split(", ")
    state = load_file(tmp_path / "run" / "export" / "model.safetensors")
    assert len(named) == len(expected) and {*named} <= {*state}


def test_float32_export_of_a_half_base_is_what_was_measured(tmp_path):
    suite, _, merged = export(tmp_path, "gpt2-tsv_m", dtype="float32")
    assert suite.base.layout.dtype == "bfloat16"
    out = tmp_path / "run" / "export"
    stored = language.read_language(str(out)).encoder
    chex.assert_trees_all_equal(stored, merged)
    text = (out / "README.md").read_text()
    assert "float32, rounded no further: those that were measured" in text
    assert "rounded after" not in text


@pytest.mark.parametrize("copies", [False, True])
def test_export_holds_every_task_its_names_and_its_metric(tmp_path, copies):
    suite, _, merged = export(tmp_path, "bert-cart", per_task_copies=copies)
    out = tmp_path / "run" / "export"
    chex.assert_trees_all_equal(language.read_language(str(out)).encoder, merged)
    told = json.loads((out / "adarank_jax.json").read_text())["tasks"]
    assert told["cola"] == {"task": "cola", "metric": "matthews"}
    assert {slug: about["task"] for slug, about in told.items()} == dict(
        zip(SLUGS, TASKS, strict=True)
    )
    if copies:
        for i, slug in enumerate(SLUGS):
            found = language.read_language(str(out / "tasks" / slug))
            chex.assert_trees_all_equal(found.encoder, merged)
            chex.assert_trees_all_equal(found.head, suite.heads[i])
            assert found.class_names == suite.class_names[i]


def test_card_tells_metrics_what_was_left_out_and_how_to_make_it_again(tmp_path):
    suite, _, _ = export(tmp_path, "roberta-task_arithmetic")
    out = tmp_path / "run" / "export"
    text = (out / "README.md").read_text()
    matter = yaml.safe_load(text.split("---")[1])
    assert matter["pipeline_tag"] == "text-classification"
    assert "roberta" in matter["tags"]
    for part in (
        *("cola (Matthews)", "| SST 2 |", "75.00", "Not merged, but those of"),
        "Nothing names the classes of SST 2: their labels",
        *("lm\\_head.bias", "tasks/sst-2/head.safetensors", "max_length=12"),
        *("experiments.rebuild", "'SST 2=", "SHA-256 of the encoder"),
        *("python -m experiments.run_glue merge.yaml", "RoBERTa encoders"),
    ):
        assert part in text, part
    assert "image" not in text
    values = yaml.safe_load((out / "merge.yaml").read_text())
    assert TextMergeConfig.model_validate(values).base == suite.sources[0]


def test_documented_snippet_calls_what_the_snippet_of_the_card_calls(tmp_path):
    export(tmp_path, "roberta-task_arithmetic")
    text = (tmp_path / "run" / "export" / "README.md").read_text()
    documented = (ROOT / "docs" / "your_own_experts.md").read_text()
    (ours,) = [block for block in blocks(text) if "AutoModel" in block]
    (theirs,) = [block for block in blocks(documented) if "AutoModel" in block]
    # The card has the option where the base has no pooler, as that of RoBERTa.
    bare = theirs.replace(", add_pooling_layer=False", "")
    assert bare != theirs
    assert {"float()", "eval()"} <= calls(bare) <= calls(ours)  # no dropout


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def calls(code):
    """Lists what a snippet calls, with the names of the options."""
    return {
        f"{_name(node.func)}({', '.join(sorted(str(k.arg) for k in node.keywords))})"
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call)
    }


def _name(node):
    """Names what is called: classes and modules with their dots, methods without."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node.value, ast.Name) and node.value.id[0].isupper():
        return f"{node.value.id}.{node.attr}"
    return node.attr


def test_merge_without_variables_has_no_recipe(tmp_path):
    export(tmp_path, "roberta-static")
    out = tmp_path / "run" / "export"
    assert not (out / "recipe.safetensors").exists()
    assert "experiments.rebuild" not in (out / "README.md").read_text()


def test_front_matter_names_the_metric_of_each_task(tmp_path):
    export(tmp_path, "roberta-static")
    text = (tmp_path / "run" / "export" / "README.md").read_text()
    (entry,) = yaml.safe_load(text.split("---")[1])["model-index"]
    found = {r["dataset"]["name"]: r["metrics"][0] for r in entry["results"]}
    kinds = {task: metric["type"] for task, metric in found.items()}
    expected = ("matthews_correlation", "accuracy", "accuracy")
    assert kinds == dict(zip(TASKS, expected, strict=True))
    assert {metric["value"] for metric in found.values()} == {0.25}


def test_models_of_another_family_are_refused_by_rebuild(tmp_path):
    export(tmp_path / "a", "bert-cart")
    other = write_models(tmp_path / "b", "roberta")
    config = rebuild.Config(
        recipe=tmp_path / "a" / "run" / "export" / "recipe.safetensors",
        base=other[0],
        experts=tuple(map("=".join, zip(TASKS, other[1:], strict=True))),
        out=tmp_path / "out",
    )
    with pytest.raises(ValueError, match="family: 'roberta' here, 'bert' in the"):
        rebuild.main(config)
    assert not (tmp_path / "out").exists()
