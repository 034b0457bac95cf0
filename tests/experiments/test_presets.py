import pathlib

import pytest

from adarank_jax import errors
from adarank_jax.data import registry
from experiments import presets, yaml_config
from experiments.image_config import ImageMergeConfig

ROOT = pathlib.Path(__file__).parents[2]
ALL = presets.all_presets()


def config(name):
    return yaml_config.validate(
        ImageMergeConfig, presets.get(name).values, {}, (), name
    )


@pytest.mark.parametrize("name", ALL)
def test_preset_is_a_valid_configuration(name):
    found = config(name)
    assert len(ALL[name].summary) < 110
    if found.published is None:
        assert name.startswith("embedded")
        return
    assert len(found.experts) in (8, 14, 20)
    assert "not reproduced here" in ALL[name].summary
    league = {"official": presets.TALL, "fusion_bench": presets.FUSION_BENCH}
    assert found.published.league == league[found.prompts]
    assert found.published.settings
    if found.published.mean is not None:
        assert 50 < found.published.mean < 100
        assert f"({found.published.source})" in ALL[name].summary
    for name in found.experts:
        assert registry.get(name, found.prompts).name == name


@pytest.mark.parametrize("model", ["vit-b32", "vit-l14"])
@pytest.mark.parametrize("tasks", [8, 14, 20])
@pytest.mark.parametrize(
    ("row", "method"),
    [
        ("ta-adarank", "adarank"),
        ("cart-adarank", "adarank"),
        ("adamerging", "adamerging"),
        ("cart-adamerging", "adamerging"),
        ("weight-averaging", "weight_averaging"),
        ("task-arithmetic", "task_arithmetic"),
        ("cart", "cart"),
    ],
)
def test_every_row_of_the_paper_is_a_preset(model, tasks, row, method):
    found = config(f"{model}-{tasks}-{row}")
    assert len(found.experts) == tasks
    assert found.method.name == method


@pytest.mark.parametrize("model", ["vit-b32", "vit-b16", "vit-l14"])
def test_every_size_is_in_the_league_of_fusion_bench(model):
    found = config(f"fusion-bench-{model}-8-cart-adarank")
    assert found.prompts == "fusion_bench"
    size = {"vit-b32": "base-patch32", "vit-b16": "base-patch16"}
    name = size.get(model, "large-patch14")
    assert found.base == f"openai/clip-vit-{name}"
    assert found.experts["Cars"].model == f"tanganke/clip-vit-{name}_stanford-cars"


def test_preset_has_the_published_settings():
    found = config("vit-b32-8-cart-adarank")
    assert found.base == "openai/clip-vit-base-patch32"
    assert found.method.model_dump() == {
        "name": "adarank",
        "origin": "cart",
        "coefficient": 2.3,
        "rank_ratio": 0.16,
        "objective": "entropy",
    }
    assert found.adaptation.num_steps == 10_000
    assert found.adaptation.batch_size == 16
    assert found.adaptation.learning_rate == 1e-3
    assert found.adaptation.temperature == 10.0
    assert found.published.mean == 89.2
    assert (
        found.experts["Cars"].model == "JH-C-k/ViT-B-32:ViT-B-32_TA/Cars/finetuned.pt"
    )
    fourteen = config("vit-b32-14-cart-adarank")
    assert (
        fourteen.experts["STL10"].model
        == "JH-C-k/ViT-B-32:ViT-B-32/STL10Val/nonlinear_finetuned.pt"
    )
    assert config("vit-l14-20-ta-adarank").method.rank_ratio == 0.3
    assert config("vit-l14-14-cart-adarank").adaptation.num_steps == 100_000


def test_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(
        errors.UsageError, match="did you mean 'vit-b32-8-cart-adarank'"
    ):
        presets.get("vit-b32-8-cart-adarnk")


def test_documentation_lists_every_preset_with_its_number():
    text = (ROOT / "docs" / "presets.md").read_text()
    for name in ALL:
        found = config(name)
        if found.published is None:
            continue
        (line,) = [x for x in text.splitlines() if x.startswith(f"| `{name}` |")]
        cells = [cell.strip() for cell in line.split("|")]
        mean = found.published.mean
        assert cells[2] == ("" if mean is None else f"{mean:.1f}")
        method = found.method
        for cell, value in zip(
            cells[3:5], (method.coefficient, method.rank_ratio), strict=True
        ):
            assert cell == ("" if value is None else f"{value:g}")
        steps = f"{found.adaptation.num_steps:,} x {found.adaptation.batch_size}"
        assert cells[5] == (steps if method.is_adapted else "")
        assert cells[6] == found.published.settings


def test_preset_with_other_settings_has_no_published_number():
    name = "vit-b32-8-cart-adarank"
    assert presets.configure(name).published.mean == 89.2
    for kept in ("data_dir=/data", "seed=1"):
        assert presets.configure(name, [kept]).published.mean == 89.2
    for changed in ("method.coefficient=2.0", "tasks=[Cars,DTD]"):
        assert presets.configure(name, [changed]).published is None
