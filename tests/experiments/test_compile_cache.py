import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from experiments import compile_cache, cpuinfo

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import json, jax
from experiments import compile_cache
compile_cache.enable()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
jax.jit(lambda x: x * 3 + 1)(2.0).block_until_ready()
print(json.dumps(hits.count("/jax/compilation_cache/cache_hits")))
"""


@pytest.fixture(autouse=True)
def restored():
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def run(cache):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(cache),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    words = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def test_second_process_compiles_nothing(tmp_path):
    assert run(tmp_path) == 0
    (folder,) = (tmp_path / "adarank_jax" / "compiled").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert any(folder.iterdir())
    assert run(tmp_path) >= 1


@pytest.mark.parametrize("row", ["flags\t\t: fpu", "Features\t: fp"])
def test_processors_that_can_do_other_things_have_other_folders(
    row, tmp_path, monkeypatch
):
    monkeypatch.setattr(cpuinfo, "FILE", tmp_path / "cpuinfo")
    folders = []
    for more in ("", " sve", " sve"):
        text = f"processor\t: {len(folders)}\n{row}{more}\n"
        cpuinfo.FILE.write_text(text)
        folders.append(compile_cache.default())
    assert folders[0] != folders[1] == folders[2]


def test_processor_of_which_nothing_is_known_has_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cpuinfo, "FILE", tmp_path / "missing")
    assert compile_cache.default().parent.name == "compiled"


def test_folder_that_others_may_write_to_is_not_used(tmp_path, capsys):
    jax.config.update("jax_compilation_cache_dir", None)
    tmp_path.chmod(0o777)
    compile_cache.enable(tmp_path)
    assert jax.config.jax_compilation_cache_dir is None
    assert f"chmod 700 {tmp_path}" in capsys.readouterr().err.replace("\n", "")


def test_folder_of_the_user_is_kept(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    compile_cache.enable(tmp_path / "ours")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
    assert not (tmp_path / "ours").exists()


def test_file_in_the_way_is_told(tmp_path, capsys):
    jax.config.update("jax_compilation_cache_dir", None)
    (tmp_path / "file").touch()
    compile_cache.enable(tmp_path / "file" / "compiled")
    assert jax.config.jax_compilation_cache_dir is None
    assert "not kept" in capsys.readouterr().err
