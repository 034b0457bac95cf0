"""Runs of the real command that are killed, damaged, starved and stopped."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from adarank_jax import faults
from tests.experiments import forked_runs

ROOT = pathlib.Path(__file__).parents[2]


def program(name, folder, *words):
    """Runs one of the programs beside this file; returns what it found."""
    command = [sys.executable, "-m", f"tests.experiments.{name}", str(folder), *words]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "true"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_ten_kills_lose_nothing(tmp_path):
    found = program("killed_runs", tmp_path, "--random", "10", "--steps", "12")
    assert found["same"]
    assert (found["random"]["kills"], found["random"]["lost"]) == (10, [])


@pytest.mark.slow
def test_kill_at_every_named_point_loses_nothing(tmp_path):
    found = program("killed_runs", tmp_path, "--points", "1", "--steps", "12")
    points = found["points"]
    assert (points["kills"], points["lost"]) == (len(faults.POINTS), [])
    assert not points["missed"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_lose_nothing(tmp_path):
    found = program("killed_runs", tmp_path, "--random", "100", "--points", "3")
    assert (found["random"]["kills"], found["random"]["lost"]) == (100, [])
    assert found["points"]["lost"] == []
    assert found["points"]["kills"] > len(faults.POINTS)


@pytest.mark.slow
def test_flipped_bits_are_never_silent(tmp_path):
    found = program("damaged_runs", tmp_path, "--flips", "20")
    assert found["flips"]["silent"] == []
    assert sum(found["flips"]["counts"].values()) == 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_flips_and_every_truncation_are_never_silent(tmp_path):
    found = program("damaged_runs", tmp_path, "--flips", "200", "--truncations")
    for kind in ("flips", "truncations"):
        assert found[kind]["silent"] == []
    assert sum(found["flips"]["counts"].values()) >= 195


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """The tiny merge, and a run of it that was left alone."""
    folder = tmp_path_factory.mktemp("family")
    program("stopped_runs", folder, "--prepare")
    return folder


@pytest.mark.parametrize(
    ("name", "code"),
    [("SIGTERM", 143), pytest.param("SIGINT", 130, marks=pytest.mark.slow)],
)
def test_stop_saves_the_step_it_is_at_and_the_rest_is_the_same(family, name, code):
    found = program("stopped_runs", family, "--signal", name)
    assert found["code"] == code
    assert found["saved"] == found["rows"] < 40
    assert found["saved"] % 5, "a state of this step would be there anyway"
    assert found["same"]


@pytest.mark.slow
def test_save_on_demand_goes_on(family):
    found = program("stopped_runs", family, "--signal", "SIGUSR1")
    assert found["code"] == 0
    assert any(step % 5 for step in found["steps"])
    assert found["same"]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_full_disk_keeps_the_state_before_and_goes_on_when_there_is_room(
    family, tmp_path
):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a disk")
    try:
        found = program("stopped_runs", family, "--disk", str(disk))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert found["code"] == 4
    assert "E401" in found["told"] and "bytes are free" in found["told"]
    assert found["same"]


def test_second_run_in_one_folder_is_refused_and_harms_nothing(family):
    found = program("stopped_runs", family, "--twice")
    assert found["second"] == 4
    assert "E610" in found["told"] and str(found["pid"]) in found["told"]
    assert (found["code"], found["same"]) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "prefix", "environment", "words"),
    [
        ("one core", ["taskset", "-c", "0"], {}, []),
        ("a state every step", [], {}, ["adaptation.checkpoint_every=1"]),
        (
            "日本 é 'ü\" $x",
            [],
            {"LC_ALL": "C", "PYTHONUTF8": "0", "TZ": "Pacific/Chatham"},
            [],
        ),
    ],
)
def test_result_does_not_depend_on_cores_states_names_or_locale(
    family, tmp_path, name, prefix, environment, words
):
    run_dir = tmp_path / name
    command = [*prefix, sys.executable, "-m", "experiments.run_vit"]
    command += [str(family / "merge.yaml"), "--run-dir", str(run_dir), *words]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert done.returncode == 0, done.stderr
    assert forked_runs.facts(run_dir) == forked_runs.facts(family / "whole")
