import json
import os
import subprocess
import sys
import textwrap

import pytest

from adarank_jax import errors
from adarank_jax.adaptation import run_folder
from adarank_jax.adaptation.run_folder import RunFolder

CONFIG = {"seed": 0, "preset": "cart"}


def test_run_folder_opens_again_with_the_same_config(tmp_path):
    RunFolder(tmp_path / "run", CONFIG, restart=False).write_json(
        "results.json", {"rows": [1]}
    )
    again = RunFolder(tmp_path / "run", CONFIG, restart=False)
    assert again.read_json("results.json", None) == {"rows": [1]}


def test_difference_is_short_where_a_whole_branch_is_missing(tmp_path):
    one = {"merge": {"seed": 0, "experts": {f"a{i}": {"x": i} for i in range(99)}}}
    two = {"merge": {"seed": 0, "experts": {"b": {"x": 0}}, "qkv": None}}
    RunFolder(tmp_path, one, restart=False)
    with pytest.raises(ValueError) as caught:
        RunFolder(tmp_path, two, restart=False)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + 12 + 2
    assert lines[1:3] == [
        "  merge.experts.b: only now",
        "  merge.experts.a0: only there",
    ]
    assert lines[-1].index("--run-dir") < lines[-1].index("--restart")


def test_run_folder_refuses_another_config_and_names_the_difference(tmp_path):
    RunFolder(tmp_path, CONFIG, restart=False)
    with pytest.raises(ValueError, match="seed: 0 there, 1 now"):
        RunFolder(tmp_path, CONFIG | {"seed": 1}, restart=False)


def test_run_folder_starts_over_when_told(tmp_path):
    RunFolder(tmp_path, CONFIG, restart=False).write_json("results.json", {"rows": [1]})
    again = RunFolder(tmp_path, CONFIG | {"seed": 1}, restart=True)
    assert again.read_json("results.json", None) is None


@pytest.mark.parametrize("restart", [False, True])
def test_run_folder_refuses_a_folder_that_is_not_of_a_run(tmp_path, restart):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(errors.MachineError, match="E404.*not the folder of a run"):
        RunFolder(tmp_path, CONFIG, restart)
    assert len(list(tmp_path.iterdir())) == 1
    assert (tmp_path / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize("restart", [False, True])
def test_run_folder_leaves_a_project_with_its_own_config_alone(tmp_path, restart):
    (tmp_path / "config.yaml").write_text("lr: 1\n")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "precious.ckpt").write_text("weeks")
    with pytest.raises(errors.MachineError, match="not of a run of adarank_jax"):
        RunFolder(tmp_path, CONFIG, restart)
    assert len(list(tmp_path.iterdir())) == 2
    assert (tmp_path / "checkpoints" / "precious.ckpt").read_text() == "weeks"


def test_run_folder_keeps_foreign_files_when_it_starts_over(tmp_path):
    RunFolder(tmp_path, CONFIG, restart=False)
    for name in ("notes.txt", "my_expert.safetensors"):
        (tmp_path / name).write_text("mine")
    RunFolder(tmp_path, CONFIG, restart=True)
    for name in ("notes.txt", "my_expert.safetensors"):
        assert (tmp_path / name).read_text() == "mine"


def test_run_folder_names_a_path_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="--run-dir"):
        RunFolder(tmp_path / "file" / "run", CONFIG, restart=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_run_folder_names_a_path_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="--run-dir"):
        RunFolder(tmp_path, CONFIG, restart=False)


def test_run_folder_refuses_a_config_that_was_changed_by_a_bit(tmp_path):
    RunFolder(tmp_path, CONFIG, restart=False)
    file = tmp_path / "config.yaml"
    whole = file.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 7
        file.write_bytes(changed)
        with pytest.raises(errors.AdaRankError, match="E602|E404"):
            RunFolder(tmp_path, CONFIG, restart=False)


