import pathlib

import pytest

from adarank_jax import errors
from adarank_jax.checkpoints import folders
from experiments import run_vit, write_embedded, yaml_config
from experiments.image_config import ImageMergeConfig


@pytest.fixture
def family(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = pathlib.Path("family")
    write_embedded.main(write_embedded.Config(out, ("mnist", "shapes"), images=30))
    return out


def test_what_is_written_passes_every_check(family, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_vit.main(run_vit.Options((str(family / "my_merge.yaml"),), plan=True))
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "mnist 30 · shapes 30" in shown
    assert "no problems, no warnings" in shown
    config = yaml_config.read_config(ImageMergeConfig, family / "my_merge.yaml")
    assert config.task_names == ("mnist", "shapes")
    names = {file.parent.name for file in (family / "images" / "shapes").rglob("*.png")}
    assert {"disc", "square", "star"} <= names
    assert len(folders.read_sums(family)) > 60


def test_a_folder_that_is_there_is_left_alone(family):
    with pytest.raises(errors.MachineError, match="E404 .*family"):
        write_embedded.main(write_embedded.Config(family))


def test_unknown_task_leaves_nothing(tmp_path):
    with pytest.raises(errors.UsageError, match="did you mean 'mnist'"):
        write_embedded.main(write_embedded.Config(tmp_path / "x", ("mnits",)))
    assert not list(tmp_path.iterdir())
