import json

import numpy as np
import pytest

from adarank_jax import errors
from adarank_jax.checkpoints import files
from experiments import embedded_suite, make_embedded, training

SMALL = {
    "tasks": ("patterns", "letters"),
    "model": "vit-tiny-8",
    "pretraining_images": 1_300,
    "pretraining_steps": 3,
    "head_images": 100,
    "finetuning_steps": 3,
    "rehearsal_images": 100,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    make_embedded.main(make_embedded.Config(run_dir=folder, **SMALL))
    return folder


def test_make_embedded_makes_a_suite_that_loads(made):
    loaded = embedded_suite.load((), made)
    assert loaded.tasks == list(SMALL["tasks"])
    assert [head.directions.shape[1] for head in loaded.heads] == [10, 26]


def test_make_embedded_records_command_seed_and_digests(made):
    manifest = json.loads((made / "manifest.json").read_text())
    assert "experiments.make_embedded" in manifest["command"]
    assert manifest["config"]["seed"] == 0
    for name, digest in manifest["sha256"].items():
        assert files.digest(made / name) == digest


def test_make_embedded_reports_accuracies_and_weight_change(made):
    report = json.loads((made / "manifest.json").read_text())["report"]
    for task in SMALL["tasks"]:
        assert 0.0 < report[task]["relative_weight_change"] < 1.0
        assert 0.0 <= report[task]["finetuned"] <= 1.0


def test_make_embedded_does_not_make_again_what_is_there(made, monkeypatch):
    before = files.digest(made / "patterns.safetensors")
    monkeypatch.setattr(make_embedded.training, "train", None)
    make_embedded.main(make_embedded.Config(run_dir=made, **SMALL))
    assert files.digest(made / "patterns.safetensors") == before


def test_make_embedded_names_the_nearest_task(tmp_path):
    with pytest.raises(errors.UsageError, match="did you mean 'shapes'"):
        make_embedded.main(
            make_embedded.Config(run_dir=tmp_path / "out", tasks=("shaeps",))
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ()}, "each task once"),
        ({"tasks": ("shapes", "shapes")}, "each task once"),
        ({"head_images": 5}, "at least the 26 classes of letters"),
    ],
)
def test_make_embedded_refuses_bad_options_before_a_folder_is_made(
    tmp_path, options, message
):
    with pytest.raises(ValueError, match=message):
        make_embedded.main(
            make_embedded.Config(
                run_dir=tmp_path / "out", **{"tasks": ("letters",)} | options
            )
        )
    assert not (tmp_path / "out").exists()


def test_make_embedded_refuses_other_options_in_the_same_folder(made):
    with pytest.raises(ValueError, match="seed: 0 there, 1 now"):
        make_embedded.main(make_embedded.Config(run_dir=made, **SMALL, seed=1))


def test_fit_head_tells_separable_classes_apart():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = np.eye(3)[labels] + 0.1 * rng.normal(size=(60, 3))
    head = training.fit_head(features.astype(np.float32), labels, 10.0, num_steps=20)
    logits = features @ np.asarray(head.directions)
    assert (logits.argmax(axis=1) == labels).all()
    np.testing.assert_allclose(np.linalg.norm(head.directions, axis=0), 1.0, rtol=1e-5)


def test_random_batches_are_a_pure_function_of_the_step():
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    make = lambda: training.random_batches(images, np.arange(2), 3, 0, shift=1)
    for one, two in zip(make()(5), make()(5), strict=True):
        np.testing.assert_array_equal(one, two)