def test_run_folder_starts_over_from_a_damaged_config(tmp_path):
    RunFolder(tmp_path, CONFIG, restart=False)
    file = tmp_path / "config.yaml"
    file.write_bytes(file.read_bytes()[:-3])
    again = RunFolder(tmp_path, CONFIG, restart=True)
    assert run_folder.read_config(again.path) == CONFIG


def test_run_folder_refuses_a_json_file_that_was_changed_by_a_bit(tmp_path):
    folder = RunFolder(tmp_path, CONFIG, restart=False)
    folder.write_json("results.json", {"rows": [{"mean": 0.5, "name": "cart"}]})
    file = tmp_path / "results.json"
    whole = json.loads(file.read_text())
    text = file.read_bytes()
    for position in range(len(text)):
        changed = bytearray(text)
        changed[position] ^= 1 << position % 7
        file.write_bytes(changed)
        try:
            found = folder.read_json("results.json", None)
        except errors.DamageError as error:
            assert "results.json" in str(error)
        else:  # white space
            assert found.items() <= whole.items()


def test_run_folder_removes_what_a_kill_left_and_nothing_else(tmp_path):
    RunFolder(tmp_path, CONFIG, restart=False)
    (tmp_path / "factors").mkdir()
    (tmp_path / "mine").mkdir()
    left = [".results.json.abcd1234", "factors/.cart-0.safetensors.abcd123_"]
    kept = [".vimrc.abcd1234", "notes.abcd1234", ".results.json.backup-of-mine"]
    kept += ["mine/.notes.json.20240101", ".notes.json.20240101"]
    for name in [*left, *kept]:
        (tmp_path / name).write_text("")
    (tmp_path / ".export.abcd1234").mkdir()
    RunFolder(tmp_path, CONFIG, restart=False)
    assert not any((tmp_path / name).exists() for name in [*left, ".export.abcd1234"])
    assert all((tmp_path / name).exists() for name in kept)


def test_run_folder_is_open_in_one_process_at_a_time(tmp_path):
    folder = RunFolder(tmp_path, CONFIG, restart=False)
    text = textwrap.dedent(
        f"""
        import sys
        from adarank_jax import errors
        from adarank_jax.adaptation import run_folder
        calls = (
            lambda: run_folder.RunFolder({str(tmp_path)!r}, {CONFIG}, False),
            lambda: run_folder.RunFolder({str(tmp_path)!r}, {CONFIG}, True),
            lambda: run_folder.check_folder({str(tmp_path)!r}),
        )
        for call in calls:
            try:
                call()
            except errors.MachineError as error:
                print(error)
        """
    )
    command = [sys.executable, "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert all(line.startswith("E610") for line in lines)
    assert all(f"process {os.getpid()} on" in line for line in lines)
    del folder
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not done.stdout


def test_manifest_keeps_notes_once_and_facts(tmp_path):
    folder = RunFolder(tmp_path, CONFIG, restart=False)
    folder.mark(python="3.11")
    for _ in range(2):
        folder.note(errors.Message("W603", "an older state"))
    folder.mark(resumed_inexact=True)
    assert folder.read_json("manifest.json", None) == {
        "python": "3.11",
        "notes": ["W603 an older state."],
        "resumed_inexact": True,
    }


def test_check_folder_changes_nothing(tmp_path):
    (tmp_path / "lock").write_text("of somebody")
    (tmp_path / "lock.json").write_text("{}")
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(errors.MachineError, match="E404"):
        run_folder.check_folder(tmp_path)
    assert (tmp_path / "lock.json").read_text() == "{}"
    RunFolder(tmp_path / "run", CONFIG, restart=False)
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "run").iterdir()}
    run_folder.check_folder(tmp_path / "run")
    assert before == {f: f.stat().st_mtime_ns for f in (tmp_path / "run").iterdir()}


def test_damaged_run_may_be_thrown_away(tmp_path):
    RunFolder(tmp_path, CONFIG, restart=False)
    file = tmp_path / "config.yaml"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(errors.DamageError, match="E602"):
        run_folder.check_folder(tmp_path)
    run_folder.check_folder(tmp_path, restart=True)
