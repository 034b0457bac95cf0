"""What a machine does not have for a run is told before the run starts."""

import os
import pathlib

import jax
import psutil
import pytest

from adarank_jax import errors
from experiments import embedded_suite, needs, presets, run, run_vit
from experiments.suite import Inputs

CONFIG = presets.configure("embedded", ["tasks=[mnist, shapes]"])


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return embedded_suite.check(CONFIG)


@pytest.fixture
def machine(monkeypatch):
    """Says what the machine has, in bytes."""

    def has(disk=10**12, free=10**12, total=10**12, device=None):
        Disk = type("Disk", (), {"free": disk})
        monkeypatch.setattr(needs.shutil, "disk_usage", lambda _: Disk)
        memory = type("Memory", (), {"available": free, "total": total})
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
        swap = type("Swap", (), {"total": 0})
        monkeypatch.setattr(psutil, "swap_memory", lambda: swap)
        if device is not None:
            stats = staticmethod(lambda: {"bytes_limit": device})
            kind = type("Device", (), {"platform": "gpu", "memory_stats": stats})
            monkeypatch.setattr(needs.sizes.loop, "tasks_at_once", lambda *_: None)
            monkeypatch.setattr(jax, "local_devices", lambda **_: [kind])
            monkeypatch.setattr(jax, "devices", lambda **_: [kind])

    return has


def codes(inputs, folder):
    return [each.code for each in needs.shortages(CONFIG, inputs, folder)]


def test_machine_that_has_enough_is_told_nothing(inputs, machine, tmp_path):
    machine()
    assert not codes(inputs, tmp_path / "run")


def test_disk_that_is_too_full_is_an_error_before_anything_is_written(
    inputs, machine, tmp_path
):
    needed = needs.count(CONFIG, inputs).disk
    machine(disk=needed)
    assert not codes(inputs, tmp_path / "run")
    machine(disk=needed - 1)
    (found,) = needs.shortages(CONFIG, inputs, tmp_path / "run")
    assert found.code == "E401" and str(tmp_path / "run") in found.where
    assert needs.in_words(needed) in found.expected
    assert "--run-dir" in found.remedy


def test_what_an_earlier_start_wrote_needs_no_room_again(inputs, machine, tmp_path):
    needed = needs.count(CONFIG, inputs).disk
    (tmp_path / "factors").mkdir()
    (tmp_path / "factors/a").write_bytes(bytes(1000))
    machine(disk=needed - 1000)
    assert not codes(inputs, tmp_path)
    machine(disk=needed - 1001)
    assert codes(inputs, tmp_path) == ["E401"]


def test_memory_of_the_host_is_an_error_if_it_can_never_do(inputs, machine, tmp_path):
    need = needs.count(CONFIG, inputs)
    assert 0 < need.least_host < need.host
    machine(free=need.host - 1, total=need.least_host)
    assert codes(inputs, tmp_path) == ["W410"]
    machine(free=need.host - 1, total=need.least_host - 1)
    (found,) = needs.shortages(CONFIG, inputs, tmp_path)
    assert found.code == "E410" and needs.in_words(need.least_host) in found.expected
    assert "factor_dtype=bfloat16" in found.remedy


def test_memory_of_a_device_is_compared_too(inputs, machine, tmp_path):
    machine(device=10**12)
    need = needs.count(CONFIG, inputs)
    assert 0 < need.least_device < need.device
    machine(device=need.device - 1)
    (found,) = needs.shortages(CONFIG, inputs, tmp_path)
    assert found.code == "W410" and found.where == "memory of a device"
    machine(device=need.least_device - 1)
    assert codes(inputs, tmp_path) == ["E410"]


def test_run_without_room_is_refused_and_writes_nothing(machine, tmp_path):
    machine(disk=1)
    chosen = run_vit.Options(what=("tasks=[mnist, shapes]",), run_dir=tmp_path / "run")
    with pytest.raises(errors.Problems, match="E401") as caught:
        run_vit.main(chosen)
    assert caught.value.exit_code == 4
    assert not os.listdir(tmp_path)


def test_gpu_that_jax_does_not_use_is_told(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.delenv("JAX_PLATFORM_NAME", raising=False)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(needs, "_NVIDIA", tmp_path / "none")
    assert not [*needs.idle_devices()]
    monkeypatch.setattr(needs, "_NVIDIA", tmp_path)
    assert [each.code for each in needs.idle_devices()] == ["W412"]
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not [*needs.idle_devices()]


def test_run_folder_in_the_home_of_the_user_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    chosen = run_vit.Options(what=("run_dir='~/a \"run\" of $HOME'",))
    _, run_dir = run._configuration(chosen, run_vit.KIND)
    assert run_dir == pathlib.Path(tmp_path, 'a "run" of $HOME')
