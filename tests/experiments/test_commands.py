"""Files and run folders that belong to the other command."""

import json
import pathlib

import pytest
import yaml

from adarank_jax import errors
from experiments import commands, presets, run_glue, run_vit, text_presets
from experiments.image_config import ImageMergeConfig
from experiments.text_config import TextMergeConfig
from tests import language_family

KINDS = {"run_vit": ImageMergeConfig, "run_glue": TextMergeConfig}


def write(folder, values):
    file = folder / "my_merge.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def images(folder):
    """Returns values as `write_embedded` writes them: no key is of images only."""
    (folder / "base").mkdir()
    (folder / "base/config.json").write_text(json.dumps({"model_type": "clip"}))
    expert = {"model": "experts/mnist", "head": "h.safetensors", "data": "images/mnist"}
    return {"base": str(folder / "base"), "experts": {"digits": expert}}


def test_file_of_the_other_command_is_refused_in_one_line(tmp_path):
    file = write(tmp_path, images(tmp_path))
    with pytest.raises(errors.UsageError) as caught:
        run_glue.main(run_glue.Options(what=(str(file),), run_dir=tmp_path / "run"))
    message = str(caught.value)
    assert message.startswith("E013 ")
    assert message.endswith(
        "looks like a file for run_vit: its base is a model of type clip; give it to "
        "`python -m experiments.run_vit`."
    )
    assert "\n" not in message
    file = write(tmp_path, language_family.write(tmp_path / "texts"))
    with pytest.raises(errors.UsageError, match="looks like a file for run_glue: "):
        run_vit.main(run_vit.Options(what=(str(file),), run_dir=tmp_path / "run"))


@pytest.mark.parametrize(
    ("values", "sign"),
    [
        ({"prompts": "official"}, "`prompts`"),
        ({"base": "openai/clip-vit-base-patch32"}, "openai/clip"),
        ({"experts": {"a": {"templates": ["a {}"]}}}, "`experts.a.templates`"),
        ({"experts": {"a": {"data": {"npz": "a.npz"}}}}, "`experts.a.data.npz`"),
        ({"experts": {"a": {"data": "mnist"}}}, "`experts.a.data` is mnist"),
    ],
)
def test_sign_of_the_other_command_is_named(values, sign):
    command, told = commands.other(values, TextMergeConfig)
    assert command == "run_vit"
    assert sign in told
    assert commands.other(values, ImageMergeConfig) is None
    # Nobody guesses where both have a sign, or none has.
    assert commands.other(values | {"buckets": [8]}, TextMergeConfig) is None
    assert commands.other({"seed": 1, "experts": 3}, TextMergeConfig) is None


def test_every_preset_is_of_its_own_command():
    tables = {"run_vit": presets.all_presets(), "run_glue": text_presets.all_presets()}
    for name, table in tables.items():
        (rest,) = KINDS.keys() - {name}
        for key, preset in table.items():
            assert commands.other(preset.values, KINDS[name]) is None, key
            if preset.values:
                assert commands.other(preset.values, KINDS[rest])[0] == name, key


def test_folder_of_a_run_of_the_other_command_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = language_family.write(tmp_path) | {"method": "weight_averaging"}
    file = write(
        tmp_path, values | {"compare": ["individual"], "export": {"enabled": False}}
    )
    run_glue.main(run_glue.Options(what=(str(file),)))
    assert pathlib.Path("runs/my_merge/results.json").is_file()
    write(tmp_path, {"base": "b", "experts": {"a": {"model": "m", "data": "mnist"}}})
    with pytest.raises(errors.UsageError) as caught:
        run_vit.main(run_vit.Options(what=(str(file),)))
    assert str(caught.value) == (
        "E620 `runs/my_merge`: holds a run of run_glue; choose another folder with "
        "--run-dir."
    )
