import dataclasses
import json
import pathlib

import jax
import numpy as np
import optax
import pytest
import tyro
import yaml
from rich.console import Console
from safetensors.numpy import load_file, save_file

from adarank_jax.adaptation import metrics_log
from adarank_jax.adaptation.metrics_log import MetricsLog
from adarank_jax.checkpoints import clip, containers, files, head_files
from experiments import finetune, run_vit, training
from experiments.finetune_inputs import Config, check
from tests import clip_family

TASKS = {"animals": ("cat", "dog", "horse"), "sizes": ("small", "big")}


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A base and two folders of training images whose classes differ in colour."""
    root = tmp_path_factory.mktemp("family")
    clip_family.write_base(root / "base", clip_family.base_params())
    for number, (name, classes) in enumerate(TASKS.items()):
        clip_family.write_images(root / name, classes, 6, number)
    return root


def config(family, task="animals", **changes):
    values = {
        "data": f"{family}/{task}",
        "out": family / "experts" / task,
        "base": str(family / "base"),
        "classes": TASKS[task],
        "num_steps": 12,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "warmup_steps": 2,
        "checkpoint_every": 5,
    }
    return Config(**values | changes)


@pytest.fixture(scope="module")
def made(family):
    """Both experts, as the command line would make them."""
    for task in TASKS:
        finetune.main(config(family, task))
    return family


def losses(run_dir):
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_loss_falls_and_accuracy_rises(made):
    for task in TASKS:
        values = losses(made / "experts" / f"{task}.run")
        assert len(values) == 12
        assert np.mean(values[-4:]) < 0.5 * np.mean(values[:4])
        out = made / "experts" / task
        facts = json.loads((out / "adarank_jax.json").read_text())["training"]
        assert facts["accuracy"] > 0.9 > facts["accuracy_of_base"]
        assert f"| {facts['accuracy']:.2%} |" in (out / "README.md").read_text()


def test_experts_merge_by_what_was_printed(made, capsys):
    texts = []
    for task in TASKS:
        finetune.main(config(made, task))  # is there already, so prints it again
        texts.append(yaml.safe_load(capsys.readouterr().out))
    merge = texts[0] | {"experts": texts[0]["experts"] | texts[1]["experts"]}
    merge["method"] = "task_arithmetic"
    merge["compare"] = ["pretrained", "individual"]
    file = made / "my_merge.yaml"
    file.write_text(yaml.safe_dump(merge))
    run_vit.main(run_vit.Options(what=(str(file),), run_dir=made / "merge"))
    rows = json.loads((made / "merge" / "results.json").read_text())["rows"]
    shares = {row["method"]: row["per_task"] for row in rows}
    for task in TASKS:
        mark = made / "experts" / task / "adarank_jax.json"
        facts = json.loads(mark.read_text())["training"]
        assert shares["individual"][task] == facts["accuracy"]
        assert shares["pretrained"][task] == facts["accuracy_of_base"]
    assert "task_arithmetic" in shares


def test_expert_changes_the_image_tower_and_nothing_else(made):
    before = containers.read_state(made / "base").tensors
    after = load_file(made / "experts" / "animals" / "model.safetensors")
    assert after.keys() == before.keys()
    for name, array in after.items():
        is_trained = name.startswith(("vision_model.", "visual_projection."))
        assert np.array_equal(array, before[name]) != is_trained, name
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json"):
        expert = (made / "experts" / "animals" / name).read_bytes()
        assert expert == (made / "base" / name).read_bytes()


def test_head_is_the_zero_shot_head_with_its_words(made):
    file = made / "experts" / "animals" / "head.safetensors"
    head = head_files.read_head(file, clip_family.VISION.output_size)
    assert head.class_names == TASKS["animals"]
    described = json.loads(file.with_suffix(".json").read_text())
    assert described["templates"] == ["a photo of a {}."]
    assert described["profile"] == "official"


def test_training_state_is_gone_when_the_expert_is_there(made):
    assert not (made / "experts" / "animals.run" / "checkpoints").exists()


def test_same_command_does_not_train_again(made, monkeypatch):
    monkeypatch.setattr(training, "train", None)
    finetune.main(config(made))


def test_resumed_run_equals_an_uninterrupted_one(made, tmp_path, monkeypatch):
    append = MetricsLog.append

    def stop(self, row):
        append(self, row)
        if row["step"] == 7:
            raise KeyboardInterrupt

    again = config(made, out=tmp_path / "animals")
    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "append", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune.main(again)
    assert not again.out.exists()
    assert len(losses(again.run_folder)) == 8

    first = []
    end_before = metrics_log.end_before

    def noted(file, run, step):
        first.append(step)
        return end_before(file, run, step)

    with monkeypatch.context() as patch:
        patch.setattr(metrics_log, "end_before", noted)
        finetune.main(again)
    assert first == [5]
    for name in ("model.safetensors", "head.safetensors"):
        left, right = again.out / name, made / "experts" / "animals" / name
        assert files.digest(left) == files.digest(right), name
    assert losses(again.run_folder) == losses(made / "experts" / "animals.run")


def test_other_options_do_not_replace_an_expert(made):
    with pytest.raises(ValueError, match="another expert.*seed.*--restart"):
        finetune.main(config(made, seed=1))


def npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_registered_data_set_brings_its_words_and_its_training_split(family, tmp_path):
    pixels = np.zeros((12, 16, 16), np.uint8)
    (tmp_path / "MNIST").mkdir()
    npz(tmp_path / "MNIST" / "train.npz", images=pixels, labels=np.arange(12) % 3)
    read = check(config(family, data="mnist", classes=(), data_dir=tmp_path))
    assert read.wording.class_names == tuple("0123456789")
    assert read.wording.templates == ('a photo of the number: "{}".',)
    assert len(read.source) == 12
    assert "W305 there is no image of 7 class(es)" in str(read.warnings[0])


def test_half_precision_tower_with_an_imported_head(family, tmp_path):
    write_tower(tmp_path / "tower")
    weights = tmp_path / "tower" / "model.safetensors"
    half = {k: v.astype(np.float16) for k, v in load_file(weights).items()}
    save_file(half, weights, {"format": "pt"})
    weight = np.random.default_rng(0).normal(size=(3, clip_family.VISION.output_size))
    head_files.write_head(tmp_path / "head.safetensors", 9 * weight, np.arange(3.0))
    own = config(
        family,
        out=tmp_path / "x",
        base=str(tmp_path / "tower"),
        head=tmp_path / "head.safetensors",
        num_steps=2,
    )
    finetune.main(own)
    copy = head_files.read_head(tmp_path / "x" / "head.safetensors")
    np.testing.assert_array_equal(copy.weight, np.float32(9 * weight))
    np.testing.assert_array_equal(copy.bias, np.arange(3.0))
    assert copy.class_names == TASKS["animals"]
    base = clip.read_clip(str(tmp_path / "tower"))
    expert = clip.read_clip(str(tmp_path / "x"), base=base)
    assert expert.from_base == ()
    assert expert.layout.dtype == "float32"  # half would lose what training changed
    assert not np.array_equal(expert.vision["proj"], base.vision["proj"])


def write_tower(folder):
    tower = {"vision": clip_family.base_params()["vision"]}
    clip_family.write_expert(folder, tower, "CLIPVisionModelWithProjection")


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"data": "crs"}, ValueError, "E314.*did you mean 'Cars'"),
        ({"data": "./nowhere"}, FileNotFoundError, "E101 `nowhere`: .*no training da"),
        ({"classes": ("cat",)}, ValueError, "E304.*at least two different classes"),
        ({"classes": ("{root}/latin.txt",)}, ValueError, "E343.*latin.txt"),
        ({"classes": ("cat", "dog", "hrose")}, ValueError, "E310.*mean 'hrose'"),
        ({"templates": ("a photo",)}, ValueError, "E318.*expected once"),
        ({"base": "{root}/nowhere"}, FileNotFoundError, "nowhere"),
        ({"base": "{root}/tower"}, ValueError, "E309.*no text tower.*`head`"),
        ({"data": "{root}/none.npz"}, ValueError, "E312.*have no label"),
        ({"data": "{root}/one.npz"}, ValueError, "E304.*are of one class"),
        ({"data": "{root}/four.npz"}, ValueError, "E305.*from 0 to 3.*3 classes"),
        ({"data": "{root}/four.npz", "classes": ()}, ValueError, "E309.*`classes`"),
        ({"data": "{root}/flat"}, ValueError, "E312.*have no label"),
        ({"data": "{root}/bad"}, ValueError, "E331.*bad"),
        ({"head": "{root}/narrow.safetensors"}, ValueError, "embeddings of length 5"),
        (
            {"head": "{root}/head.safetensors", "classes": ()},
            ValueError,
            "E311.*which row",
        ),
        ({"head": "{root}/named.safetensors"}, ValueError, "E310.*leave out `classes`"),
        ({"batch_size": 12}, ValueError, "multiple of 8"),
        ({"out": "{root}/foreign"}, OSError, "is not empty"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    family, bad, change, kind, message
):
    values = {
        key: value.replace("{root}", str(bad)) if isinstance(value, str) else value
        for key, value in change.items()
    }
    if "classes" in values:
        names = values["classes"]
        values["classes"] = tuple(each.replace("{root}", str(bad)) for each in names)
    for key in ("head", "out"):
        if key in values:
            values[key] = pathlib.Path(values[key])
    chosen = config(family, **{"out": bad / "out"} | values)
    before = sorted(bad.rglob("*"))
    with pytest.raises(kind, match=message):
        finetune.main(chosen)
    assert sorted(bad.rglob("*")) == before


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """Everything that cannot be trained on."""
    root = tmp_path_factory.mktemp("bad")
    pixels = np.zeros((4, 16, 16, 3), np.uint8)
    npz(root / "none.npz", images=pixels)
    npz(root / "one.npz", images=pixels, labels=np.ones(4, int))
    npz(root / "four.npz", images=pixels, labels=np.arange(4))
    clip_family.write_images(root / "flat", [""], 2, 0)
    clip_family.write_images(root / "bad", TASKS["animals"], 2, 0)
    (root / "bad" / "cat" / "000.png").write_bytes(b"no image")
    (root / "foreign").mkdir()
    (root / "foreign" / "thesis.tex").write_text("years of work")
    (root / "latin.txt").write_bytes("café\nthé\n".encode("latin-1"))
    write_tower(root / "tower")
    width = clip_family.VISION.output_size
    head_files.write_head(root / "narrow.safetensors", np.eye(3, 5))
    head_files.write_head(root / "head.safetensors", np.eye(3, width))
    head_files.write_head(root / "named.safetensors", np.eye(3, width), None, [*"abc"])
    return root


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, "`num_steps` must be at least 1"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be above 0"),
        ({"out": pathlib.Path(".")}, "`out` must name a folder"),
        ({"run_dir": pathlib.Path("a/run"), "out": pathlib.Path("a")}, "inside `out`"),
    ],
)
def test_bad_options_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Config(**{"data": "cars", "out": pathlib.Path("x")} | change)


def test_help_fits_on_a_page(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(Config, args=["--help"])
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 90
    for field in dataclasses.fields(Config):
        assert "--" + field.name.replace("_", "-") in text


def toy(count=1, wrong_from=99, checkpoints=None, log=None):
    """Fits a line; from one step on, the data are not finite."""
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(2, 16, 3)).astype(np.float32)
    bad = np.full_like(targets, np.inf)
    return training.train(
        {"w": np.zeros(3, np.float32)},
        lambda params, x, y: ((x * params["w"][None] - y) ** 2).mean(),
        optax.adam(0.1),
        training.in_steps(lambda n: (inputs, targets if n < wrong_from else bad)),
        6,
        "toy",
        Console(quiet=True),
        checkpoints,
        checkpoint_every=2,
        log=log,
        devices=jax.local_devices()[:count],
    )["w"]


def test_training_is_the_same_on_any_number_of_devices():
    assert np.abs(toy(1)).max() > 0.1
    np.testing.assert_allclose(toy(1), toy(4), rtol=1e-5)


def test_loss_that_is_not_finite_names_the_step_and_is_not_saved(tmp_path):
    seen = []
    with pytest.raises(FloatingPointError, match="E510 .*inf at step 3 of 'toy'"):
        toy(2, 3, tmp_path, lambda number, loss: seen.append(number))
    assert seen == [0, 1, 2]
    later = []
    np.testing.assert_array_equal(
        toy(2, 99, tmp_path, lambda number, loss: later.append(number)), toy(2)
    )
    assert later == [2, 3, 4, 5]
